// s + l · r: rows of l times rows of r (k), in ascending order of k, each product one fused multiply-add. Written out:
// compilers keep arrays that loops index in memory.
fn add_product(s: mat4x4f, l: mat4x4f, r: mat4x4f) -> mat4x4f {
    return mat4x4f(add_row(s[0], l[0], r), add_row(s[1], l[1], r), add_row(s[2], l[2], r), add_row(s[3], l[3], r));
}

fn add_row(s: vec4f, l: vec4f, r: mat4x4f) -> vec4f {
    return fma(vec4f(l.w), r[3], fma(vec4f(l.z), r[2], fma(vec4f(l.y), r[1], fma(vec4f(l.x), r[0], s))));
}
