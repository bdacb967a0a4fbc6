// uses: lib/grid.wgsl, lib/decay.wgsl
// variants: N=8 | N=32
// With g the adjoint of the state: du_t = dt·Σ g·b, ddt_t = Σ g·(a·exp(dt·a)·h_{t−1} + b·u), da = Σ_t g·dt·exp(dt·a)·h_{t−1},
// db_t = Σ_d g·dt·u, dc_t = Σ_d dy·h. One workgroup a (batch, block, WG channels of one group), an invocation a channel:
// its states are recomputed once, kept, and read backward. Sums over channels go through workgroup memory.
const WG: u32 = 64u;
const N: u32 = 16u;
const BLOCK: u32 = 16u;
struct Params { batch: u32, channels: u32, tokens: u32, groups: u32, blocks: u32, c_at: u32, carry_at: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> packed: array<f32>;            // (2, B, D, L): u, dt
@group(0) @binding(2) var<storage, read> dy: array<f32>;                // (B, D, L)
@group(0) @binding(3) var<storage, read> a: array<f32>;                 // (D, N)
@group(0) @binding(4) var<storage, read> bc: array<f32>;                // b (B, G, N, L), and c from c_at on
@group(0) @binding(5) var<storage, read> carry: array<f32>;             // states (B, blocks, D, N), adjoints from carry_at on
@group(0) @binding(6) var<storage, read_write> dpacked: array<f32>;     // (2, B, D, L)
@group(0) @binding(7) var<storage, read_write> da: array<f32>;          // (B, blocks, D, N)
@group(0) @binding(8) var<storage, read_write> dbc: array<f32>;         // (⌈D / G / WG⌉, 2, c_at), each as b

var<workgroup> terms_b: array<f32, N * WG>;
var<workgroup> terms_c: array<f32, N * WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    let channels = params.channels / params.groups;
    let wide = (channels + WG - 1u) / WG;
    let tile = index % wide;
    let g_index = index / wide % params.groups;
    let block = index / wide / params.groups % params.blocks;
    let batch = index / wide / params.groups / params.blocks;
    if batch >= params.batch { return; }
    let live = tile * WG + lane < channels;
    let d = g_index * channels + min(tile * WG + lane, channels - 1u);
    let first = block * BLOCK;
    let last = min(first + BLOCK, params.tokens);
    let row = (batch * params.channels + d) * params.tokens;
    let count = params.batch * params.channels * params.tokens;
    let start = (batch * params.groups + g_index) * N * params.tokens;
    let place = ((batch * params.blocks + block) * params.channels + d) * N;
    var rate: array<f32, N>;
    var g: array<f32, N>;
    var sum_a: array<f32, N>;
    var h: array<f32, N * (BLOCK + 1u)>;    // h[(t − first)·N + n] enters token t
    for (var n = 0u; n < N; n++) {
        rate[n] = a[d * N + n];
        g[n] = carry[params.carry_at + place + n];
        sum_a[n] = 0.0;
        h[n] = carry[place + n];
    }
    for (var t = first; t < last; t++) {
        let dt = packed[count + row + t];
        let x = dt * packed[row + t];
        let at = (t - first) * N;
        for (var n = 0u; n < N; n++) {
            h[at + N + n] = decay_of(dt * rate[n]) * h[at + n] + x * bc[start + n * params.tokens + t];
        }
    }
    for (var after = last; after > first; after--) {
        let t = after - 1u;
        let dt = packed[count + row + t];
        let x = packed[row + t];
        let wanted = select(0.0, dy[row + t], live);
        let at = (t - first) * N;
        var du = 0.0;
        var ddt = 0.0;
        for (var n = 0u; n < N; n++) {
            let b = bc[start + n * params.tokens + t];
            let c = bc[params.c_at + start + n * params.tokens + t];
            let adjoint = g[n] + wanted * c;
            let decayed = decay_of(dt * rate[n]);
            let past = decayed * h[at + n] * adjoint;
            du += adjoint * b;
            ddt += past * rate[n] + adjoint * b * x;
            sum_a[n] += past * dt;
            terms_b[n * WG + lane] = select(0.0, adjoint * dt * x, live);
            terms_c[n * WG + lane] = wanted * h[at + N + n];
            g[n] = adjoint * decayed;
        }
        if live {
            dpacked[row + t] = du * dt;
            dpacked[count + row + t] = ddt;
        }
        workgroupBarrier();
        for (var i = lane; i < 2u * N; i += WG) {
            let n = i % N;
            let second = i / N;
            var sum = 0.0;
            // Each begins at another lane: banks of workgroup memory would be asked for one by one.
            for (var j = 0u; j < WG; j++) {
                let k = n * WG + (n + j) % WG;
                sum += select(terms_b[k], terms_c[k], second != 0u);
            }
            dbc[(tile * 2u + second) * params.c_at + start + n * params.tokens + t] = sum;
        }
        workgroupBarrier();
    }
    if live {
        for (var n = 0u; n < N; n++) { da[place + n] = sum_a[n]; }
    }
}
