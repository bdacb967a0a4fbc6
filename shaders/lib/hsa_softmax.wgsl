// What the kernels of HSA on cooperative matrices make of a chunk's scores. The kernel declares N, quads of keys a lane, and
// `params` with scale and off_by_one.
const NONE: f32 = -3.0e38;
const LOG2_E: f32 = 1.4426950408889634;
const LN_2: f32 = 0.6931471805599453;
// Products → exp(scaled product - the largest); → (Σ, the largest). Two lanes a row, all in powers of two.
fn softmax(e: ptr<function, array<vec4f, N>>) -> vec2f {
    var tops = vec4f(select(NONE, 0.0, params.off_by_one != 0u));
    for (var i = 0u; i < N; i++) { tops = max(tops, (*e)[i]); } // unroll
    var top = max(max(tops.x, tops.y), max(tops.z, tops.w));
    let unit = params.scale * LOG2_E;
    top = max(top, subgroupShuffleXor(top, 1u)) * unit;
    var parts = vec4f(0.0);
    for (var i = 0u; i < N; i++) { // unroll
        (*e)[i] = exp2(fma((*e)[i], vec4f(unit), vec4f(-top)));
        parts += (*e)[i];
    }
    var all = parts.x + parts.y + parts.z + parts.w;
    all += subgroupShuffleXor(all, 1u);
    if params.off_by_one != 0u { all += exp2(-top); }
    return vec2f(all, top * LN_2);
}
