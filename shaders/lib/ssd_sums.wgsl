// Products of tiles of T × T, added to sums: an invocation holds the quads that it takes from the stage.
alias Sums = array<vec4f, RUN>;
// Four elements in storage.
alias words = four;

fn floats_of(w: words) -> vec4f { return vec4f(w); }

fn four_of(w: words) -> four { return w; }

fn words_of(v: vec4f) -> words { return four(v); }

// The columns of a lower triangle's rows that these products have.
fn triangle(lane: u32) -> u32 { return lane / LANES + 1u; }

// The first tile times the second one transposed, both along k, added to sums.
fn multiply_nt(sums: ptr<function, Sums>, lane: u32) {
    for (var j = 0u; j < RUN; j++) {
        for (var k = 0u; k < QUADS; k++) {
            let v = vec4f(tiles[lane / LANES * STRIDE + k]);
            let at = TILE + own_quad(j, lane) * 4u * STRIDE + k;
            (*sums)[j] += vec4f(dot(v, vec4f(tiles[at])), dot(v, vec4f(tiles[at + STRIDE])),
                                  dot(v, vec4f(tiles[at + 2u * STRIDE])), dot(v, vec4f(tiles[at + 3u * STRIDE])));
        }
    }
}

// The first tile times the second one, of columns before `end`, added to sums.
fn multiply_nn(sums: ptr<function, Sums>, end: u32, lane: u32) {
    for (var j = 0u; j < RUN; j++) {
        for (var k = 0u; k < end; k++) {
            let v = f32(tiles[lane / LANES * STRIDE + k / 4u][k % 4u]);
            (*sums)[j] = fma(vec4f(v), vec4f(tiles[TILE + k * STRIDE + own_quad(j, lane)]), (*sums)[j]);
        }
    }
}

// The tile at a transposed times the one at b, added to sums.
fn multiply_tn(sums: ptr<function, Sums>, a: u32, b: u32, lane: u32) {
    let row = lane / LANES;
    for (var j = 0u; j < RUN; j++) {
        for (var k = 0u; k < T; k++) {
            let v = f32(tiles[a + k * STRIDE + row / 4u][row % 4u]);
            (*sums)[j] = fma(vec4f(v), vec4f(tiles[b + k * STRIDE + own_quad(j, lane)]), (*sums)[j]);
        }
    }
}

fn scale(sums: ptr<function, Sums>, factor: f32) {
    for (var j = 0u; j < RUN; j++) { (*sums)[j] *= factor; }
}

// Writes the sums of a turn's columns to the stage.
fn leave(sums: ptr<function, Sums>, turn: u32, lane: u32) {
    for (var i = 0u; i < PER; i++) { stage[own_stage(lane) + i * LANES] = (*sums)[turn * PER + i]; }
}

// Replaces the sums of a turn's columns by what the stage holds.
fn take(sums: ptr<function, Sums>, turn: u32, lane: u32) {
    for (var i = 0u; i < PER; i++) { (*sums)[turn * PER + i] = stage[own_stage(lane) + i * LANES]; }
}

// Where a turn's results are in the stage, or taken from there.
fn turned() { workgroupBarrier(); }

fn scan_row(v: vec4f, lane: u32) -> Scan {
    workgroupBarrier();
    stage[lane] = v;
    workgroupBarrier();
    var scan = Scan(vec4f(0.0), vec4f(0.0));
    for (var i = 0u; i < LANES; i++) {
        let other = stage[lane / LANES * LANES + i];
        if i < lane % LANES { scan.before += other; }
        scan.all += other;
    }
    workgroupBarrier();
    return scan;
}
