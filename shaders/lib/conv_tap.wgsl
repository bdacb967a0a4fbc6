// uses: lib/grid.wgsl
// What causal_conv1d and its backward pass share: taps, and the value before the activation. `place_of` is the kernel's.

fn sigmoid(v: f32) -> f32 {
    let e = exp(-abs(v));
    return select(e, 1.0, v >= 0.0) / (1.0 + e);
}

// x[t − back] of channel c as token t sees it.
fn tap(b: u32, t: u32, back: u32, c: u32) -> f32 {
    let first = b * params.tokens;
    if back > t {
        // The initial state precedes the first token and belongs to its segment.
        if params.has_initial == 0u { return 0.0; }
        if params.has_segment != 0u && segment[first + t] != segment[first] { return 0.0; }
        let kept = params.width - 1u;
        return initial[(b * params.channels + c) * kept + kept + t - back];
    }
    if params.has_segment != 0u && segment[first + t] != segment[first + t - back] { return 0.0; }
    return f32(x[place_of(first + t - back, c)]);
}

fn convolved(b: u32, t: u32, c: u32) -> f32 {
    var u = 0.0;
    if params.has_bias != 0u { u = bias[c]; }
    for (var j = 0u; j < params.width; j++) {
        u += weight[c * params.width + j] * tap(b, t, params.width - 1u - j, c);
    }
    return u;
}
