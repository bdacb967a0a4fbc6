// uses: lib/grid.wgsl, lib/top_k.wgsl
// variants: elem=f16
// values[r, j] = x[r, indices[r, j]], the k largest of row r in descending order, equal ones by ascending column.
// One workgroup a row: a lane knows the best of its columns that no earlier j took, and looks again only when it is taken.
alias elem = f32;
const WG: u32 = 256u;
const LOADS: u32 = 16u;
const FIRST: Entry = Entry(0xffffffffu, 0u);

var<workgroup> best_of: array<Entry, WG>;

// The better of `best` and column c, where it comes after `taken`. Without branches, behind which loads would wait.
fn better(best: Entry, taken: Entry, v: elem, c: u32) -> Entry {
    let e = entry(v, c);
    let left = (taken.key > e.key) | ((taken.key == e.key) & (taken.at < c));
    let better = (e.key > best.key) | ((e.key == best.key) & (c < best.at));
    let it = (c < params.columns) & left & better;
    return Entry(select(best.key, e.key, it), select(best.at, c, it));
}

fn best_after(start: u32, lane: u32, taken: Entry) -> Entry {
    var best = NONE;
    let last = params.columns - 1u;
    for (var c = lane; c < params.columns; c += LOADS * WG) {
        // All of these are under way together: one row has few lanes, and nothing else hides what they wait for.
        var v = array<elem, LOADS>();
        for (var i = 0u; i < LOADS; i++) { // unroll
            v[i] = x[start + min(c + i * WG, last)];
        }
        for (var i = 0u; i < LOADS; i++) { // unroll
            best = better(best, taken, v[i], c + i * WG);
        }
    }
    return best;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let start = row * params.columns;
    var best = best_after(start, lane, FIRST);
    for (var j = 0u; j < params.k; j++) {
        best_of[lane] = best;
        workgroupBarrier();
        for (var width = WG / 2u; width > 0u; width /= 2u) {
            if lane < width {
                let other = best_of[lane + width];
                if comes_before(other, best_of[lane]) { best_of[lane] = other; }
            }
            workgroupBarrier();
        }
        let taken = best_of[0];
        workgroupBarrier();                        // before the next j's are written
        if lane == 0u {
            values[row * params.k + j] = x[start + taken.at];
            indices[row * params.k + j] = taken.at;
        }
        if j + 1u < params.k && best.at == taken.at { best = best_after(start, lane, taken); }
    }
}
