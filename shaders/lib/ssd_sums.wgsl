// Products of tiles of T × T, added to sums: an invocation holds one row's four columns. WG = T · T / 4.
alias Sums = vec4f;

fn multiply_nt(sums: Sums, a: u32, b: u32, lane: u32) -> Sums {
    var s = sums;
    let row = a + lane / QUADS * STRIDE;
    let column = b + lane % QUADS * 4u * STRIDE;
    for (var k = 0u; k < QUADS; k++) {
        let v = vec4f(tiles[row + k]);
        let at = column + k;
        s += vec4f(dot(v, vec4f(tiles[at])), dot(v, vec4f(tiles[at + STRIDE])),
                   dot(v, vec4f(tiles[at + 2u * STRIDE])), dot(v, vec4f(tiles[at + 3u * STRIDE])));
    }
    return s;
}

fn multiply_nn(sums: Sums, a: u32, b: u32, lane: u32) -> Sums {
    var s = sums;
    let row = lane / QUADS;
    for (var k = 0u; k < T; k++) {
        s = fma(vec4f(f32(tiles[a + row * STRIDE + k / 4u][k % 4u])), vec4f(tiles[b + k * STRIDE + lane % QUADS]), s);
    }
    return s;
}

fn multiply_tn(sums: Sums, a: u32, b: u32, lane: u32) -> Sums {
    var s = sums;
    let row = lane / QUADS;
    for (var k = 0u; k < T; k++) {
        s = fma(vec4f(f32(tiles[a + k * STRIDE + row / 4u][row % 4u])), vec4f(tiles[b + k * STRIDE + lane % QUADS]), s);
    }
    return s;
}

// Writes sums to the stage.
fn leave(sums: Sums, lane: u32) { stage[lane / QUADS * ROW + lane % QUADS] = sums; }
