// uses: lib/reduce.wgsl
// variants: elem=vec4<f16>
// scales[c, h] = max |x[s, h, :]| / 127 over the tokens s of chunk c; numbers[s, h, i] = round(x[s, h, i] / scales[c, h]),
// four signed bytes a word. A workgroup takes a chunk of one head.
alias elem = vec4<f32>;
const WG: u32 = 64u;
struct Params { groups: u32, first: u32, chunk: u32, heads: u32, units: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;                  // (chunks · S, heads, units), from chunk `first` on
@group(0) @binding(2) var<storage, read_write> numbers: array<u32>;       // (chunks · S, heads, units), from chunk `first` on
@group(0) @binding(3) var<storage, read_write> scales: array<f32>;        // (all chunks, heads)

// Where the i-th four of a chunk's head lie.
fn place(chunk: u32, head: u32, i: u32) -> u32 {
    return ((chunk * params.chunk + i / params.units) * params.heads + head) * params.units + i % params.units;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = row_of(id);
    if group >= params.groups { return; }
    let chunk = group / params.heads;
    let head = group % params.heads;
    let count = params.chunk * params.units;
    var most = vec4f();
    for (var i = lane; i < count; i += WG) { most = max(most, abs(vec4f(x[place(chunk, head, i)]))); }
    let largest = workgroup_max(max(max(most.x, most.y), max(most.z, most.w)), lane);
    // What is smaller may count as nothing anywhere.
    let scale = select(0.0, largest / 127.0, largest > 1e-30);
    if lane == 0u { scales[params.first * params.heads + group] = scale; }
    let by = select(0.0, 127.0 / max(largest, 1e-30), largest > 1e-30);
    for (var i = lane; i < count; i += WG) {
        let at = place(chunk, head, i);
        let q = vec4u(vec4i(clamp(round(vec4f(x[at]) * by), vec4f(-127.0), vec4f(127.0)))) & vec4u(255u);
        numbers[at] = q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u);
    }
}
