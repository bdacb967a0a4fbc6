// Products of tiles of 64 × 64, added to sums, on cooperative matrices of 16 × 16: sixteen subgroups of 32 have one each,
// eight two, DOWN rows apart.
const MATRICES: u32 = T * T / (8u * WG);
const DOWN: u32 = WG / 8u;
alias Sums = array<coop_mat16x16<f32, C>, MATRICES>;
// Four elements in storage, as words: 16-bit vectors would come in pieces.
alias words = vec2u;

fn four_of(w: words) -> four { return four(vec4f(unpack2x16float(w.x), unpack2x16float(w.y))); }

fn words_of(v: vec4f) -> words { return vec2u(pack2x16float(v.xy), pack2x16float(v.zw)); }

// Where a subgroup's first matrix begins: row, column.
fn own_matrix(lane: u32) -> vec2u { return vec2u(lane / 128u * 16u, lane / 32u % 4u * 16u); }

// a · bᵀ, both along k.
fn multiply_nt(sums: ptr<function, Sums>, a: u32, b: u32, lane: u32) {
    let at = own_matrix(lane);
    for (var k = 0u; k < T; k += 16u) { // unroll
        let b_at = b + at.y * STRIDE + k / 4u;
        let right = coopLoad<coop_mat16x16<f16, B>>(&tiles[b_at], STRIDE);
        for (var j = 0u; j < MATRICES; j++) { // unroll
            let a_at = a + (at.x + j * DOWN) * STRIDE + k / 4u;
            let left = coopLoadT<coop_mat16x16<f16, A>>(&tiles[a_at], STRIDE);
            (*sums)[j] = coopMultiplyAdd(left, right, (*sums)[j]);
        }
    }
}

// a · b: a (row, k), b (k, column).
fn multiply_nn(sums: ptr<function, Sums>, a: u32, b: u32, lane: u32) {
    let at = own_matrix(lane);
    for (var k = 0u; k < T; k += 16u) { // unroll
        let b_at = b + k * STRIDE + at.y / 4u;
        let right = coopLoadT<coop_mat16x16<f16, B>>(&tiles[b_at], STRIDE);
        for (var j = 0u; j < MATRICES; j++) { // unroll
            let a_at = a + (at.x + j * DOWN) * STRIDE + k / 4u;
            let left = coopLoadT<coop_mat16x16<f16, A>>(&tiles[a_at], STRIDE);
            (*sums)[j] = coopMultiplyAdd(left, right, (*sums)[j]);
        }
    }
}

// aᵀ · b: a (k, row), b (k, column).
fn multiply_tn(sums: ptr<function, Sums>, a: u32, b: u32, lane: u32) {
    let at = own_matrix(lane);
    for (var k = 0u; k < T; k += 16u) { // unroll
        let b_at = b + k * STRIDE + at.y / 4u;
        let right = coopLoadT<coop_mat16x16<f16, B>>(&tiles[b_at], STRIDE);
        for (var j = 0u; j < MATRICES; j++) { // unroll
            let a_at = a + k * STRIDE + (at.x + j * DOWN) / 4u;
            let left = coopLoad<coop_mat16x16<f16, A>>(&tiles[a_at], STRIDE);
            (*sums)[j] = coopMultiplyAdd(left, right, (*sums)[j]);
        }
    }
}

// Writes the part-th sixteen rows of the sums, where the stage holds so many, to it.
fn leave_part(sums: ptr<function, Sums>, part: u32, lane: u32) {
    let matrix = own_matrix(lane);
    for (var j = 0u; j < MATRICES; j++) { // unroll
        if matrix.x + j * DOWN == part * 16u {
            let s = (*sums)[j];
            coopStoreT(s, &stage[matrix.y / 4u], ROW);
        }
    }
}

// Writes sums to the stage.
fn leave(sums: ptr<function, Sums>, lane: u32) {
    let matrix = own_matrix(lane);
    for (var j = 0u; j < MATRICES; j++) { // unroll
        let at = (matrix.x + j * DOWN) * ROW + matrix.y / 4u;
        let s = (*sums)[j];
        coopStoreT(s, &stage[at], ROW);
    }
}
