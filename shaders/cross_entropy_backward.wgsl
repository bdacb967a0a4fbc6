// uses: lib/grid.wgsl
// variants: elem=f16 elem_out=f16 | elem_out=f16
// dlogits[r, c] = dloss · weight[r] · (exp(logits[r, c] − lse[r]) − [c = target[r]]), exactly 0 where weight[r] = 0.
alias elem = f32;
alias elem_out = f32;
const WG: u32 = 256u;
struct Params { rows: u32, columns: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<elem>;         // (rows, columns)
@group(0) @binding(2) var<storage, read> targets: array<u32>;         // (rows)
@group(0) @binding(3) var<storage, read> weights: array<f32>;         // (rows)
@group(0) @binding(4) var<storage, read> lse: array<f32>;             // (rows)
@group(0) @binding(5) var<storage, read> dloss: array<f32>;           // (1)
@group(0) @binding(6) var<storage, read_write> dlogits: array<elem_out>;  // (rows, columns)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let start = row * params.columns;
    let scale = dloss[0] * weights[row];
    let wanted = targets[row];
    for (var c = lane; c < params.columns; c += WG) {
        var d = 0.0;
        if scale != 0.0 {
            d = scale * (exp(min(f32(logits[start + c]) - lse[row], 0.0)) - select(0.0, 1.0, c == wanted));
        }
        dlogits[start + c] = elem_out(d);
    }
}
