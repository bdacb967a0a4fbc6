// Products of tiles of T × T, added to sums: an invocation holds its RUN rows' quad of columns.
alias Sums = array<vec4f, RUN>;
// Four elements in storage.
alias words = four;

fn four_of(w: words) -> four { return w; }

fn words_of(v: vec4f) -> words { return four(v); }

// a · bᵀ, both along k.
fn multiply_nt(sums: ptr<function, Sums>, a: u32, b: u32, lane: u32) {
    for (var i = 0u; i < RUN; i++) {
        let row = a + (lane / QUADS * RUN + i) * STRIDE;
        for (var k = 0u; k < QUADS; k++) {
            let v = vec4f(tiles[row + k]);
            let at = b + lane % QUADS * 4u * STRIDE + k;
            (*sums)[i] += vec4f(dot(v, vec4f(tiles[at])), dot(v, vec4f(tiles[at + STRIDE])),
                                dot(v, vec4f(tiles[at + 2u * STRIDE])), dot(v, vec4f(tiles[at + 3u * STRIDE])));
        }
    }
}

// a · b: a (row, k), b (k, column).
fn multiply_nn(sums: ptr<function, Sums>, a: u32, b: u32, lane: u32) {
    for (var i = 0u; i < RUN; i++) {
        let row = a + (lane / QUADS * RUN + i) * STRIDE;
        for (var k = 0u; k < T; k++) {
            let v = f32(tiles[row + k / 4u][k % 4u]);
            (*sums)[i] = fma(vec4f(v), vec4f(tiles[b + k * STRIDE + lane % QUADS]), (*sums)[i]);
        }
    }
}

// aᵀ · b: a (k, row), b (k, column).
fn multiply_tn(sums: ptr<function, Sums>, a: u32, b: u32, lane: u32) {
    for (var i = 0u; i < RUN; i++) {
        let row = lane / QUADS * RUN + i;
        for (var k = 0u; k < T; k++) {
            let v = f32(tiles[a + k * STRIDE + row / 4u][row % 4u]);
            (*sums)[i] = fma(vec4f(v), vec4f(tiles[b + k * STRIDE + lane % QUADS]), (*sums)[i]);
        }
    }
}

// Writes STAGE rows of the sums to the stage, the part-th.
fn leave_part(sums: ptr<function, Sums>, part: u32, lane: u32) {
    for (var i = 0u; i < RUN; i++) {
        let row = lane / QUADS * RUN + i;
        if row / STAGE == part { stage[row % STAGE * ROW + lane % QUADS] = (*sums)[i]; }
    }
}

// Writes sums to the stage.
fn leave(sums: ptr<function, Sums>, lane: u32) {
    for (var i = 0u; i < RUN; i++) { stage[(lane / QUADS * RUN + i) * ROW + lane % QUADS] = (*sums)[i]; }
}
