// uses: lib/eights.wgsl
// variants: D=12 S=5 K=3 | elem=f16 HALF=1 D=64 S=64 K=8 | elem=f16 HALF=1 D=16 S=20 K=50
// hsa.wgsl for tokens that come alone: a workgroup takes one query head of a token, so that the heads' workgroups ask for
// all selected keys and values at once. Values are on their way before scores are computed. Shapes are constants, so that
// no load waits for parameters.
alias elem = f32;
const D: u32 = 32u;                                                   // head dim, of whole units
const S: u32 = 16u;                                                   // chunk
const K: u32 = 4u;                                                    // slots
const WG: u32 = 256u;
const E: u32 = D / UNIT;                                              // units a row, at most 64
const PARTS: u32 = UNIT / 4u;                                         // quads a unit
const KEYS: u32 = K * S;                                              // at most 1024
const ROUNDS: u32 = (KEYS + WG - 1u) / WG;
const TEAMS: u32 = WG / E;                                            // rows of values that are read at once
const TURNS: u32 = (KEYS + TEAMS - 1u) / TEAMS;
const HELD: u32 = min(TURNS, 16u);                                    // units of values on their way in a lane
const LANES: u32 = 32u;                                               // of a slot's softmax
const SLOTS: u32 = WG / LANES;                                        // at once
struct Params { keys: u32, query_heads: u32, heads: u32, tokens: u32, joint: u32, off_by_one: u32, scale: f32 }

@group(0) @binding(0) var<uniform> params: Params;                    // joint: 1 where all heads share a selection
@group(0) @binding(1) var<storage, read> q: array<vec4u>;             // (batches, tokens, query heads, d), 16 bytes a unit
@group(0) @binding(2) var<storage, read> k: array<vec4u>;             // (batches, keys, heads, d)
@group(0) @binding(3) var<storage, read> v: array<vec4u>;             // (batches, keys, heads, d)
@group(0) @binding(4) var<storage, read> weights: array<f32>;         // (batches, tokens, heads or 1, K)
@group(0) @binding(5) var<storage, read> indices: array<u32>;         // (batches, tokens, heads or 1, K)
@group(0) @binding(6) var<storage, read_write> o: array<vec4<elem>>;  // (batches, tokens, query heads, d)

const NONE: f32 = -3.0e38;
var<workgroup> query: array<vec4f, E * PARTS>;
var<workgroup> rows: array<u32, K>;                                   // where a chunk's rows begin, in units
var<workgroup> p: array<f32, KEYS>;
var<workgroup> shared_: array<f32, WG>;
var<workgroup> partial: array<vec4f, PARTS * WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let head = group.x;
    let token = group.y;                                              // over batches
    let h = head / (params.query_heads / params.heads);
    let at = token * params.query_heads + head;
    let selected = select(token * params.heads + h, token, params.joint != 0u) * K;
    let stride = params.heads * E;                                    // from key to key
    for (var i = lane; i < K; i += WG) {
        rows[i] = (token / params.tokens * params.keys + indices[selected + i] * S) * stride + h * E;
    }
    if lane < E {
        let e = eight_of(q[at * E + lane]);
        query[lane * PARTS] = e.x * params.scale;
        if PARTS == 2u { query[lane * PARTS + PARTS - 1u] = e.y * params.scale; }
    }
    workgroupBarrier();
    let unit = lane % E;
    let team = lane / E;
    var held: array<vec4u, HELD>;
    for (var i = 0u; i < HELD; i++) { // unroll
        // Loads are never skipped: those beyond the last key repeat it.
        let j = min(team + i * TEAMS, KEYS - 1u);
        held[i] = v[rows[j / S] + j % S * stride + unit];
    }
    for (var r = 0u; r < ROUNDS; r++) { // unroll
        let j = min(r * WG + lane, KEYS - 1u);
        let row = rows[j / S] + j % S * stride;
        var score = vec4f();
        for (var u = 0u; u < E; u++) { // unroll
            let e = eight_of(k[row + u]);
            score = fma(e.x, query[u * PARTS], score);
            if PARTS == 2u { score = fma(e.y, query[u * PARTS + PARTS - 1u], score); }
        }
        if r * WG + lane < KEYS { p[j] = score.x + score.y + score.z + score.w; }
    }
    workgroupBarrier();
    for (var first = 0u; first < K; first += SLOTS) {
        let slot = first + lane / LANES;
        let begin = min(slot, K - 1u) * S;
        let lowest = select(NONE, 0.0, params.off_by_one != 0u);
        var top = lowest;
        for (var j = lane % LANES; j < S; j += LANES) { top = max(top, p[begin + j]); }
        shared_[lane] = top;
        workgroupBarrier();
        for (var i = 0u; i < LANES; i++) { top = max(top, shared_[lane / LANES * LANES + i]); } // unroll
        workgroupBarrier();
        var sum = 0.0;
        for (var j = lane % LANES; j < S; j += LANES) { sum += exp(p[begin + j] - top); }
        shared_[lane] = sum;
        workgroupBarrier();
        var all = select(0.0, exp(-top), params.off_by_one != 0u);
        for (var i = 0u; i < LANES; i++) { all += shared_[lane / LANES * LANES + i]; } // unroll
        if slot < K {
            let factor = weights[selected + slot] / all;
            for (var j = lane % LANES; j < S; j += LANES) { p[begin + j] = exp(p[begin + j] - top) * factor; }
        }
        workgroupBarrier();
    }
    var low = vec4f();
    var high = vec4f();
    for (var i = 0u; i < HELD; i++) { // unroll
        let j = team + i * TEAMS;
        let weight = select(0.0, p[min(j, KEYS - 1u)], j < KEYS && team < TEAMS);
        let e = eight_of(held[i]);
        low = fma(vec4f(weight), e.x, low);
        high = fma(vec4f(weight), e.y, high);
    }
    for (var i = HELD; i < TURNS; i++) {
        let j = team + i * TEAMS;
        let weight = select(0.0, p[min(j, KEYS - 1u)], j < KEYS && team < TEAMS);
        let e = eight_of(v[rows[min(j, KEYS - 1u) / S] + min(j, KEYS - 1u) % S * stride + unit]);
        low = fma(vec4f(weight), e.x, low);
        high = fma(vec4f(weight), e.y, high);
    }
    partial[lane] = low;
    if PARTS == 2u { partial[(PARTS - 1u) * WG + lane] = high; }
    workgroupBarrier();
    if lane >= D / 4u { return; }
    var sum = vec4f();
    for (var i = 0u; i < TEAMS; i++) { sum += partial[lane % PARTS * WG + i * E + lane / PARTS]; }
    o[at * (D / 4u) + lane] = vec4<elem>(sum);
}
