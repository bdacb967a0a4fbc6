//! The abstract machine computes what devices do.

use rambutan_kit::{Kernel, Values, Verdict};

/// A kernel that writes `y` from `x` and `k`, without reference: the device is held against the machine.
fn agrees(name: &str, head: &str, body: &str, roundings: f64) {
    let source = format!(
        "{head}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<i32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<storage, read_write> z: array<u32>;
@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_index) lane: u32, @builtin(num_workgroups) groups: vec3u) {{
    let i = id.x;
    let a = x[i];
    let b = x[(i + 7u) % (32u * groups.x)];
    let n = k[i];
    var f = 0.0;
    var u = 0u;
    {body}
    y[i] = f;
    z[i] = u;
}}"
    );
    Kernel::new(name, &source)
        .dim("groups", 1, 3)
        .input("x", Values::uniform(-3.0, 3.0), |s| 32 * s["groups"])
        .input("k", Values::integers(-(1 << 31)..1 << 31), |s| 32 * s["groups"])
        .output("y", |s| 32 * s["groups"])
        .output("z", |s| 32 * s["groups"])
        .workgroups(|s| [s["groups"], 1, 1])
        .tolerance(move |_| roundings)
        .trials(16)
        .check();
}

#[test]
fn integers() {
    agrees(
        "integers",
        "",
        "let v = bitcast<u32>(n);
    u = (v * 2654435761u) ^ (v >> 13u) ^ u32(n / 7) ^ u32(n % 7) ^ u32(n >> 3u) ^ (v / 3u) ^ (v % 11u) ^ (v << 5u);
    u ^= countOneBits(v) + 3u * countLeadingZeros(v) + 5u * countTrailingZeros(v) + reverseBits(v);
    u ^= extractBits(v, 3u, 9u) ^ u32(extractBits(n, 5u, 7u)) ^ insertBits(v, 77u, 4u, 6u);
    u ^= firstLeadingBit(v) ^ u32(firstLeadingBit(n)) ^ firstTrailingBit(v);
    u ^= u32(abs(n)) ^ u32(min(n, 9)) ^ max(v, 99u) ^ u32(clamp(n, -5, 5)) ^ u32(sign(n)) ^ ~v ^ u32(-n);
    f = f32(n % 1000) + f32(v % 1000u);",
        4.0,
    );
}

#[test]
fn floats() {
    agrees(
        "floats",
        "",
        "f = sin(a) + cos(b) * exp(a) - log(abs(a) + 1.0) + sqrt(abs(b)) + inverseSqrt(abs(a) + 0.5) + tanh(b);
    f += floor(a) + ceil(b) + fract(a) + trunc(b) + round(a + 0.25) + abs(a) + sign(b) + min(a, b) + max(a, 1.0);
    f += clamp(a, -1.0, 1.0) + saturate(b) + mix(a, b, 0.25) + step(a, b) + smoothstep(-3.0, 3.0, a) + fma(a, b, 1.0);
    f += pow(abs(a) + 0.5, 1.5) + exp2(b) + log2(abs(a) + 1.0) + atan2(a, abs(b) + 0.1) + select(a, b, a < b) + a % 0.7;
    u = u32(max(a, 0.0)) + pack2x16float(vec2f(a, b)) % 2u + u32(i32(a) + 9);",
        // Devices may be wrong by 2⁻¹¹ in sines.
        64.0,
    );
}

#[test]
fn vectors_and_matrices() {
    agrees(
        "vectors",
        "struct Pair { at: vec2f, turn: mat2x2f, scale: f32 }
fn turned(p: Pair) -> vec2f { return p.turn * p.at * p.scale; }",
        "let v = vec3f(a, b, 1.0);
    let w = vec3f(b, 2.0, a).zxy;
    let m = mat3x2f(a, b, 1.0, 2.0, b, a);
    let t = transpose(m);
    let p = Pair(vec2f(a, b), mat2x2f(a, -b, b, a), 0.5);
    var many = array<vec4f, 3>(vec4f(a), vec4f(b), vec4f(0.0));
    many[i % 3u].z += 5.0;
    many[2][i % 4u] = 7.0;
    f = dot(v, w) + length(v) + distance(v, w) + cross(v, w).y + normalize(v + 4.0).x + dot(m * v, vec2f(1.0, 2.0));
    f += dot(v * t, vec2f(1.0)) + turned(p).x + (m * t)[1].x + many[i % 3u].z + many[2][(i + 1u) % 4u] + t[1][2];
    let c = v < w;
    u = u32(any(c)) + 2u * u32(all(c)) + select(vec3u(1u), vec3u(2u), c).y;",
        32.0,
    );
}

#[test]
fn control_flow() {
    agrees(
        "control",
        "fn bump(p: ptr<function, u32>, by: u32) { *p += by; }
fn early(n: i32) -> u32 {
    for (var i = 0; i < 20; i++) {
        if i == n % 13 { return u32(i); }
        if i % 3 == 0 { continue; }
        if i > 17 { break; }
    }
    return 99u;
}
var<private> mine: array<u32, 4> = array(1u, 2u, 3u, 4u);",
        "u = early(n);
    bump(&u, lane);
    switch n % 4 {
        case 0: { u += 100u; }
        case 1, -1: { u += 200u; if lane > 5u { break; } u += 50u; }
        default: { u += 300u; }
    }
    mine[lane % 4u] += u;
    var j = 0u;
    loop {
        if j >= lane { break; }
        continuing { j += 2u; break if j > 40u; }
    }
    u += j + mine[(lane + 1u) % 4u];
    while j > 3u && mine[0] < 1000u { j -= 3u; mine[0] += 50u; }
    u += mine[0] + j;
    f = f32(u % 64u);",
        4.0,
    );
}

#[test]
fn shared_memory() {
    agrees(
        "shared",
        "struct Cell { count: atomic<u32>, value: array<f32, 3> }
var<workgroup> cells: array<Cell, 32>;
var<workgroup> chosen: u32;",
        "atomicStore(&cells[lane].count, lane);
    cells[lane].value[lane % 3u] = a;
    cells[lane].value[(lane + 1u) % 3u] = b;
    cells[lane].value[(lane + 2u) % 3u] = 1.0;
    if lane == 9u { chosen = 17u; }
    workgroupBarrier();
    atomicAdd(&cells[lane / 2u].count, 5u);
    atomicMax(&cells[lane / 4u].count, 7u);
    let other = workgroupUniformLoad(&chosen);
    u = atomicLoad(&cells[lane].count) + other;
    f = cells[lane ^ 3u].value[lane % 3u];",
        0.0,
    );
}

#[test]
fn what_it_does_not_know_is_said() {
    let source = "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(8) fn main(@builtin(local_invocation_index) i: u32) { y[i] = subgroupAdd(1u); }";
    let kernel = Kernel::new("subgroups", source).output("y", |_| 8);
    match kernel.verdict(rambutan_kit::Check::Races) {
        Verdict::Skipped(why) => assert!(why.contains("Subgroup"), "{why}"),
        other => panic!("{other:?}"),
    }
}
