// uses: lib/grid.wgsl, lib/ssd_chunk.wgsl
// Gradients of a chunk's x, dt and decays, one workgroup a chunk and `each` heads of a group. With S = C·Bᵀ, Z = dy·xᵀ,
// H the state that enters the chunk, G the gradient of the one that leaves it, and F = L ∘ S ∘ Z:
//   r[s]  = Σ over t ≥ s of L[t, s] · S[t, s] · dy[t] + to_end[s] · G · B[s],      dx = dt · r + D · dy
//   da[t] = Σ over t' ≥ t > s of F[t', s] · dt[s] + Σ over t' ≥ t of from_start[t'] · dy[t'] · H · C[t']
//         + Σ over s < t of dt[s] · to_end[s] · x[s] · G · B[s] + total · ⟨G, H⟩
// the gradient of decay t's logarithm, a sum over the decays that hold it: nothing is a difference of sums. And
// ddt = x · r + A · da. What dB and dC need of tokens' pairs is left summed over these heads: Σ L ∘ Z ∘ dt.
struct Params {
    tokens: u32, heads: u32, p: u32, n: u32, share: u32, spans: u32, chunks: u32, first: u32, groups: u32,
    each: u32, later: u32, starts: u32, has_d: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // chunks: a span; later, starts: in fours
@group(0) @binding(1) var<storage, read> x: array<words>;             // (batches, tokens, heads, P)
@group(0) @binding(2) var<storage, read> dy: array<words>;            // (batches, tokens, heads, P)
@group(0) @binding(3) var<storage, read> b: array<words>;             // (batches, tokens, groups, N)
@group(0) @binding(4) var<storage, read> c: array<words>;             // (batches, tokens, groups, N)
@group(0) @binding(5) var<storage, read> logs: array<vec4f>;          // (batches, chunks of all spans, heads, 2, T)
@group(0) @binding(6) var<storage, read> states: array<words>;        // H, then G / SCALE:
                                                                      // (2, spans of this launch, chunks, heads, P, N),
                                                                      // G that enters spans: (spans, heads, P, N)
@group(0) @binding(7) var<storage, read> packed: array<f32>;          // a_log, d: (2, heads)
@group(0) @binding(8) var<storage, read> carried: array<f32>;         // (spans of this launch, chunks, heads)
@group(0) @binding(9) var<storage, read_write> dx: array<words>;      // (batches, tokens, heads, P)
@group(0) @binding(10) var<storage, read_write> side: array<vec4f>;   // (batches, tokens, heads): ddt, dA_log, x · dy
@group(0) @binding(11) var<storage, read_write> pairs: array<vec4f>;  // (chunks of this launch, heads / each, T, T)

var<workgroup> table: array<vec4f, 2u * QUADS>;                       // a head's logs and dt
// Of each token from_start · dy · H · C and to_end · x · G · B, and parts of ⟨G, H⟩.
var<workgroup> ends: array<vec4f, T>;

// The sum of what the invocations of a row left in the stage.
fn of_row(t: u32) -> vec4f {
    var sum = stage[LANES * t];
    for (var i = 1u; i < LANES; i++) { sum += stage[LANES * t + i]; }
    return sum;
}

fn log_of(t: u32) -> f32 { return table[t / 4u][t % 4u]; }

fn dt_of(t: u32) -> f32 { return table[QUADS + t / 4u][t % 4u]; }

// Which chunk and head: what all loads begin from.
struct Place { chunk: u32, span: u32, token0: u32, last: u32, h: u32 }

// Tokens' B or C, a tile's rows of state dims from 4 · column on.
fn line_of(place: Place, i: u32, lane: u32) -> u32 {
    let t = lane / QUADS + i * STEP;
    return (place.token0 + min(t, place.last)) * (params.heads / params.share) + place.h / params.share;
}

// Two tiles' quads, on their way.
struct Pair { a: array<words, RUN>, b: array<words, RUN>, start: array<words, RUN> }

// B and G.
fn load_later(place: Place, j: u32, lane: u32) -> Pair {
    var pair: Pair;
    let n4 = params.n / 4u;
    let column = j * QUADS + lane % QUADS;
    let from_quad = min(column, n4 - 1u);
    for (var i = 0u; i < RUN; i++) { // unroll
        let row = lane / QUADS + i * STEP;
        pair.a[i] = inside(b[line_of(place, i, lane) * n4 + from_quad], column < n4 && row <= place.last);
        let live = column < n4 && row < params.p;
        let in_state = min(row, params.p - 1u) * n4 + from_quad;
        let at = (place.chunk * params.heads + place.h) * params.p * n4 + in_state;
        pair.b[i] = inside(states[params.later + at], live);
        let start_at = params.starts + (place.span * params.heads + place.h) * params.p * n4 + in_state;
        if CARRY == 1u { pair.start[i] = inside(states[start_at], live); }
    }
    return pair;
}

// C and H.
fn load_earlier(place: Place, j: u32, lane: u32) -> Pair {
    var pair: Pair;
    let n4 = params.n / 4u;
    let column = j * QUADS + lane % QUADS;
    let from_quad = min(column, n4 - 1u);
    for (var i = 0u; i < RUN; i++) { // unroll
        let row = lane / QUADS + i * STEP;
        pair.a[i] = inside(c[line_of(place, i, lane) * n4 + from_quad], column < n4 && row <= place.last);
        let at = (place.chunk * params.heads + place.h) * params.p * n4 + min(row, params.p - 1u) * n4 + from_quad;
        pair.b[i] = inside(states[at], column < n4 && row < params.p);
    }
    return pair;
}

// dy and x.
fn load_ends(place: Place, lane: u32) -> Pair {
    var pair: Pair;
    let p4 = params.p / 4u;
    let quad = lane % QUADS;
    for (var i = 0u; i < RUN; i++) { // unroll
        let t = lane / QUADS + i * STEP;
        let line = ((place.token0 + min(t, place.last)) * params.heads + place.h) * p4 + min(quad, p4 - 1u);
        pair.a[i] = inside(dy[line], t <= place.last && quad < p4);
        pair.b[i] = inside(x[line], t <= place.last && quad < p4);
    }
    return pair;
}

fn put(pair: Pair, lane: u32) {
    for (var i = 0u; i < RUN; i++) { // unroll
        let at = (lane / QUADS + i * STEP) * STRIDE + lane % QUADS;
        tiles[at] = four_of(pair.a[i]);
        tiles[TILE + at] = four_of(pair.b[i]);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if index >= params.groups { return; }                             // uniform
    let parts = params.heads / params.each;
    let chunk = index / parts;                                        // of this launch
    let span_at = params.first + chunk / params.chunks;
    let batch = span_at / params.spans;
    let in_batch = span_at % params.spans * params.chunks + chunk % params.chunks;
    let first = in_batch * T;
    if first >= params.tokens { return; }                             // uniform
    let p4 = params.p / 4u;
    let token0 = batch * params.tokens + first;
    let last = params.tokens - 1u - first;
    let logs_at = (batch * ((params.tokens + T - 1u) / T) + in_batch) * params.heads;
    let own = lane / LANES;                                              // its row
    let from_stage = own_stage(lane);
    var place = Place(chunk, chunk / params.chunks, token0, last, index % parts * params.each);
    // S, of C and B: the same for all these heads.
    var sums = Sums();
    for (var j = 0u; j < NT; j++) { // unroll
        var pair = load_earlier(place, j, lane);
        pair.b = load_later(place, j, lane).a;
        workgroupBarrier();                                           // the last tiles are read
        put(pair, lane);
        workgroupBarrier();
        multiply_nt(&sums, lane);
    }
    var scores: array<vec4f, RUN>;
    for (var j = 0u; j < TURNS; j++) { // unroll
        leave(&sums, j, lane);
        workgroupBarrier();
        for (var i = 0u; i < PER; i++) { scores[j * PER + i] = stage[from_stage + i * LANES]; } // unroll
        workgroupBarrier();
    }
    var products: array<vec4f, RUN>;                                  // of a head: set before they are read
    var weights: array<vec4f, RUN>;                                   // Σ L ∘ Z ∘ dt
    for (var m = 0u; m < RUN; m++) { weights[m] = vec4f(0.0); } // unroll
    var pair = load_later(place, 0u, lane);
    for (var k = 0u; k < params.each; k++) {
        let h = place.h;
        let table_at = (logs_at + h) * 2u * QUADS;
        let step = logs[table_at + lane % (2u * QUADS)];
        var decay = 0.0;
        if CARRY == 1u { decay = carried[chunk * params.heads + h]; }
        var r = Sums();
        sums = Sums();
        var part = 0.0;
        for (var j = 0u; j < NT; j++) { // unroll
            var g = array<four, RUN>();
            for (var i = 0u; i < RUN; i++) { g[i] = entering(pair.b[i], pair.start[i], decay); } // unroll
            let end = logs[table_at + QUADS - 1u].w;
            workgroupBarrier();                                       // the last tiles are read
            if j == 0u && lane < 2u * QUADS { table[lane] = step; }
            for (var i = 0u; i < RUN; i++) { // unroll
                let t = lane / QUADS + i * STEP;
                let to_end = exp2(end - logs[table_at + t / 4u][t % 4u]);
                let at = t * STRIDE + lane % QUADS;
                tiles[at] = four(floats_of(pair.a[i]) * to_end);
                tiles[TILE + at] = g[i];
            }
            pair = load_earlier(place, j, lane);
            workgroupBarrier();
            multiply_nt(&r, lane);
            for (var i = 0u; i < RUN; i++) { part += dot(vec4f(g[i]), floats_of(pair.b[i])); } // unroll
            workgroupBarrier();
            put(pair, lane);
            if j + 1u < NT { pair = load_later(place, j + 1u, lane); } else { pair = load_ends(place, lane); }
            workgroupBarrier();
            multiply_nt(&sums, lane);
        }
        workgroupBarrier();
        put(pair, lane);
        // While this head is worked at the next one is on its way.
        if k + 1u < params.each {
            place.h = h + 1u;
            pair = load_later(place, 0u, lane);
        }
        let end = log_of(T - 1u);
        let log_own = log_of(own);
        var row = 0.0;
        var column = 0.0;
        for (var j = 0u; j < TURNS; j++) { // unroll
            leave(&sums, j, lane);
            workgroupBarrier();
            let at = own * STRIDE + own_quad(j * PER, lane);
            for (var i = 0u; i < PER; i++) { row += dot(vec4f(tiles[at + i]), stage[from_stage + i * LANES]); } // unroll
            workgroupBarrier();
            leave(&r, j, lane);
            workgroupBarrier();
            for (var i = 0u; i < PER; i++) { // unroll
                column += dot(vec4f(tiles[TILE + at + i]), stage[from_stage + i * LANES]);
            }
            workgroupBarrier();
        }
        stage[lane] = vec4f(row * exp2(log_own), column * SCALE, part, 0.0);
        workgroupBarrier();
        if lane < T { ends[lane] = of_row(lane); }
        workgroupBarrier();
        sums = Sums();
        multiply_nt(&sums, lane);                                     // Z
        // W = F ∘ dt, then its sums over s < t.
        var through = 0.0;
        for (var j = 0u; j < TURNS; j++) { // unroll
            leave(&sums, j, lane);
            workgroupBarrier();
            for (var i = 0u; i < PER; i++) { // unroll
                let m = j * PER + i;
                let q = own_quad(m, lane);
                let s = tokens_of(q);
                let z = stage[from_stage + i * LANES];
                let l = select(vec4f(0.0), exp2(min(vec4f(log_own) - table[q], vec4f(0.0))), s <= vec4u(own));
                let lz = l * z * table[QUADS + q];
                weights[m] += lz;
                products[m] = lz * scores[m];
                tiles[TILE + own * STRIDE + q] = four(l * scores[m] / SCALE); // x is read
                through += dot(select(vec4f(0.0), z, s == vec4u(own)), vec4f(1.0));
            }
            workgroupBarrier();
        }
        // Sums of a turn's columns, of this row's other invocations too, and of all before them.
        var own_sums = vec4f(0.0);
        for (var j = 0u; j < TURNS; j++) { // unroll
            for (var i = 0u; i < PER; i++) { own_sums[j] += dot(products[j * PER + i], vec4f(1.0)); } // unroll
        }
        stage[lane] = own_sums;
        workgroupBarrier();
        var before = vec4f(0.0);
        for (var i = 0u; i + 1u < LANES; i++) {
            before += select(vec4f(0.0), stage[own * LANES + i], lane % LANES > i);
        }
        let turns = of_row(own);
        before += vec4f(0.0, turns.x, turns.x + turns.y, turns.x + turns.y + turns.z);
        workgroupBarrier();
        multiply_tn(&r, TILE, 0u, lane);
        var sums_at = vec4f(0.0);                                     // of some rows, column lane % 16 of each turn
        for (var j = 0u; j < TURNS; j++) { // unroll
            var at = before[j];
            for (var i = 0u; i < PER; i++) { // unroll
                let w = products[j * PER + i];
                let two = at + w.x;
                let three = two + w.y;
                stage[from_stage + i * LANES] = vec4f(at, two, three, three + w.z);
                at = three + w.z + w.w;
            }
            workgroupBarrier();
            for (var i = 0u; i < 16u / LANES; i++) {
                let t = lane / 16u * (16u / LANES) + i;
                let v = stage[t * ROW + lane % 16u / 4u][lane % 4u];
                sums_at[j] += select(0.0, v, t >= j * 16u + lane % 16u);
            }
            workgroupBarrier();
        }
        stage[lane] = sums_at;
        workgroupBarrier();
        // Each token's sum over all, by LANES invocations.
        let token = lane % T;
        var da = 0.0;
        var across = 0.0;
        for (var i = 0u; i < T / LANES; i++) {
            let t = lane / T * (T / LANES) + i;
            let v = ends[t];
            across += v.z;
            da += select(v.x, v.y * dt_of(t), t < token);
        }
        da = fma(across, exp2(end) * SCALE, da);
        for (var i = 0u; i < T / 16u; i++) { da += stage[(lane / T * (T / 16u) + i) * 16u + token % 16u][token / 16u]; }
        workgroupBarrier();
        stage[token * LANES + lane / T] = vec4f(da);
        workgroupBarrier();
        if lane < T { da = of_row(lane).x; }
        workgroupBarrier();
        // dx, and x · r.
        let line = ((token0 + min(own, last)) * params.heads + h) * p4;
        let dt = dt_of(own);
        var d_own = 0.0;
        if params.has_d != 0u { d_own = packed[params.heads + h]; }
        var direct = 0.0;
        for (var j = 0u; j < TURNS; j++) { // unroll
            var inputs = array<words, PER>();
            for (var i = 0u; i < PER; i++) { // unroll
                let to = own_quad(j * PER + i, lane);
                inputs[i] = inside(x[line + min(to, p4 - 1u)], to < p4);
            }
            leave(&r, j, lane);
            workgroupBarrier();
            for (var i = 0u; i < PER; i++) { // unroll
                let to = own_quad(j * PER + i, lane);
                let v = stage[from_stage + i * LANES] * SCALE;
                direct += dot(v, floats_of(inputs[i]));
                if own <= last && to < p4 {
                    dx[line + to] = words_of(fma(vec4f(d_own), vec4f(tiles[own * STRIDE + to]), v * dt));
                }
            }
            workgroupBarrier();
        }
        stage[lane] = vec4f(direct, through, 0.0, 0.0);
        workgroupBarrier();
        if lane < T && lane <= last {
            let sides = of_row(lane);
            let a_da = -exp(packed[h]) * da;
            side[(token0 + lane) * params.heads + h] =
                vec4f(sides.x + a_da, dt_of(lane) * a_da, sides.y, 0.0);
        }
    }
    for (var m = 0u; m < RUN; m++) { // unroll
        pairs[(index * T + own) * QUADS + own_quad(m, lane)] = weights[m];
    }
}
