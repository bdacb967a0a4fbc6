// uses: lib/grid.wgsl, lib/entry.wgsl
// variants: elem=f16 K=8 | QUADS=25 K=3 EXACT=0
// top_k_short.wgsl for rows of whole quads, at most 8 · LANES of them, and k of at most LANES: LANES invocations hold a row in
// registers, ROWS rows a workgroup, so that all rows are under way at once. Shapes are constants: no load waits for
// parameters. What bounds the k best is found as there; a lane marks its columns that may be among them.
alias elem = f32;
const QUADS: u32 = 256u;                                                  // of a row
const K: u32 = 12u;
const ROWS: u32 = 8u;
const EXACT: u32 = 1u;                                                    // 1: as many workgroups as ROWS rows each take
const LANES: u32 = 32u;
const WG: u32 = LANES * ROWS;
const EACH: u32 = (QUADS + LANES - 1u) / LANES;                           // quads a lane, at most 8
const KEPT: u32 = 4u * EACH * K;
struct Params { rows: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<elem>>;            // (rows, quads)
@group(0) @binding(2) var<storage, read_write> values: array<elem>;       // (rows, K)
@group(0) @binding(3) var<storage, read_write> indices: array<u32>;       // (rows, K)

var<workgroup> best_of: array<Entry, WG>;                                 // of each lane, then of what is listed
var<workgroup> bound: array<Entry, ROWS>;
var<workgroup> count: array<u32, ROWS * K>;                               // what each of k lanes lists
var<workgroup> kept: array<u32, ROWS * KEPT>;                             // columns

fn at_column(row: u32, c: u32) -> elem { return x[row * QUADS + c / 4u][c % 4u]; }

// The i-th of n that are listed.
fn listed(row: u32, team: u32, n: u32, i: u32) -> Entry {
    if n <= LANES { return best_of[team * LANES + i]; }
    let c = kept[team * KEPT + i];
    return entry(at_column(row, c), c);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32) {
    let team = index / LANES;
    let lane = index % LANES;
    let own_row = row_of(group) * ROWS + team;
    var row = own_row;
    if EXACT == 0u { row = min(own_row, params.rows - 1u); }
    var v: array<vec4<elem>, EACH>;
    for (var q = 0u; q < EACH; q++) { v[q] = x[row * QUADS + min(lane + q * LANES, QUADS - 1u)]; } // unroll
    var key: array<u32, 4u * EACH>;
    var best = Entry(0u, 4u * QUADS + lane);                              // no two lanes' are equal
    for (var q = 0u; q < EACH; q++) { // unroll
        for (var j = 0u; j < 4u; j++) { // unroll
            let e = entry(v[q][j], 4u * (lane + q * LANES) + j);
            key[4u * q + j] = e.key;
            if lane + q * LANES < QUADS && (e.key > best.key || q + j == 0u) { best = e; }
        }
    }
    best_of[index] = best;
    workgroupBarrier();
    var rank = 0u;
    for (var j = 0u; j < LANES; j++) { rank += u32(comes_before(best_of[team * LANES + j], best)); }
    if rank == K - 1u { bound[team] = best; }
    workgroupBarrier();
    let bar = bound[team];
    var marks = 0u;
    for (var q = 0u; q < EACH; q++) { // unroll
        for (var j = 0u; j < 4u; j++) { // unroll
            let c = 4u * (lane + q * LANES) + j;
            let may = key[4u * q + j] > bar.key || (key[4u * q + j] == bar.key && c <= bar.at);
            if may && lane + q * LANES < QUADS { marks |= 1u << (4u * q + j); }
        }
    }
    if rank < K { count[team * K + rank] = countOneBits(marks); }
    workgroupBarrier();
    var n = 0u;
    var at = 0u;
    for (var j = 0u; j < K; j++) {
        at = select(at, n, j == rank);
        n += count[team * K + j];
    }
    if rank < K {
        while marks != 0u {
            let b = firstTrailingBit(marks);
            marks &= marks - 1u;
            kept[team * KEPT + at] = 4u * (lane + b / 4u * LANES) + b % 4u;
            at++;
        }
    }
    workgroupBarrier();
    if n <= LANES && lane < n {
        let c = kept[team * KEPT + lane];
        best_of[index] = entry(at_column(row, c), c);
    }
    workgroupBarrier();
    if EXACT == 0u && own_row >= params.rows { return; }
    for (var i = lane; i < n; i += LANES) {
        let e = listed(row, team, n, i);
        var place = 0u;
        for (var j = 0u; j < n; j++) { place += u32(comes_before(listed(row, team, n, j), e)); }
        if place < K {
            values[row * K + place] = at_column(row, e.at);
            indices[row * K + place] = e.at;
        }
    }
}
