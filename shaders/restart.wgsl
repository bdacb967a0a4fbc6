// uses: lib/grid.wgsl
// variants: elem=vec4<f32>
// y[b, i] = x[b, i] where sequence b goes on: its last id before equals its first id now; else 0. An element may be four.
alias elem = f32;
const WG: u32 = 256u;
struct Params { size: u32, before_tokens: u32, tokens: u32, count: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (batches, size)
@group(0) @binding(2) var<storage, read> before: array<u32>;          // (batches, before_tokens)
@group(0) @binding(3) var<storage, read> segment: array<u32>;         // (batches, tokens)
@group(0) @binding(4) var<storage, read_write> y: array<elem>;        // (batches, size)

fn kept(i: u32) -> elem {
    let b = i / params.size;
    if before[(b + 1u) * params.before_tokens - 1u] != segment[b * params.tokens] { return elem(); }
    return x[i];
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * 2u * WG + lane;
    if i + WG < params.count {
        // Both loads before the first store, which they might not pass.
        let x0 = kept(i);
        let x1 = kept(i + WG);
        y[i] = x0;
        y[i + WG] = x1;
    } else if i < params.count {
        y[i] = kept(i);
    }
}
