// Products of tiles of 64 × 64, added to sums, on cooperative matrices of 16 × 16: four subgroups of 32 have four each, or
// eight two, side by side.
const HELD: u32 = T * T / (8u * WG);
alias Sums = array<coop_mat16x16<f32, C>, HELD>;
// Four elements in storage, as words: 16-bit vectors would come in pieces.
alias words = vec2u;

fn floats_of(w: words) -> vec4f { return vec4f(unpack2x16float(w.x), unpack2x16float(w.y)); }

fn four_of(w: words) -> four { return four(floats_of(w)); }

fn words_of(v: vec4f) -> words { return vec2u(pack2x16float(v.xy), pack2x16float(v.zw)); }

// Where a subgroup's matrices begin: row, column.
fn own_matrix(lane: u32) -> vec2u { return vec2u(lane / 32u % 4u * 16u, lane / 128u * HELD * 16u); }

// The columns of a lower triangle's rows that these products have.
fn triangle(lane: u32) -> u32 { return own_matrix(lane).x + 16u; }

// The first tile times the second one transposed, both along k, added to sums.
fn multiply_nt(sums: ptr<function, Sums>, lane: u32) {
    let own = own_matrix(lane);
    for (var k = 0u; k < T; k += 16u) {
        let a_at = own.x * STRIDE + k / 4u;
        let left = coopLoadT<coop_mat16x16<f16, A>>(&tiles[a_at], STRIDE);
        for (var j = 0u; j < HELD; j++) { // unroll
            let b_at = TILE + (own.y + j * 16u) * STRIDE + k / 4u;
            let right = coopLoad<coop_mat16x16<f16, B>>(&tiles[b_at], STRIDE);
            (*sums)[j] = coopMultiplyAdd(left, right, (*sums)[j]);
        }
    }
}

// The first tile times the second one, of columns before `end`, added to sums.
fn multiply_nn(sums: ptr<function, Sums>, end: u32, lane: u32) {
    let own = own_matrix(lane);
    for (var k = 0u; k < end; k += 16u) {
        let a_at = own.x * STRIDE + k / 4u;
        let left = coopLoadT<coop_mat16x16<f16, A>>(&tiles[a_at], STRIDE);
        for (var j = 0u; j < HELD; j++) { // unroll
            let b_at = TILE + k * STRIDE + own.y / 4u + j * 4u;
            let right = coopLoadT<coop_mat16x16<f16, B>>(&tiles[b_at], STRIDE);
            (*sums)[j] = coopMultiplyAdd(left, right, (*sums)[j]);
        }
    }
}

// The tile at a transposed times the one at b, added to sums.
fn multiply_tn(sums: ptr<function, Sums>, a: u32, b: u32, lane: u32) {
    let own = own_matrix(lane);
    for (var k = 0u; k < T; k += 16u) {
        let a_at = a + k * STRIDE + own.x / 4u;
        let left = coopLoad<coop_mat16x16<f16, A>>(&tiles[a_at], STRIDE);
        for (var j = 0u; j < HELD; j++) { // unroll
            let b_at = b + k * STRIDE + own.y / 4u + j * 4u;
            let right = coopLoadT<coop_mat16x16<f16, B>>(&tiles[b_at], STRIDE);
            (*sums)[j] = coopMultiplyAdd(left, right, (*sums)[j]);
        }
    }
}

fn scale(sums: ptr<function, Sums>, factor: f32) {
    for (var j = 0u; j < HELD; j++) { (*sums)[j] = factor * (*sums)[j]; } // unroll
}

// Writes the sums of a turn's columns to the stage.
fn leave(sums: ptr<function, Sums>, turn: u32, lane: u32) {
    let own = own_matrix(lane);
    for (var j = 0u; j < HELD; j++) { // unroll
        if own.y / 16u + j == turn {
            let s = (*sums)[j];
            coopStoreT(s, &stage[own.x * ROW], ROW);
        }
    }
}

// Replaces the sums of a turn's columns by what the stage holds.
fn take(sums: ptr<function, Sums>, turn: u32, lane: u32) {
    let own = own_matrix(lane);
    let s = coopLoadT<coop_mat16x16<f32, C>>(&stage[own.x * ROW], ROW);
    for (var j = 0u; j < HELD; j++) { // unroll
        if own.y / 16u + j == turn { (*sums)[j] = s; }
    }
}
