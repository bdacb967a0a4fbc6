// Products of tiles of 64 × 64, added to sums, on cooperative matrices: sixteen subgroups of 32, one a matrix of 16 × 16.
alias Sums = array<coop_mat16x16<f32, C>, 1>;
// Four elements in storage, as words: 16-bit vectors would come in pieces.
alias words = vec2u;

fn four_of(w: words) -> four { return four(vec4f(unpack2x16float(w.x), unpack2x16float(w.y))); }

fn words_of(v: vec4f) -> words { return vec2u(pack2x16float(v.xy), pack2x16float(v.zw)); }

// Where a subgroup's matrix begins: row, column.
fn own_matrix(lane: u32) -> vec2u { return vec2u(lane / 128u * 16u, lane / 32u % 4u * 16u); }

// a · bᵀ, both along k.
fn multiply_nt(sums: ptr<function, Sums>, a: u32, b: u32, lane: u32) {
    let at = own_matrix(lane);
    for (var k = 0u; k < T; k += 16u) { // unroll
        let a_at = a + at.x * STRIDE + k / 4u;
        let b_at = b + at.y * STRIDE + k / 4u;
        let left = coopLoadT<coop_mat16x16<f16, A>>(&tiles[a_at], STRIDE);
        let right = coopLoad<coop_mat16x16<f16, B>>(&tiles[b_at], STRIDE);
        (*sums)[0] = coopMultiplyAdd(left, right, (*sums)[0]);
    }
}

// a · b: a (row, k), b (k, column).
fn multiply_nn(sums: ptr<function, Sums>, a: u32, b: u32, lane: u32) {
    let at = own_matrix(lane);
    for (var k = 0u; k < T; k += 16u) { // unroll
        let a_at = a + at.x * STRIDE + k / 4u;
        let b_at = b + k * STRIDE + at.y / 4u;
        let left = coopLoadT<coop_mat16x16<f16, A>>(&tiles[a_at], STRIDE);
        let right = coopLoadT<coop_mat16x16<f16, B>>(&tiles[b_at], STRIDE);
        (*sums)[0] = coopMultiplyAdd(left, right, (*sums)[0]);
    }
}

// aᵀ · b: a (k, row), b (k, column).
fn multiply_tn(sums: ptr<function, Sums>, a: u32, b: u32, lane: u32) {
    let at = own_matrix(lane);
    for (var k = 0u; k < T; k += 16u) { // unroll
        let a_at = a + k * STRIDE + at.x / 4u;
        let b_at = b + k * STRIDE + at.y / 4u;
        let left = coopLoad<coop_mat16x16<f16, A>>(&tiles[a_at], STRIDE);
        let right = coopLoadT<coop_mat16x16<f16, B>>(&tiles[b_at], STRIDE);
        (*sums)[0] = coopMultiplyAdd(left, right, (*sums)[0]);
    }
}

// Writes sums to the stage.
fn leave(sums: ptr<function, Sums>, lane: u32) {
    let matrix = own_matrix(lane);
    let at = matrix.x * ROW + matrix.y / 4u;
    let s0 = (*sums)[0];
    coopStoreT(s0, &stage[at], ROW);
}
