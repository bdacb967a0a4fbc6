// uses: lib/grid.wgsl, lib/top_k.wgsl
// variants: elem=f16
// values[r, j] = x[r, indices[r, j]], the k largest of row r in descending order, equal ones by ascending column.
// One workgroup a row: a lane knows the best of its columns that no earlier j took, and looks again only when it is taken.
alias elem = f32;
const WG: u32 = 256u;
const FIRST: Entry = Entry(0xffffffffu, 0u);

var<workgroup> best_of: array<Entry, WG>;

// The better of `best` and column c, where it comes after `taken`.
fn better(best: Entry, taken: Entry, v: elem, c: u32) -> Entry {
    let e = entry(v, c);
    if c < params.columns && comes_before(taken, e) && comes_before(e, best) { return e; }
    return best;
}

fn best_after(start: u32, lane: u32, taken: Entry) -> Entry {
    var best = NONE;
    let last = params.columns - 1u;
    for (var c = lane; c < params.columns; c += 4u * WG) {
        // Four loads under way together.
        let v0 = x[start + c];
        let v1 = x[start + min(c + WG, last)];
        let v2 = x[start + min(c + 2u * WG, last)];
        let v3 = x[start + min(c + 3u * WG, last)];
        best = better(best, taken, v0, c);
        best = better(best, taken, v1, c + WG);
        best = better(best, taken, v2, c + 2u * WG);
        best = better(best, taken, v3, c + 3u * WG);
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
        if best.at == taken.at { best = best_after(start, lane, taken); }
    }
}
