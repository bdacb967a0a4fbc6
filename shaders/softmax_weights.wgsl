// uses: lib/grid.wgsl
// w = softmax over valid slots of s[i] + i · decay; 0 on padding.
// An invocation a row.
const WG: u32 = 64u;
const PADDING: f32 = -1.0e38;
struct Params { rows: u32, slots: u32, has_decay: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<f32>;              // (rows, slots)
@group(0) @binding(2) var<storage, read> decay: array<f32>;               // (1), or anything
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;       // (rows, slots)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group) * WG + lane;
    if row >= params.rows { return; }
    let first = row * params.slots;
    let step = select(0.0, decay[0], params.has_decay != 0u);
    var largest = -3.0e38;
    for (var i = 0u; i < params.slots; i++) {
        let s = scores[first + i];
        if s > PADDING { largest = max(largest, s + f32(i) * step); }
    }
    var sum = 0.0;
    for (var i = 0u; i < params.slots; i++) {
        let s = scores[first + i];
        if s > PADDING { sum += exp(s + f32(i) * step - largest); }
    }
    for (var i = 0u; i < params.slots; i++) {
        let s = scores[first + i];
        var w = 0.0;
        if s > PADDING { w = exp(s + f32(i) * step - largest) / sum; }
        weights[first + i] = w;
    }
}
