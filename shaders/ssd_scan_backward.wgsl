// uses: lib/grid.wgsl
// variants: elem=f16
// What is left once r = g · B and dC a head are known, both without a token's own share. With q = x · r and u = C · dC,
// da[t] − da[t+1] = u[t] − dt · q[t], from either end of a tile, where da is known. Sums of differences lose digits:
// hence tiles so short, and no shares that would only cancel. ddt = q + (C · B)(x · dy) + A · da;
// dx = dt · (r + (C · B) dy) + D · dy. One workgroup a (batch, block, head), one invocation a token.
alias elem = f32;
const WG: u32 = 128u;                                                 // the block's length
const TILE: u32 = 8u;
struct Params {
    tokens: u32, blocks: u32, heads: u32, p: u32, n: u32, share: u32, has_d: u32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (batches, tokens, heads, P)
@group(0) @binding(2) var<storage, read> dy: array<elem>;             // (batches, tokens, heads, P)
@group(0) @binding(3) var<storage, read> a_log: array<f32>;           // (heads)
@group(0) @binding(4) var<storage, read> d: array<f32>;               // (heads)
@group(0) @binding(5) var<storage, read> steps: array<vec2f>;         // (batches, tokens, heads): dt, decay
@group(0) @binding(6) var<storage, read> r: array<f32>;               // (batches, tokens, heads, P)
@group(0) @binding(7) var<storage, read_write> dx: array<elem>;       // (batches, tokens, heads, P)
@group(0) @binding(8) var<storage, read_write> side: array<vec4f>;    // (batches, tokens, heads): u, C · B, da at a
                                                                      // tile's end and start → ddt, dA_log, x · dy

var<workgroup> rising: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    if index >= params.groups { return; }                             // uniform
    let h = index % params.heads;
    let block = (index / params.heads) % params.blocks;
    let b = index / params.heads / params.blocks;
    let t = block * WG + lane;
    let live = t < params.tokens;
    let at = (b * params.tokens + t) * params.heads + h;
    let a = -exp(a_log[h]);
    let skip = d[h];
    var q = 0.0;
    var through = 0.0;
    var step = vec2f(0.0, 1.0);
    var gain = 0.0;
    var cb = 0.0;
    if live {
        step = steps[at];
        cb = side[at].y;
        for (var p = 0u; p < params.p; p++) {
            let i = at * params.p + p;
            let v = f32(x[i]);
            let g = f32(dy[i]);
            q += v * r[i];
            through += v * g;
            dx[i] = elem(step.x * fma(cb, g, r[i]) + select(0.0, skip * g, params.has_d != 0u));
        }
        gain = side[at].x - step.x * q;
    }
    rising[lane] = gain;
    workgroupBarrier();
    var d_a = 0.0;
    var da = 0.0;
    if live {
        let start = lane / TILE * TILE;
        let row = (b * params.tokens + block * WG) * params.heads + h;
        let end = min(start + TILE, params.tokens - block * WG);
        if lane < start + TILE / 2u {
            da = side[row + start * params.heads].w;
            for (var k = start; k < lane; k++) { da -= rising[k]; }
        } else {
            da = side[row + (end - 1u) * params.heads].z;
            for (var k = end; k > lane; k--) { da += rising[k - 1u]; }
        }
        d_a = step.x * da;
    }
    storageBarrier();                                                 // side is read
    if live { side[at] = vec4f(q + cb * through + a * da, d_a * a, through, 0.0); }
}
