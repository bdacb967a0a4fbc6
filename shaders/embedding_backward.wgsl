// uses: lib/grid.wgsl
// variants: elem=f16
// dweight[id, c] = Σ dy[r, c] over the rows r with ids[r] = id, in ascending r.
// Rows come sorted by id. A workgroup owns PIECE of them and WG columns, an invocation a column. Ids that lie inside of
// one piece are finished here; of one that crosses pieces, each piece leaves its sum in head or tail for the join.
alias elem = f32;
const WG: u32 = 64u;
const PIECE: u32 = 128u;
struct Params { rows: u32, columns: u32, blocks: u32, first: u32, count: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // blocks = ⌈columns / WG⌉
@group(0) @binding(1) var<storage, read> sorted: array<u32>;          // (rows), ids in ascending order
@group(0) @binding(2) var<storage, read> order: array<u32>;           // (rows), the row of each
@group(0) @binding(3) var<storage, read> dy: array<elem>;             // (rows, columns)
@group(0) @binding(4) var<storage, read_write> head: array<f32>;      // (⌈rows / PIECE⌉, columns): each piece's first id
@group(0) @binding(5) var<storage, read_write> tail: array<f32>;      // (⌈rows / PIECE⌉, columns): each piece's last id
@group(0) @binding(6) var<storage, read_write> dweight: array<f32>;   // (count, columns): ids first .. first + count

fn finish(id: u32, c: u32, sum: f32) {
    // Below `first` the difference wraps to a large number.
    if id - params.first < params.count { dweight[(id - params.first) * params.columns + c] = sum; }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let piece = row_of(group) / params.blocks;
    let c = (row_of(group) % params.blocks) * WG + lane;
    let begin = piece * PIECE;
    if begin >= params.rows || c >= params.columns { return; }
    let end = min(begin + PIECE, params.rows);
    var id = sorted[begin];
    var opening = true;                            // still in the piece's first id
    var whole = begin == 0u || sorted[max(begin, 1u) - 1u] != id;
    var sum = 0.0;
    for (var i = begin; i < end; i++) {
        let next = sorted[i];
        if next != id {
            if opening { head[piece * params.columns + c] = sum; }
            if whole { finish(id, c, sum); }
            id = next;
            sum = 0.0;
            opening = false;
            whole = true;
        }
        sum += f32(dy[order[i] * params.columns + c]);
    }
    if opening { head[piece * params.columns + c] = sum; }
    tail[piece * params.columns + c] = sum;
    if whole && (end == params.rows || sorted[min(end, params.rows - 1u)] != id) { finish(id, c, sum); }
}
