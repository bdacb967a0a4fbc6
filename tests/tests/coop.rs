//! Kernels on cooperative matrices where there are none: each invocation holds whole matrices of its own in their place,
//! so that indices, masks, barriers and sums are those of the kernel. Time and the matrices' own roundings are not.

use rambutan_engine::{
    Gpu, GpuOptions, ops,
    testing::{self, Case},
};
use rambutan_shaders::{kernel, whole};
use rambutan_tests::machine::{TURN, Watch};

/// The kernel with matrices, and what subgroups of 32 do, spelled out: two lanes hold a row, both all of it in a left
/// operand, each half of it in a sum; a right operand is where it lies.
fn spelled_out(stem: &str) -> String {
    // Products and tiles may be a library's.
    let text = kernel(stem).and_then(whole).unwrap_or_else(|e| panic!("{e}"));
    spell(&text.replace("array<four,", "array<vec4<f16>,"))
}

/// [`spelled_out`] of a kernel's text.
fn spell(text: &str) -> String {
    let role = |text: &str| {
        let matrix = text.split_once("coop_mat16x16<").expect("a matrix").1;
        ["Left", "Right", "Sum"][["f16, A>", "f16, B>", "f32, C>"]
            .map(|r| matrix.starts_with(r))
            .iter()
            .position(|is| *is)
            .expect("a role")]
    };
    let (mut out, mut rest, mut arrays) = (String::new(), text, Vec::new());
    while let Some(at) = rest.find("coop") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with("coop_mat") {
            out.push_str(role(rest));
            rest = rest.split_once('>').expect("a type ends").1;
        } else if let Some(tail) = rest.strip_prefix("coopMultiplyAdd") {
            out.push_str("multiply_add");
            rest = tail;
        } else if rest.starts_with("coopLoad") || rest.starts_with("coopStoreT") {
            let (call, tail) = rest.split_once('&').expect("a place in memory");
            let (array, tail) = tail.split_once('[').expect("an element");
            let (index, tail) = tail.split_once("], ").expect("a stride");
            let (stride, tail) = tail.split_once(')').expect("a call ends");
            if !arrays.contains(&array) {
                arrays.push(array);
            }
            out.push_str(&match call.strip_prefix("coopStoreT(") {
                Some(sum) => format!("store_{array}({sum}Where(0u, {index}, {stride}, true), lane % 32u)"),
                None => {
                    let id = arrays.iter().position(|a| *a == array).expect("it is listed");
                    let place = format!("Where({id}u, {index}, {stride}, {})", call.starts_with("coopLoadT"));
                    format!("{}_at({place}, lane % 32u)", role(call))
                }
            });
            rest = tail;
        } else {
            // In a comment.
            out.push_str("coop");
            rest = &rest["coop".len()..];
        }
    }
    out.push_str(rest);
    for (theirs, ours) in [
        ("subgroupBarrier()", TURN),
        // Written out, compilers would take minutes for what stands in for matrices.
        (" // unroll", ""),
        (",\n        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32", ""),
        ("index: u32) {\n", "index: u32) {\n    let subgroup = index / 32u;\n    lane = index % 32u;\n"),
        (
            "group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {\n",
            "group: vec3u, @builtin(local_invocation_index) index: u32) {\n    lane = index;\n",
        ),
        (
            "@builtin(subgroup_id) subgroup: u32,\n        @builtin(subgroup_invocation_id) subgroup_lane: u32) {\n",
            "@builtin(local_invocation_index) index: u32) {\n    let subgroup = index / 32u;\n    let subgroup_lane = index % 32u;\n",
        ),
        ("factor * (*sums)[j];", "scaled((*sums)[j], factor);"),
        ("subgroupAny(grows)", "any_of_32(grows, index)"),
        ("subgroupAny(differ)", "any_of_32(differ, index)"),
        ("subgroupShuffleXor(part, 1u)", "beside(part, index)"),
        ("subgroupShuffleXor(scan.all,", "across(lane, scan.all,"),
    ] {
        out = out.replace(theirs, ours);
    }
    out.push_str(
        "var<private> lane: u32;
        struct Where { id: u32, at: u32, stride: u32, by_row: bool }
        struct Left { x: array<f32, 16> }
        struct Right { place: Where }
        struct Sum { x: array<f32, 8> }
        fn scaled(c: Sum, factor: f32) -> Sum {
            var sum = c;
            for (var i = 0u; i < 8u; i++) { sum.x[i] *= factor; }
            return sum;
        }
        fn element(m: Where, row: u32, column: u32) -> f32 {
            let line = select(column, row, m.by_row);
            let i = select(row, column, m.by_row);
            return element_of(m.id, m.at + line * m.stride, i);
        }
        fn Left_at(m: Where, lane: u32) -> Left {
            var a: Left;
            for (var i = 0u; i < 16u; i++) { a.x[i] = element(m, lane / 2u, i); }
            return a;
        }
        fn Right_at(m: Where, lane: u32) -> Right { return Right(m); }
        fn Sum_at(m: Where, lane: u32) -> Sum {
            var c: Sum;
            for (var i = 0u; i < 8u; i++) { c.x[i] = element(m, lane / 2u, lane % 2u * 8u + i); }
            return c;
        }
        fn multiply_add(a: Left, b: Right, c: Sum, lane: u32) -> Sum {
            var left = a;
            var sum = c;
            for (var k = 0u; k < 16u; k++) {
                for (var i = 0u; i < 8u; i++) {
                    sum.x[i] = fma(left.x[k], element(b.place, k, lane % 2u * 8u + i), sum.x[i]);
                }
            }
            return sum;
        }
        var<workgroup> exchanged: array<f32, 256>;
        fn beside(value: f32, index: u32) -> f32 {
            workgroupBarrier();
            exchanged[index] = value;
            workgroupBarrier();
            return exchanged[index ^ 1u];
        }
        var<workgroup> fours: array<vec4f, 512>;
        fn across(index: u32, value: vec4f, apart: u32) -> vec4f {
            workgroupBarrier();
            fours[index] = value;
            workgroupBarrier();
            return fours[index ^ apart];
        }
        fn any_of_32(value: bool, index: u32) -> bool {
            workgroupBarrier();
            exchanged[index] = select(0.0, 1.0, value);
            workgroupBarrier();
            var sum = 0.0;
            for (var i = 0u; i < 32u; i++) { sum += exchanged[index / 32u * 32u + i]; }
            return sum > 0.0;
        }
        fn element_of(id: u32, at: u32, i: u32) -> f32 {
            switch id {\n",
    );
    let mut stores = String::new();
    for (id, array) in arrays.iter().enumerate() {
        let fours = |element: &str| text.contains(&format!(" {array}: array<vec4{element}"));
        let element = match fours("<f16>") || fours("f") {
            true => format!("{array}[at + i / 4u][i % 4u]"),
            false => format!("{array}[at + i]"),
        };
        out.push_str(&format!("case {id}u: {{ return f32({element}); }}\n"));
        if fours("f") {
            stores.push_str(&format!(
                "fn store_{array}(c: Sum, m: Where, lane: u32) {{
                    var sum = c;
                    for (var i = 0u; i < 2u; i++) {{
                        let at = m.at + lane / 2u * m.stride + lane % 2u * 2u + i;
                        {array}[at] = vec4f(sum.x[4u * i], sum.x[4u * i + 1u], sum.x[4u * i + 2u], sum.x[4u * i + 3u]);
                    }}
                }}\n"
            ));
        }
        if text.contains(&format!(" {array}: array<f32")) {
            stores.push_str(&format!(
                "fn store_{array}(c: Sum, m: Where, lane: u32) {{
                    var sum = c;
                    for (var i = 0u; i < 8u; i++) {{ {array}[m.at + lane / 2u * m.stride + lane % 2u * 8u + i] = sum.x[i]; }}
                }}\n"
            ));
        }
    }
    out.push_str("default: { return 0.0; }\n}\n}\n");
    out.push_str(&stores);
    // The product's own call says which lane asks: its operands are names and elements alone.
    let mut parts = out.split("= multiply_add(");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (operands, tail) = part.split_once(");").expect("a statement ends");
        whole.push_str(&format!("= multiply_add({operands}, lane % 32u);{tail}"));
    }
    whole
}

/// A device that runs the kernels spelled out; none where it cannot.
fn device() -> Option<Gpu> {
    let gpu =
        Gpu::new(GpuOptions { checked: true, ..GpuOptions::from_env() }).unwrap_or_else(|e| panic!("{e}"));
    let c = gpu.capabilities();
    // Rows exchange within eight lanes. A CPU's workgroup memory is plain memory, whatever it promises.
    let rows = c.subgroups.is_some_and(|(least, _)| least >= 8);
    let able = c.f16 && rows && c.invocations >= 512 && (c.cpu || c.workgroup_memory >= 48 << 10);
    if !able {
        println!("not for {}: no 16-bit floats, no subgroups of 8, or workgroups too small", c.name);
    }
    able.then_some(gpu)
}

/// A mistake in a kernel that a test must see: (kernel, right, wrong, sizes).
type Mistake<const N: usize> = (&'static str, &'static str, &'static str, [usize; N]);

/// Holds `check` to what the kernels say, spelled out, at all `sizes`, and to each mistake where it shows.
fn hold<const N: usize>(
    gpu: &Gpu,
    stems: &[&str],
    sizes: &[[usize; N]],
    mistakes: &[Mistake<N>],
    check: impl Fn(&[usize]) -> Result<(), String>,
) {
    let replace = |stem: &str, text: &str| gpu.replace_kernel(stem, Some(text)).expect("the kernel exists");
    for stem in stems {
        replace(stem, &spelled_out(stem));
    }
    for sizes in sizes {
        check(sizes).unwrap_or_else(|e| panic!("{e}"));
    }
    for (stem, right, wrong, sizes) in mistakes {
        let text = spelled_out(stem);
        assert_eq!(text.matches(right).count(), 1, "{stem}: `{right}`");
        replace(stem, &text.replace(right, wrong));
        let seen = check(sizes).expect_err(right);
        assert!(!seen.contains("kernel `"), "{seen}");
        replace(stem, &text);
    }
}

/// The case of that name.
fn case(stem: &str) -> Case {
    ops::cases().into_iter().find(|c| c.stem == stem).expect("the case is listed")
}

/// Values and gradients.
fn check(gpu: &Gpu, case: &Case, sizes: &[usize]) -> Result<(), String> {
    values(gpu, case, sizes)?;
    testing::check_gradients(gpu, case, &case.exactly(sizes.to_vec()), 5).map(drop).map_err(|e| e.to_string())
}

fn values(gpu: &Gpu, case: &Case, sizes: &[usize]) -> Result<(), String> {
    gpu.trim();
    testing::check(gpu, case, &case.exactly(sizes.to_vec()), 5).map(drop).map_err(|e| e.to_string())
}

/// The same on the kit's abstract machine: barriers between those who share a tile, indices, tiles that nobody filled. What
/// a subgroup does in step, or a matrix takes from where it lies, is as it is spelled out here.
fn follow(gpu: &Gpu, case: &Case, sizes: &[usize], kernels: &[&str]) {
    // What stands in for matrices takes many steps.
    let mut watch = Watch::default();
    watch.budget = 200_000_000;
    watch.case(gpu, case, &case.exactly(sizes.to_vec()), 5);
    for kernel in kernels {
        let seen = watch.seen.get(kernel).copied().unwrap_or_default();
        println!("{kernel}: {} launches followed, {} too long", seen.launches, seen.long);
    }
    assert!(watch.findings.is_empty(), "{} findings:\n{}", watch.findings.len(), watch.findings.join("\n"));
    let left = kernels.iter().find(|k| watch.seen.get(**k).is_none_or(|s| s.launches == 0));
    assert!(left.is_none(), "no launch of {left:?} was followed");
}

const FORWARD: &str = "window_attention_coop";
const QUERY: &str = "window_attention_coop_backward_query";
const KEY: &str = "window_attention_coop_backward_key";

/// (batches, tokens, window, share, heads, d): several tiles, borders of windows in and between them, tails, pieces.
const SIZES: [[usize; 6]; 5] = [
    [1, 150, 1000, 1, 1, 16],
    [2, 61, 33, 5, 1, 16],
    [1, 129, 1, 1, 2, 16],
    [1, 300, 100, 2, 1, 16],
    [1, 97, 40, 1, 1, 48],
];

const CHUNK: [&str; 3] = ["attention_coop", "attention_coop_backward_query", "attention_coop_backward_key"];

/// (chunks, tokens, heads of keys, heads that share them, d): a matrix, tails, several matrices of tokens and of dims.
const ENCODED: [[usize; 5]; 5] =
    [[2, 16, 1, 1, 16], [1, 1, 1, 2, 16], [1, 65, 2, 1, 32], [2, 17, 1, 2, 32], [1, 33, 1, 1, 64]];

const MISREADINGS: [Mistake<5>; 6] = [
    (CHUNK[0], "j + 4u < vec4u(params.tokens)", "j < vec4u(params.tokens)", ENCODED[4]),
    (CHUNK[0], "let top = max(part, beside(part, index));", "let top = part;", ENCODED[2]),
    (CHUNK[0], "head / (params.heads / params.kv_heads)", "0u", ENCODED[2]),
    (CHUNK[1], "(high_slope[n] - dots)", "high_slope[n]", ENCODED[0]),
    (CHUNK[2], "kv * share; head < (kv + 1u) * share", "kv; head < kv + 1u", ENCODED[3]),
    (CHUNK[2], "select(vec4f(MOST), l, t < vec4u(params.tokens))", "l", ENCODED[3]),
];

#[test]
fn attention_within_chunks_on_matrices_spelled_out() {
    let Some(gpu) = device() else { return };
    let case = case("attention.coop");
    hold(&gpu, &CHUNK, &ENCODED, &MISREADINGS, |sizes| check(&gpu, &case, sizes));
    follow(&gpu, &case, &ENCODED[0], &CHUNK);
}

const SELECT: &str = "select_coop";

/// (sequences, tokens, chunks, heads, r, k, chunk, first, window, group, margin): tiles both ways, parts, groups, steps.
const SELECTIONS: [[usize; 11]; 8] = [
    [1, 129, 200, 1, 16, 8, 2, 300, 0, 1, 0],
    [1, 63, 65, 2, 48, 1, 2, 37, 0, 2, 3],
    [1, 1, 1, 1, 16, 8, 2, 37, 0, 1, 0],
    [1, 129, 65, 1, 48, 20, 16, 1300, 40, 2, 3],
    [1, 1, 600, 2, 80, 8, 2, 1300, 0, 1, 0],
    [1, 300, 260, 1, 16, 20, 2, 300, 0, 1, 0],
    [2, 129, 300, 2, 16, 8, 2, 300, 40, 2, 3],
    [4, 30, 300, 2, 80, 8, 2, 300, 40, 2, 3],
];

const DEFECTS: [Mistake<6>; 6] = [
    (FORWARD, "scores[row * ROW + i] *= factor", "scores[row * ROW + i] *= 1.0", SIZES[0]),
    (FORWARD, "vec4u(t) < j + params.window", "vec4u(t) <= j + params.window", SIZES[3]),
    (FORWARD, "j0 + KT > first + 1u ||", "j0 > first ||", SIZES[0]),
    (QUERY, "(dp - dots)", "dp", SIZES[0]),
    (KEY, "params.scale / UNIT", "params.scale", SIZES[0]),
    (KEY, "t0 + QT > min(first + params.window, params.tokens)", "t0 + QT > params.tokens", SIZES[3]),
];

#[test]
fn windows_on_matrices_spelled_out() {
    let Some(gpu) = device() else { return };
    let both = ["window_attention.coop", "window_attention.coop_steep"].map(case);
    hold(&gpu, &[FORWARD, QUERY, KEY], &SIZES, &DEFECTS, |sizes| {
        both.iter().try_for_each(|case| check(&gpu, case, sizes))
    });
    let late = case("window_attention.coop_late");
    for (sizes, before) in SIZES.iter().zip([131, 40, 3, 64, 1]) {
        values(&gpu, &late, &[&sizes[..], &[before]].concat()).unwrap_or_else(|e| panic!("{e}"));
    }
    follow(&gpu, &both[0], &[1, 61, 33, 1, 1, 16], &[FORWARD, QUERY, KEY]);
}

const PRODUCT: &str = "matmul_coop";

/// (z, m, n, k, transpose_a, transpose_b): several blocks and steps, tails, each layout.
const PRODUCTS: [[usize; 6]; 8] = [
    [2, 136, 72, 72, 0, 0],
    [1, 264, 136, 40, 1, 1],
    [1, 8, 264, 24, 0, 1],
    [2, 24, 40, 104, 1, 0],
    [1, 128, 256, 64, 0, 0],
    [2, 256, 128, 96, 1, 1],
    [1, 136, 264, 64, 0, 1],
    [2, 72, 136, 32, 1, 0],
];

const SLIPS: [Mistake<6>; 7] = [
    (PRODUCT, "place % (BAND * wide) % height", "place % (BAND * wide) % BAND", PRODUCTS[0]),
    (PRODUCT, "let row = subgroup / WIDE * WM;", "let row = 0u;", PRODUCTS[0]),
    (PRODUCT, "a_at += on * a_step;", "", PRODUCTS[0]),
    (PRODUCT, "let a_step = STEP * params.a_k / 8u;", "let a_step = STEP / 8u;", PRODUCTS[3]),
    (PRODUCT, "c_at + (4u * i + 2u * half) * params.n", "c_at + 2u * half * params.n", PRODUCTS[0]),
    (PRODUCT, "let column = subgroup % WIDE * WN;", "let column = 0u;", PRODUCTS[4]),
    (PRODUCT, "n + j * 16u >= own_n", "n + j * 16u > own_n", PRODUCTS[6]),
];

/// (rows, in, head, rest) of a weight's gradient in two launches.
const LAST_ROWS: [usize; 4] = [2056, 24, 8, 16];

#[test]
fn products_on_matrices_spelled_out() {
    let Some(gpu) = device() else { return };
    let product = case("matmul.coop64.f16");
    hold(&gpu, &[PRODUCT], &PRODUCTS, &SLIPS, |sizes| check(&gpu, &product, sizes));
    follow(&gpu, &product, &PRODUCTS[3], &[PRODUCT]);
    for (block, sizes) in [
        ("matmul.coop64x128.f16", PRODUCTS[1]),
        ("matmul.coop128.f16", PRODUCTS[4]),
        ("matmul.coop128.f16", PRODUCTS[5]),
        ("matmul.coop128.f16", PRODUCTS[6]),
        ("matmul.coop64.long.f16", PRODUCTS[3]),
        ("matmul.coop64.long.f16", PRODUCTS[4]),
    ] {
        check(&gpu, &case(block), &sizes).unwrap_or_else(|e| panic!("{e}"));
    }
    // A weight's gradient whose last rows are summed in pieces, the last of eight rows.
    let two = case("linear.two.coop64.f16");
    let start = (PRODUCT, "params.a_0 + ", "", LAST_ROWS);
    hold(&gpu, &[PRODUCT], &[LAST_ROWS], &[start], |sizes| values(&gpu, &two, sizes));
    // Weights in f32: rounded in the product, and, for many rows, before it.
    let linear = case("linear.coop64.f16");
    for sizes in [[9, 40, 72, 1], [300, 40, 72, 1]] {
        check(&gpu, &linear, &sizes).unwrap_or_else(|e| panic!("{e}"));
    }
}

const HSA: [&str; 4] =
    ["hsa_coop", "hsa_coop_backward_query", "hsa_coop_backward_memory", "hsa_coop_neighbours"];

/// (batches, tokens, share, heads, d, chunks, chunk, slots, shared, off_by_one): tiles of heads, subgroups, odd slots.
const CHUNKS: [[usize; 10]; 6] = [
    [2, 9, 16, 1, 64, 3, 64, 3, 1, 0],
    [1, 6, 32, 2, 32, 2, 32, 2, 0, 1],
    [1, 7, 16, 2, 16, 3, 16, 4, 1, 1],
    [1, 4, 32, 1, 16, 2, 64, 1, 0, 0],
    [1, 3, 16, 1, 16, 2, 128, 2, 0, 0],
    [1, 17, 16, 1, 16, 3, 64, 2, 0, 0],
];

/// A block of four subgroups whose tokens select the same.
const FOUR: [usize; 10] = [1, 9, 16, 1, 16, 2, 64, 2, 1, 0];

const OVERSIGHTS: [Mistake<10>; 12] = [
    (HSA[0], "= all.y + log(all.x); }", "= all.y; }", CHUNKS[0]),
    (HSA[0], "chosen + select(0u, apart, j + 1u < count)", "chosen", CHUNKS[1]),
    (HSA[0], "* select(0u, 1u, block < blocks)", "", CHUNKS[0]),
    (HSA[0], "% PIECES * (T / PIECES)", "% PIECES", CHUNKS[5]),
    (HSA[3], "let factor1 = weight1 / all1.x;", "let factor1 = weight / all1.x;", CHUNKS[0]),
    (HSA[3], "] = u32(same);", "] = 1u;", CHUNKS[2]),
    (HSA[3], "e1[2u * (t * G + g) + i] = scores", "e1[2u * t + i] = scores", CHUNKS[0]),
    (HSA[1], "(m[2u * t + i] - dot)", "m[2u * t + i]", CHUNKS[0]),
    (HSA[1], "from_ = coming;", "", CHUNKS[0]),
    (HSA[1], "kv[values_at + coming + unit_at * step]", "kv[coming + unit_at * step]", CHUNKS[4]),
    (HSA[2], "scores[slopes + at] - dot", "held[j] - dot", CHUNKS[0]),
    (HSA[2], "+ (round + 2u) % tiles * 16u", "", CHUNKS[3]),
];

#[test]
fn hsa_on_matrices_spelled_out() {
    let Some(gpu) = device() else { return };
    let both = ["hsa.coop", "hsa.coop_neighbours"].map(case);
    hold(&gpu, &HSA, &CHUNKS, &OVERSIGHTS, |sizes| both.iter().try_for_each(|case| check(&gpu, case, sizes)));
    follow(&gpu, &both[1], &CHUNKS[2], &HSA);
    follow(&gpu, &both[1], &FOUR, &HSA);
    // A subgroup's barrier where all must wait, and none where it must.
    let all = ("else { workgroupBarrier(); }", format!("else {{ {TURN}; }}"));
    let first = ("if g == 0u { workgroupBarrier(); }", format!("if g == 0u {{ {TURN}; }}"));
    let own = (&*format!("                        if g + 1u < G {{ {TURN}; }}\n"), String::new());
    for (right, wrong) in [all, first, own] {
        let text = spelled_out("hsa_coop_neighbours");
        assert!(text.contains(right), "{right}");
        gpu.replace_kernel("hsa_coop_neighbours", Some(&text.replace(right, &wrong))).expect("it exists");
        let mut watch = Watch::default();
        watch.budget = 200_000_000;
        watch.case(&gpu, &both[1], &both[1].exactly(FOUR.to_vec()), 5);
        let found =
            watch.findings.iter().any(|f| f.starts_with("hsa_coop_neighbours") && f.contains("no barrier"));
        assert!(found, "{right} → {wrong}: {:?}", watch.findings);
    }
}

const MISTAKES: [Mistake<11>; 7] = [
    (SELECT, "let column = subgroup % COLUMNS * 16u;", "let column = 0u;", SELECTIONS[0]),
    (SELECT, "let word = j * PAIRS + pair;", "let word = j;", SELECTIONS[7]),
    (
        SELECT,
        "let then = select(unit + DEPTH * EIGHTS, 0u, last);",
        "let then = unit + DEPTH * EIGHTS;",
        SELECTIONS[0],
    ),
    (SELECT, "let next = then + d * EIGHTS;", "let next = then;", SELECTIONS[7]),
    (SELECT, "let begin = part * params.span;", "let begin = 0u;", SELECTIONS[4]),
    (SELECT, "low[j] = zero;", "", SELECTIONS[0]),
    (SELECT, "plain + params.margin", "plain", SELECTIONS[6]),
];

/// (tokens, chunks, heads, r, k, first, parts): landmarks in eight bits, and the last in floats.
const IN_BYTES: [[usize; 7]; 2] = [[129, 200, 1, 64, 8, 2000, 3], [20, 150, 2, 48, 8, 2000, 1]];

const BYTE_MISTAKES: [Mistake<7>; 2] = [
    (SELECT, "select(sixteen.xy, sixteen.zw, at % 2u == 1u)", "sixteen.xy", IN_BYTES[0]),
    (SELECT, "scales[at * params.spans / params.units]", "scales[at / params.units]", IN_BYTES[0]),
];

#[test]
fn selections_on_matrices_spelled_out() {
    let Some(gpu) = device() else { return };
    let exact = case("select.coop.f16");
    hold(&gpu, &[SELECT], &SELECTIONS, &MISTAKES, |sizes| values(&gpu, &exact, sizes));
    check(&gpu, &case("select.coop.gradients.f16"), &SELECTIONS[1]).unwrap_or_else(|e| panic!("{e}"));
    let bytes = case("select.coop.bytes.f16");
    hold(&gpu, &[SELECT], &IN_BYTES, &BYTE_MISTAKES, |sizes| values(&gpu, &bytes, sizes));
    follow(&gpu, &exact, &SELECTIONS[2], &[SELECT]);
}

const SCAN: [&str; 4] = ["ssd_coop_states", "ssd_coop_output", "ssd_coop_backward", "ssd_coop_groups"];

/// (batches, tokens, heads, groups, p, n, d, initial, segment): chunks that tokens and tiles fill and do not.
const SEQUENCES: [[usize; 9]; 6] = [
    [1, 66, 2, 1, 36, 68, 1, 1, 1],
    [2, 65, 2, 2, 64, 128, 0, 1, 0],
    [1, 64, 2, 1, 32, 36, 1, 0, 0],
    [1, 190, 1, 1, 4, 4, 1, 0, 1],
    // Two spans.
    [1, 4100, 1, 1, 4, 4, 0, 1, 0],
    [1, 128, 2, 1, 64, 128, 1, 1, 1],
];

const LAPSES: [Mistake<9>; 14] = [
    (SCAN[0], "exp2(end - next.log) * next.dt", "exp2(-next.log) * next.dt", SEQUENCES[0]),
    (SCAN[0], "scale(&sums, chunk_total);", "", SEQUENCES[3]),
    (SCAN[0], "take(&sums, j, lane);", "", SEQUENCES[1]),
    (SCAN[1], "return own_matrix(lane).x + 16u;", "return own_matrix(lane).x;", SEQUENCES[2]),
    (
        SCAN[1],
        "let b_at = TILE + k * STRIDE + own.y / 4u + j * 4u;",
        "let b_at = TILE + k * STRIDE + own.y / 4u;",
        SEQUENCES[2],
    ),
    (SCAN[1], "{ return NT * QUADS; }", "{ return QUADS; }", SEQUENCES[5]),
    (SCAN[0], "own.y / T * TILE + ", "", SEQUENCES[1]),
    (SCAN[0], "lane / 128u * HELD * 16u", "0u", SEQUENCES[2]),
    (SCAN[2], "(lane & 2u) != 0u", "false", SEQUENCES[2]),
    (SCAN[2], "select(v.x, v.y * dt_of(t), t < token)", "select(v.x, 0.0, t < token)", SEQUENCES[0]),
    (SCAN[2], "parts[i * T + own]", "parts[own]", SEQUENCES[2]),
    (SCAN[3], "next.dt[i] * SCALE, of_b", "SCALE, of_b", SEQUENCES[0]),
    (SCAN[3], "let a_at = a + k * STRIDE + own.x / 4u;", "let a_at = a + k * STRIDE;", SEQUENCES[2]),
    (SCAN[3], "fma(vec4f(decay), floats_of(start)", "fma(vec4f(0.0), floats_of(start)", SEQUENCES[4]),
];

#[test]
fn scans_on_matrices_spelled_out() {
    let Some(gpu) = device() else { return };
    let case = case("ssd_scan.coop");
    hold(&gpu, &SCAN, &SEQUENCES, &LAPSES, |sizes| check(&gpu, &case, sizes));
    follow(&gpu, &case, &[1, 40, 1, 1, 4, 4, 0, 1, 1], &SCAN);
    // Tiles filled, two of them to a walk's workgroup.
    follow(&gpu, &case, &[1, 64, 1, 1, 64, 128, 0, 1, 1], &SCAN);
}
