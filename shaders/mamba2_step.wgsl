// uses: lib/softplus.wgsl, lib/decay.wgsl
// variants: HEADS=6 P=20 N=150 SHARE=3 WIDTH=2
// One token of a Mamba-2 mixer between its projections, of whose first it reads a row z | x, B, C | dt in place:
//   x, B, C ← silu(bias + Σ_j taps[j] · the last WIDTH inputs),  dt = clamp(softplus(dt + dt_bias), limits)
//   h' = exp(−dt · exp(a_log)) · h + dt · x ⊗ B,  y = (h' · C + D · x) · silu(z)
// A workgroup holds ROWS rows of one head's state h (P, N), LANES invocations a row, and convolves B and C of its group
// by itself. What a state is next is written by whoever holds it, for B and C by the group's first workgroup. Shapes are
// constants, so that no load waits for parameters; what is loaded is asked for before anything is stored, since a store
// might alias. Workgroups: (tiles of rows, heads, batches).
const HEADS: u32 = 4u;
const P: u32 = 64u;
const N: u32 = 128u;
const SHARE: u32 = 4u;                                                // heads a group
const WIDTH: u32 = 4u;
const KEPT: u32 = WIDTH - 1u;
const TAPS: u32 = WIDTH + 1u;                                         // the bias with them
const D_INNER: u32 = HEADS * P;
const STATES: u32 = HEADS / SHARE * N;                                // of all groups: as many B, and C
const CHANNELS: u32 = D_INNER + 2u * STATES;
const ROW: u32 = D_INNER + CHANNELS + HEADS;
const WG: u32 = 256u;
const LANES: u32 = 32u;
const ROWS: u32 = WG / LANES;
const CELLS: u32 = 4u;                                                // of a row that a lane has under way
const SPAN: u32 = LANES * CELLS;                                      // half of WG
struct Params { low: f32, high: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> projected: array<f32>;       // (batches, ROW): z, x (heads, P), B, C (groups, N), dt
@group(0) @binding(2) var<storage, read> conv: array<f32>;            // (channels, TAPS): oldest input's first
@group(0) @binding(3) var<storage, read> head: array<f32>;            // (heads, 3): dt_bias, a_log, D
@group(0) @binding(4) var<storage, read> inputs: array<f32>;          // (batches, channels, KEPT), oldest first
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

// What a channel's convolution reads.
struct Channel { seen: array<f32, WIDTH>, taps: array<f32, TAPS> }

fn channel_of(b: u32, c: u32) -> Channel {
    var channel: Channel;
    for (var j = 0u; j < KEPT; j++) { // unroll
        channel.seen[j] = inputs[(b * CHANNELS + c) * KEPT + j];
    }
    channel.seen[KEPT] = projected[b * ROW + D_INNER + c];
    for (var j = 0u; j < TAPS; j++) { // unroll
        channel.taps[j] = conv[c * TAPS + j];
    }
    return channel;
}

fn convolved(channel: Channel) -> f32 {
    var u = channel.taps[WIDTH];
    for (var j = 0u; j < WIDTH; j++) { // unroll
        u = fma(channel.taps[j], channel.seen[j], u);
    }
    return silu(u);
}

fn keep(b: u32, c: u32, channel: Channel) {
    for (var j = 0u; j < KEPT; j++) { // unroll
        inputs_next[(b * CHANNELS + c) * KEPT + j] = channel.seen[j + 1u];
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = group.x * ROWS + lane / LANES;
    let h = group.y;
    let b = group.z;
    let live = row < P;
    let c = h * P + min(row, P - 1u);
    let cells = (b * D_INNER + c) * N;
    let own = D_INNER + h / SHARE * N;
    let keeps = group.x == 0u && h % SHARE == 0u;
    let channel = channel_of(b, c);
    let raw = projected[b * ROW + D_INNER + CHANNELS + h];
    let z = projected[b * ROW + c];
    let dt_bias = head[3u * h];
    let a_log = head[3u * h + 1u];
    let d = head[3u * h + 2u];
    var s: array<f32, CELLS>;
    var sum = 0.0;
    var dt = 0.0;
    var decay = 0.0;
    var x = 0.0;
    for (var n0 = 0u; n0 < N; n0 += SPAN) {
        // Loads are never skipped: those beyond the row repeat its last.
        for (var i = 0u; i < CELLS; i++) { // unroll
            s[i] = state[cells + min(n0 + i * LANES + lane % LANES, N - 1u)];
        }
        let j = n0 + lane % SPAN;
        let shared_c = own + min(j, N - 1u) + lane / SPAN * STATES;
        let shared_channel = channel_of(b, shared_c);
        if n0 == 0u {
            dt = clamp(softplus(raw + dt_bias), params.low, params.high);
            decay = decay_of(-dt * exp(a_log));
            x = convolved(channel);
        }
        let v = convolved(shared_channel);
        if lane < SPAN { b_tile[lane] = v; } else { c_tile[lane - SPAN] = v; }
        if keeps && j < N { keep(b, shared_c, shared_channel); }
        workgroupBarrier();
        for (var i = 0u; i < CELLS; i++) { // unroll
            let at = i * LANES + lane % LANES;
            if live && n0 + at < N {
                let next = fma(dt * x, b_tile[at], decay * s[i]);
                state_next[cells + n0 + at] = next;
                sum = fma(next, c_tile[at], sum);
            }
        }
        if N > SPAN { workgroupBarrier(); }
    }
    partial[lane] = sum;
    workgroupBarrier();
    if !live || lane % LANES != 0u { return; }
    keep(b, c, channel);
    var four = vec4f();
    for (var i = 0u; i < LANES; i += 4u) { // unroll
        four += vec4f(partial[lane + i], partial[lane + i + 1u], partial[lane + i + 2u], partial[lane + i + 3u]);
    }
    y[b * D_INNER + c] = fma(d, x, four.x + four.y + four.z + four.w) * silu(z);
}
