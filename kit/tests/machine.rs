//! The abstract machine computes what devices do.

use rambutan_kit::{Check, Kernel, Machine, Values, Verdict};

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
@compute @workgroup_size(8) fn main(@builtin(local_invocation_index) i: u32) { y[i] = u32(i64(i)); }";
    let kernel = Kernel::new("wide", source).output("y", |_| 8);
    match kernel.verdict(rambutan_kit::Check::Races) {
        Verdict::Skipped(why) => assert!(why.contains("wider than 32 bits"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// Subgroups on the machine are as wide as the device's smallest.
#[test]
fn subgroups() {
    let gpu = rambutan_engine::testing::gpu();
    if !gpu.device().features().contains(rambutan_kit::wgpu::Features::SUBGROUP) {
        println!("no subgroups on {}", gpu.capabilities().name);
        return;
    }
    let source = "
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(2) var<storage, read_write> z: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(subgroup_id) own: u32, @builtin(subgroup_size) size: u32, @builtin(num_subgroups) all: u32) {
    let i = id.x;
    let v = x[i];
    var sum = subgroupAdd(v) + 3u * subgroupExclusiveAdd(v) + 5u * subgroupInclusiveAdd(v) + 7u * subgroupMax(v);
    sum ^= subgroupMin(v) ^ subgroupAnd(v) ^ (subgroupOr(v) << 3u) ^ (subgroupXor(v) << 5u);
    sum += subgroupBroadcast(v, 2u) + 3u * subgroupBroadcastFirst(v) + 5u * subgroupShuffle(v, lane ^ 3u);
    sum += 7u * subgroupShuffleXor(v, 1u) + 11u * quadSwapX(v) + 13u * quadSwapY(v) + 17u * quadSwapDiagonal(v);
    sum += 19u * quadBroadcast(v, 1u) + subgroupBallot(v > 4u).x;
    // some
    if subgroupAny(v > 7u) { sum += 29u; }
    if subgroupAll(v > 1u) { sum += 31u; }
    y[i] = sum + 1000u * (lane + 100u * own + 1000u * size + 10000u * all);
    z[i] = subgroupMax(f32(v) - 3.5) + subgroupMul(1.0 + f32(v) / 64.0);
}";
    let kernel = |name: &'static str, source: &str| {
        Kernel::new(name, source)
            .dim("groups", 1, 3)
            .input("x", Values::integers(0..12), |s| 64 * s["groups"])
            .output("y", |s| 64 * s["groups"])
            .output("z", |s| 64 * s["groups"])
            .workgroups(|s| [s["groups"], 1, 1])
            .tolerance(|_| 64.0)
            .trials(16)
    };
    kernel("subgroups", source).check();
    let some = source.replace("// some", "if lane > 0u { sum += 23u * subgroupAdd(1u); }");
    kernel("subgroups.some", &some)
        .waive(Check::Compilers, "Tint wants all lanes of a subgroup to take part; naga and devices do not")
        .check();
}

/// A lane that takes no part gives nothing.
#[test]
fn a_value_from_nobody_is_found() {
    let machine = Machine::new(
        "@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@compute @workgroup_size(8)
fn main(@builtin(local_invocation_index) lane: u32) {
    if lane < 4u { x[lane] = subgroupShuffle(x[lane], lane + 2u); }
}",
    )
    .expect("it compiles");
    let launch = machine.launch([1, 1, 1]).bind(0, 0, &[1; 32]);
    assert!(launch.clone().run().is_err_and(|e| e.contains("subgroups")));
    let trace = launch.subgroups(8).run().expect("the machine knows it");
    let [(check, text)] = &trace.findings[..] else { panic!("{:?}", trace.findings) };
    assert!(*check == Check::Uninitialised && text.contains("line 4"), "{text}");
    assert!(text.contains("invocation 2 of workgroup 0 takes from lane 4"), "{text}");
}

/// A subgroup's barrier orders what its invocations do, and nobody else.
#[test]
fn a_barrier_of_subgroups_orders_their_own() {
    let source = "var<workgroup> tile: array<u32, 16>;
@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    tile[lane] = lane;
    subgroupBarrier();
    let seen = tile[lane ^ 1u];
    subgroupBarrier();
    tile[lane ^ 2u] = seen;
    if lane >= 8u { subgroupBarrier(); }
    x[lane] = tile[lane ^ 2u];
}";
    let findings = |source: &str, subgroup: u32| -> Vec<(Check, String)> {
        let machine = Machine::new(source).expect("it compiles");
        let launch = machine.launch([1, 1, 1]).bind(0, 0, &[1; 64]).subgroups(subgroup);
        launch.run().expect("the machine knows it").findings
    };
    assert_eq!(findings(source, 8), []);
    for (right, wrong, lines) in [
        // Without either, and with a place of the other subgroup.
        ("    subgroupBarrier();\n    let", "    let", ["line 6: ", "in line 5"]),
        ("    subgroupBarrier();\n    tile", "    tile", ["line 8: ", "in line 7"]),
        ("tile[lane ^ 1u]", "tile[lane ^ 8u]", ["line 7: ", "in line 5"]),
        ("= tile[lane ^ 2u]", "= tile[lane ^ 10u]", ["line 11: ", "in line 9"]),
    ] {
        let found = findings(&source.replacen(right, wrong, 1), 8);
        let races: Vec<_> = found.iter().filter(|(check, _)| *check == Check::Races).collect();
        assert!(races.iter().any(|(_, text)| lines.iter().all(|l| text.contains(l))), "{wrong}: {found:?}");
    }
    // Of a larger subgroup half reach the last one.
    let [(check, text)] = &findings(source, 16)[..] else { panic!("one barrier that some miss") };
    assert!(*check == Check::Races && text.contains("8 of 16 invocations of a subgroup"), "{text}");
}

/// What an engine binds need not be written in whole.
#[test]
fn holes_are_followed() {
    let machine = Machine::new(
        "@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(4)
fn main(@builtin(local_invocation_index) lane: u32) { if lane != 2u { y[lane] = x[lane]; } }",
    )
    .expect("it compiles");
    let launch = |hole| {
        let launch = machine.launch([1, 1, 1]).bind(0, 0, &[1; 16]).bind(0, 1, &[0; 16]);
        launch.holes(0, 0, &[hole]).holes(0, 1, &[0..16])
    };
    let trace = launch(8..12).run().expect("it runs");
    assert!(trace.findings.is_empty(), "the hole is not read: {:?}", trace.findings);
    assert_eq!(trace.holes(0, 1).expect("it is bound"), [8..12]);
    assert_eq!(
        machine.decode(0, 1, trace.bytes(0, 1).expect("it is bound")).expect("it is bound")[3],
        16843009.0
    );
    let trace = launch(12..16).run().expect("it runs");
    assert!(
        trace.findings[0].1.contains("reads `x[3]` before anything is written there"),
        "{:?}",
        trace.findings
    );
    let missing = machine.launch([1, 1, 1]).bind(0, 0, &[1; 16]).run();
    assert!(missing.is_err_and(|e| e.contains("`y`, binding 1 of group 0, is not given")));
}
