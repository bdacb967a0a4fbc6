// Four signed bytes of a word as floats.
fn bytes_of(word: u32) -> vec4f {
    let w = bitcast<i32>(word);
    // Each to the top and down again with its sign.
    return vec4f(vec4i(w << 24u, w << 16u, w << 8u, w) >> vec4u(24u));
}
