// uses: lib/reduce.wgsl
// A walk over ROWS rows of at most 4 · WG quads, held in registers: `x_at(row, quad)` loads what is normalised and
// `put(row, quad, it, scaled)` stores, for lanes within the row alone.
const QUADS: u32 = 0u;                             // of a row, where it is a constant: no load waits for parameters then
const EXACT: u32 = 0u;                             // 1: as many workgroups as ROWS rows each take

fn quads() -> u32 { return select(params.quads, QUADS, QUADS > 0u); }

fn weight_at(q: u32) -> vec4f { return weight[min(q, quads() - 1u)]; }

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = row_of(group) * ROWS;
    if EXACT == 0u && first >= params.rows { return; } // uniform: whole workgroups leave
    let w0 = weight_at(lane);
    let w1 = weight_at(lane + WG);
    let w2 = weight_at(lane + 2u * WG);
    let w3 = weight_at(lane + 3u * WG);
    var x0 = x_at(first, lane);
    var x1 = x_at(first, lane + WG);
    var x2 = x_at(first, lane + 2u * WG);
    var x3 = x_at(first, lane + 3u * WG);
    let last = select(min(first + ROWS, params.rows), first + ROWS, EXACT == 1u || ROWS == 1u) - 1u;
    for (var row = first; row <= last; row++) {
        // The next row is under way while this one is summed; the last of several is loaded once more.
        let next = min(row + 1u, last);
        var y0 = x0;
        var y1 = x1;
        var y2 = x2;
        var y3 = x3;
        if ROWS > 1u {
            y0 = x_at(next, lane);
            y1 = x_at(next, lane + WG);
            y2 = x_at(next, lane + 2u * WG);
            y3 = x_at(next, lane + 3u * WG);
        }
        let square = dot(x0, x0) + dot(x1, x1) + dot(x2, x2) + dot(x3, x3);
        let r = inverseSqrt(workgroup_sum(square, lane) / f32(4u * quads()) + params.eps);
        if lane == 0u { rstd[row] = r; }
        put(row, lane, x0, x0 * r * w0);
        put(row, lane + WG, x1, x1 * r * w1);
        put(row, lane + 2u * WG, x2, x2 * r * w2);
        put(row, lane + 3u * WG, x3, x3 * r * w3);
        x0 = y0;
        x1 = y1;
        x2 = y2;
        x3 = y3;
    }
}
