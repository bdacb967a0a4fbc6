// uses: lib/reduce.wgsl
// variants: elem=f16 | D=16
// Per slot, with p the softmax and o_i its output: D_i = do · o_i, ds = weight · p · (do · v − D_i), dq += ds · k / √d.
// D_i is kept for the keys' pass and summed over a head's queries into the weights' gradient.
// One workgroup a (token, query head).
alias elem = f32;
const WG: u32 = 64u;
const D: u32 = 256u;
const S: u32 = 256u;
struct Params {
    batches: u32, tokens: u32, keys: u32, query_heads: u32, heads: u32, d: u32, slots: u32, joint: u32, chunk: u32,
    scale: f32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<elem>;              // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> kv: array<elem>;             // k, then v: (2, batches, keys, heads, d)
@group(0) @binding(3) var<storage, read> weights: array<f32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(4) var<storage, read> indices: array<u32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(5) var<storage, read> lse: array<f32>;             // (batches, tokens, query heads, slots)
@group(0) @binding(6) var<storage, read> dout: array<elem>;           // (batches, tokens, query heads, d)
@group(0) @binding(7) var<storage, read_write> dq: array<elem>;       // (batches, tokens, query heads, d)
@group(0) @binding(8) var<storage, read_write> dots: array<f32>;      // (batches, tokens, query heads, slots): D_i

var<workgroup> query: array<f32, D>;
var<workgroup> out: array<f32, D>;
var<workgroup> p: array<f32, S>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    if index >= params.groups { return; }                             // uniform
    let hq = index % params.query_heads;
    let token = index / params.query_heads;
    let b = token / params.tokens;
    let h = hq / (params.query_heads / params.heads);
    let selected = select(token * params.heads + h, token, params.joint != 0u) * params.slots;
    let values = params.batches * params.keys * params.heads * params.d;
    for (var c = lane; c < params.d; c += WG) {
        query[c] = f32(q[index * params.d + c]) * params.scale;
        out[c] = f32(dout[index * params.d + c]);
    }
    workgroupBarrier();
    var sum: array<f32, D / WG + 1u>;
    for (var slot = 0u; slot < params.slots; slot++) {
        let weight = weights[selected + slot];
        let first = (b * params.keys + indices[selected + slot] * params.chunk) * params.heads + h;
        let l = lse[index * params.slots + slot];
        var part = 0.0;
        var dp: array<f32, S / WG + 1u>;
        var i = 0u;
        for (var j = lane; j < params.chunk; j += WG) {
            let at = (first + j * params.heads) * params.d;
            var s = 0.0;
            var g = 0.0;
            for (var c = 0u; c < params.d; c++) {
                s += query[c] * f32(kv[at + c]);
                g += out[c] * f32(kv[values + at + c]);
            }
            let e = exp(min(s - l, 0.0));
            p[j] = e;
            dp[i] = g;
            part += e * g;
            i++;
        }
        let dot = workgroup_sum(part, lane);
        if lane == 0u { dots[index * params.slots + slot] = dot; }
        i = 0u;
        for (var j = lane; j < params.chunk; j += WG) {
            p[j] = weight * p[j] * (dp[i] - dot);
            i++;
        }
        workgroupBarrier();
        i = 0u;
        for (var c = lane; c < params.d; c += WG) {
            var y = 0.0;
            for (var j = 0u; j < params.chunk; j++) { y += p[j] * f32(kv[(first + j * params.heads) * params.d + c]); }
            sum[i] += y * params.scale;
            i++;
        }
        workgroupBarrier();
    }
    var i = 0u;
    for (var c = lane; c < params.d; c += WG) {
        dq[index * params.d + c] = elem(sum[i]);
        i++;
    }
}
