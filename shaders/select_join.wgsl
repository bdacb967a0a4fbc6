// uses: lib/grid.wgsl, lib/best.wgsl
// variants: K=16 | K=3
// select_merge.wgsl for at most WG lists, of at most 16: the K best are in those K lists whose first ones are the best. One
// workgroup a row, an invocation a list; each of K · K entries finds its place by counting those before it.
const WG: u32 = 256u;
struct Params { rows: u32, parts: u32, resume: u32, finish: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // rows: (batches, tokens, heads)
@group(0) @binding(1) var<storage, read> part_scores: array<f32>;     // (parts, rows, K)
@group(0) @binding(2) var<storage, read> part_indices: array<u32>;    // (parts, rows, K)
@group(0) @binding(3) var<storage, read_write> scores: array<f32>;    // (rows, K)
@group(0) @binding(4) var<storage, read_write> indices: array<u32>;   // (rows, K)

struct Found { score: f32, mark: u32 }
var<workgroup> first: array<Found, WG>;
var<workgroup> entries: array<Found, K * K>;
var<workgroup> found: array<Found, K>;

// Whether a, in place i, comes before b, in place j: what is empty is all the same.
fn comes_before(a: Found, i: u32, b: Found, j: u32) -> bool {
    return is_better(a.score, a.mark, b.score, b.mark) || (a.score == b.score && a.mark == b.mark && i < j);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }                                 // uniform
    let lists = params.parts + min(params.resume, 1u);
    // All of a list is asked for at once, and no load is skipped.
    var list: array<Found, K>;
    let part = min(lane, params.parts - 1u);
    for (var i = 0u; i < K; i++) { // unroll
        let at = (part * params.rows + row) * K + i;
        list[i] = Found(part_scores[at], part_indices[at] + 1u);
    }
    if lane == params.parts && params.resume != 0u {
        for (var i = 0u; i < K; i++) { // unroll
            list[i] = Found(scores[row * K + i], indices[row * K + i] + 1u);
        }
    }
    for (var i = 0u; i < K; i++) { // unroll
        if list[i].score <= NONE || lane >= lists { list[i] = Found(NONE, 0u); }
    }
    first[lane] = list[0];
    storageBarrier();                                                 // what is resumed is read before it is written
    workgroupBarrier();
    var rank = 0u;
    for (var j = 0u; j < max(lists, K); j++) { rank += u32(comes_before(first[j], j, list[0], lane)); }
    if rank < K {
        for (var i = 0u; i < K; i++) { entries[rank * K + i] = list[i]; } // unroll
    }
    workgroupBarrier();
    if lane < K * K {
        let own = entries[lane];
        var place = 0u;
        for (var j = 0u; j < K * K; j++) { place += u32(comes_before(entries[j], j, own, lane)); }
        if place < K { found[place] = own; }
    }
    workgroupBarrier();
    if lane >= K { return; }
    let own = found[lane];
    var place = lane;
    if params.finish != 0u {
        // By chunk, most recent first.
        place = 0u;
        for (var j = 0u; j < K; j++) {
            place += u32(found[j].mark > own.mark || (found[j].mark == own.mark && j < lane));
        }
    }
    scores[row * K + place] = own.score;
    indices[row * K + place] = max(own.mark, 1u) - 1u;
}
