// uses: lib/reduce.wgsl, lib/rivals.wgsl
// lse[r] = ln(1 + Σ_c exp(scores[r, c] + margin_rc)) over the rivals c of what row r should select;
// each[r] = lse[r] + ln(1 + exp(lse[r] + ENOUGH − scores[r, told[r]])), 0 where weight[r] = 0.
// One workgroup a row.
const WG: u32 = 256u;
struct Params { rows: u32, columns: u32, chunks: u32, group: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<f32>;          // (rows, columns): sequences of `chunks` columns
@group(0) @binding(2) var<storage, read> told: array<u32>;            // (rows, 3): the chunk; its statement's first and last
@group(0) @binding(3) var<storage, read> flags: array<u32>;           // (columns)
@group(0) @binding(4) var<storage, read> weights: array<f32>;         // (rows)
@group(0) @binding(5) var<storage, read> margins: array<f32>;         // (rows)
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;       // (rows), saved for the backward pass
@group(0) @binding(7) var<storage, read_write> each: array<f32>;      // (rows)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let start = row * params.columns;
    let chosen = vec3u(told[3u * row], told[3u * row + 1u], told[3u * row + 2u]);
    // The 1: a score of 0 takes half of the stick.
    var largest = 0.0;
    var sum = select(0.0, 1.0, lane == 0u);
    for (var c = lane; c < params.columns; c += WG) {
        let gain = rival_margin(c, flags[c], chosen, params.chunks, params.group, margins[row]);
        if gain == NOT_A_RIVAL { continue; }
        let v = scores[start + c] + gain;
        let larger = max(largest, v);
        sum = sum * exp(largest - larger) + exp(v - larger);
        largest = larger;
    }
    let top = workgroup_max(largest, lane);
    let total = workgroup_sum(sum * exp(largest - top), lane);
    if lane == 0u {
        let l = top + log(total);
        lse[row] = l;
        let behind = l + ENOUGH - scores[start + min(chosen.x, params.columns - 1u)];
        let softplus = max(behind, 0.0) + log(1.0 + exp(-abs(behind)));
        each[row] = select(0.0, l + softplus, weights[row] != 0.0);
    }
}
