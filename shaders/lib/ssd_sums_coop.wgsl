// Products of tiles of 64 × 64, added to sums, on cooperative matrices: four subgroups of 32, one a quarter of 32 × 32
// in 2 × 2 matrices.
alias Sums = array<coop_mat16x16<f32, C>, 4>;
// Four elements in storage, as words: 16-bit vectors would come in pieces.
alias words = vec2u;

fn four_of(w: words) -> four { return four(vec4f(unpack2x16float(w.x), unpack2x16float(w.y))); }

fn words_of(v: vec4f) -> words { return vec2u(pack2x16float(v.xy), pack2x16float(v.zw)); }

// Where a subgroup's quarter begins: row, column.
fn quarter(lane: u32) -> vec2u { return vec2u(lane / 64u * 32u, lane / 32u % 2u * 32u); }

// a · bᵀ, both along k.
fn multiply_nt(sums: ptr<function, Sums>, a: u32, b: u32, lane: u32) {
    let at = quarter(lane);
    for (var k = 0u; k < QUADS; k += 4u) { // unroll
        let a_at = a + at.x * STRIDE + k;
        let b_at = b + at.y * STRIDE + k;
        let a_next = a_at + 16u * STRIDE;
        let b_next = b_at + 16u * STRIDE;
        let a0 = coopLoadT<coop_mat16x16<f16, A>>(&tiles[a_at], STRIDE);
        let a1 = coopLoadT<coop_mat16x16<f16, A>>(&tiles[a_next], STRIDE);
        let b0 = coopLoad<coop_mat16x16<f16, B>>(&tiles[b_at], STRIDE);
        let b1 = coopLoad<coop_mat16x16<f16, B>>(&tiles[b_next], STRIDE);
        (*sums)[0] = coopMultiplyAdd(a0, b0, (*sums)[0]);
        (*sums)[1] = coopMultiplyAdd(a0, b1, (*sums)[1]);
        (*sums)[2] = coopMultiplyAdd(a1, b0, (*sums)[2]);
        (*sums)[3] = coopMultiplyAdd(a1, b1, (*sums)[3]);
    }
}

// a · b: a (row, k), b (k, column).
fn multiply_nn(sums: ptr<function, Sums>, a: u32, b: u32, lane: u32) {
    let at = quarter(lane);
    for (var k = 0u; k < T; k += 16u) { // unroll
        let a_at = a + at.x * STRIDE + k / 4u;
        let b_at = b + k * STRIDE + at.y / 4u;
        let a_next = a_at + 16u * STRIDE;
        let b_next = b_at + 4u;
        let a0 = coopLoadT<coop_mat16x16<f16, A>>(&tiles[a_at], STRIDE);
        let a1 = coopLoadT<coop_mat16x16<f16, A>>(&tiles[a_next], STRIDE);
        let b0 = coopLoadT<coop_mat16x16<f16, B>>(&tiles[b_at], STRIDE);
        let b1 = coopLoadT<coop_mat16x16<f16, B>>(&tiles[b_next], STRIDE);
        (*sums)[0] = coopMultiplyAdd(a0, b0, (*sums)[0]);
        (*sums)[1] = coopMultiplyAdd(a0, b1, (*sums)[1]);
        (*sums)[2] = coopMultiplyAdd(a1, b0, (*sums)[2]);
        (*sums)[3] = coopMultiplyAdd(a1, b1, (*sums)[3]);
    }
}

// aᵀ · b: a (k, row), b (k, column).
fn multiply_tn(sums: ptr<function, Sums>, a: u32, b: u32, lane: u32) {
    let at = quarter(lane);
    for (var k = 0u; k < T; k += 16u) { // unroll
        let a_at = a + k * STRIDE + at.x / 4u;
        let b_at = b + k * STRIDE + at.y / 4u;
        let a_next = a_at + 4u;
        let b_next = b_at + 4u;
        let a0 = coopLoad<coop_mat16x16<f16, A>>(&tiles[a_at], STRIDE);
        let a1 = coopLoad<coop_mat16x16<f16, A>>(&tiles[a_next], STRIDE);
        let b0 = coopLoadT<coop_mat16x16<f16, B>>(&tiles[b_at], STRIDE);
        let b1 = coopLoadT<coop_mat16x16<f16, B>>(&tiles[b_next], STRIDE);
        (*sums)[0] = coopMultiplyAdd(a0, b0, (*sums)[0]);
        (*sums)[1] = coopMultiplyAdd(a0, b1, (*sums)[1]);
        (*sums)[2] = coopMultiplyAdd(a1, b0, (*sums)[2]);
        (*sums)[3] = coopMultiplyAdd(a1, b1, (*sums)[3]);
    }
}

// Writes sums to the stage.
fn leave(sums: ptr<function, Sums>, lane: u32) {
    let quarter_at = quarter(lane);
    let at = quarter_at.x * ROW + quarter_at.y / 4u;
    let right = at + 4u;
    let below = at + 16u * ROW;
    let across = below + 4u;
    let s0 = (*sums)[0];
    let s1 = (*sums)[1];
    let s2 = (*sums)[2];
    let s3 = (*sums)[3];
    coopStoreT(s0, &stage[at], ROW);
    coopStoreT(s1, &stage[right], ROW);
    coopStoreT(s2, &stage[below], ROW);
    coopStoreT(s3, &stage[across], ROW);
}
