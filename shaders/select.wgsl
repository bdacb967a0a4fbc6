// uses: lib/grid.wgsl
// variants: elem=f16 | TT=32 K=32 | TT=16 K=64 | CT=64 | CT=96 | CT=96 TT=16 K=64
// score[t, c] = q[t] · landmark[c] · scale over the visible chunks c of each token; the K best stay, an equal score of a
// more recent chunk wins. One workgroup a (batch, head, tile of TT tokens): tiles of CT chunks stream by, their scores
// live in workgroup memory until the next. After the last page slots are sorted by chunk, most recent first.
alias elem = f32;
const TT: u32 = 64u;                                                  // tokens a tile
const CT: u32 = 32u;                                                  // chunks a tile
const RT: u32 = 8u;                                                   // dims staged at a time
const K: u32 = 8u;
const WG: u32 = 256u;
const NONE: f32 = -3.0e38;
struct Params {
    tokens: u32, chunks: u32, heads: u32, r: u32, chunk: u32, first_position: u32, window: u32, has_window: u32,
    group: u32, own_chunks: u32, first_chunk: u32, resume: u32, finish: u32, scale: f32, tiles: u32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // chunks: of this page; own_chunks: a sequence's
@group(0) @binding(1) var<storage, read> q: array<elem>;              // (batches, tokens, heads, r)
@group(0) @binding(2) var<storage, read> landmarks: array<elem>;      // (batches / group, chunks, heads, r)
@group(0) @binding(3) var<storage, read> clean: array<u32>;           // (batches / group, chunks): with group > 1
@group(0) @binding(4) var<storage, read_write> scores: array<f32>;    // (batches, tokens, heads, K)
@group(0) @binding(5) var<storage, read_write> indices: array<u32>;   // (batches, tokens, heads, K)

var<workgroup> q_tile: array<f32, TT * RT>;
var<workgroup> l_tile: array<f32, CT * RT>;
var<workgroup> tile: array<f32, TT * CT>;
var<workgroup> best: array<f32, TT * K>;
var<workgroup> which: array<u32, TT * K>;

// Chunks of its own sequence that token t sees.
fn visible_chunks(t: u32) -> u32 {
    let position = params.first_position + t;
    if params.has_window == 0u { return position / params.chunk; }
    if position < params.window { return 0u; }
    return (position - params.window) / params.chunk + 1u;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    if index >= params.groups { return; }                             // uniform
    let t0 = (index % params.tiles) * TT;
    let h = (index / params.tiles) % params.heads;
    let b = index / params.tiles / params.heads;
    let shared_rows = (b / params.group) * params.chunks;
    let own = (b % params.group) * params.own_chunks;
    for (var i = lane; i < TT * K; i += WG) {
        best[i] = NONE;
        which[i] = 0u;
        let t = t0 + i / K;
        if params.resume != 0u && t < params.tokens {
            let at = ((b * params.tokens + t) * params.heads + h) * K + i % K;
            best[i] = scores[at];
            which[i] = indices[at];
        }
    }
    // Without a group no later chunk is visible to any token of the tile.
    var end = params.chunks;
    if params.group == 1u {
        let seen = visible_chunks(min(t0 + TT, params.tokens) - 1u);
        end = min(end, max(seen, params.first_chunk) - params.first_chunk);
    }
    workgroupBarrier();
    for (var c0 = 0u; c0 < end; c0 += CT) {
        var sum: array<f32, TT * CT / WG>;
        for (var r0 = 0u; r0 < params.r; r0 += RT) {
            for (var i = lane; i < TT * RT; i += WG) {
                let t = t0 + i / RT;
                let r = r0 + i % RT;
                var x = 0.0;
                if t < params.tokens && r < params.r {
                    x = f32(q[((b * params.tokens + t) * params.heads + h) * params.r + r]);
                }
                q_tile[i] = x;
            }
            for (var i = lane; i < CT * RT; i += WG) {
                let c = c0 + i / RT;
                let r = r0 + i % RT;
                var x = 0.0;
                if c < params.chunks && r < params.r {
                    x = f32(landmarks[((shared_rows + c) * params.heads + h) * params.r + r]);
                }
                l_tile[i] = x;
            }
            workgroupBarrier();
            for (var i = 0u; i < TT * CT / WG; i++) {
                let at = lane + i * WG;
                let t = (at / CT) * RT;
                let c = (at % CT) * RT;
                for (var r = 0u; r < RT; r++) { sum[i] += q_tile[t + r] * l_tile[c + r]; }
            }
            workgroupBarrier();
        }
        for (var i = 0u; i < TT * CT / WG; i++) { tile[lane + i * WG] = sum[i] * params.scale; }
        workgroupBarrier();
        if lane < TT && t0 + lane < params.tokens {
            let seen = visible_chunks(t0 + lane);
            let list = lane * K;
            for (var i = 0u; i < min(CT, params.chunks - c0); i++) {
                let score = tile[lane * CT + i];
                // Ascending chunks: an equal score comes from a more recent one.
                if score < best[list + K - 1u] { continue; }
                let c = c0 + i;
                var visible = false;
                if params.group == 1u {
                    visible = params.first_chunk + c < seen;
                } else if c >= own && c < own + params.own_chunks {
                    visible = c - own < seen;
                } else {
                    visible = clean[shared_rows + c] != 0u;
                }
                if !visible { continue; }
                var slot = K - 1u;
                while slot > 0u && score >= best[list + slot - 1u] {
                    best[list + slot] = best[list + slot - 1u];
                    which[list + slot] = which[list + slot - 1u];
                    slot--;
                }
                best[list + slot] = score;
                which[list + slot] = params.first_chunk + c;
            }
        }
        workgroupBarrier();
    }
    if lane < TT && t0 + lane < params.tokens {
        let list = lane * K;
        if params.finish != 0u {
            // Insertion by chunk, descending; what is empty stays behind.
            for (var i = 1u; i < K; i++) {
                let score = best[list + i];
                let c = which[list + i];
                if score <= NONE { break; }
                var slot = i;
                while slot > 0u && which[list + slot - 1u] < c {
                    best[list + slot] = best[list + slot - 1u];
                    which[list + slot] = which[list + slot - 1u];
                    slot--;
                }
                best[list + slot] = score;
                which[list + slot] = c;
            }
        }
        let at = ((b * params.tokens + t0 + lane) * params.heads + h) * K;
        for (var i = 0u; i < K; i++) {
            scores[at + i] = best[list + i];
            indices[at + i] = which[list + i];
        }
    }
}
