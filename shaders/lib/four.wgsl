// Four 16-bit floats of two words. Kernels read 16 bytes at a time as words: loads of 16-bit vectors come in pieces.
fn four(v: vec2u) -> vec4<f16> { return vec4<f16>(vec4f(unpack2x16float(v.x), unpack2x16float(v.y))); }
