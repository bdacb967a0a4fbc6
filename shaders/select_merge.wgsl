// uses: lib/grid.wgsl, lib/best.wgsl
// variants: K=20 | K=64
// The K best of a token among the lists of all parts, each best first: those are among each part's K best. One workgroup
// a row; an invocation joins some parts' lists, then halves of them join the others.
const WG: u32 = min(256u, 2048u / K);
struct Params { rows: u32, parts: u32, resume: u32, finish: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // rows: (batches, tokens, heads)
@group(0) @binding(1) var<storage, read> part_scores: array<f32>;     // (parts, rows, K)
@group(0) @binding(2) var<storage, read> part_indices: array<u32>;    // (parts, rows, K)
@group(0) @binding(3) var<storage, read_write> scores: array<f32>;    // (rows, K)
@group(0) @binding(4) var<storage, read_write> indices: array<u32>;   // (rows, K)

var<workgroup> joined: array<f32, WG * K>;
var<workgroup> marks: array<u32, WG * K>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }                                 // uniform
    var list: Best;
    var other: Best;
    clear(&list);
    let begun = params.resume != 0u && lane == 0u;
    if begun { restore(&list, row * K); }
    for (var part = lane; part < params.parts; part += WG) {
        let at = (part * params.rows + row) * K;
        for (var i = 0u; i < K; i++) { // unroll
            let score = part_scores[at + i];
            other.score[i] = score;
            other.mark[i] = select(0u, part_indices[at + i] + 1u, score > NONE);
        }
        if part == lane && !begun { list = other; } else { join(&list, &other); }
    }
    // The upper half of the lists joins the lower one.
    for (var lists = min(WG, params.parts); lists > 1u; lists = (lists + 1u) / 2u) {
        let half = (lists + 1u) / 2u;
        if lane >= half && lane < lists {
            for (var i = 0u; i < K; i++) { // unroll
                joined[i * WG + lane] = list.score[i];
                marks[i * WG + lane] = list.mark[i];
            }
        }
        workgroupBarrier();
        if lane + half < lists {
            for (var i = 0u; i < K; i++) { // unroll
                other.score[i] = joined[i * WG + lane + half];
                other.mark[i] = marks[i * WG + lane + half];
            }
            join(&list, &other);
        }
    }
    if lane != 0u { return; }
    if params.finish != 0u { order_by_chunk(&list); }
    store(&list, row * K);
}
