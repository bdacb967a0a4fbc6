// uses: lib/grid.wgsl, lib/softplus.wgsl, lib/decay.wgsl
// variants: elem=f16 | elem=f16 elem_dt=f16
// One token of Mamba-2's recurrence, one head with state h (P, N):
//   dt = clamp(softplus(raw + dt_bias), limits),  h' = exp(−dt · exp(a_log)) · h + dt · x ⊗ B,  y = h' · C + D · x
// LANES invocations share a row of h, so that neighbours read neighbours; a workgroup holds ROWS rows of one head.
alias elem = f32;
alias elem_dt = f32;
const WG: u32 = 64u;
const LANES: u32 = 16u;
const ROWS: u32 = WG / LANES;
struct Params {
    heads: u32, p: u32, n: u32, share: u32, columns: u32, row_tiles: u32, has_d: u32, low: f32, high: f32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> xbc: array<elem>;            // (batches, columns): x (heads, P), B, C (groups, N)
@group(0) @binding(2) var<storage, read> raw: array<elem_dt>;         // (batches, heads)
@group(0) @binding(3) var<storage, read> dt_bias: array<f32>;         // (heads)
@group(0) @binding(4) var<storage, read> a_log: array<f32>;           // (heads)
@group(0) @binding(5) var<storage, read> d: array<f32>;               // (heads)
@group(0) @binding(6) var<storage, read> state: array<f32>;           // (batches, heads, P, N)
@group(0) @binding(7) var<storage, read_write> y: array<elem>;        // (batches, heads, P)
@group(0) @binding(8) var<storage, read_write> next: array<f32>;      // (batches, heads, P, N)

var<workgroup> partial: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    if index >= params.groups { return; }                             // uniform
    let row = (index % params.row_tiles) * ROWS + lane / LANES;
    let h = (index / params.row_tiles) % params.heads;
    let b = index / params.row_tiles / params.heads;
    let v = f32(raw[b * params.heads + h]) + dt_bias[h];
    let dt = clamp(softplus(v), params.low, params.high);
    let decay = decay_of(-dt * exp(a_log[h]));
    let live = row < params.p;
    let first = b * params.columns;
    var x = 0.0;
    var sum = 0.0;
    if live {
        x = f32(xbc[first + h * params.p + row]);
        let b_at = first + params.heads * params.p + h / params.share * params.n;
        let c_at = b_at + params.heads / params.share * params.n;
        let at = ((b * params.heads + h) * params.p + row) * params.n;
        for (var j = lane % LANES; j < params.n; j += LANES) {
            let s = fma(dt * x, f32(xbc[b_at + j]), decay * state[at + j]);
            next[at + j] = s;
            sum = fma(s, f32(xbc[c_at + j]), sum);
        }
    }
    partial[lane] = sum;
    workgroupBarrier();
    if !live || lane % LANES != 0u { return; }
    var out = 0.0;
    for (var i = 0u; i < LANES; i++) { out += partial[lane + i]; }
    if params.has_d != 0u { out = fma(d[h], x, out); }
    y[(b * params.heads + h) * params.p + row] = elem(out);
}
