// uses: lib/grid.wgsl, lib/select.wgsl, lib/four.wgsl, lib/bytes.wgsl
// variants: CT=128 WHOLE=1 | K=20 CT=128 | K=64 | TT=32 CT=128 DEPTH=2 WHOLE=1 | BYTES=1 CT=128 WHOLE=1 | BYTES=1 TT=32 CT=128 DEPTH=2
// select.wgsl on cooperative matrices: a workgroup takes TT tokens × CT chunks a tile, each of eight subgroups 32 tokens
// × every COLUMNSth matrix of 16 chunks. Steps of STEP dims are staged as 16-bit floats, the next DEPTH are under way into
// registers, also over the end of a tile: few tokens wait for nothing but landmarks. Scores leave the matrices 32
// chunks at a time.
const TT: u32 = 128u;                                                 // tokens a tile: 128, or 32 where there are few
const CT: u32 = 64u;                                                  // chunks a tile, a multiple of 16 · COLUMNS
const WG: u32 = 256u;
const BYTES: u32 = 0u;                                                // 1: landmarks are in eight bits
const STEP: u32 = 32u;                                                // dims staged at a time
const DEPTH: u32 = 1u;                                                // steps under way
const WHOLE: u32 = 0u;                                                // 1: lines are of whole DEPTH · STEP dims, so that no load is tested
const EIGHTS: u32 = STEP / 8u;
const STRIDE: u32 = 2u * EIGHTS + 2u;                                 // of a line, in vectors; keeps banks apart
const Q_LOADS: u32 = (TT * EIGHTS + WG - 1u) / WG;
const L_LOADS: u32 = CT * EIGHTS / WG;
const COLUMNS: u32 = WG / TT;                                         // subgroups with the same tokens
const PAIRS: u32 = COLUMNS / 2u;                                      // of them, which hand over scores at once
const SIDES: u32 = CT / 16u / COLUMNS;                                // matrices of chunks a subgroup
struct Params {
    tokens: u32, chunks: u32, heads: u32, units: u32, chunk: u32, first_position: u32, window: u32, has_window: u32,
    group: u32, own_chunks: u32, first_chunk: u32, span: u32, parts: u32, rows: u32, resume: u32, finish: u32,
    spans: u32, scale: f32, margin: f32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // chunks: of this page; own_chunks: a sequence's
@group(0) @binding(1) var<storage, read> q: array<vec4u>;             // f16 (batches, tokens, heads, eights)
@group(0) @binding(2) var<storage, read> landmarks: array<vec4u>;     // f16 (batches / group, chunks, heads, eights), or sixteen bytes each
@group(0) @binding(3) var<storage, read> scales: array<f32>;          // (batches / group, chunks, heads, spans): with BYTES
@group(0) @binding(4) var<storage, read> clean: array<u32>;           // (batches / group, chunks): with group > 1
@group(0) @binding(5) var<storage, read_write> scores: array<f32>;    // (parts, batches, tokens, heads, K)
@group(0) @binding(6) var<storage, read_write> indices: array<u32>;   // the same; part p: span chunks of the page

var<workgroup> q_tile: array<vec4<f16>, TT * STRIDE>;                 // (token, dim)
var<workgroup> l_tile: array<vec4<f16>, CT * STRIDE>;                 // (chunk, dim)
var<workgroup> tile: array<vec4f, TT * ROW>;                          // scores: (token, 32 chunks)
var<workgroup> flags: array<u32, max(CT / 32u, 4u)>;                  // whole 16 bytes, beside matrices

// Where a line of a tile begins. Those beyond the last repeat it: such tokens have no list, such chunks nobody sees.
fn q_line(v: u32, t0: u32, b: u32, h: u32) -> u32 {
    return ((b * params.tokens + min(t0 + v / EIGHTS, params.tokens - 1u)) * params.heads + h) * params.units;
}

fn l_line(v: u32, c0: u32, shared_rows: u32, h: u32) -> u32 {
    return ((shared_rows + min(c0 + v / EIGHTS, max(params.chunks, 1u) - 1u)) * params.heads + h) * params.units;
}

// An eight of a line, loaded without a branch.
fn q_next(line: u32, unit: u32) -> vec4u {
    if WHOLE == 1u { return q[line + unit]; }
    return select(vec4u(), q[line + min(unit, params.units - 1u)], unit < params.units);
}

fn l_next(line: u32, unit: u32) -> vec4u {
    if WHOLE == 1u && BYTES == 0u { return landmarks[line + unit]; }
    let at = line + select(min(unit, params.units - 1u), unit, WHOLE == 1u);
    if BYTES == 0u { return select(vec4u(), landmarks[at], unit < params.units); }
    let sixteen = landmarks[at / 2u];
    let words = select(sixteen.xy, sixteen.zw, at % 2u == 1u);
    let by = scales[at * params.spans / params.units];
    return select(vec4u(), vec4u(words, bitcast<u32>(by), 0u), WHOLE == 1u || unit < params.units);
}

fn put_q(v: u32, x: vec4u) {
    if TT * EIGHTS < WG && v >= TT * EIGHTS { return; }
    let at = v / EIGHTS * STRIDE + v % EIGHTS * 2u;
    q_tile[at] = four(x.xy);
    q_tile[at + 1u] = four(x.zw);
}

fn put_l(v: u32, x: vec4u) {
    let at = v / EIGHTS * STRIDE + v % EIGHTS * 2u;
    if BYTES == 1u {
        let by = bitcast<f32>(x.z);
        l_tile[at] = vec4<f16>(bytes_of(x.x) * by);
        l_tile[at + 1u] = vec4<f16>(bytes_of(x.y) * by);
        return;
    }
    l_tile[at] = four(x.xy);
    l_tile[at + 1u] = four(x.zw);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let place = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
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
    let at = (part * params.rows + token + index * params.heads) * K;
    let lists = index < TT && t0 + index < params.tokens;
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
    let row = subgroup / COLUMNS * 32u;
    let column = subgroup % COLUMNS * 16u;
    var zero: coop_mat16x16<f32, C>;
    var low: array<coop_mat16x16<f32, C>, SIDES>;                     // tokens row … row + 15
    var high: array<coop_mat16x16<f32, C>, SIDES>;                    // tokens row + 16 … row + 31
    var next_q: array<vec4u, DEPTH * Q_LOADS>;
    var next_l: array<vec4u, DEPTH * L_LOADS>;
    var q_at: array<u32, Q_LOADS>;
    var l_at: array<u32, L_LOADS>;
    let eight = index % EIGHTS;
    for (var i = 0u; i < Q_LOADS; i++) { q_at[i] = q_line(index + i * WG, t0, b, h); } // unroll
    for (var i = 0u; i < L_LOADS; i++) { l_at[i] = l_line(index + i * WG, begin, shared_rows, h); } // unroll
    for (var d = 0u; d < DEPTH; d++) { // unroll
        for (var i = 0u; i < Q_LOADS; i++) { next_q[d * Q_LOADS + i] = q_next(q_at[i], d * EIGHTS + eight); } // unroll
        for (var i = 0u; i < L_LOADS; i++) { next_l[d * L_LOADS + i] = l_next(l_at[i], d * EIGHTS + eight); } // unroll
    }
    for (var c0 = begin; c0 < end; c0 += CT) {
        if params.group > 1u && index < CT / 32u { flags[index] = flagged(shared_rows, c0 + 32u * index); }
        for (var j = 0u; j < SIDES; j++) { // unroll
            low[j] = zero;
            high[j] = zero;
        }
        for (var unit = 0u; unit < params.units; unit += DEPTH * EIGHTS) {
            let last = unit + DEPTH * EIGHTS >= params.units;
            let then = select(unit + DEPTH * EIGHTS, 0u, last);
            for (var d = 0u; d < DEPTH; d++) { // unroll
                for (var i = 0u; i < Q_LOADS; i++) { put_q(index + i * WG, next_q[d * Q_LOADS + i]); } // unroll
                for (var i = 0u; i < L_LOADS; i++) { put_l(index + i * WG, next_l[d * L_LOADS + i]); } // unroll
                workgroupBarrier();
                if last && d == 0u {
                    for (var i = 0u; i < L_LOADS; i++) { l_at[i] = l_line(index + i * WG, c0 + CT, shared_rows, h); } // unroll
                }
                let next = then + d * EIGHTS;
                for (var i = 0u; i < Q_LOADS; i++) { next_q[d * Q_LOADS + i] = q_next(q_at[i], next + eight); } // unroll
                for (var i = 0u; i < L_LOADS; i++) { next_l[d * L_LOADS + i] = l_next(l_at[i], next + eight); } // unroll
                for (var k = 0u; k < STEP; k += 16u) { // unroll
                    let low_at = row * STRIDE + k / 4u;
                    let high_at = low_at + 16u * STRIDE;
                    let left_low = coopLoadT<coop_mat16x16<f16, A>>(&q_tile[low_at], STRIDE);
                    let left_high = coopLoadT<coop_mat16x16<f16, A>>(&q_tile[high_at], STRIDE);
                    for (var j = 0u; j < SIDES; j++) { // unroll
                        let right_at = (16u * COLUMNS * j + column) * STRIDE + k / 4u;
                        let right = coopLoad<coop_mat16x16<f16, B>>(&l_tile[right_at], STRIDE);
                        low[j] = coopMultiplyAdd(left_low, right, low[j]);
                        high[j] = coopMultiplyAdd(left_high, right, high[j]);
                    }
                }
                workgroupBarrier();
            }
        }
        for (var j = 0u; j < SIDES; j++) { // unroll
            for (var pair = 0u; pair < PAIRS; pair++) { // unroll
                if column / 32u == pair {
                    let to_low = row * ROW + column % 32u / 4u;
                    let to_high = to_low + 16u * ROW;
                    let sum_low = low[j];
                    let sum_high = high[j];
                    coopStoreT(sum_low, &tile[to_low], ROW);
                    coopStoreT(sum_high, &tile[to_high], ROW);
                }
                workgroupBarrier();
                if lists {
                    let word = j * PAIRS + pair;
                    let tile_first = params.first_chunk + c0 + 32u * word;
                    let others = select(0u, flags[word], params.group > 1u);
                    take(&list, index, tile_first, visible(t0 + index, own, tile_first, others), own);
                }
                workgroupBarrier();
            }
        }
    }
    if lists {
        if params.finish != 0u { order_by_chunk(&list); }
        store(&list, at);
    }
}
