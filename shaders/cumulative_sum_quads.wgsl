// uses: lib/grid.wgsl, lib/scan4.wgsl
// variants: REVERSE=1 | WG=32 | elem=f16 WG=64 | elem=f16 REVERSE=1 | QUADS=256 EXACT=1 WG=256 TEAM=64
// cumulative_sum.wgsl for rows of whole quads: a block is 4 · WG of them, one workgroup a row and block.
alias elem = f32;
const REVERSE: u32 = 0u;
const WG: u32 = 256u;
const QUADS: u32 = 0u;                                                // of a row of one block, where it is a constant
const EXACT: u32 = 0u;                                                // 1: as many teams as rows, which have one block
struct Params { rows: u32, quads: u32, blocks: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<elem>>;        // (rows, quads)
@group(0) @binding(2) var<storage, read> before: array<f32>;          // (rows, blocks), see there
@group(0) @binding(3) var<storage, read_write> y: array<vec4<elem>>;  // (rows, quads)

fn quads() -> u32 { return select(params.quads, QUADS, QUADS > 0u); }

// Where the i-th quad from the sums' beginning lies.
fn place(row: u32, i: u32) -> u32 {
    if REVERSE == 1u { return (row + 1u) * quads() - 1u - i; }
    return row * quads() + i;
}

// The sums within the i-th quad, in the order of the sums.
fn summed(row: u32, i: u32) -> vec4f {
    let v = select(vec4f(), vec4f(x[place(row, min(i, quads() - 1u))]), i < quads());
    let u = select(v, v.wzyx, REVERSE == 1u);
    let xy = u.x + u.y;
    return vec4f(u.x, xy, xy + u.z, xy + u.z + u.w);
}

fn put(row: u32, i: u32, sum: f32, v: vec4f) {
    if i >= quads() { return; }
    let s = sum + v;
    y[place(row, i)] = vec4<elem>(select(s, s.wzyx, REVERSE == 1u));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let place_in_team = lane % TEAM;
    var row = row_of(group) * (WG / TEAM) + lane / TEAM;
    var block = 0u;
    if EXACT == 0u {
        row = row_of(group);                       // one team
        block = row % params.blocks;
        row /= params.blocks;
        if row >= params.rows { return; }
    }
    let i = block * 4u * TEAM + place_in_team;
    let v0 = summed(row, i);
    let v1 = summed(row, i + TEAM);
    let v2 = summed(row, i + 2u * TEAM);
    let v3 = summed(row, i + 3u * TEAM);
    workgroup_scan4(vec4f(v0.w, v1.w, v2.w, v3.w), lane);
    // What comes before this lane's quad: the lanes before it, never sums less its own, which would round twice.
    let lanes = select(vec4f(), scan4_scratch[max(lane, 1u) - 1u], place_in_team > 0u);
    let totals = scan4_scratch[lane / TEAM * TEAM + TEAM - 1u];
    var sum = 0.0;
    if block > 0u { sum = before[row * params.blocks + block - 1u]; }
    put(row, i, sum + lanes.x, v0);
    sum += totals.x;
    put(row, i + TEAM, sum + lanes.y, v1);
    sum += totals.y;
    put(row, i + 2u * TEAM, sum + lanes.z, v2);
    sum += totals.z;
    put(row, i + 3u * TEAM, sum + lanes.w, v3);
}
