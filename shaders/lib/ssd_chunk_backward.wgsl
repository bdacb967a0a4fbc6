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
@group(0) @binding(7) var<storage, read> a_log: array<f32>;           // (heads)
@group(0) @binding(8) var<storage, read> d: array<f32>;               // (heads)
@group(0) @binding(9) var<storage, read> carried: array<f32>;         // (spans of this launch, chunks, heads)
@group(0) @binding(10) var<storage, read_write> dx: array<words>;     // (batches, tokens, heads, P)
@group(0) @binding(11) var<storage, read_write> side: array<vec4f>;   // (batches, tokens, heads): ddt, dA_log, x · dy
@group(0) @binding(12) var<storage, read_write> pairs: array<vec4f>;  // (chunks of this launch, heads / each, T, T)

var<workgroup> table: array<vec4f, 2u * QUADS>;                       // a head's logs and dt
// Of each token from_start · dy · H · C and to_end · x · G · B, and parts of ⟨G, H⟩.
var<workgroup> ends: array<vec4f, T>;
// A row's sums need all of its columns at once.
const_assert TURNS == 1u;
var<workgroup> parts: array<f32, WG>;                                 // of each token's sum, LANES

fn log_of(t: u32) -> f32 { return table[t / 4u][t % 4u]; }

fn dt_of(t: u32) -> f32 { return table[QUADS + t / 4u][t % 4u]; }

// Which chunk and head: what all loads begin from.
struct Place { chunk: u32, span: u32, token0: u32, last: u32, logs: u32, h: u32 }

// Tokens' B or C.
fn line_of(place: Place, t: u32) -> u32 {
    return (place.token0 + near(t, place.last + 1u)) * (params.heads / params.share) + place.h / params.share;
}

// Two tiles' fours, on their way.
struct Pair { a: array<words, RUN>, b: array<words, RUN>, start: array<words, RUN> }

// B and G.
fn load_later(place: Place, j: u32, lane: u32) -> Pair {
    var pair: Pair;
    let n4 = n_quads();
    let column = j * QUADS + lane % QUADS;
    let state = n4 * p_quads() * 4u;
    for (var i = 0u; i < RUN; i++) { // unroll
        let row = lane / QUADS + i * STEP;
        pair.a[i] = inside(b[line_of(place, row) * n4 + near(column, n4)], column < n4 && row <= place.last);
        let live = column < n4 && row < params.p;
        let in_state = near(row, params.p) * n4 + near(column, n4);
        let at = params.later + (place.chunk * params.heads + place.h) * state + in_state;
        pair.b[i] = inside(states[at], live);
        let start_at = params.starts + (place.span * params.heads + place.h) * state + in_state;
        if CARRY == 1u { pair.start[i] = inside(states[start_at], live); }
    }
    return pair;
}

// C and H.
fn load_earlier(place: Place, j: u32, lane: u32) -> Pair {
    var pair: Pair;
    let n4 = n_quads();
    let column = j * QUADS + lane % QUADS;
    let state = n4 * p_quads() * 4u;
    for (var i = 0u; i < RUN; i++) { // unroll
        let row = lane / QUADS + i * STEP;
        pair.a[i] = inside(c[line_of(place, row) * n4 + near(column, n4)], column < n4 && row <= place.last);
        let in_state = near(row, params.p) * n4 + near(column, n4);
        let at = (place.chunk * params.heads + place.h) * state + in_state;
        pair.b[i] = inside(states[at], column < n4 && row < params.p);
    }
    return pair;
}

// dy and x.
fn load_ends(place: Place, lane: u32) -> Pair {
    var pair: Pair;
    let p4 = p_quads();
    let column = lane % QUADS;
    for (var i = 0u; i < RUN; i++) { // unroll
        let t = lane / QUADS + i * STEP;
        let token = place.token0 + near(t, place.last + 1u);
        let at = (token * params.heads + place.h) * p4 + near(column, p4);
        pair.a[i] = inside(dy[at], t <= place.last && column < p4);
        pair.b[i] = inside(x[at], t <= place.last && column < p4);
    }
    return pair;
}

fn put(pair: Pair, lane: u32) {
    for (var i = 0u; i < RUN; i++) { // unroll
        tiles[tile_at(i, lane)] = four_of(pair.a[i]);
        tiles[TILE + tile_at(i, lane)] = four_of(pair.b[i]);
    }
}

// A head's decays, on their way: its table, and logarithms of the rows that an invocation loads.
struct Decays { table: vec4f, rows: array<f32, RUN>, end: f32, carried: f32 }

fn load_decays(place: Place, lane: u32) -> Decays {
    var decays: Decays;
    let at = (place.logs + place.h) * 2u * QUADS;
    decays.table = logs[at + lane % (2u * QUADS)];
    decays.end = logs[at + QUADS - 1u].w;
    for (var i = 0u; i < RUN; i++) { // unroll
        let t = lane / QUADS + i * STEP;
        decays.rows[i] = logs[at + t / 4u][t % 4u];
    }
    if CARRY == 1u { decays.carried = carried[place.chunk * params.heads + place.h]; }
    return decays;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if index >= params.groups { return; }                             // uniform
    let sets = params.heads / params.each;
    let chunk = index / sets;                                         // of this launch
    let span_at = params.first + chunk / params.chunks;
    let batch = span_at / params.spans;
    let in_batch = span_at % params.spans * params.chunks + chunk % params.chunks;
    let first = in_batch * T;
    if first >= params.tokens { return; }                             // uniform
    let p4 = p_quads();
    let token0 = batch * params.tokens + first;
    let last = params.tokens - 1u - first;
    let logs_at = (batch * ((params.tokens + T - 1u) / T) + in_batch) * params.heads;
    let own = lane / LANES;                                           // its row
    let from_stage = own_stage(lane);
    var place = Place(chunk, chunk / params.chunks, token0, last, logs_at, index % sets * params.each);
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
    // Each pair of tiles is on its way while those before it are worked at: B and G, C and H, dy and x.
    var later = load_later(place, 0u, lane);
    var earlier = load_earlier(place, 0u, lane);
    var outer = load_ends(place, lane);
    var coming = load_decays(place, lane);
    for (var k = 0u; k < params.each; k++) {
        let h = place.h;
        let here = place;
        let more = k + 1u < params.each;
        place.h = h + select(0u, 1u, more);
        let end = coming.end;
        let decay = coming.carried;
        let step = coming.table;
        var to_end = array<f32, RUN>();
        for (var i = 0u; i < RUN; i++) { to_end[i] = exp2(end - coming.rows[i]); } // unroll
        var r = Sums();
        sums = Sums();
        var across_states = 0.0;
        for (var j = 0u; j < NT; j++) { // unroll
            var g = array<four, RUN>();
            for (var i = 0u; i < RUN; i++) { g[i] = entering(later.b[i], later.start[i], decay); } // unroll
            workgroupBarrier();                                       // the last tiles are read
            if j == 0u && lane < 2u * QUADS { table[lane] = step; }
            for (var i = 0u; i < RUN; i++) { // unroll
                tiles[tile_at(i, lane)] = four(floats_of(later.a[i]) * to_end[i]);
                tiles[TILE + tile_at(i, lane)] = g[i];
            }
            if j + 1u < NT {
                later = load_later(here, j + 1u, lane);
            } else if more {
                later = load_later(place, 0u, lane);
            }
            workgroupBarrier();
            multiply_nt(&r, lane);
            for (var i = 0u; i < RUN; i++) { across_states += dot(vec4f(g[i]), floats_of(earlier.b[i])); } // unroll
            workgroupBarrier();
            put(earlier, lane);
            if j + 1u < NT {
                earlier = load_earlier(here, j + 1u, lane);
            } else if more {
                earlier = load_earlier(place, 0u, lane);
            }
            workgroupBarrier();
            multiply_nt(&sums, lane);
        }
        workgroupBarrier();
        put(outer, lane);
        if more {
            outer = load_ends(place, lane);
            coming = load_decays(place, lane);
        }
        let log_own = log_of(own);
        var inputs = array<four, RUN>();                              // x, of its row
        var row = 0.0;
        var column = 0.0;
        for (var j = 0u; j < TURNS; j++) { // unroll
            leave(&sums, j, lane);
            workgroupBarrier();
            for (var i = 0u; i < PER; i++) { // unroll
                let at = own * STRIDE + own_quad(j * PER + i, lane);
                inputs[j * PER + i] = tiles[TILE + at];
                row += dot(vec4f(tiles[at]), stage[from_stage + i * LANES]);
            }
            workgroupBarrier();
            leave(&r, j, lane);
            workgroupBarrier();
            for (var i = 0u; i < PER; i++) { // unroll
                column += dot(vec4f(inputs[j * PER + i]), stage[from_stage + i * LANES]);
            }
            workgroupBarrier();
        }
        let of_row = scan_row(vec4f(row * exp2(log_own), column * SCALE, across_states, 0.0), lane).all;
        if lane % LANES == 0u { ends[own] = of_row; }
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
        // Sums of the row's quads, and of all before each.
        var own_sums = vec4f(0.0);
        for (var m = 0u; m < RUN; m++) { own_sums[m] = dot(products[m], vec4f(1.0)); } // unroll
        let quads = scan_row(own_sums, lane);
        let before = quads.before
            + vec4f(0.0, quads.all.x, quads.all.x + quads.all.y, quads.all.x + quads.all.y + quads.all.z);
        multiply_tn(&r, TILE, 0u, lane);
        var below = 0.0;                                              // of some rows, of a column
        for (var i = 0u; i < PER; i++) { // unroll
            let w = products[i];
            let at = before[i];
            let two = at + w.x;
            let three = two + w.y;
            stage[from_stage + i * LANES] = vec4f(at, two, three, three + w.z);
        }
        workgroupBarrier();
        for (var i = 0u; i < COLUMNS / LANES; i++) {
            let t = lane / COLUMNS * (COLUMNS / LANES) + i;
            let v = stage[t * ROW + lane % COLUMNS / 4u][lane % 4u];
            below += select(0.0, v, t >= lane % COLUMNS);
        }
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
        da += below;
        parts[lane] = da;
        // dx, and x · r.
        let line = ((token0 + min(own, last)) * params.heads + h) * p4;
        let dt = dt_of(own);
        var d_own = 0.0;
        if params.has_d != 0u { d_own = d[h]; }
        var direct = 0.0;
        for (var j = 0u; j < TURNS; j++) { // unroll
            leave(&r, j, lane);
            workgroupBarrier();
            for (var i = 0u; i < PER; i++) { // unroll
                let to = own_quad(j * PER + i, lane);
                let v = stage[from_stage + i * LANES] * SCALE;
                direct += dot(v, vec4f(inputs[j * PER + i]));
                if within(own, last + 1u) && within(to, p4) {
                    dx[line + to] = words_of(fma(vec4f(d_own), vec4f(tiles[own * STRIDE + to]), v * dt));
                }
            }
            if j + 1u < TURNS { workgroupBarrier(); }
        }
        let sides = scan_row(vec4f(direct, through, 0.0, 0.0), lane).all;
        if lane % LANES == 0u && within(own, last + 1u) {
            var whole = 0.0;
            for (var i = 0u; i < LANES; i++) { whole += parts[i * T + own]; }
            let a_da = -exp(a_log[h]) * whole;
            side[(token0 + own) * params.heads + h] = vec4f(sides.x + a_da, dt * a_da, sides.y, 0.0);
        }
    }
    for (var m = 0u; m < RUN; m++) { // unroll
        pairs[(index * T + own) * QUADS + own_quad(m, lane)] = weights[m];
    }
}
