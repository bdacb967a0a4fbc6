// uses: lib/grid.wgsl, lib/rivals.wgsl
// With p = σ(lse[r] + ENOUGH − scores[r, told[r]]) and g = dloss · weight[r]:
// dscores[r, c] = g · (1 + p) · exp(scores[r, c] + margin_rc − lse[r]) for a rival, −g · p for the chunk told, else 0.
const WG: u32 = 256u;
struct Params { rows: u32, columns: u32, chunks: u32, group: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<f32>;          // (rows, columns)
@group(0) @binding(2) var<storage, read> told: array<u32>;            // (rows, 3)
@group(0) @binding(3) var<storage, read> flags: array<u32>;           // (columns)
@group(0) @binding(4) var<storage, read> weights: array<f32>;         // (rows)
@group(0) @binding(5) var<storage, read> margins: array<f32>;         // (rows)
@group(0) @binding(6) var<storage, read> lse: array<f32>;             // (rows)
@group(0) @binding(7) var<storage, read> dloss: array<f32>;           // (1)
@group(0) @binding(8) var<storage, read_write> dscores: array<f32>;   // (rows, columns)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let start = row * params.columns;
    let chosen = vec3u(told[3u * row], told[3u * row + 1u], told[3u * row + 2u]);
    let weight = weights[row];
    let g = dloss[0] * weight;
    let l = lse[row];
    let p = 1.0 / (1.0 + exp(clamp(scores[start + min(chosen.x, params.columns - 1u)] - l - ENOUGH, -80.0, 80.0)));
    for (var c = lane; c < params.columns; c += WG) {
        let gain = rival_margin(c, flags[c], chosen, params.chunks, params.group, margins[row]);
        var d = 0.0;
        if weight != 0.0 && gain != NOT_A_RIVAL {
            d = g * (1.0 + p) * exp(min(scores[start + c] + gain - l, 0.0));
        }
        if weight != 0.0 && c == chosen.x { d = -g * p; }
        dscores[start + c] = d;
    }
}
