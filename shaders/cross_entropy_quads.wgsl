// uses: lib/reduce.wgsl
// variants: elem=f16 WG=64 | WG=32
// cross_entropy.wgsl for rows of whole quads: 16 columns a step of a lane, so one rescaling of its sum for 16 of them.
// One workgroup a row; nothing of the row's length is stored.
alias elem = f32;
const WG: u32 = 256u;
const NONE: f32 = -3.0e38;
struct Params { rows: u32, quads: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<elem>>;   // (rows, quads)
@group(0) @binding(2) var<storage, read> targets: array<u32>;         // (rows)
@group(0) @binding(3) var<storage, read> weights: array<f32>;         // (rows)
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;       // (rows), saved for the backward pass
@group(0) @binding(5) var<storage, read_write> ce: array<f32>;        // (rows)

fn logits_at(row: u32, q: u32) -> vec4f {
    let v = vec4f(logits[row * params.quads + min(q, params.quads - 1u)]);
    return select(vec4f(NONE), v, q < params.quads);
}

fn power(q: u32, v: vec4f, largest: f32) -> vec4f { return select(vec4f(), exp(v - largest), q < params.quads); }

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    var largest = NONE;
    var sum = vec4f();
    for (var q = lane; q < params.quads; q += 4u * WG) {
        let v0 = logits_at(row, q);
        let v1 = logits_at(row, q + WG);
        let v2 = logits_at(row, q + 2u * WG);
        let v3 = logits_at(row, q + 3u * WG);
        let m = max(max(v0, v1), max(v2, v3));
        let larger = max(largest, max(max(m.x, m.y), max(m.z, m.w)));
        let e0 = power(q, v0, larger);
        let e1 = power(q + WG, v1, larger);
        let e2 = power(q + 2u * WG, v2, larger);
        let e3 = power(q + 3u * WG, v3, larger);
        sum = sum * exp(largest - larger) + ((e0 + e1) + (e2 + e3));
        largest = larger;
    }
    let top = workgroup_max(largest, lane);
    let total = workgroup_sum(dot(sum, vec4f(1.0)) * exp(largest - top), lane);
    if lane == 0u {
        let l = top + log(total);
        lse[row] = l;
        let wanted = min(targets[row], 4u * params.quads - 1u);
        let quad = vec4f(logits[row * params.quads + wanted / 4u]);
        ce[row] = select(0.0, l - quad[wanted % 4u], weights[row] != 0.0);
    }
}
