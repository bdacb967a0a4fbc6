// uses: lib/reduce.wgsl
// reduce.wgsl for rows of whole quads: y[r] = factor · Σ_c x[r, c], four of a lane's loads under way together.
// One workgroup a row. The last row may be short.
// variants: elem=f16 WG=64 | WG=32 | WG=8
alias elem = f32;
const WG: u32 = 256u;
struct Params { count: u32, columns: u32, factor: f32 }               // in quads

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<elem>>;        // (count)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;         // (⌈count / columns⌉)

fn x_at(q: u32, last: u32) -> vec4f {
    return select(vec4f(), vec4f(x[min(q, last - 1u)]), q < last);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    let first = row * params.columns;
    if first >= params.count { return; }
    let last = min(first + params.columns, params.count);
    var part = vec4f();
    for (var q = first + lane; q < last; q += 4u * WG) {
        let x0 = vec4f(x[q]);
        let x1 = x_at(q + WG, last);
        let x2 = x_at(q + 2u * WG, last);
        let x3 = x_at(q + 3u * WG, last);
        part += (x0 + x1) + (x2 + x3);
    }
    let total = workgroup_sum(dot(part, vec4f(1.0)), lane);
    if lane == 0u { y[row] = total * params.factor; }
}
