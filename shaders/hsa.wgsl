// uses: lib/reduce.wgsl
// variants: elem=f16 | D=16 | D=128 WG=64
// o[t, hq] = Σ_i weight[t, h, i] · Σ_j softmax_j(q[t, hq] · k[j] / √d) v[j] over the S tokens j of chunk index[t, h, i];
// with off_by_one the denominator has + exp(0). One workgroup a (token, query head); slots in order.
alias elem = f32;
const WG: u32 = 64u;
const D: u32 = 256u;                                                  // largest head dim
const S: u32 = 256u;                                                  // largest chunk
struct Params {
    batches: u32, tokens: u32, keys: u32, query_heads: u32, heads: u32, d: u32, slots: u32, joint: u32, chunk: u32,
    off_by_one: u32, scale: f32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // joint: 1 where all heads share a selection
@group(0) @binding(1) var<storage, read> q: array<elem>;              // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> k: array<elem>;              // (batches, keys, heads, d)
@group(0) @binding(3) var<storage, read> v: array<elem>;              // (batches, keys, heads, d)
@group(0) @binding(4) var<storage, read> weights: array<f32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(5) var<storage, read> indices: array<u32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(6) var<storage, read_write> o: array<elem>;        // (batches, tokens, query heads, d)
@group(0) @binding(7) var<storage, read_write> lse: array<f32>;       // (batches, tokens, query heads, slots)

var<workgroup> query: array<f32, D>;
var<workgroup> p: array<f32, S>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    if index >= params.groups { return; }                             // uniform
    let hq = index % params.query_heads;
    let token = index / params.query_heads;                           // over batches
    let b = token / params.tokens;
    let h = hq / (params.query_heads / params.heads);
    let selected = select(token * params.heads + h, token, params.joint != 0u) * params.slots;
    for (var c = lane; c < params.d; c += WG) {
        query[c] = f32(q[index * params.d + c]) * params.scale;
        o[index * params.d + c] = elem(0.0);
    }
    workgroupBarrier();
    var sum: array<f32, D / WG + 1u>;
    for (var slot = 0u; slot < params.slots; slot++) {
        let weight = weights[selected + slot];
        let first = (b * params.keys + indices[selected + slot] * params.chunk) * params.heads + h;
        var largest = select(-3.0e38, 0.0, params.off_by_one != 0u);
        for (var j = lane; j < params.chunk; j += WG) {
            let at = (first + j * params.heads) * params.d;
            var s = 0.0;
            for (var c = 0u; c < params.d; c++) { s += query[c] * f32(k[at + c]); }
            p[j] = s;
            largest = max(largest, s);
        }
        let top = workgroup_max(largest, lane);
        var part = 0.0;
        for (var j = lane; j < params.chunk; j += WG) {
            let e = exp(p[j] - top);
            p[j] = e;
            part += e;
        }
        var total = workgroup_sum(part, lane);
        if params.off_by_one != 0u { total += exp(-top); }
        if lane == 0u { lse[index * params.slots + slot] = top + log(total); }
        let share = weight / total;
        var i = 0u;
        for (var c = lane; c < params.d; c += WG) {
            var y = 0.0;
            for (var j = 0u; j < params.chunk; j++) { y += p[j] * f32(v[(first + j * params.heads) * params.d + c]); }
            sum[i] += share * y;
            i++;
        }
        workgroupBarrier();
    }
    var i = 0u;
    for (var c = lane; c < params.d; c += WG) {
        o[index * params.d + c] = elem(sum[i]);
        i++;
    }
}
