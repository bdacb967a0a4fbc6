// uses: lib/reduce.wgsl
// variants: elem=f16
// What is left once r = g · B and dC a head are known. With q = x · r, u = C · dC, and for the block's last
// token E = ⟨gradient from later blocks, state⟩:  da[t] = u[t] + (E or da[t+1]) − dt · q[t], 0 where decay is 0;
// ddt = q + A · da;  dx = dt · r + D · dy. One workgroup a (batch, block, head), one invocation a token.
alias elem = f32;
const WG: u32 = 128u;                                                 // the block's length
struct Params {
    tokens: u32, blocks: u32, heads: u32, p: u32, n: u32, share: u32, low: f32, high: f32, has_d: u32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (batches, tokens, heads, P)
@group(0) @binding(2) var<storage, read> dy: array<elem>;             // (batches, tokens, heads, P)
@group(0) @binding(3) var<storage, read> packed: array<f32>;          // a_log, d: (2, heads)
@group(0) @binding(4) var<storage, read> steps: array<vec2f>;         // (batches, tokens, heads): dt, decay
@group(0) @binding(5) var<storage, read> r: array<f32>;               // (batches, tokens, heads, P)
@group(0) @binding(6) var<storage, read_write> dx: array<elem>;       // (batches, tokens, heads, P)
@group(0) @binding(7) var<storage, read_write> ddt: array<f32>;       // (batches, tokens, heads): u, E added at blocks' ends → of the clamped dt
@group(0) @binding(8) var<storage, read_write> sums: array<f32>;      // (batches · blocks, 2, heads): dA_log, dD

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
    let a = -exp(packed[h]);
    let skip = packed[params.heads + h];
    var q = 0.0;
    var through = 0.0;
    var step = vec2f(0.0, 1.0);
    var gain = 0.0;
    if live {
        step = steps[at];
        for (var p = 0u; p < params.p; p++) {
            let i = at * params.p + p;
            let v = f32(x[i]);
            let g = f32(dy[i]);
            q += v * r[i];
            through += v * g;
            dx[i] = elem(step.x * r[i] + select(0.0, skip * g, params.has_d != 0u));
        }
        gain = ddt[at] - step.x * q;
    }
    rising[lane] = gain;
    workgroupBarrier();
    // A restart cuts the sum; so few tokens are added in order by one invocation.
    if lane == 0u {
        var da = 0.0;
        for (var k = WG; k > 0u; k--) {
            let token = block * WG + k - 1u;
            if token < params.tokens {
                da += rising[k - 1u];
                if steps[(b * params.tokens + token) * params.heads + h].y == 0.0 { da = 0.0; }
                rising[k - 1u] = da;
            }
        }
    }
    workgroupBarrier();
    var d_a = 0.0;
    if live {
        let da = rising[lane];
        ddt[at] = q + a * da;
        d_a = step.x * da;
    }
    let da_total = workgroup_sum(d_a, lane);
    let skip_total = workgroup_sum(through, lane);
    if lane == 0u {
        let row = (b * params.blocks + block) * 2u * params.heads;
        sums[row + h] = da_total * a;
        sums[row + params.heads + h] = skip_total;
    }
}
