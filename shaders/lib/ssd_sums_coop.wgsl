// Products of tiles of 64 × 64, added to sums, on cooperative matrices of 16 × 16: four subgroups of 32 have four each,
// eight two or sixteen one, WIDE times as many, side by side.
const HELD: u32 = WIDE * T * T / (8u * WG);
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
            let b_at = b + own.y / T * TILE + k * STRIDE + own.y % T / 4u + j * 4u;
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
        if (own.y + j * 16u) / COLUMNS == turn {
            let s = (*sums)[j];
            let to = own.x * ROW + (own.y + j * 16u) % COLUMNS / 4u;
            coopStoreT(s, &stage[to], ROW);
        }
    }
}

// Replaces the sums of a turn's columns by what the stage holds.
fn take(sums: ptr<function, Sums>, turn: u32, lane: u32) {
    let own = own_matrix(lane);
    for (var j = 0u; j < HELD; j++) { // unroll
        let from_ = own.x * ROW + (own.y + j * 16u) % COLUMNS / 4u;
        let s = coopLoadT<coop_mat16x16<f32, C>>(&stage[from_], ROW);
        if (own.y + j * 16u) / COLUMNS == turn { (*sums)[j] = s; }
    }
}

// Where a turn's results are in the stage, or taken from there: of 128 invocations each subgroup takes the rows that it left.
fn turned() {
    if WG == 128u { subgroupBarrier(); } else { workgroupBarrier(); }
}

fn joined(scan: Scan, other: vec4f, is_after: bool) -> Scan {
    return Scan(scan.before + select(vec4f(0.0), other, is_after), scan.all + other);
}

fn scan_row(v: vec4f, lane: u32) -> Scan {
    var scan = Scan(vec4f(0.0), v);
    if LANES > 1u { scan = joined(scan, subgroupShuffleXor(scan.all, 1u), (lane & 1u) != 0u); }
    if LANES > 2u { scan = joined(scan, subgroupShuffleXor(scan.all, 2u), (lane & 2u) != 0u); }
    if LANES > 4u { scan = joined(scan, subgroupShuffleXor(scan.all, 4u), (lane & 4u) != 0u); }
    return scan;
}
