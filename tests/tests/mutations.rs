//! Planted defects: our kernels with one mistake each, launched in place of ours. A test kit that lets one pass tests
//! nothing there. The table that the test prints says which case and which of its checks caught which defect.

use rambutan_engine::{
    Gpu, GpuOptions, ops,
    testing::{self, Case},
};
use rambutan_tests::machine::Watch;

/// One mistake in one kernel.
struct Defect {
    /// In words.
    what: &'static str,
    /// The kernel; its libraries' text is part of it.
    stem: &'static str,
    /// The right text, which stands there exactly once.
    find: &'static str,
    /// The wrong one.
    replace: &'static str,
    /// The case that catches it, and sizes where it shows.
    case: &'static str,
    sizes: &'static [usize],
    /// A barrier is missing: what an adapter shows of it hangs on the order in which it runs a workgroup's invocations, so
    /// that the kit's abstract machine is asked.
    race: bool,
}

const fn defect(
    what: &'static str,
    stem: &'static str,
    (find, replace): (&'static str, &'static str),
    (case, sizes): (&'static str, &'static [usize]),
) -> Defect {
    Defect { what, stem, find, replace, case, sizes, race: false }
}

impl Defect {
    const fn race(self) -> Defect {
        Defect { race: true, ..self }
    }
}

const NORM: &str = "rms_norm";
const CONV: &str = "causal_conv1d";
const WINDOW: &str = "window_attention";

#[rustfmt::skip]
const DEFECTS: &[Defect] = &[
    // Workgroups: barriers, strides, identities.
    defect("no barrier before a sum's tree", NORM,
        ("reduce_scratch[lane] = value;
    workgroupBarrier();
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        if lane < width { reduce_scratch[lane] += reduce_scratch[lane + width]; }",
         "reduce_scratch[lane] = value;
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        if lane < width { reduce_scratch[lane] += reduce_scratch[lane + width]; }"),
        (NORM, &[5, 301])).race(),
    defect("no barrier inside a sum's tree", NORM,
        ("if lane < width { reduce_scratch[lane] += reduce_scratch[lane + width]; }
        workgroupBarrier();",
         "if lane < width { reduce_scratch[lane] += reduce_scratch[lane + width]; }"),
        (NORM, &[5, 301])).race(),
    defect("no barrier before the scratch of a sum is used again", "rms_norm_backward",
        ("let total = reduce_scratch[0];
    workgroupBarrier();",
         "let total = reduce_scratch[0];"),
        (NORM, &[5, 301])).race(),
    defect("no barrier after a tile is loaded", "ssd_scan",
        ("step_tile[lane] = steps[(b * params.tokens + t) * params.heads + h]; }
        }
        workgroupBarrier();",
         "step_tile[lane] = steps[(b * params.tokens + t) * params.heads + h]; }
        }"),
        ("ssd_scan", &[1, 20, 1, 1, 20, 10, 0, 0, 0])).race(),
    defect("no barrier after both operands' tiles are loaded", "matmul",
        ("b_tile[k * TILE + n] = v;
        }
        workgroupBarrier();", "b_tile[k * TILE + n] = v;
        }"),
        ("matmul.tile", &[1, 20, 36, 36, 0, 0])).race(),
    defect("no barrier before prefix sums are read", "inverse_list_scan",
        ("scan_scratch[lane] = sum;
    workgroupBarrier();
    for (var step = 1u;",
         "scan_scratch[lane] = sum;
    for (var step = 1u;"),
        ("inverse_list", &[2600, 255])).race(),
    defect("no barrier before the next step of prefix sums", "inverse_list_scan",
        ("workgroupBarrier();
        scan_scratch[lane] = sum;
        workgroupBarrier();",
         "workgroupBarrier();
        scan_scratch[lane] = sum;"),
        ("inverse_list", &[2600, 255])).race(),
    defect("prefix sums overwritten before they are read", "inverse_list_scan",
        ("if lane >= step { sum += scan_scratch[lane - step]; }
        workgroupBarrier();",
         "if lane >= step { sum += scan_scratch[lane - step]; }"),
        ("inverse_list", &[2600, 255])).race(),
    defect("wrong stride in a sum's tree", "reduce",
        ("reduce_scratch[lane] += reduce_scratch[lane + width];", "reduce_scratch[lane] += reduce_scratch[lane + width - 1u];"),
        ("sum_last", &[3, 70])),
    defect("a row's largest is its smallest", "softmax",
        ("max(reduce_scratch[lane], reduce_scratch[lane + width])", "min(reduce_scratch[lane], reduce_scratch[lane + width])"),
        ("softmax", &[64, 201])),
    defect("the wrong identity of a maximum", "select",
        ("(*list).score[i] = NONE;", "(*list).score[i] = 0.0;"),
        ("select", &[1, 40, 20, 1, 4, 8, 2, 0, 0, 1, 0])),
    defect("the last of a step's four quads left out of a sum", "reduce_quads",
        ("(x2 + x3)", "x2"),
        ("sum_last", &[3, 480])),
    // Bounds, tails and tiles.
    defect("a loop over columns that stops one early", NORM,
        ("c < params.columns; c += WG) {
        let v", "c + 1u < params.columns; c += WG) {
        let v"),
        (NORM, &[3, 65])),
    defect("each group of rows without its last", "sum_rows",
        ("min(first + GROUP, params.rows)", "min(first + GROUP - 1u, params.rows)"),
        ("sum_rows", &[4500, 8, 4, 12, 0])),
    defect("lanes that share a column leave out half of what they added up", "sum_rows_last",
        ("half >= WIDE", "half > WIDE"),
        ("sum_rows", &[300, 8, 4, 12, 0])),
    defect("a later result begins at the first one's place", "sum_rows_last",
        ("out2[c - params.second]", "out2[c]"),
        ("sum_rows", &[64, 8, 4, 12, 0])),
    defect("no barrier before halves of a column are added", "sum_rows_last",
        ("sums[lane] = sum;
        workgroupBarrier();", "sums[lane] = sum;"),
        ("sum_rows", &[300, 8, 4, 12, 0])).race(),
    defect("all blocks leave their partial sum in one place", "rms_norm_backward",
        ("(params.first_block + block) * params.columns", "params.first_block * params.columns"),
        (NORM, &[40, 5])),
    defect("keys beyond the last, unmasked", "attention",
        ("let count = min(KEYS, params.tokens - first);", "let count = KEYS;"),
        ("attention", &[1, 37, 1, 1, 16])),
    defect("masked columns counted", "softmax",
        ("if kept(row, c) { sum += exp", "if true { sum += exp"),
        ("masked_softmax", &[4, 3, 40])),
    defect("a masked row counted", "cross_entropy",
        ("weights[row] != 0.0", "true"),
        ("cross_entropy", &[20, 30])),
    defect("a repeated operand read past its end", "elementwise",
        ("b[i % params.period]", "b[i]"),
        ("add", &[7, 9, 1])),
    defect("rows of a part begin at the whole's column", "columns",
        ("+ params.to + i % params.width", "+ i % params.width"),
        ("concat_columns", &[5, 7, 3])),
    defect("tokens beyond the last decay", "ssd_scan",
        ("step_tile[lane] = vec2f(0.0, 1.0);", "step_tile[lane] = vec2f(0.0, 0.0);"),
        ("ssd_scan", &[1, 20, 1, 1, 4, 4, 0, 0, 0])),
    defect("a gate's group reads the first group's weights", "gated_rms_norm",
        ("* r * weight[part * width + c]", "* r * weight[c]"),
        ("gated_rms_norm", &[5, 21, 3])),
    defect("every step over k reads the first tile", "matmul",
        ("(m0 + m) * params.a_m + (k0 + k) * params.a_k", "(m0 + m) * params.a_m + (first + k) * params.a_k"),
        ("matmul.tile", &[1, 20, 36, 36, 0, 0])),
    defect("the next tile written over the one in use", "matmul_large",
        ("put_a(1u - full,", "put_a(full,"),
        ("matmul.large", &[1, 132, 120, 36, 0, 0])),
    defect("the last step multiplies what the one before it did", "matmul_large",
        ("step + full + 1u < steps", "step + full + 2u < steps"),
        ("matmul.large64", &[1, 20, 36, 36, 0, 0])),
    defect("the fourth of four products taken from the third", "matmul_direct",
        ("fma(vec4f(l.w), r[3]", "fma(vec4f(l.z), r[3]"),
        ("matmul.direct", &[1, 20, 36, 36, 0, 0])),
    defect("the lower four rows of the left operand are the upper ones", "matmul_lane",
        ("left_of(k, last, m0 + 4u, a_start)", "left_of(k, last, m0, a_start)"),
        ("matmul.lane", &[1, 20, 36, 36, 0, 0])),
    // Mathematics.
    defect("the mean over a row without its second rstd", "rms_norm_backward",
        ("* r * r / f32(params.columns)", "* r / f32(params.columns)"),
        (NORM, &[5, 21])),
    defect("a softmax's gradient adds the mean", "softmax_backward",
        ("- dot)", "+ dot)"),
        ("softmax", &[5, 21])),
    defect("chunks of other groups for rivals", "contrast",
        ("if theirs / group != ours / group || (chunk", "if (chunk"),
        ("contrast", &[20, 2, 3, 40, 3])),
    defect("the told chunk among its rivals", "contrast",
        ("chunk <= told.z) {", "chunk < told.z) {"),
        ("contrast", &[20, 1, 3, 40, 0])),
    defect("a masked row counted, of contrasts", "contrast",
        ("weights[row] != 0.0);", "weights[row] != 2.0);"),
        ("contrast", &[20, 1, 3, 40, 0])),
    defect("the zero score left out, of contrasts' gradient", "contrast_backward",
        ("- l - ENOUGH, -80.0", "- l, -80.0"),
        ("contrast", &[20, 1, 3, 40, 0])),
    defect("a margin where no score stands above 0", "contrast_margin",
        ("params.margin + own - ENOUGH, 0.0", "params.margin + own - ENOUGH, params.margin"),
        ("contrast_margin", &[20, 7])),
    defect("the target's one beside its column", "cross_entropy_backward",
        ("c == wanted)", "c == wanted + 1u)"),
        ("cross_entropy", &[20, 30])),
    defect("a row in registers without its last quads", "rms_norm_quads",
        ("+ dot(x3, x3)", ""),
        ("rms_norm.quads", &[5, 120])),
    defect("a block's dweight without the rows' rstd", "rms_norm_quads_backward",
        ("s1 += k1.d * k1.x * r;", "s1 += k1.d * k1.x;"),
        ("rms_norm.quads", &[20, 60])),
    defect("what the stream itself gives back is lost", "add_rms_norm_backward",
        ("let v = k.on + r *", "let v = r *"),
        ("add_rms_norm", &[20, 60])),
    defect("a norm of the stream before the sum", "add_rms_norm",
        ("x[i] + quad_of(y[i])", "x[i]"),
        ("add_rms_norm", &[5, 21])),
    defect("every group takes the first one's weight", "gated_rms_norm_quads",
        ("return weight[part * params.quads + min", "return weight[min"),
        ("gated_rms_norm.quads", &[5, 7, 2])),
    defect("z's gradient without the sigmoid's own", "gated_rms_norm_quads_backward",
        ("words_of(dg * k.u * (1.0 + k.v * (1.0 - k.s)))", "words_of(dg * k.u)"),
        ("gated_rms_norm.quads", &[5, 7, 2])),
    defect("a gate among columns read from the row's beginning", "gated_rms_norm_quads",
        ("params.z_stride + params.z_start +", "params.z_stride +"),
        ("gated_rms_norm.columns", &[5, 7, 2, 4, 8])),
    defect("a gate's gradient written as if it were alone", "gated_rms_norm_quads_backward",
        ("dz[z_at + q] =", "dz[row * params.quads + q] ="),
        ("gated_rms_norm.columns", &[5, 7, 1, 4, 8])),
    defect("a gate's sum without its last subgroup", "gated_rms_norm_eights_backward",
        ("i < subgroups; i++", "i + 1u < subgroups; i++"),
        ("gated_rms_norm.exact", &[20, 64, 2, 8])),
    defect("a gate's group writes its dweight at the first one's place", "gated_rms_norm_eights_backward",
        ("* params.groups * WG + own)", "* params.groups * WG + lane)"),
        ("gated_rms_norm.exact", &[20, 64, 2, 8])),
    defect("the words read again are x for dy", "gated_rms_norm_eights_backward",
        ("numbers(words_d ^ zero,", "numbers(words_u ^ zero,"),
        ("gated_rms_norm.exact", &[20, 64, 1, 8])),
    defect("no barrier before subgroups' sums are read", "gated_rms_norm_eights_backward",
        ("        workgroupBarrier();\n", ""),
        ("gated_rms_norm.exact", &[5, 64, 1, 8])).race(),
    defect("a row's sums lie where those of the row before are still read", "gated_rms_norm_eights_backward",
        ("whole % 2u * MOST", "0u"),
        ("gated_rms_norm.exact", &[5, 64, 1, 8])).race(),
    defect("columns beyond the row weigh in", "softmax_quads",
        ("select(vec4f(), exp(v - largest), q < params.quads)", "exp(min(v - largest, vec4f()) * f32(q < params.quads))"),
        ("softmax.quads", &[5, 21])),
    defect("a running sum that is not rescaled, by quads", "cross_entropy_quads",
        ("sum = sum * exp(largest - larger) +", "sum = sum +"),
        ("cross_entropy.quads", &[5, 400])),
    defect("the target's one beside its column, by quads", "cross_entropy_quads_backward",
        ("vec4u(row.wanted)", "vec4u(row.wanted + 1u)"),
        ("cross_entropy.quads", &[20, 30])),
    defect("an unscaled query", "attention",
        ("query[i] = vec4f(q[row + i]) * params.scale;", "query[i] = vec4f(q[row + i]);"),
        ("attention", &[1, 37, 1, 1, 16])),
    defect("keys read from the values", "attention",
        ("k_tile[i] = vec4f(k[at]);", "k_tile[i] = vec4f(v[at]);"),
        ("attention", &[1, 37, 1, 1, 16])),
    defect("a running sum that is not rescaled", "attention",
        ("var sum = sums[i] * rescale;", "var sum = sums[i];"),
        ("attention", &[1, 37, 1, 1, 16])),
    defect("keys beyond the last weigh in, without workgroup memory", "attention_direct",
        ("a = select(vec4f(-3.0e38), a, keep);", ""),
        ("attention.direct", &[1, 37, 1, 1, 16])),
    defect("delta missing in dq", "attention_backward_query",
        ("* (dp - d)", "* dp"),
        ("attention", &[1, 37, 1, 1, 16])),
    defect("a rotation's sine with the wrong sign", "rope",
        ("b * cosine + a * sine", "b * cosine - a * sine"),
        ("rope", &[1, 9, 1, 6, 1])),
    defect("a stick that loses half of what is broken off", "stick_breaking",
        ("left += max(s, 0.0) + tail;", "left += tail;"),
        ("stick_breaking", &[9, 8])),
    defect("what comes after a slot counts from the slot itself", "stick_breaking_backward",
        ("* after;
            after += wdw;", "* (after + wdw);
            after += wdw;"),
        ("stick_breaking", &[9, 8])),
    defect("a gate's gradient without the gate itself", "swiglu_backward",
        ("(s * (1.0 + g * (1.0 - s)))", "s"),
        ("swiglu", &[5, 20])),
    defect("gradients that meet overwrite each other", "accumulate",
        ("elem_out(real(y[i]) + real(x[i]))", "elem_out(real(x[i]))"),
        ("add.shared", &[50])),
    defect("moments without their bias correction", "adamw",
        ("(mean / (1.0 - control.beta1_t))", "mean"),
        ("adamw", &[50, 2])),
    defect("weights that do not decay", "adamw",
        ("old - params.lr * params.decay * old - params.lr * step", "old - params.lr * step"),
        ("adamw", &[50, 2])),
    defect("gradients that are not clipped", "adamw_control",
        ("if params.max_norm > 0.0 && norm > params.max_norm", "if false"),
        ("adamw", &[50, 1])),
    defect("a block's sums without those of the blocks before", "cumulative_sum_quads",
        ("if block > 0u { sum =", "if block > 1u { sum ="),
        ("cumulative_sum.blocks", &[2, 300, 0])),
    defect("a block takes the sum up to its own end for that before it", "cumulative_sum",
        ("+ block - 1u]", "+ block]"),
        ("cumulative_sum.blocks", &[2, 300, 1])),
    defect("of equal values the later one first", "top_k",
        ("a.at < b.at", "a.at > b.at"),
        ("top_k.long.ties", &[5, 100, 3])),
    defect("what bounds the best is not among them", "top_k_short",
        ("if !comes_before(bar, e) {", "if comes_before(e, bar) {"),
        ("top_k", &[5, 101, 3])),
    defect("lanes list their columns over each other's", "top_k_short",
        ("at = select(at, n, j == rank);", ""),
        ("top_k", &[5, 101, 3])),
    defect("what bounds a row of quads is not among its best", "top_k_quads",
        ("c <= bar.at", "c < bar.at"),
        ("top_k", &[5, 100, 3])),
    defect("rows of a workgroup bounded by the first one's", "top_k_quads",
        ("let bar = bound[team];", "let bar = bound[0];"),
        ("top_k", &[8, 100, 3])),
    defect("a gradient that lands one place on", "top_k_backward",
        ("if places[j] == c", "if places[j] == c + 1u"),
        ("top_k", &[5, 70, 3])),
    // Time: states, decay, restarts, borders.
    defect("a decay dropped", "ssd_scan",
        ("if REVERSE == 0u { u *= step.y; }", ""),
        ("ssd_scan", &[1, 20, 1, 1, 4, 4, 0, 0, 0])),
    defect("a decay dropped, without workgroup memory", "ssd_scan_direct",
        ("if REVERSE == 0u {
            s0 = s0 * step.y;", "if REVERSE == 0u {"),
        ("ssd_scan.direct", &[1, 20, 1, 1, 4, 4, 0, 0, 0])),
    defect("one lane's share of a token taken from its neighbour", "ssd_scan_direct",
        ("subgroupBroadcast(v.y, 5u)", "subgroupBroadcast(v.y, 4u)"),
        ("ssd_scan.direct", &[1, 20, 1, 1, 4, 36, 0, 0, 0])),
    defect("dt dropped", "ssd_scan",
        ("v = plain * select(1.0, step.x, params.dt_in != 0u);", "v = plain;"),
        ("ssd_scan", &[1, 20, 1, 1, 4, 4, 0, 0, 0])),
    defect("D · x missing", "ssd_scan",
        ("if params.has_d != 0u { y += side[h] * plain; }", ""),
        ("ssd_scan", &[1, 20, 1, 1, 4, 4, 1, 0, 0])),
    defect("a restart ignored", "ssd_decay",
        ("{ decay = 0.0; }", "{ }"),
        ("ssd_scan", &[1, 190, 1, 1, 4, 4, 0, 0, 1])),
    defect("what dt itself lets in is missing from its decay's gradient", "ssd_scan_backward",
        ("gain = side[at].x - step.x * q;", "gain = side[at].x;"),
        ("ssd_scan", &[1, 190, 1, 1, 4, 4, 0, 0, 1])),
    defect("a state handed on without its block's decay", "ssd_state_passing",
        ("s = fma(totals[at], s, own);", "s += own;"),
        ("ssd_scan", &[1, 190, 1, 1, 4, 4, 0, 1, 0])),
    defect("a tile ends where it begins", "ssd_ends",
        ("product(tile + 1u, h)", "product(tile, h)"),
        ("ssd_scan", &[1, 190, 1, 1, 4, 4, 0, 1, 0])),
    defect("the last state's own gradient is missing", "ssd_ends",
        ("ends.x = last_end;", ""),
        ("ssd_scan", &[1, 190, 1, 1, 4, 4, 0, 1, 0])),
    defect("a tile's first half begins at its last token", "ssd_scan_backward",
        ("for (var k = start; k < lane; k++)", "for (var k = start; k <= lane; k++)"),
        ("ssd_scan", &[1, 190, 1, 1, 4, 4, 0, 1, 0])),
    defect("marks of the wrong tile", "ssd_scan",
        ("let mark = (index - params.first) * (Q / TILE) + select(tile, Q / TILE - 1u - tile, REVERSE == 1u);",
         "let mark = (index - params.first) * (Q / TILE) + tile;"),
        ("ssd_scan", &[1, 190, 1, 1, 4, 4, 0, 1, 0])),
    defect("a token's own share of dC is missing", "ssd_groups",
        ("c_sum += fma(dt * through, f32(b[i]), dc_heads[head * params.n + n]);", "c_sum += dc_heads[head * params.n + n];"),
        ("ssd_scan", &[1, 190, 1, 1, 4, 4, 0, 1, 0])),
    defect("a chunk's state handed on without decay", "ssd_chunk_states",
        ("scale(&sums, chunk_total);", ""),
        ("ssd_scan.chunk.f16", &[1, 190, 1, 1, 4, 4, 0, 1, 0])),
    defect("a span handed on with its last chunk's decay alone", "ssd_chunk_states",
        ("total += end;", "total = end;"),
        ("ssd_scan.chunk.f16", &[1, 190, 1, 1, 4, 4, 0, 1, 0])),
    defect("a later span's chunks without what enters the span", "ssd_chunk_output",
        ("four(fma(vec4f(decay), floats_of(start), floats_of(state)))", "four_of(state)"),
        ("ssd_scan.chunk.f16", &[1, 190, 1, 1, 4, 4, 0, 1, 0])),
    defect("what enters a span does not decay on the way to its chunks", "ssd_chunk_states",
        ("carried[place] = exp2(total);", "carried[place] = 1.0;"),
        ("ssd_scan.chunk.f16", &[1, 190, 1, 1, 4, 4, 0, 1, 0])),
    defect("what enters later spans is the first's own start", "ssd_state_passing",
        ("        s = last[i];", "        s = initial[i];"),
        ("ssd_scan.chunk.f16", &[1, 190, 1, 1, 4, 4, 0, 1, 0])),
    defect("the gradient that enters a span is missing from its decays'", "ssd_chunk_backward",
        ("if CARRY == 1u { decays.carried = carried[place.chunk * params.heads + place.h]; }", ""),
        ("ssd_scan.chunk.f16", &[1, 190, 1, 1, 4, 4, 0, 1, 0])),
    defect("dB from the first span's gradient alone", "ssd_chunk_groups",
        ("params.starts + (place.span * params.heads + h)", "params.starts + h"),
        ("ssd_scan.chunk.f16", &[2, 190, 1, 1, 4, 4, 0, 1, 0])),
    defect("tokens of a chunk without their dt", "ssd_chunk_output",
        ("scores[i] * l * table[QUADS + q]", "scores[i] * l"),
        ("ssd_scan.chunk.f16", &[1, 190, 1, 1, 4, 4, 0, 0, 0])),
    defect("a state that does not decay inside its chunk", "ssd_chunk_output",
        ("floats_of(own_c[j * RUN + i]) * from_start", "floats_of(own_c[j * RUN + i])"),
        ("ssd_scan.chunk.f16", &[1, 190, 1, 1, 4, 4, 0, 0, 0])),
    defect("no barrier after a chunk's tiles are filled", "ssd_chunk_states",
        ("        workgroupBarrier();
        let chunk_total", "        let chunk_total"),
        ("ssd_scan.chunk.f16", &[1, 190, 1, 1, 4, 4, 0, 0, 0])).race(),
    defect("a token's sums of logarithms without those far back", "ssd_logs",
        ("back < WG; back *= 2u", "back < WG / 4u; back *= 2u"),
        ("ssd_scan.chunk.f16", &[1, 190, 1, 1, 4, 4, 0, 0, 0])),
    defect("dB from the states instead of their gradients", "ssd_chunk_groups",
        ("select(0u, params.later, place.of_b)", "0u"),
        ("ssd_scan.chunk.f16", &[1, 190, 1, 1, 4, 4, 0, 0, 0])),
    defect("a group's sums without its first head", "ssd_chunk_groups",
        ("for (var k = 0u; k < params.share; k++) {", "for (var k = params.share - 1u; k < params.share; k++) {"),
        ("ssd_scan.chunk.f16", &[1, 20, 2, 1, 4, 4, 0, 0, 0])),
    defect("a decay's gradient without what crosses the chunk", "ssd_chunk_backward",
        ("da = fma(across, exp2(end) * SCALE, da);", ""),
        ("ssd_scan.chunk.f16", &[1, 190, 1, 1, 4, 4, 0, 1, 0])),
    defect("a decay's gradient without its own token", "ssd_chunk_backward",
        ("select(v.x, v.y * dt_of(t), t < token)", "select(v.x, v.y * dt_of(t), t <= token)"),
        ("ssd_scan.chunk.f16", &[1, 190, 1, 1, 4, 4, 0, 1, 0])),
    defect("a step keeps the old state whole", "ssd_step",
        ("decay * state[at + j]", "state[at + j]"),
        ("ssd_step", &[2, 2, 2, 5, 20, 1])),
    defect("a step's second group reads the first's C", "ssd_step",
        ("let c_at = b_at + params.heads", "let c_at = first + params.heads * params.p + params.heads"),
        ("ssd_step", &[2, 2, 2, 5, 20, 1])),
    defect("the last of a block's four parts is not added", "elementwise",
        ("y[i + 3u * WG] = elem(apply(a3, b3));", "y[i + 3u * WG] = elem(apply(a3, real()));"),
        ("add", &[64, 64, 0])),
    defect("a text that starts anew keeps its state", "restart",
        ("if before[(b + 1u) * params.before_tokens - 1u] != segment[b * params.tokens] { return elem(); }", ""),
        ("restart", &[5, 20, 2, 2])),
    defect("a code is that of another token", "segment_code",
        ("segment[params.first + row / params.heads]", "segment[params.first + row % params.heads]"),
        ("segment_code", &[2, 20, 3, 5])),
    defect("a code has its lowest digit four times", "segment_code",
        ("(2u * (code / 4u))", "0u"),
        ("segment_code", &[2, 20, 3, 5])),
    defect("a stretch counts from what all but the last before it have counted", "segment_runs",
        ("before < lane", "before + 1u < lane"),
        ("segment_runs", &[2, 600])),
    defect("stretches read counts that are not there yet", "segment_runs",
        ("    workgroupBarrier();\n", ""),
        ("segment_runs", &[2, 600])).race(),
    defect("dt's gradient passes its limits", "ssd_dt_backward",
        ("dt >= params.low && dt <= params.high", "true"),
        ("ssd_scan", &[2, 190, 2, 1, 4, 4, 0, 0, 0])),
    defect("a step without the state's decay", "ssd_step",
        ("decay * state[at + j]", "state[at + j]"),
        ("ssd_step", &[2, 2, 2, 5, 20, 1])),
    defect("a step's dt without its limits", "ssd_step",
        ("clamp(softplus(v), params.low, params.high)", "softplus(v)"),
        ("ssd_step", &[3, 3, 2, 5, 20, 1])),
    defect("a sum over lanes without the last", "ssd_step",
        ("i < LANES; i++) { out +=", "i < LANES - 1u; i++) { out +="),
        ("ssd_step", &[2, 2, 2, 5, 20, 1])),
    defect("what repeats a line's last quad counts as it does", "linear_step",
        ("select(vec4f(), v[i], first * PARTS + q < QUADS)", "v[i]"),
        ("linear_step", &[2, 136, 17, 0, 0])),
    defect("the norm of a line's last round alone", "linear_step",
        ("square += dot(quad, quad);", "square = dot(quad, quad);"),
        ("linear_step", &[2, 4104, 17, 1, 0])),
    defect("a unit's second half meets x of the first", "linear_step",
        ("tile[(PARTS - 1u) * SPAN + i * LANES", "tile[i * LANES"),
        ("linear_step.f16", &[2, 1032, 17, 0, 0])),
    defect("every row is added to the first one's stream", "linear_step",
        ("residual[row * N + n]", "residual[n]"),
        ("linear_step", &[3, 136, 17, 0, 1])),
    defect("no barrier before the next round of a line", "linear_step",
        ("if LINE > SPAN { workgroupBarrier(); }", ""),
        ("linear_step", &[2, 4104, 17, 0, 0])).race(),
    defect("a mixer's step without the state's decay", "mamba2_step",
        ("decay * s[i]", "s[i]"),
        ("mamba2_step", &[2, 3, 2, 5, 19, 4, 1])),
    defect("a mixer's second group reads the first's B and C", "mamba2_step",
        ("let own = D_INNER + h / SHARE * N;", "let own = D_INNER;"),
        ("mamba2_step", &[2, 3, 2, 5, 19, 4, 1])),
    defect("a mixer's C is its B", "mamba2_step",
        ("+ lane / SPAN * STATES", ""),
        ("mamba2_step", &[1, 1, 1, 5, 19, 4, 1])),
    defect("a mixer's inputs do not move on", "mamba2_step",
        ("= channel.seen[j + 1u];", "= channel.seen[j];"),
        ("mamba2_step", &[2, 3, 2, 5, 19, 4, 1])),
    defect("a mixer's step is not gated", "mamba2_step",
        (" * silu(z);", ";"),
        ("mamba2_step", &[2, 3, 2, 5, 19, 4, 1])),
    defect("no barrier before the next round of states", "mamba2_step",
        ("if N > SPAN { workgroupBarrier(); }", ""),
        ("mamba2_step", &[1, 1, 1, 5, 150, 4, 1])).race(),
    defect("c and b swapped", "selective_scan",
        ("sum += h[n] * c[at];", "sum += h[n] * b[at];"),
        ("selective_scan", &[1, 5, 40, 1, 4, 0])),
    defect("a block's state passed on undecayed", "selective_scan_pass",
        ("* rate) * h + own;", "* 0.0) * h + own;"),
        ("selective_scan", &[1, 5, 40, 1, 4, 0])),
    defect("a tap sees across a restart", CONV,
        ("segment[first + t] != segment[first + t - back] { return 0.0; }", "false { return 0.0; }"),
        (CONV, &[1, 100, 5, 4, 0, 1, 1])),
    defect("a tap in a register sees across a restart", "causal_conv1d_quads",
        ("select(vec4f(0.0), x2, s2 == s)", "x2"),
        ("causal_conv1d.quads", &[1, 100, 4, 4, 0, 1, 1])),
    defect("a block's last tokens lack what the next block gives back", "causal_conv1d_quads_backward",
        ("if t < end + 3u {", "if t < end {"),
        ("causal_conv1d.quads", &[1, 100, 4, 4, 0, 0, 0])),
    defect("what repeats the last token counts in dweight", "causal_conv1d_quads_backward",
        ("a.dy[j] = select(words(), a.dy[j], t0 + j < params.tokens);", ""),
        ("causal_conv1d.quads", &[1, 100, 4, 4, 0, 0, 0])),
    defect("a block of fewer tokens than there are sums for", "causal_conv1d_parts_backward",
        ("const BLOCK: u32 = 72u;", "const BLOCK: u32 = 36u;"),
        ("causal_conv1d.parts", &[1, 150, 8, 4, 4, 0, 4, 0, 0])),
    defect("the tokens under way are those in use", "causal_conv1d_parts_backward",
        ("coming = ahead(first, t0 + AHEAD, c);", "coming = ahead(first, t0, c);"),
        ("causal_conv1d.parts", &[1, 150, 8, 4, 4, 0, 4, 0, 0])),
    defect("the final state's gradient crosses a restart", "causal_conv1d_quads_backward",
        ("segment_of(first + t) != segment_of(first + params.tokens - 1u)", "false"),
        ("causal_conv1d.quads", &[2, 9, 96, 4, 0, 0, 1])),
    defect("a later part begins at the first one's place", "causal_conv1d_quads",
        ("+ c - params.second] = v;", "+ c] = v;"),
        ("causal_conv1d.parts", &[1, 20, 8, 64, 20, 0, 4, 0, 0])),
    defect("a part's gradient is read from where the first one's begins", "causal_conv1d_parts_backward",
        ("* width + c - params.second];", "* width + c];"),
        ("causal_conv1d.parts", &[1, 20, 8, 64, 20, 0, 4, 0, 0])),
    defect("the kept inputs are one token late", "causal_conv1d_state",
        ("kept - 1u - j,", "kept - j,"),
        (CONV, &[1, 30, 5, 4, 0, 1, 0])),
    defect("`>` for `>=` at the last token", "causal_conv1d_backward_input",
        ("t - kept >= params.tokens", "t - kept > params.tokens"),
        (CONV, &[2, 9, 5, 4, 0, 1, 0])),
    // Windows: their borders, tails, and sums carried from tile to tile.
    defect("a window one key too long", "window_attention",
        ("(t < j + params.window)", "(t <= j + params.window)"),
        (WINDOW, &[1, 61, 5, 1, 1, 16])),
    defect("a query that sees the next token", "window_attention",
        ("(j <= t)", "(j <= t + 1u)"),
        (WINDOW, &[1, 61, 1000, 1, 1, 16])),
    defect("keys of earlier tiles that are not rescaled", "window_attention",
        ("fma(vec4f(w[r]), sum[u][r], y[r])", "sum[u][r] + y[r]"),
        (WINDOW, &[1, 61, 1000, 1, 1, 16])),
    defect("a total that is not rescaled", "window_attention",
        ("total *= factor;", ""),
        (WINDOW, &[1, 61, 1000, 1, 1, 16])),
    defect("a window that begins a tile late", "window_attention",
        ("- params.window) / KT * KT;", "- params.window + KT - 1u) / KT * KT;"),
        (WINDOW, &[1, 61, 20, 1, 1, 16])),
    defect("queries of the first tokens where they are of the last", "window_attention",
        ("let first = params.before + t0;", "let first = t0;"),
        ("window_attention.late", &[1, 61, 33, 1, 1, 40, 3])),
    defect("a query's keys without the last tile", "window_attention_backward_query",
        ("j0 < t0 + live; j0 += KT", "j0 + KT < t0 + live; j0 += KT"),
        (WINDOW, &[1, 61, 1000, 1, 1, 16])),
    defect("`<=` for `<` at the window, in dq", "window_attention_backward_query",
        ("(t < j + params.window)", "(t <= j + params.window)"),
        (WINDOW, &[1, 61, 5, 1, 1, 16])),
    defect("`<=` for `<` at the window, in dk and dv", "window_attention_backward_key",
        ("(vec4u(t) < j + params.window)", "(vec4u(t) <= j + params.window)"),
        (WINDOW, &[1, 61, 5, 1, 1, 16])),
    defect("the window's last queries, left out of dk and dv", "window_attention_backward_key",
        ("first + live - 1u + params.window", "first + params.window"),
        (WINDOW, &[1, 61, 5, 1, 1, 16])),
    defect("D missing in dk", "window_attention_backward_key",
        ("ds = p * (dp[n] - delta[stats + t]) * params.scale;", "ds = p * dp[n] * params.scale;"),
        (WINDOW, &[1, 61, 1000, 1, 1, 16])),
    defect("the second piece's heads are those of the first", "window_attention_backward_key",
        ("let head = h * share + m;", "let head = h * share + m - piece * params.piece;"),
        (WINDOW, &[1, 20, 1000, 5, 1, 16])),
    defect("a piece's sums left out", "window_attention_join",
        ("n < params.pieces", "n + 1u < params.pieces"),
        (WINDOW, &[1, 20, 1000, 5, 1, 16])),
    // Selection, memory and lists.
    defect("an equal score of an older chunk wins", "select",
        ("mark > its", "mark < its"),
        ("select", &[1, 66, 33, 1, 4, 3, 2, 0, 0, 1, 0])),
    defect("a chunk seen before it is complete", "select",
        ("return position / params.chunk;", "return position / params.chunk + 1u;"),
        ("select", &[1, 40, 20, 1, 4, 8, 2, 0, 0, 1, 0])),
    defect("a sequence's own chunks seen before their time, if they are flagged", "select",
        ("flags & apart(own, first)", "flags"),
        ("select", &[1, 66, 33, 1, 4, 3, 2, 0, 0, 3, 0])),
    defect("other sequences' chunks without the margin", "select",
        ("plain + params.margin", "plain"),
        ("select", &[1, 66, 33, 1, 4, 3, 2, 0, 0, 3, 3])),
    defect("chunks that the margin alone lifts into the list, passed over", "select",
        ("if params.margin > 0.0 {", "if params.margin < 0.0 {"),
        ("select", &[1, 66, 33, 1, 4, 3, 2, 0, 0, 3, 3])),
    defect("the margin on a sequence's own chunks, too", "select",
        ("((others >> i) & 1u) == 1u", "true"),
        ("select", &[1, 66, 33, 1, 4, 3, 2, 0, 0, 3, 3])),
    defect("every part of the chunks is the first", "select",
        ("let begin = part * params.span;", "let begin = 0u;"),
        ("select.parts", &[1, 66, 70, 1, 4, 8, 2, 0, 0, 3, 0])),
    defect("the last part's list left out", "select_merge",
        ("lane + half < lists {", "lane + half + 1u < lists {"),
        ("select.parts", &[1, 66, 70, 1, 4, 8, 2, 0, 0, 3, 0])),
    defect("what earlier pages gave forgotten", "select_merge",
        ("params.resume != 0u && lane", "params.resume == 2u && lane"),
        ("select.pages", &[1, 1, 1100, 1, 16, 8, 2, 9000, 0, 1, 0])),
    defect("all of a landmark by its first scale", "select",
        ("+ unit * params.spans / params.units]", "]"),
        ("select.bytes", &[5, 90, 1, 64, 8, 2000, 1])),
    defect("the second eight of sixteen dims is the first", "select",
        ("let word = unit * UNIT / 4u % 4u;", "let word = unit * UNIT / 4u % 2u;"),
        ("select.bytes", &[5, 90, 1, 16, 8, 2000, 1])),
    defect("another head's landmark", "select_backward_query",
        ("let h = row % params.heads;", "let h = 0u;"),
        ("select.gradients", &[1, 40, 20, 2, 4, 3, 2, 0, 0, 1, 0])),
    defect("a row without its last slots", "select_backward_query",
        ("first <= last; first += 4u", "first + 3u <= last; first += 4u"),
        ("select.gradients", &[1, 40, 20, 2, 4, 3, 2, 0, 0, 1, 0])),
    defect("what repeats a list's last slot weighs as it does", "select_backward_landmark",
        ("select(0.0, dscores[slot], i < count)", "dscores[slot]"),
        ("select.gradients", &[1, 40, 20, 1, 4, 3, 2, 0, 0, 1, 0])),
    defect("a chunk's last piece is left out", "select_backward_landmark_join",
        ("piece < piece_starts[list + 1u]", "piece + 1u < piece_starts[list + 1u]"),
        ("select.long", &[300, 1, 4])),
    defect("memory of the first sequence for all", "hsa",
        ("(b * params.keys + indices[selected + slot] * S)", "(indices[selected + slot] * S)"),
        ("hsa", &[2, 5, 4, 1, 16, 3, 16, 2, 0, 0])),
    defect("all slots weigh alike", "hsa",
        ("total[lane] = vec4f(weight) / all;", "total[lane] = vec4f(1.0) / all;"),
        ("hsa", &[2, 5, 4, 1, 16, 3, 16, 2, 0, 0])),
    defect("all slots of a lone token weigh alike", "hsa_step",
        ("let factor = weights[selected + slot] / all;", "let factor = 1.0 / all;"),
        ("hsa_step", &[1, 1, 4, 1, 16, 3, 20, 3, 0, 0])),
    defect("values that are not held are left out", "hsa_step",
        ("for (var i = HELD; i < TURNS; i++)", "for (var i = HELD + 1u; i < TURNS; i++)"),
        ("hsa_step", &[1, 1, 4, 1, 64, 3, 64, 8, 0, 0])),
    defect("D of a slot dropped from dk", "hsa_backward_memory",
        ("(dp[n] - stat.y)", "dp[n]"),
        ("hsa", &[1, 5, 4, 1, 16, 3, 16, 2, 0, 0])),
    defect("every piece of a list is its first", "inverse_list_pieces",
        ("let begin = starts[key] + i * params.piece;", "let begin = starts[key];"),
        ("hsa.pieces", &[1, 600, 1, 1, 4, 1, 5, 1, 0, 0])),
    defect("the last piece of a chunk is left out", "hsa_backward_memory_join",
        ("piece < piece_starts[list + 1u]", "piece + 1u < piece_starts[list + 1u]"),
        ("hsa", &[1, 5, 1, 1, 4, 1, 5, 1, 0, 0])),
    defect("`<=` for `<` in a search", "inverse_list_starts",
        ("sorted[middle] < k", "sorted[middle] <= k"),
        ("inverse_list", &[300, 2])),
    defect("ranks that count from the block's end", "inverse_list_scatter",
        ("for (var j = 0u; j < lane; j++)", "for (var j = lane + 1u; j < WG; j++)"),
        ("inverse_list", &[300, 2])),
    defect("a token's last piece is left out", "embedding_backward_join",
        ("p <= last; p++", "p < last; p++"),
        ("embedding", &[600, 2, 5])),
    defect("chunks of a page counted from the text's start", "gather_chunks",
        ("let source = (chunk - params.first) * params.size;", "let source = chunk * params.size;"),
        ("gather_chunks", &[3, 4, 20, 16, 4])),
    defect("all heads of a chunk by the first's scale", "gather_quantized",
        ("* params.heads + i / params.units % params.heads]", "* params.heads]"),
        ("quantized", &[3, 4, 20, 16, 2, 4])),
    defect("signed bytes taken for unsigned ones", "gather_quantized",
        (">> vec4u(24u));", ">> vec4u(24u) & vec4i(255));"),
        ("quantized", &[3, 4, 20, 16, 2, 4])),
    defect("a chunk's largest without what is negative", "quantize_chunks",
        ("max(most, abs(vec4f(x[place(chunk, head, i)])))", "max(most, vec4f(x[place(chunk, head, i)]))"),
        ("quantized", &[3, 4, 20, 16, 2, 4])),
];

/// Draws a check: several, since a tie or a large value may be missing in one.
const SEEDS: u64 = 4;

/// The first check of the case that fails, by name; of races alone the abstract machine's.
fn caught(gpu: &Gpu, case: &Case, sizes: &[usize], race: bool) -> Option<(&'static str, String)> {
    let sizes = case.exactly(sizes.to_vec());
    if race {
        let mut watch = Watch::default();
        watch.case(gpu, case, &sizes, 1);
        assert!(watch.seen.values().all(|seen| seen.long == 0), "{}: too long for the machine", case.stem);
        return watch.findings.into_iter().find(|f| f.contains("races: ")).map(|f| ("races", f));
    }
    for seed in 1..=SEEDS {
        // No buffer may come back with what the last run, right or wrong, left in it.
        gpu.trim();
        if let Err(e) = testing::check(gpu, case, &sizes, seed) {
            return Some(("values", e.to_string()));
        }
        if let Err(e) = testing::check_gradients(gpu, case, &sizes, seed) {
            return Some(("gradients", e.to_string()));
        }
    }
    let twice = testing::check_determinism(gpu, case, &sizes, 1);
    twice.err().map(|e| ("determinism", e.to_string()))
}

/// The kernel with its libraries as one text, so that a defect may lie in either.
fn whole(stem: &str) -> Result<String, String> {
    rambutan_shaders::kernel(stem).and_then(rambutan_shaders::whole).map_err(|e| e.to_string())
}

impl Defect {
    fn planted(&self) -> Result<String, String> {
        let text = whole(self.stem)?;
        match text.matches(self.find).count() {
            1 => Ok(text.replacen(self.find, self.replace, 1)),
            n => Err(format!(
                "{}: stands {n} times, not once, in {}.wgsl: {:?}",
                self.what, self.stem, self.find
            )),
        }
    }
}

#[test]
fn every_defect_has_a_place() {
    let lost: Vec<String> = DEFECTS.iter().filter_map(|d| d.planted().err()).collect();
    assert!(lost.is_empty(), "{} defects no longer fit the kernels:\n{}", lost.len(), lost.join("\n"));
    let sure = DEFECTS.iter().filter(|d| !d.race).count();
    assert!(sure >= 20, "only {sure} defects must be caught everywhere");
}

#[test]
fn planted_defects_are_caught() {
    let default = testing::gpu();
    // Most defects lie in the kernels of GPUs, which a CPU gets without subgroups; with them it has kernels of its own.
    let without = GpuOptions { without: vec!["subgroups".into()], ..GpuOptions::from_env() };
    let wide = default.capabilities().cpu.then(|| Gpu::new(without).unwrap_or_else(|e| panic!("{e}")));
    let devices: Vec<&Gpu> = wide.iter().chain([&default]).collect();
    let cases = ops::cases();
    let (mut missed, mut sound) = (Vec::new(), Vec::new());
    println!("{:52} {:30} {:20} check", "defect", "kernel", "case");
    for defect in DEFECTS {
        let Some(case) = cases.iter().find(|c| c.stem == defect.case) else {
            missed.push(format!("{}: no case {}", defect.what, defect.case));
            continue;
        };
        let Some(gpu) = devices.iter().copied().find(|gpu| case.runs(gpu)) else {
            println!("{:52} {:30} {:20} not for this adapter", defect.what, defect.stem, defect.case);
            continue;
        };
        // What fails without the defect would prove nothing.
        if !sound.contains(&(defect.case, defect.sizes, defect.race)) {
            let failure = caught(gpu, case, defect.sizes, defect.race);
            assert!(failure.is_none(), "without any defect: {failure:?}");
            sound.push((defect.case, defect.sizes, defect.race));
        }
        let text = match defect.planted() {
            Ok(text) => text,
            Err(e) => {
                missed.push(e);
                continue;
            }
        };
        gpu.replace_kernel(defect.stem, Some(&text)).expect("the kernel exists");
        let failure = caught(gpu, case, defect.sizes, defect.race);
        gpu.replace_kernel(defect.stem, None).expect("the kernel exists");
        let check = match &failure {
            Some((check, why)) => {
                // A defect that does not compile would be caught by anything.
                if why.contains("kernel `") {
                    missed.push(format!("{}: {why}", defect.what));
                }
                *check
            }
            None => {
                missed.push(format!("{} in {}.wgsl passes case {}", defect.what, defect.stem, defect.case));
                "MISSED"
            }
        };
        println!("{:52} {:30} {:20} {check}", defect.what, defect.stem, defect.case);
    }
    assert!(missed.is_empty(), "{} defects were not caught:\n{}", missed.len(), missed.join("\n"));
}
