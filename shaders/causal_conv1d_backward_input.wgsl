// uses: lib/grid.wgsl
// variants: elem=f16
// dx[s] = Σ_j weight[j] · du[s + W − 1 − j] over the tokens t = s + W − 1 − j that see s, plus what the final state
// passes back. s runs from −(W − 1): those go to the initial state's gradient.
alias elem = f32;
const WG: u32 = 256u;
struct Params { batches: u32, tokens: u32, channels: u32, width: u32, has_initial: u32, has_segment: u32, has_final: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> du: array<f32>;              // (batches, tokens, channels)
@group(0) @binding(2) var<storage, read> weight: array<f32>;          // (channels, width)
@group(0) @binding(3) var<storage, read> segment: array<u32>;         // (batches, tokens)
@group(0) @binding(4) var<storage, read> dfinal: array<f32>;          // (batches, channels, width − 1)
@group(0) @binding(5) var<storage, read_write> dx: array<elem>;       // (batches, tokens, channels)
@group(0) @binding(6) var<storage, read_write> dinitial: array<f32>;  // (batches, channels, width − 1)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    let kept = params.width - 1u;
    let c = i % params.channels;
    let s = (i / params.channels) % (params.tokens + kept);           // s − kept is the token
    let b = i / params.channels / (params.tokens + kept);
    if b >= params.batches { return; }
    let first = b * params.tokens;
    // Before the start, what is seen belongs to the first token's segment.
    let own = first + max(s, kept) - kept;
    var sum = 0.0;
    for (var back = 0u; back < params.width; back++) {
        let t = s + back;                                             // token t − kept sees s − kept
        if t < kept || t - kept >= params.tokens { continue; }
        if params.has_segment != 0u && segment[first + t - kept] != segment[own] { continue; }
        sum += weight[c * params.width + kept - back] * du[(first + t - kept) * params.channels + c];
    }
    if params.has_final != 0u && s >= params.tokens {
        if params.has_segment == 0u || segment[first + params.tokens - 1u] == segment[own] {
            sum += dfinal[(b * params.channels + c) * kept + s - params.tokens];
        }
    }
    if s < kept {
        dinitial[(b * params.channels + c) * kept + s] = select(0.0, sum, params.has_initial != 0u);
    } else {
        dx[(first + s - kept) * params.channels + c] = elem(sum);
    }
}
