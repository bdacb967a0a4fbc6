// uses: lib/grid.wgsl
// variants: elem=f16
// dB[g] = Σ dt · (w[h] + (x · dy) · C) and dC[g] = Σ dC[h] + dt · (x · dy) · B over the heads h of group g, in ascending
// order: what w and dC leave out of a token is put in here.
alias elem = f32;
const WG: u32 = 256u;
struct Params { rows: u32, heads: u32, share: u32, n: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // rows = batches · tokens
@group(0) @binding(1) var<storage, read> w: array<f32>;               // (rows, heads, N)
@group(0) @binding(2) var<storage, read> dc_heads: array<f32>;        // (rows, heads, N)
@group(0) @binding(3) var<storage, read> steps: array<vec2f>;         // (rows, heads): dt, decay
@group(0) @binding(4) var<storage, read> side: array<vec4f>;          // (rows, heads): …, …, x · dy
@group(0) @binding(5) var<storage, read> b: array<elem>;              // (rows, groups, N)
@group(0) @binding(6) var<storage, read> c: array<elem>;              // (rows, groups, N)
@group(0) @binding(7) var<storage, read_write> db: array<elem>;       // (rows, groups, N)
@group(0) @binding(8) var<storage, read_write> dc: array<elem>;       // (rows, groups, N)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    let shares = params.heads / params.share;
    if i >= params.rows * shares * params.n { return; }
    let n = i % params.n;
    let g = (i / params.n) % shares;
    let row = i / params.n / shares;
    var b_sum = 0.0;
    var c_sum = 0.0;
    for (var k = 0u; k < params.share; k++) {
        let head = row * params.heads + g * params.share + k;
        let dt = steps[head].x;
        let through = side[head].z;
        b_sum = fma(dt, fma(through, f32(c[i]), w[head * params.n + n]), b_sum);
        c_sum += fma(dt * through, f32(b[i]), dc_heads[head * params.n + n]);
    }
    db[i] = elem(b_sum);
    dc[i] = elem(c_sum);
}
