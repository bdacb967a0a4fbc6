// uses: lib/grid.wgsl
// variants: elem=f16
// dweight[piece, id, c] = Σ dy[r, c] over the rows r of a piece with ids[r] = id, in ascending r.
// A workgroup owns a piece and WG columns; an invocation owns a column, so it alone adds to what it reads.
alias elem = f32;
const WG: u32 = 64u;
struct Params { rows: u32, columns: u32, vocabulary: u32, piece: u32, blocks: u32, first_piece: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // blocks = ⌈columns / WG⌉
@group(0) @binding(1) var<storage, read> ids: array<u32>;             // (rows)
@group(0) @binding(2) var<storage, read> dy: array<elem>;             // (rows, columns)
@group(0) @binding(3) var<storage, read_write> dweight: array<f32>;   // (⌈rows / piece⌉, vocabulary, columns), zeros

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let piece = row_of(group) / params.blocks;
    let c = (row_of(group) % params.blocks) * WG + lane;
    let first = piece * params.piece;
    if first >= params.rows || c >= params.columns { return; }
    let start = (params.first_piece + piece) * params.vocabulary * params.columns + c;
    for (var r = first; r < min(first + params.piece, params.rows); r++) {
        let id = ids[r];
        if id < params.vocabulary { dweight[start + id * params.columns] += f32(dy[r * params.columns + c]); }
    }
}
