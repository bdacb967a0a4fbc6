// uses: lib/grid.wgsl, lib/eights.wgsl
// variants: HALF=1 WG=64 | WG=32
// gated_rms_norm_quads_backward.wgsl for groups of a unit of sixteen bytes a lane, neither more nor less, where there are
// subgroups of eight lanes at least: a sum over the workgroup takes one barrier, and a lane keeps words across it, not
// numbers.
const WG: u32 = 256u;
const ROWS: u32 = 16u;
struct Params { rows: u32, groups: u32, z_stride: u32, z_start: u32, first_block: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // z_stride, z_start: in units
@group(0) @binding(1) var<storage, read> dy: array<vec4u>;            // (rows, groups, WG)
@group(0) @binding(2) var<storage, read> x: array<vec4u>;             // (rows, groups, WG)
@group(0) @binding(3) var<storage, read> z: array<vec4u>;             // (rows, z_stride): from z_start on
@group(0) @binding(4) var<storage, read> weight: array<vec4f>;        // (groups, WG, UNIT / 4)
@group(0) @binding(5) var<storage, read> rstd: array<f32>;            // (rows, groups)
@group(0) @binding(6) var<storage, read_write> dx: array<vec4u>;      // (rows, groups, WG)
@group(0) @binding(7) var<storage, read_write> dz: array<vec4u>;      // as z
@group(0) @binding(8) var<storage, read_write> dweight: array<vec4f>; // (⌈rows / ROWS⌉, groups, WG, UNIT / 4)

// Sums of subgroups, for two rows in turn: by a row's barrier all have read those of the row before the last.
const MOST: u32 = WG / 8u;
var<workgroup> partial: array<f32, 2u * MOST>;

// The unit's elements of dy, x and z, and the sigmoid of z.
struct Numbers { d: Eight, u: Eight, v: Eight, s: Eight }

fn sigmoid(v: vec4f) -> vec4f { return 1.0 / (1.0 + exp(min(-v, vec4f(80.0)))); }

fn numbers(d: vec4u, u: vec4u, z: vec4u) -> Numbers {
    let v = eight_of(z);
    return Numbers(eight_of(d), eight_of(u), v, Eight(sigmoid(v.x), sigmoid(v.y)));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32,
        @builtin(subgroup_invocation_id) subgroup_lane: u32) {
    let block = row_of(group) / params.groups;
    let part = row_of(group) % params.groups;
    let first = block * ROWS;
    if first >= params.rows { return; }
    // A zero that no compiler knows to be one: numbers are made from words again behind the barrier, and without it would
    // be kept in four times the registers.
    let zero = vec4u(select(0u, 1u, params.rows == 0u));
    let own = part * WG + lane;
    var w = Eight(weight[own * (UNIT / 4u)], vec4f());
    if HALF == 1u { w.y = weight[own * (UNIT / 4u) + 1u]; }
    var sums = Eight();
    let last = min(first + ROWS, params.rows) - 1u;
    for (var whole = first; whole <= last; whole++) {
        let row = whole * params.groups + part;
        let at = row * WG + lane;
        let z_at = whole * params.z_stride + params.z_start + own;
        let words_d = dy[at];
        let words_u = x[at];
        let words_v = z[z_at];
        let r = rstd[row];
        let n = numbers(words_d, words_u, words_v);
        let g = Eight(n.d.x * (n.u.x * n.v.x * n.s.x), n.d.y * (n.u.y * n.v.y * n.s.y));
        sums.x += g.x * r;
        sums.y += g.y * r;
        let turn = whole % 2u * MOST;
        let sum = subgroupAdd(dot(g.x, w.x) + dot(g.y, w.y));
        if subgroup_lane == 0u { partial[turn + subgroup] = sum; }
        workgroupBarrier();
        var total = partial[turn];
        for (var i = 1u; i < subgroups; i++) { total += partial[turn + i]; }
        let mean = total * r * r / f32(UNIT * WG);
        let k = numbers(words_d ^ zero, words_u ^ zero, words_v ^ zero);
        let dg = Eight(r * (k.d.x * w.x - k.u.x * k.v.x * k.s.x * mean) * k.s.x,
                       r * (k.d.y * w.y - k.u.y * k.v.y * k.s.y * mean) * k.s.y);
        dx[at] = words_of(Eight(dg.x * k.v.x, dg.y * k.v.y));
        dz[z_at] = words_of(Eight(dg.x * k.u.x * (1.0 + k.v.x * (1.0 - k.s.x)), dg.y * k.u.y * (1.0 + k.v.y * (1.0 - k.s.y))));
    }
    let to = ((params.first_block + block) * params.groups * WG + own) * (UNIT / 4u);
    dweight[to] = sums.x;
    if HALF == 1u { dweight[to + 1u] = sums.y; }
}
