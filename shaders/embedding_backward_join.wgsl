// uses: lib/grid.wgsl
// dweight[id, c] of ids that cross pieces: the tail of the piece where id begins, then the heads of those after it, in
// order; 0 for ids that no row has. The others were finished before.
const WG: u32 = 64u;
const PIECE: u32 = 128u;
struct Params { columns: u32, blocks: u32, first: u32, count: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // blocks = ⌈columns / WG⌉
@group(0) @binding(1) var<storage, read> starts: array<u32>;          // (vocabulary + 1)
@group(0) @binding(2) var<storage, read> head: array<f32>;            // (pieces, columns)
@group(0) @binding(3) var<storage, read> tail: array<f32>;            // (pieces, columns)
@group(0) @binding(4) var<storage, read_write> dweight: array<f32>;   // (count, columns): ids first .. first + count

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let k = row_of(group) / params.blocks;
    let c = (row_of(group) % params.blocks) * WG + lane;
    if k >= params.count || c >= params.columns { return; }
    let begin = starts[params.first + k];
    let end = starts[params.first + k + 1u];
    if begin == end {
        dweight[k * params.columns + c] = 0.0;
        return;
    }
    let first = begin / PIECE;
    let last = (end - 1u) / PIECE;
    if first == last { return; }
    var sum = tail[first * params.columns + c];
    for (var p = first + 1u; p <= last; p++) { sum += head[p * params.columns + c]; }
    dweight[k * params.columns + c] = sum;
}
