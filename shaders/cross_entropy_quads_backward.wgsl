// uses: lib/grid.wgsl
// variants: elem=f16 elem_out=f16 WG=64 | elem_out=f16 | WG=32
// cross_entropy_backward.wgsl for rows of whole quads: one read, one write, a lane's loads under way together.
alias elem = f32;
alias elem_out = f32;
const WG: u32 = 256u;
struct Params { rows: u32, quads: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<elem>>;         // (rows, quads)
@group(0) @binding(2) var<storage, read> targets: array<u32>;               // (rows)
@group(0) @binding(3) var<storage, read> weights: array<f32>;               // (rows)
@group(0) @binding(4) var<storage, read> lse: array<f32>;                   // (rows)
@group(0) @binding(5) var<storage, read> dloss: array<f32>;                 // (1)
@group(0) @binding(6) var<storage, read_write> dlogits: array<vec4<elem_out>>;  // (rows, quads)

// What a row's quads share.
struct Row { start: u32, wanted: u32, scale: f32, lse: f32 }

fn logits_at(row: Row, q: u32) -> vec4f {
    return vec4f(logits[row.start + min(q, params.quads - 1u)]);
}

fn put(row: Row, q: u32, v: vec4f) {
    if q >= params.quads { return; }
    let hit = select(vec4f(), vec4f(1.0), 4u * q + vec4u(0u, 1u, 2u, 3u) == vec4u(row.wanted));
    dlogits[row.start + q] = vec4<elem_out>(row.scale * (exp(min(v - row.lse, vec4f())) - hit));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let r = row_of(group);
    if r >= params.rows { return; }
    let row = Row(r * params.quads, targets[r], dloss[0] * weights[r], lse[r]);
    if row.scale == 0.0 {
        for (var q = lane; q < params.quads; q += WG) { dlogits[row.start + q] = vec4<elem_out>(); }
        return;
    }
    for (var q = lane; q < params.quads; q += 4u * WG) {
        let v0 = logits_at(row, q);
        let v1 = logits_at(row, q + WG);
        let v2 = logits_at(row, q + 2u * WG);
        let v3 = logits_at(row, q + 3u * WG);
        put(row, q, v0);
        put(row, q + WG, v1);
        put(row, q + 2u * WG, v2);
        put(row, q + 3u * WG, v3);
    }
}
