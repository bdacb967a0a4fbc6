// uses: lib/grid.wgsl, lib/softplus.wgsl, lib/decay.wgsl
// One token of a Mamba-2 mixer between its projections, of whose first it reads a row z | x, B, C | dt in place:
//   x, B, C ← silu(bias + Σ_j taps[j] · the last W inputs),  dt = clamp(softplus(dt + dt_bias), limits)
//   h' = exp(−dt · exp(a_log)) · h + dt · x ⊗ B,  y = (h' · C + D · x) · silu(z)
// A workgroup holds ROWS rows of one head's state h (P, N), LANES invocations a row, and convolves B and C of its group
// by itself. What a state is next is written by whoever holds it, for B and C by the group's first workgroup.
const WG: u32 = 256u;
const LANES: u32 = 32u;
const ROWS: u32 = 8u;                                                 // WG / LANES
const CELLS: u32 = 4u;                                                // of a row that a lane has under way
const SPAN: u32 = 128u;                                               // LANES · CELLS, and half of WG
struct Params {
    heads: u32, p: u32, n: u32, share: u32, width: u32, columns: u32, row_tiles: u32, low: f32, high: f32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> projected: array<f32>;       // (batches, columns): z, x (heads, P), B, C (groups, N), dt (heads)
@group(0) @binding(2) var<storage, read> conv: array<f32>;            // (channels, W + 1): taps, oldest input's first, and bias
@group(0) @binding(3) var<storage, read> head: array<f32>;            // (heads, 3): dt_bias, a_log, D
@group(0) @binding(4) var<storage, read> inputs: array<f32>;          // (batches, channels, W − 1), oldest first
@group(0) @binding(5) var<storage, read> state: array<f32>;           // (batches, heads, P, N)
@group(0) @binding(6) var<storage, read_write> y: array<f32>;         // (batches, heads, P)
@group(0) @binding(7) var<storage, read_write> inputs_next: array<f32>;
@group(0) @binding(8) var<storage, read_write> state_next: array<f32>;

var<workgroup> b_tile: array<f32, SPAN>;
var<workgroup> c_tile: array<f32, SPAN>;
var<workgroup> partial: array<f32, WG>;

fn silu(v: f32) -> f32 {
    let e = exp(-abs(v));
    return v * select(e, 1.0, v >= 0.0) / (1.0 + e);
}

// Channel c of batch b; `keep`: its inputs move on by one.
fn convolved(b: u32, c: u32, keep: bool) -> f32 {
    let d_inner = params.heads * params.p;
    let channels = d_inner + 2u * params.heads / params.share * params.n;
    let kept = params.width - 1u;
    let at = (b * channels + c) * kept;
    let taps = c * (params.width + 1u);
    let latest = projected[b * params.columns + d_inner + c];
    var u = conv[taps + params.width];
    for (var j = 0u; j < kept; j++) {
        let v = inputs[at + j];
        u = fma(conv[taps + j], v, u);
        if keep && j > 0u { inputs_next[at + j - 1u] = v; }
    }
    if keep { inputs_next[at + kept - 1u] = latest; }
    return silu(fma(conv[taps + kept], latest, u));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    if index >= params.groups { return; }                             // uniform
    let row_tile = index % params.row_tiles;
    let row = row_tile * ROWS + lane / LANES;
    let h = (index / params.row_tiles) % params.heads;
    let b = index / params.row_tiles / params.heads;
    let live = row < params.p;
    let d_inner = params.heads * params.p;
    let channel = h * params.p + min(row, params.p - 1u);
    let first = b * params.columns;
    let cells = (b * d_inner + channel) * params.n;
    let group_states = params.heads / params.share * params.n;        // all B, or all C
    let own = d_inner + h / params.share * params.n;
    let keeps = row_tile == 0u && h % params.share == 0u;
    var s: array<f32, CELLS>;
    var dt = 0.0;
    var decay = 0.0;
    var x = 0.0;
    var sum = 0.0;
    for (var n0 = 0u; n0 < params.n; n0 += SPAN) {
        // Loads are never skipped, and the state's go first: they are the many.
        for (var i = 0u; i < CELLS; i++) { // unroll
            s[i] = state[cells + min(n0 + i * LANES + lane % LANES, params.n - 1u)];
        }
        if n0 == 0u {
            let raw = projected[first + 2u * d_inner + 2u * group_states + h] + head[3u * h];
            dt = clamp(softplus(raw), params.low, params.high);
            decay = decay_of(-dt * exp(head[3u * h + 1u]));
            x = convolved(b, channel, live && lane % LANES == 0u);
        }
        let j = n0 + lane % SPAN;
        if j < params.n {
            let v = convolved(b, own + j + lane / SPAN * group_states, keeps);
            if lane < SPAN { b_tile[lane] = v; } else { c_tile[lane - SPAN] = v; }
        }
        workgroupBarrier();
        for (var i = 0u; i < CELLS; i++) { // unroll
            let at = i * LANES + lane % LANES;
            if live && n0 + at < params.n {
                let next = fma(dt * x, b_tile[at], decay * s[i]);
                state_next[cells + n0 + at] = next;
                sum = fma(next, c_tile[at], sum);
            }
        }
        workgroupBarrier();
    }
    partial[lane] = sum;
    workgroupBarrier();
    if !live || lane % LANES != 0u { return; }
    var four = vec4f();
    for (var i = lane; i < lane + LANES; i += 4u) {
        four += vec4f(partial[i], partial[i + 1u], partial[i + 2u], partial[i + 3u]);
    }
    let out = fma(head[3u * h + 2u], x, four.x + four.y + four.z + four.w);
    y[b * d_inner + channel] = out * silu(projected[first + channel]);
}
