// uses: lib/reduce.wgsl
// variants: elem=f16 | WG=8
// lse[r] = ln Σ_c exp(logits[r, c]);  ce[r] = lse[r] − logits[r, target[r]], 0 where weight[r] = 0.
// One workgroup a row; nothing of the row's length is stored.
alias elem = f32;
const WG: u32 = 256u;
struct Params { rows: u32, columns: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<elem>;         // (rows, columns)
@group(0) @binding(2) var<storage, read> targets: array<u32>;         // (rows)
@group(0) @binding(3) var<storage, read> weights: array<f32>;         // (rows)
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;       // (rows), saved for the backward pass
@group(0) @binding(5) var<storage, read_write> ce: array<f32>;        // (rows)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let start = row * params.columns;
    var largest = -3.0e38;
    var sum = 0.0;
    for (var c = lane; c < params.columns; c += WG) {
        let v = f32(logits[start + c]);
        let larger = max(largest, v);
        sum = sum * exp(largest - larger) + exp(v - larger);
        largest = larger;
    }
    let top = workgroup_max(largest, lane);
    let total = workgroup_sum(sum * exp(largest - top), lane);
    if lane == 0u {
        let l = top + log(total);
        lse[row] = l;
        let wanted = min(targets[row], params.columns - 1u);
        ce[row] = select(0.0, l - f32(logits[start + wanted]), weights[row] != 0.0);
    }
}
