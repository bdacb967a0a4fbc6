// uses: lib/reduce.wgsl
// A walk back over a block of ROWS rows of at most 4 · WG quads: `quad_at(row, quad)` loads what was normalised, its norm's
// gradient and what else comes on top; `put(row, quad, those, weight, rstd, mean)` stores the sum. A lane adds up dweight of
// its own columns, in the rows' order.
struct Quad { x: vec4f, d: vec4f, on: vec4f }

fn weight_at(q: u32) -> vec4f { return weight[min(q, params.quads - 1u)]; }

fn put_sum(block: u32, q: u32, v: vec4f) {
    if q < params.quads { dweight[(params.first_block + block) * params.quads + q] = v; }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let block = row_of(group);
    let first = block * ROWS;
    if first >= params.rows { return; }
    let w0 = weight_at(lane);
    let w1 = weight_at(lane + WG);
    let w2 = weight_at(lane + 2u * WG);
    let w3 = weight_at(lane + 3u * WG);
    var s0 = vec4f();
    var s1 = vec4f();
    var s2 = vec4f();
    var s3 = vec4f();
    for (var row = first; row < min(first + ROWS, params.rows); row++) {
        let k0 = quad_at(row, lane);
        let k1 = quad_at(row, lane + WG);
        let k2 = quad_at(row, lane + 2u * WG);
        let k3 = quad_at(row, lane + 3u * WG);
        let r = rstd[row];
        let part = dot(k0.d * w0, k0.x) + dot(k1.d * w1, k1.x) + dot(k2.d * w2, k2.x) + dot(k3.d * w3, k3.x);
        let mean = workgroup_sum(part, lane) * r * r / f32(4u * params.quads);
        put(row, lane, k0, w0, r, mean);
        put(row, lane + WG, k1, w1, r, mean);
        put(row, lane + 2u * WG, k2, w2, r, mean);
        put(row, lane + 3u * WG, k3, w3, r, mean);
        s0 += k0.d * k0.x * r;
        s1 += k1.d * k1.x * r;
        s2 += k2.d * k2.x * r;
        s3 += k3.d * k3.x * r;
    }
    put_sum(block, lane, s0);
    put_sum(block, lane + WG, s1);
    put_sum(block, lane + 2u * WG, s2);
    put_sum(block, lane + 3u * WG, s3);
}
