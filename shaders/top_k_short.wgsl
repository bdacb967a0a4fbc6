// uses: lib/grid.wgsl, lib/top_k.wgsl
// variants: elem=f16 | KEPT=1024
// top_k.wgsl for rows of at most 16 · WG columns, one workgroup a row. The k-th of the lanes' best columns bounds what may
// be among the k best: at most 16 columns of each of k lanes, and few beyond k in most rows. These are listed, lane by
// lane, and each finds its place by counting those before it.
alias elem = f32;
const WG: u32 = 64u;
const KEPT: u32 = 128u;                                                   // at least 16 · k
const MOST: u32 = 64u;                                                    // of k

var<workgroup> best_of: array<Entry, WG>;
var<workgroup> bound: Entry;
var<workgroup> count: array<u32, MOST>;                                   // what each of k lanes lists
var<workgroup> kept: array<Entry, KEPT>;

// The better of `best` and column c.
fn better(best: Entry, v: elem, c: u32) -> Entry {
    let e = entry(v, c);
    if c < params.columns && comes_before(e, best) { return e; }
    return best;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let start = row * params.columns;
    let last = params.columns - 1u;
    var best = NONE;
    for (var c = lane; c <= last; c += 4u * WG) {
        // Four loads under way together.
        let v0 = x[start + c];
        let v1 = x[start + min(c + WG, last)];
        let v2 = x[start + min(c + 2u * WG, last)];
        let v3 = x[start + min(c + 3u * WG, last)];
        best = better(best, v0, c);
        best = better(best, v1, c + WG);
        best = better(best, v2, c + 2u * WG);
        best = better(best, v3, c + 3u * WG);
    }
    best_of[lane] = best;
    workgroupBarrier();
    var rank = 0u;
    for (var j = 0u; j < WG; j++) { rank += u32(comes_before(best_of[j], best)); }
    if rank == params.k - 1u { bound = best; }
    workgroupBarrier();
    let bar = bound;
    if rank < params.k {
        var own = 0u;
        for (var c = lane; c <= last; c += WG) { own += u32(!comes_before(bar, entry(x[start + c], c))); }
        count[rank] = own;
    }
    workgroupBarrier();
    var n = 0u;
    var at = 0u;
    for (var j = 0u; j < params.k; j++) {
        at = select(at, n, j == rank);
        n += count[j];
    }
    if rank < params.k {
        for (var c = lane; c <= last; c += WG) {
            let e = entry(x[start + c], c);
            if !comes_before(bar, e) {
                kept[at] = e;
                at++;
            }
        }
    }
    workgroupBarrier();
    for (var i = lane; i < n; i += WG) {
        let e = kept[i];
        var place = 0u;
        for (var j = 0u; j < n; j++) { place += u32(comes_before(kept[j], e)); }
        if place < params.k {
            values[row * params.k + place] = x[start + e.at];
            indices[row * params.k + place] = e.at;
        }
    }
}
