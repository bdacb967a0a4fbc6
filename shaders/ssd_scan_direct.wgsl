// uses: lib/grid.wgsl, lib/eight_lanes.wgsl
// variants: OUTPUT=1 | REVERSE=1 | OUTPUT=1 REVERSE=1 EXCLUSIVE=1 | elem=f16 | elem=f16 elem_out=f16 OUTPUT=1 | unit=elem WIDTH=1 J16=1 OUTPUT=1 | J16=2 OUTPUT=1 | J16=3 OUTPUT=1
// The recurrence of ssd_scan.wgsl, but for its marks, for adapters that are CPUs: no workgroup memory, no barriers. Each
// of eight lanes owns two rows of s, 8 apart, and loads an eighth of a token's wr and read, which subgroupBroadcast
// hands to the others. Written out, since compilers keep arrays that loops index in memory. Subgroups have at least
// eight lanes.
alias elem = f32;
alias elem_out = f32;
// What one load takes: four elements where J is a multiple of four, else one (WIDTH = 1).
alias unit = vec4<elem>;
const WIDTH: u32 = 4u;
const OUTPUT: u32 = 0u;
const REVERSE: u32 = 0u;
const EXCLUSIVE: u32 = 0u;
const J16: u32 = 4u;                                                  // ⌈J / 16⌉, to 4
const Q: u32 = 128u;
const WG: u32 = 8u;
struct Params {
    tokens: u32, blocks: u32, heads: u32, rows: u32, j: u32, row_tiles: u32,
    in_stride: u32, in_share: u32, wr_stride: u32, wr_share: u32, read_stride: u32, read_share: u32,
    state_row: u32, state_j: u32, dt_in: u32, has_d: u32, first: u32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<elem>;          // (batches, tokens, in_stride)
@group(0) @binding(2) var<storage, read> wr: array<unit>;             // (batches, tokens, wr_stride)
@group(0) @binding(3) var<storage, read> rd: array<unit>;             // (batches, tokens, read_stride)
@group(0) @binding(4) var<storage, read> steps: array<vec2f>;         // (batches, tokens, heads): dt, decay
@group(0) @binding(5) var<storage, read> side: array<f32>;            // D (heads)
@group(0) @binding(6) var<storage, read_write> states: array<f32>;    // (batches, blocks, heads, head dim, state)
@group(0) @binding(7) var<storage, read_write> extra: array<f32>;     // total decays (batches, blocks, heads)
@group(0) @binding(8) var<storage, read_write> out: array<elem_out>;  // (batches, tokens, heads, rows)

fn wr_unit(at: u32) -> vec4f { return vec4f(vec4<elem>(wr[at])); }
fn read_unit(at: u32) -> vec4f { return vec4f(vec4<elem>(rd[at])); }

// Elements j … j + 3 of a token's line, zeros from J on. No branches: what is not there is loaded from the line's end.
fn wr_four(start: u32, j: u32) -> vec4f {
    let end = params.j - 1u;
    let live = vec4u(j, j + 1u, j + 2u, j + 3u) <= vec4u(end);
    if WIDTH == 4u { return select(vec4f(0.0), wr_unit((start + min(j, end - 3u)) / 4u), live); }
    let four = vec4f(wr_unit(start + min(j, end)).x, wr_unit(start + min(j + 1u, end)).x,
                     wr_unit(start + min(j + 2u, end)).x, wr_unit(start + min(j + 3u, end)).x);
    return select(vec4f(0.0), four, live);
}

fn read_four(start: u32, j: u32) -> vec4f {
    let end = params.j - 1u;
    let live = vec4u(j, j + 1u, j + 2u, j + 3u) <= vec4u(end);
    if WIDTH == 4u { return select(vec4f(0.0), read_unit((start + min(j, end - 3u)) / 4u), live); }
    let four = vec4f(read_unit(start + min(j, end)).x, read_unit(start + min(j + 1u, end)).x,
                     read_unit(start + min(j + 2u, end)).x, read_unit(start + min(j + 3u, end)).x);
    return select(vec4f(0.0), four, live);
}

// Elements j … j + 3 of the row of the state that starts at `start`, zeros from J on.
fn state_four(start: u32, j: u32) -> vec4f {
    var v = vec4f(0.0);
    if j < params.j { v.x = states[start + j * params.state_j]; }
    if j + 1u < params.j { v.y = states[start + (j + 1u) * params.state_j]; }
    if j + 2u < params.j { v.z = states[start + (j + 2u) * params.state_j]; }
    if j + 3u < params.j { v.w = states[start + (j + 3u) * params.state_j]; }
    return v;
}

fn state_at(start: u32, i: u32) -> mat4x4f {
    let j = 16u * i;
    return mat4x4f(state_four(start, j), state_four(start, j + 4u), state_four(start, j + 8u), state_four(start, j + 12u));
}

fn store_four(start: u32, j: u32, v: vec4f) {
    if j < params.j { states[start + j * params.state_j] = v.x; }
    if j + 1u < params.j { states[start + (j + 1u) * params.state_j] = v.y; }
    if j + 2u < params.j { states[start + (j + 2u) * params.state_j] = v.z; }
    if j + 3u < params.j { states[start + (j + 3u) * params.state_j] = v.w; }
}

fn store_sixteen(start: u32, i: u32, s: mat4x4f) {
    let j = 16u * i;
    store_four(start, j, s[0]);
    store_four(start, j + 4u, s[1]);
    store_four(start, j + 8u, s[2]);
    store_four(start, j + 12u, s[3]);
}

fn store_state(start: u32, s0: mat4x4f, s1: mat4x4f, s2: mat4x4f, s3: mat4x4f) {
    store_sixteen(start, 0u, s0);
    if J16 > 1u { store_sixteen(start, 1u, s1); }
    if J16 > 2u { store_sixteen(start, 2u, s2); }
    if J16 > 3u { store_sixteen(start, 3u, s3); }
}

// s + v · w.
fn add(s: mat4x4f, v: f32, w: mat4x4f) -> mat4x4f {
    let x = vec4f(v);
    return mat4x4f(fma(x, w[0], s[0]), fma(x, w[1], s[1]), fma(x, w[2], s[2]), fma(x, w[3], s[3]));
}

// sum + s · r, in four parts.
fn dots(sum: vec4f, s: mat4x4f, r: mat4x4f) -> vec4f {
    return fma(s[3], r[3], fma(s[2], r[2], fma(s[1], r[1], fma(s[0], r[0], sum))));
}

// A row's state · read, four sums to be added up.
fn outputs(s0: mat4x4f, s1: mat4x4f, s2: mat4x4f, s3: mat4x4f, low: vec4f, high: vec4f) -> vec4f {
    var sum = dots(vec4f(0.0), s0, of_lanes_0_to_3(low));
    if J16 > 1u { sum = dots(sum, s1, of_lanes_4_to_7(low)); }
    if J16 > 2u { sum = dots(sum, s2, of_lanes_0_to_3(high)); }
    if J16 > 3u { sum = dots(sum, s3, of_lanes_4_to_7(high)); }
    return sum;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group) + params.first;
    if index >= params.groups { return; }                             // uniform
    let own = (index % params.row_tiles) * 2u * WG + lane;
    let live = own < params.rows;
    let live_b = own + WG < params.rows;
    let row = min(own, params.rows - 1u);
    let row_b = min(own + WG, params.rows - 1u);
    let h = (index / params.row_tiles) % params.heads;
    let block = (index / params.row_tiles / params.heads) % params.blocks;
    let b = index / params.row_tiles / params.heads / params.blocks;
    let state_start = ((b * params.blocks + block) * params.heads + h) * params.rows * params.j;
    let start_a = state_start + row * params.state_row;
    let start_b = state_start + row_b * params.state_row;
    var s0: mat4x4f;
    var s1: mat4x4f;
    var s2: mat4x4f;
    var s3: mat4x4f;
    var t0: mat4x4f;
    var t1: mat4x4f;
    var t2: mat4x4f;
    var t3: mat4x4f;
    if OUTPUT == 1u {
        s0 = state_at(start_a, 0u);
        t0 = state_at(start_b, 0u);
        if J16 > 1u { s1 = state_at(start_a, 1u); }
        if J16 > 1u { t1 = state_at(start_b, 1u); }
        if J16 > 2u { s2 = state_at(start_a, 2u); }
        if J16 > 2u { t2 = state_at(start_b, 2u); }
        if J16 > 3u { s3 = state_at(start_a, 3u); }
        if J16 > 3u { t3 = state_at(start_b, 3u); }
    }
    var d = 0.0;
    if OUTPUT == 1u && params.has_d != 0u { d = side[h]; }
    var total = 1.0;
    let first = block * Q;
    let count = min(Q, params.tokens - first);
    for (var i = 0u; i < count; i++) {
        let at = b * params.tokens + first + select(i, count - 1u - i, REVERSE == 1u);
        let step = steps[at * params.heads + h];
        let in_at = at * params.in_stride + (h / params.in_share) * params.rows;
        let plain = f32(input[in_at + row]);
        let plain_b = f32(input[in_at + row_b]);
        let dt = select(1.0, step.x, params.dt_in != 0u);
        let v = plain * dt;
        let v_b = plain_b * dt;
        // Lane l has columns 4l … 4l + 3, and 32 + 4l … 32 + 4l + 3.
        let w_at = at * params.wr_stride + (h / params.wr_share) * params.j;
        let r_at = at * params.read_stride + (h / params.read_share) * params.j;
        let w_low = wr_four(w_at, 4u * lane);
        var r_low = vec4f();
        if OUTPUT == 1u { r_low = read_four(r_at, 4u * lane); }
        var w_high = vec4f();
        var r_high = vec4f();
        if J16 > 2u {
            w_high = wr_four(w_at, 32u + 4u * lane);
            if OUTPUT == 1u { r_high = read_four(r_at, 32u + 4u * lane); }
        }
        if REVERSE == 0u {
            s0 = s0 * step.y;
            t0 = t0 * step.y;
            if J16 > 1u { s1 = s1 * step.y; }
            if J16 > 1u { t1 = t1 * step.y; }
            if J16 > 2u { s2 = s2 * step.y; }
            if J16 > 2u { t2 = t2 * step.y; }
            if J16 > 3u { s3 = s3 * step.y; }
            if J16 > 3u { t3 = t3 * step.y; }
        }
        var sum = vec4f(0.0);
        var sum_b = vec4f(0.0);
        if OUTPUT == 1u && EXCLUSIVE == 1u {
            sum = outputs(s0, s1, s2, s3, r_low, r_high);
            sum_b = outputs(t0, t1, t2, t3, r_low, r_high);
        }
        s0 = add(s0, v, of_lanes_0_to_3(w_low));
        t0 = add(t0, v_b, of_lanes_0_to_3(w_low));
        if J16 > 1u {
            s1 = add(s1, v, of_lanes_4_to_7(w_low));
            t1 = add(t1, v_b, of_lanes_4_to_7(w_low));
        }
        if J16 > 2u {
            s2 = add(s2, v, of_lanes_0_to_3(w_high));
            t2 = add(t2, v_b, of_lanes_0_to_3(w_high));
        }
        if J16 > 3u {
            s3 = add(s3, v, of_lanes_4_to_7(w_high));
            t3 = add(t3, v_b, of_lanes_4_to_7(w_high));
        }
        if OUTPUT == 1u && EXCLUSIVE == 0u {
            sum = outputs(s0, s1, s2, s3, r_low, r_high);
            sum_b = outputs(t0, t1, t2, t3, r_low, r_high);
        }
        if REVERSE == 1u {
            s0 = s0 * step.y;
            t0 = t0 * step.y;
            if J16 > 1u { s1 = s1 * step.y; }
            if J16 > 1u { t1 = t1 * step.y; }
            if J16 > 2u { s2 = s2 * step.y; }
            if J16 > 2u { t2 = t2 * step.y; }
            if J16 > 3u { s3 = s3 * step.y; }
            if J16 > 3u { t3 = t3 * step.y; }
        }
        total *= step.y;
        if OUTPUT == 1u {
            let out_at = (at * params.heads + h) * params.rows;
            if live { out[out_at + row] = elem_out((sum.x + sum.y) + (sum.z + sum.w) + d * plain); }
            if live_b { out[out_at + row_b] = elem_out((sum_b.x + sum_b.y) + (sum_b.z + sum_b.w) + d * plain_b); }
        }
    }
    if OUTPUT == 0u {
        if live { store_state(start_a, s0, s1, s2, s3); }
        if live_b { store_state(start_b, t0, t1, t2, t3); }
        if own == 0u { extra[(b * params.blocks + block) * params.heads + h] = total; }
    }
}
