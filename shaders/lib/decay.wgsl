// exp(x) for x ≤ 0 to f32's rounding: what compounds over tokens may not lean one way, as a device's own exp may by
// several units in the last place. x = k · ln 2 + r, |r| ≤ ln 2 / 2, and the series of exp(r); below −87 it is 0.
fn decay_of(x: f32) -> f32 {
    let k = round(max(x, -88.0) * 1.44269504);
    let r = fma(k, -1.42860677e-6, fma(k, -0.693145752, max(x, -88.0)));
    let tail = r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0))));
    let p = fma(r, 1.0 + r * (0.5 + r * (1.0 / 6.0 + tail)), 1.0);
    return select(p * bitcast<f32>(u32(i32(k) + 127) << 23u), 0.0, x < -87.0);
}
