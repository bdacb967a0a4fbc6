// uses: lib/grid.wgsl, lib/select.wgsl, lib/eights.wgsl, lib/bytes.wgsl
// variants: HALF=1 | K=20 | K=64 | BYTES=1 | BYTES=1 HALF=1
// score[t, c] = q[t] · landmark[c] · scale over the visible chunks c of each token; the K best stay, an equal score of a
// more recent chunk wins. One workgroup a (batch, head, tile of 64 tokens, part of the chunks): tiles of 64 chunks stream
// by, an invocation computes 4 × 4 scores, which live in workgroup memory until 64 invocations have taken them into
// their tokens' lists. After the last page lists are ordered by chunk, most recent first.
const TT: u32 = 64u;                                                  // tokens a tile
const CT: u32 = 64u;                                                  // chunks a tile
const WG: u32 = 256u;
const PER: u32 = 8u / UNIT;                                           // units of eight dims, staged at a time
const LOADS: u32 = TT * PER;                                          // units of a tile
const BYTES: u32 = 0u;                                                // 1: landmarks are in eight bits
const STRIDE: u32 = 3u;                                               // two vectors a line, and one that keeps banks apart
struct Params {
    tokens: u32, chunks: u32, heads: u32, units: u32, chunk: u32, first_position: u32, window: u32, has_window: u32,
    group: u32, own_chunks: u32, first_chunk: u32, span: u32, parts: u32, rows: u32, resume: u32, finish: u32,
    spans: u32, scale: f32, margin: f32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // chunks: of this page; own_chunks: a sequence's
@group(0) @binding(1) var<storage, read> q: array<vec4u>;             // (batches, tokens, heads, units)
@group(0) @binding(2) var<storage, read> landmarks: array<vec4u>;     // (batches / group, chunks, heads, units), or sixteen bytes each
@group(0) @binding(3) var<storage, read> scales: array<f32>;          // (batches / group, chunks, heads, spans): with BYTES
@group(0) @binding(4) var<storage, read> clean: array<u32>;           // (batches / group, chunks): with group > 1
@group(0) @binding(5) var<storage, read_write> scores: array<f32>;    // (parts, batches, tokens, heads, K)
@group(0) @binding(6) var<storage, read_write> indices: array<u32>;   // the same; part p: span chunks of the page

var<workgroup> operands: array<vec4f, 2u * TT * STRIDE>;              // tokens' lines of eight dims, then chunks'
var<workgroup> tile: array<vec4f, TT * ROW>;                          // scores: (token, 32 chunks)
var<workgroup> flags: array<u32, CT / 32u>;

// A unit of a landmark, or the bytes of its dims and their scale.
fn landmark(row: u32, unit: u32) -> vec4u {
    if BYTES == 0u { return landmarks[row * params.units + unit]; }
    let sixteen = landmarks[row * (params.units * UNIT / 16u) + unit * UNIT / 16u];
    let word = unit * UNIT / 4u % 4u;
    let by = scales[row * params.spans + unit * params.spans / params.units];
    return vec4u(sixteen[word], sixteen[(word + 1u) % 4u], bitcast<u32>(by), 0u);
}

// What `lane` loads of the step from unit `first` on: `token` and `chunk` are the lines of a tile's first.
fn next(lane: u32, first: u32, t0: u32, token: u32, c0: u32, chunk: u32) -> vec4u {
    let line = lane % LOADS / PER;
    let unit = first + lane % PER;
    if unit < params.units {
        if lane < LOADS && t0 + line < params.tokens { return q[(token + line * params.heads) * params.units + unit]; }
        if lane >= LOADS && lane < 2u * LOADS && c0 + line < params.chunks {
            return landmark(chunk + line * params.heads, unit);
        }
    }
    return vec4u();
}

fn put(lane: u32, words: vec4u) {
    if lane >= 2u * LOADS { return; }
    var line = lane % LOADS / PER;
    // An invocation's four chunks are neighbours: 16 lines apart, they leave banks to those of its neighbours.
    if lane >= LOADS { line = TT + line % 4u * 16u + line / 4u; }
    var e = eight_of(words);
    if BYTES == 1u && lane >= LOADS {
        let by = bitcast<f32>(words.z);
        e = Eight(bytes_of(words.x) * by, bytes_of(words.y) * by);
    }
    if HALF == 1u {
        operands[line * STRIDE] = e.x;
        operands[line * STRIDE + 1u] = e.y;
    } else {
        operands[line * STRIDE + lane % PER] = e.x;
    }
}

fn plus_product(a: vec4f, b: vec4f, sum: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let place = row_of(group);
    if place >= params.groups { return; }                             // uniform
    // The last tokens see the most chunks: they begin first.
    let sequences = params.rows / params.tokens;
    let tiles = (params.tokens + TT - 1u) / TT;
    let t0 = (tiles - 1u - place / sequences / params.parts) * TT;
    let part = place / sequences % params.parts;
    let h = place % sequences % params.heads;
    let b = place % sequences / params.heads;
    let shared_rows = (b / params.group) * params.chunks;
    let own = (b % params.group) * params.own_chunks;
    let token = (b * params.tokens + t0) * params.heads + h;
    let at = (part * params.rows + token + lane * params.heads) * K;
    let lists = lane < TT && t0 + lane < params.tokens;
    var list: Best;
    clear(&list);
    if params.resume != 0u && lists { restore(&list, at); }
    let begin = part * params.span;
    var end = min(begin + params.span, params.chunks);
    // Without a group no later chunk is visible to any token of the tile.
    if params.group == 1u {
        let seen = visible_chunks(min(t0 + TT, params.tokens) - 1u);
        end = min(end, max(seen, params.first_chunk) - params.first_chunk);
    }
    let x = lane % 16u;                                               // chunks 4x … 4x + 3
    let y = lane / 16u;                                               // tokens y, y + 16, y + 32, y + 48
    for (var c0 = begin; c0 < end; c0 += CT) {
        let chunk = (shared_rows + c0) * params.heads + h;
        var s0 = vec4f();
        var s1 = vec4f();
        var s2 = vec4f();
        var s3 = vec4f();
        var words = next(lane, 0u, t0, token, c0, chunk);
        if params.group > 1u && lane < CT / 32u { flags[lane] = flagged(shared_rows, c0 + 32u * lane); }
        for (var unit = 0u; unit < params.units; unit += PER) {
            put(lane, words);
            workgroupBarrier();
            words = next(lane, unit + PER, t0, token, c0, chunk);
            for (var quad = 0u; quad < 2u; quad++) { // unroll
                let a = y * STRIDE + quad;
                let q0 = operands[a];
                let q1 = operands[a + 16u * STRIDE];
                let q2 = operands[a + 32u * STRIDE];
                let q3 = operands[a + 48u * STRIDE];
                for (var j = 0u; j < 4u; j++) { // unroll
                    let l = operands[(TT + j * 16u + x) * STRIDE + quad];
                    s0[j] = plus_product(q0, l, s0[j]);
                    s1[j] = plus_product(q1, l, s1[j]);
                    s2[j] = plus_product(q2, l, s2[j]);
                    s3[j] = plus_product(q3, l, s3[j]);
                }
            }
            workgroupBarrier();
        }
        for (var side = 0u; side < CT / 32u; side++) {
            if x / 8u == side {
                let to = y * ROW + x % 8u;
                tile[to] = s0;
                tile[to + 16u * ROW] = s1;
                tile[to + 32u * ROW] = s2;
                tile[to + 48u * ROW] = s3;
            }
            workgroupBarrier();
            if lists {
                let first = params.first_chunk + c0 + 32u * side;
                let others = select(0u, flags[side], params.group > 1u);
                take(&list, lane, first, visible(t0 + lane, own, first, others), own);
            }
            workgroupBarrier();
        }
    }
    if lists {
        if params.finish != 0u { order_by_chunk(&list); }
        store(&list, at);
    }
}
