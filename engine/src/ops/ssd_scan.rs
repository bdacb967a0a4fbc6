//! Mamba-2's selective state space (Dao & Gu 2024, arXiv 2405.21060) over blocks of tokens, with groups, states and
//! restarts. Per head, h of shape (P, N):
//!
//! ```text
//! dt = clamp(softplus(raw + dt_bias)),  A = −exp(a_log)
//! h[t] = exp(dt[t]·A) · h[t−1] + dt[t] · x[t] ⊗ B[t],   y[t] = h[t] · C[t] + D · x[t]
//! ```
//!
//! Forward: each block's own last state, from zeros; a pass over blocks that hands states on; outputs, each block
//! from the state that reached it. The backward pass is the same recurrence in reverse: with
//! g[t] = dy[t] ⊗ C[t] + exp(dt·A)[t+1] · g[t+1], it is dx = dt · g·B, dB = dt · gᵀ·x and dC = hᵀ·dy, so one kernel
//! serves all four, with rows along P or along N.
//!
//! The gradient of decay, da[t] = ⟨g[t], exp(dt·A) · h[t−1]⟩, needs h and g at one place, and they run in opposite
//! directions. Within a tile of 8 tokens it follows from da[t] − da[t+1] = C·dC − dt · x·(g·B), whose sum loses digits as
//! it grows, so it begins anew with each tile: dC's pass marks the states that enter tiles, dB's meets them. Marks of as
//! many blocks as 256 MiB hold are kept at a time; nothing else of size (tokens, P, N) is ever stored.

use std::ops::Range;

use crate::{
    DType, Gpu, Tensor, autograd, launch,
    ops::{
        Columns, PartialSums, batches_a_binding, in_batches,
        ssd_chunk::{Form, Gradients, Scan, half_cost},
    },
    reference::Array,
    testing::{Case, Cost, Dim, Input, Part, Share, some},
};

/// Tokens a block; `Q` in the kernel.
const BLOCK: usize = 128;

/// Tokens a tile; `TILE` in the kernels.
const TILE: usize = 8;

/// Rows a workgroup; `WG` in the kernel.
const ROWS: usize = 64;

/// Rows a workgroup of `ssd_scan_direct`, two a lane, and the most elements of one.
const ROWS_DIRECT: usize = 16;
const MOST_DIRECT: usize = 64;

/// Tokens that share a partial sum of what belongs to heads; `ROWS` in `ssd_dt_backward`.
const ROWS_DT: usize = 16;

/// Bytes of marks at a time.
const MARKS: usize = 256 << 20;

/// What [`ssd_scan`] takes.
#[derive(Clone, Copy)]
pub struct SsdInputs<'a> {
    /// (batch, tokens, heads, P), f32 or f16, and y with it.
    pub x: &'a Tensor,
    /// (batch, tokens, heads), f32 or f16, before bias and softplus, read where it lies.
    pub dt: &'a Columns,
    /// (heads), f32.
    pub dt_bias: &'a Tensor,
    /// (heads), f32.
    pub a_log: &'a Tensor,
    /// (batch, tokens, groups, N), in x's type.
    pub b: &'a Tensor,
    /// (batch, tokens, groups, N), in x's type.
    pub c: &'a Tensor,
    /// (heads), f32.
    pub d: Option<&'a Tensor>,
    /// (batch, heads, P, N), f32: the state before the first token; zeros without.
    pub initial_state: Option<&'a Tensor>,
    /// (batch, tokens), u32: the state restarts from zeros wherever it changes.
    pub segment: Option<&'a Tensor>,
    /// Limits of dt.
    pub dt_limit: (f32, f32),
}

/// The kernel of the recurrence.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kernel {
    /// A token's operands pass through workgroup memory.
    Tile,
    /// Straight from storage, for CPUs.
    Direct,
    /// Matrix products over chunks.
    Chunk(Form),
}

impl Kernel {
    fn runs_on(self, gpu: &Gpu) -> bool {
        match self {
            Kernel::Tile => true,
            Kernel::Direct => gpu.capabilities().subgroups.is_some_and(|(least, _)| least >= 8),
            Kernel::Chunk(form) => form.runs_on(gpu),
        }
    }

    /// The choice depends on a head's sizes and type alone, never on the number of tokens or sequences.
    fn best(x: &Tensor, n: usize) -> Kernel {
        let [.., p]: [usize; 4] = x.axes();
        if x.gpu().capabilities().cpu_vectors() {
            Kernel::Direct
        } else if Form::Coop.runs_on(x.gpu()) && Form::Coop.takes(x.dtype(), p, n) && p >= 32 && n >= 32 {
            Kernel::Chunk(Form::Coop)
        } else {
            Kernel::Tile
        }
    }
}

#[derive(Clone, Copy)]
struct Sizes {
    batches: usize,
    tokens: usize,
    heads: usize,
    p: usize,
    n: usize,
    /// Heads a group of B and C.
    share: usize,
    blocks: usize,
    kernel: Kernel,
}

/// An operand of the recurrence: the tensor, and how many heads share its entries.
#[derive(Clone, Copy)]
struct Along<'a>(&'a Tensor, usize);

/// Which way, and what runs along the rows.
#[derive(Clone, Copy)]
struct Direction {
    reverse: bool,
    /// Rows are the head dims (and columns the state dims), or the reverse.
    rows_are_p: bool,
    /// The input is multiplied by dt.
    dt_in: bool,
    /// Outputs leave out what their own token put in.
    exclusive: bool,
}

/// States that enter tiles, for some of a launch's workgroups.
struct Marks<'a> {
    /// The states, left by a forward pass.
    left: &'a Tensor,
    /// Their products with what a reverse pass holds at the same place.
    met: Option<&'a Tensor>,
    groups: Range<usize>,
}

impl Sizes {
    /// One launch of the recurrence over all blocks: states alone, or outputs from them.
    fn recur(
        self,
        way: Direction,
        [input, wr, read]: [Along<'_>; 3],
        steps: &Tensor,
        d: Option<&Tensor>,
        states: &Tensor,
        out: Option<&Tensor>,
        totals: &Tensor,
    ) {
        self.recur_marked(way, [input, wr, read], steps, d, states, out, totals, None);
    }

    /// Workgroups of the recurrence.
    fn groups(self, way: Direction) -> usize {
        let rows = if way.rows_are_p { self.p } else { self.n };
        self.batches * self.blocks * self.heads * rows.div_ceil(ROWS)
    }

    fn recur_marked(
        self,
        way: Direction,
        [input, wr, read]: [Along<'_>; 3],
        steps: &Tensor,
        d: Option<&Tensor>,
        states: &Tensor,
        out: Option<&Tensor>,
        totals: &Tensor,
        marks: Option<Marks<'_>>,
    ) {
        let (rows, j) = if way.rows_are_p { (self.p, self.n) } else { (self.n, self.p) };
        let (state_row, state_j) = if way.rows_are_p { (self.n, 1) } else { (1, self.n) };
        // Marks lie as the tiles of the one kernel that leaves them.
        let direct = self.kernel == Kernel::Direct && marks.is_none() && j <= MOST_DIRECT;
        let row_tiles = rows.div_ceil(if direct { ROWS_DIRECT } else { ROWS });
        let all = self.batches * self.blocks * self.heads * row_tiles;
        let stride = |a: Along<'_>, width: usize| self.heads / a.1 * width;
        let (side, extra, marked, range) = match &marks {
            None => (d.unwrap_or(steps), totals, 0, 0..all),
            Some(Marks { left, met: None, groups }) => (steps, *left, 1, groups.clone()),
            Some(Marks { left, met: Some(products), groups }) => (*left, *products, 2, groups.clone()),
        };
        let (first, groups) = (range.start, range.end);
        // A pass that writes no output binds a buffer that nothing else uses.
        let none;
        let out_ = match out {
            Some(out) => out,
            None => {
                none = input.0.empty_on([1], DType::F32);
                &none
            }
        };
        macro_rules! scan_launch {
            ($stem:ident [$($spec:ident = $value:expr),*]) => {
                launch!($stem [elem = input.0.dtype().wgsl(), elem_out = out_.dtype().wgsl(),
                               OUTPUT = u32::from(out.is_some()), REVERSE = u32::from(way.reverse),
                               EXCLUSIVE = u32::from(way.exclusive), $($spec = $value),*] {
                    tokens: self.tokens, blocks: self.blocks, heads: self.heads, rows, j, row_tiles,
                    in_stride: stride(input, rows), in_share: input.1, wr_stride: stride(wr, j), wr_share: wr.1,
                    read_stride: stride(read, j), read_share: read.1,
                    state_row, state_j, dt_in: way.dt_in, has_d: d.is_some(), first, groups,
                }, [input.0, wr.0, read.0, steps, side] -> [states, extra, out_], groups - first)
            };
        }
        if direct {
            let (width, unit) = if j.is_multiple_of(4) { (4, "vec4<elem>") } else { (1, "elem") };
            scan_launch!(ssd_scan_direct [J16 = j.div_ceil(16), WIDTH = width, unit = unit]);
        } else {
            // Two vectors of J and a step a token; wide states leave room for fewer tokens.
            let stage = |n: &usize| n * (32 * j.div_ceil(4) + 8) <= states.gpu().capabilities().workgroup_memory as usize;
            let stage = [TILE, TILE / 2].into_iter().find(stage).expect("P and N to 256 fit 16 KiB");
            scan_launch!(ssd_scan [MARKS = marked, J4 = j.div_ceil(4), STAGE = stage]);
        }
    }

    /// Gradients by the recurrences.
    fn backward(
        self,
        [x, b, c, dy]: [&Tensor; 4],
        steps: &Tensor,
        [states, last]: [&Tensor; 2],
        dlast: Option<&Tensor>,
        (a_log, d): (&Tensor, Option<&Tensor>),
    ) -> Gradients {
        let Sizes { batches, tokens, heads, p, n, share, blocks, .. } = self;
        let elem = x.dtype().wgsl();
        let totals = x.empty_on([batches, blocks, heads], DType::F32);
        // Gradients before dt is multiplied in, up to 1/dt as large as what is returned: f16 would not hold them.
        let heads_n = || x.empty_on([batches, tokens, heads, n], DType::F32);
        // g, in reverse: what later blocks send back reaches each block.
        let later = states.like();
        let way = Direction { reverse: true, rows_are_p: true, dt_in: false, exclusive: true };
        let operands = [Along(dy, 1), Along(c, share), Along(b, share)];
        self.recur(way, operands, steps, None, &later, None, &totals);
        let dinitial = self.pass(true, &later, &totals, dlast);
        let r = x.empty_on(x.shape(), DType::F32);
        self.recur(way, operands, steps, None, &later, Some(&r), &totals);
        // dC a head, the forward recurrence with rows along N, and dB / dt a head, in reverse. dt belongs to the head, so
        // that it multiplies B there too.
        let (dc_heads, w) = (heads_n(), heads_n());
        let forward = Direction { reverse: false, rows_are_p: false, dt_in: true, exclusive: true };
        let reverse = Direction { reverse: true, dt_in: false, ..forward };
        let products = x.empty_on([batches, blocks, BLOCK / TILE, heads, n], DType::F32);
        let bytes = BLOCK / TILE * p.next_multiple_of(4) * ROWS * 4;
        let page = (MARKS.min(x.gpu().capabilities().max_binding as usize) / bytes).clamp(1, self.groups(forward));
        let left = x.empty_on([page * bytes / 4], DType::F32);
        for first in (0..self.groups(forward)).step_by(page) {
            let groups = first..(first + page).min(self.groups(forward));
            let operands = [Along(b, share), Along(x, 1), Along(dy, 1)];
            let marks = Marks { left: &left, met: None, groups: groups.clone() };
            self.recur_marked(forward, operands, steps, None, states, Some(&dc_heads), &totals, Some(marks));
            let operands = [Along(c, share), Along(dy, 1), Along(x, 1)];
            let marks = Marks { left: &left, met: Some(&products), groups };
            self.recur_marked(reverse, operands, steps, None, &later, Some(&w), &totals, Some(marks));
        }
        drop(left);
        let (db, dc) = (b.like(), c.like());
        let rows = batches * tokens;
        let workgroups = batches * blocks * heads;
        let side = x.empty_on([batches, tokens, heads, 4], DType::F32);
        launch!(ssd_ends [elem = elem] { tokens, blocks, heads, p, n, share, groups: workgroups },
                [b, c, dc_heads, last, later, products] -> [side], workgroups);
        let (has_d, d) = (d.is_some(), d.unwrap_or(a_log));
        let dx = x.like();
        launch!(ssd_scan_backward [elem = elem]
                { tokens, blocks, heads, p, n, share, has_d, groups: workgroups },
                [x, dy, a_log, d, steps, r] -> [dx, side], workgroups);
        launch!(ssd_groups [elem = elem] { rows, heads, share, n }, [w, dc_heads, steps, side, b, c] -> [db, dc],
                (rows * heads / share * n).div_ceil(256));
        Gradients { dx, db, dc, dinitial, side }
    }

    /// [`pass`] over blocks.
    fn pass(self, reverse: bool, states: &Tensor, totals: &Tensor, initial: Option<&Tensor>) -> Tensor {
        let Sizes { batches, blocks, heads, p, n, .. } = self;
        let last = states.empty_on([batches, heads, p, n], DType::F32);
        let sizes = [batches, blocks, heads, p * n];
        pass(reverse, sizes, 0..batches * blocks, [states, totals, &last], initial, None);
        last
    }
}

/// States that reach blocks, in another type and times a factor: where, and from which element on.
pub(super) struct Kept<'a> {
    pub tensor: &'a Tensor,
    pub to: usize,
    pub factor: f32,
}

/// Hands states on from block to block, `range` of all sequences' at a time (descending in reverse); what leaves the
/// last one is `last`, (batches, heads, size).
pub(super) fn pass(
    reverse: bool,
    [batches, blocks, heads, size]: [usize; 4],
    range: Range<usize>,
    [states, totals, last]: [&Tensor; 3],
    initial: Option<&Tensor>,
    kept: Option<Kept<'_>>,
) {
    let (has_initial, initial) = (initial.is_some(), initial.unwrap_or(totals));
    let (keep, none) = (u32::from(kept.is_some()), states.empty_on([1], DType::F32));
    let Kept { tensor, to, factor } = kept.unwrap_or(Kept { tensor: &none, to: 0, factor: 1.0 });
    let (first, end) = (range.start, range.end);
    launch!(ssd_state_passing [REVERSE = u32::from(reverse), KEEP = keep, elem = tensor.dtype().wgsl()]
            { batches, blocks, heads, size, first, end, to, has_initial, factor },
            [totals, initial] -> [states, last, tensor], (batches * heads * size).div_ceil(256));
}

/// The scan: y (batch, tokens, heads, P) and the final state (batch, heads, P, N) in f32.
///
/// # Panics
/// Where shapes or types disagree, there are no tokens, or P or N exceeds 256.
#[track_caller]
pub fn ssd_scan(inputs: SsdInputs<'_>) -> (Tensor, Tensor) {
    let [.., n]: [usize; 4] = inputs.b.axes();
    scan(inputs, Kernel::best(inputs.x, n))
}

#[track_caller]
fn scan(inputs: SsdInputs<'_>, kernel: Kernel) -> (Tensor, Tensor) {
    let SsdInputs { x, dt, dt_bias, a_log, b, c, d, initial_state, segment, dt_limit } = inputs;
    let [batches, tokens, heads, p] = x.axes();
    let [_, _, groups, n] = b.axes();
    assert!(tokens > 0 && p <= 256 && n <= 256, "ssd_scan: x {:?}, N {n}: tokens from 1, P and N to 256", x.shape());
    assert!(groups > 0 && heads.is_multiple_of(groups), "ssd_scan: {groups} groups of {heads} heads");
    let expect = |name: &str, t: &Tensor, shape: &[usize]| {
        assert_eq!(t.shape(), shape, "ssd_scan: {name} for x {:?}", x.shape());
    };
    assert_eq!(dt.shape(), [batches, tokens, heads], "ssd_scan: dt for x {:?}", x.shape());
    expect("dt_bias", dt_bias, &[heads]);
    expect("a_log", a_log, &[heads]);
    expect("b", b, &[batches, tokens, groups, n]);
    expect("c", c, &[batches, tokens, groups, n]);
    let (of_b, of_c) = (b.dtype(), c.dtype());
    assert!(of_b == x.dtype() && of_c == x.dtype(), "ssd_scan: types of x, b and c: {}, {of_b}, {of_c}", x.dtype());
    d.inspect(|d| expect("d", d, &[heads]));
    initial_state.inspect(|s| expect("initial_state", s, &[batches, heads, p, n]));
    segment.inspect(|s| expect("segment", s, &[batches, tokens]));
    // Columns that fit no binding together with those beside them are taken out from among them.
    let together = (batches * tokens * dt.stride() * dt.dtype().bytes()) as u64;
    let apart = (together > x.gpu().capabilities().max_binding).then(|| Columns::from(&dt.again().contiguous()));
    let dt = apart.as_ref().unwrap_or(dt);
    let blocks = tokens.div_ceil(BLOCK);
    let chunks = match kernel {
        Kernel::Chunk(form) => {
            assert!(form.takes(x.dtype(), p, n), "ssd_scan: no chunks for {}, P {p}, N {n}", x.dtype());
            Some(Scan { form, batches, tokens, heads, p, n, share: heads / groups })
        }
        _ => None,
    };
    // What a token carries; gradients a head, states, products where tiles begin.
    let (a_head, tiles) = (heads * p.max(n) * 4, blocks * BLOCK / TILE);
    let recurrent = [tokens * a_head, blocks * heads * (p * n).max(2) * 4, tiles * heads * n * 4];
    let largest = chunks.map_or(recurrent.into_iter().max().unwrap_or(0), |c| c.largest(x.dtype()));
    let operands = [tokens * heads * 16, largest];
    let most = batches_a_binding(x.gpu(), batches, operands.into_iter().max().unwrap_or(0));
    if most < batches {
        let dt = dt.again().contiguous();
        let mut cut = vec![x, &dt, b, c];
        cut.extend(initial_state);
        cut.extend(segment);
        let mut parts = in_batches(&cut, most, |i| {
            let part = SsdInputs {
                x: &i[0],
                dt: &(&i[1]).into(),
                b: &i[2],
                c: &i[3],
                initial_state: initial_state.map(|_| &i[4]),
                segment: segment.map(|_| &i[i.len() - 1]),
                ..inputs
            };
            let (y, state) = scan(part, kernel);
            vec![y, state]
        });
        return (parts.remove(0), parts.remove(0));
    }
    let sizes = Sizes { batches, tokens, heads, p, n, share: heads / groups, blocks, kernel };
    let share = sizes.share;
    let (low, high) = dt_limit;

    let count = batches * tokens * heads;
    let (has_segment, segment) = (segment.is_some(), segment.unwrap_or(a_log));
    // dt and decays, token by token or chunk by chunk.
    let steps = match chunks {
        Some(chunks) => chunks.logs(dt, [dt_bias, a_log, segment], has_segment, dt_limit),
        None => {
            let steps = x.empty_on([batches, tokens, heads, 2], DType::F32);
            launch!(ssd_decay [elem = dt.dtype().wgsl()] { batches, tokens, heads, stride: dt.stride(), start: dt.start(), low, high, has_segment },
                    [dt.input(), dt_bias, a_log, segment] -> [steps], count.div_ceil(256));
            steps
        }
    };
    // `states`: those that reach blocks, or spans of chunks where there are such.
    let (y, last, states) = match chunks {
        Some(chunks) => chunks.forward([x, b, c], &steps, d, initial_state),
        None => {
            let states = x.empty_on([batches, blocks, heads, p, n], DType::F32);
            let totals = x.empty_on([batches, blocks, heads], DType::F32);
            let y = x.like();
            let way = Direction { reverse: false, rows_are_p: true, dt_in: true, exclusive: false };
            let operands = [Along(x, 1), Along(b, share), Along(c, share)];
            sizes.recur(way, operands, &steps, None, &states, None, &totals);
            let last = sizes.pass(false, &states, &totals, initial_state);
            sizes.recur(way, operands, &steps, d, &states, Some(&y), &totals);
            (y, last, Some(states))
        }
    };

    let [x_, dt_bias_, a_log_, b_, c_] = [x, dt_bias, a_log, b, c].map(Tensor::detach);
    let dt_ = dt.detach();
    let (d_, last_, has_initial) = (d.map(Tensor::detach), last.detach(), initial_state.is_some());
    let mut all = vec![x, dt.input(), dt_bias, a_log, b, c];
    all.extend(d);
    all.extend(initial_state);
    let [y, last] = autograd::record(&all, [y, last], move |[dy, dlast]| {
        let dy = dy.unwrap_or_else(|| Tensor::zeros(x_.gpu(), x_.shape(), x_.dtype()));
        let has_d = d_.is_some();
        let g = match chunks {
            Some(chunks) => {
                let operands = [&x_, &b_, &c_, &dy];
                chunks.backward(operands, &steps, states.as_ref(), dlast.as_ref(), (&a_log_, d_.as_ref()))
            }
            None => {
                let operands = [&x_, &b_, &c_, &dy];
                let states = states.as_ref().expect("states reach blocks");
                sizes.backward(operands, &steps, [states, &last_], dlast.as_ref(), (&a_log_, d_.as_ref()))
            }
        };
        let (rows, side, d_raw) = (batches * tokens, g.side, dt_.gradient());
        let blocks = rows.div_ceil(ROWS_DT);
        let sums = PartialSums::new(&x_, blocks, 3 * heads);
        let (raw, all) = (dt_.input(), sums.all());
        launch!(ssd_dt_backward [elem = dt_.dtype().wgsl()]
                { rows, heads, stride: dt_.stride(), start: dt_.start(), low, high },
                [side, raw, dt_bias_] -> [d_raw, all], (blocks * heads).div_ceil(64));
        let mut grads = vec![Some(g.dx), Some(d_raw), None, None, Some(g.db), Some(g.dc)];
        grads.extend(has_d.then_some(None));
        grads.extend(has_initial.then_some(Some(g.dinitial)));
        let mut summed = vec![(2, [heads].into()), (3, [heads].into())];
        summed.extend(has_d.then(|| (6, [heads].into())));
        autograd::Gradients::from(grads).and_sums(sums, summed)
    });
    (y, last)
}

/// The recurrence itself, token by token.
fn reference(s: &crate::testing::Sizes, i: &[Array]) -> Vec<Array> {
    let [batches, tokens, heads, p]: [usize; 4] = i[0].axes();
    let [_, _, groups, n]: [usize; 4] = i[4].axes();
    let mut y = Array::zeros(&[batches, tokens, heads, p]);
    let mut last = Array::zeros(&[batches, heads, p, n]);
    for b in 0..batches {
        for h in 0..heads {
            let (a, g) = (-i[3].data[h].exp(), h / (heads / groups));
            let mut state = Array::zeros(&[p, n]);
            if s["initial"] == 1 {
                state = Array::from_fn(&[p, n], |at| i[7].at(&[b, h, at[0], at[1]]));
            }
            for t in 0..tokens {
                let raw = i[1].at(&[b, t, h]) + i[2].data[h];
                let dt = (raw.max(0.0) + (-raw.abs()).exp().ln_1p()).clamp(LIMIT.0.into(), LIMIT.1.into());
                let restart = s["segment"] == 1 && t > 0 && i[8].at(&[b, t]) != i[8].at(&[b, t - 1]);
                let decay = if restart { 0.0 } else { (dt * a).exp() };
                for row in 0..p {
                    let v = i[0].at(&[b, t, h, row]);
                    let mut sum = if s["d"] == 1 { i[6].data[h] * v } else { 0.0 };
                    for column in 0..n {
                        let cell = state.at_mut(&[row, column]);
                        *cell = decay * *cell + dt * v * i[4].at(&[b, t, g, column]);
                        sum += *cell * i[5].at(&[b, t, g, column]);
                    }
                    *y.at_mut(&[b, t, h, row]) = sum;
                }
            }
            for (k, v) in state.data.iter().enumerate() {
                last.data[(b * heads + h) * p * n + k] = *v;
            }
        }
    }
    vec![y, last]
}

/// Narrow, so that the steps drawn meet both ends.
const LIMIT: (f32, f32) = (0.05, 1.5);

pub(super) fn run(s: &crate::testing::Sizes, i: &[Tensor], kernel: Kernel) -> Vec<Tensor> {
    run_by(s, i, &(&i[1]).into(), kernel)
}

/// The scan with dt among other columns: `BESIDE` of them before and behind it.
const BESIDE: [usize; 2] = [3, 2];

pub(super) fn run_beside(s: &crate::testing::Sizes, i: &[Tensor], kernel: Kernel) -> Vec<Tensor> {
    let [before, after] = BESIDE;
    let dt = crate::ops::columns(&i[1], &[before, s["share"] * s["groups"], after]).swap_remove(1);
    run_by(s, i, &dt, kernel)
}

/// What [`run_beside`] is held against, of `plain`.
pub(super) fn beside(plain: Case) -> Case {
    Case {
        inputs: |s, draw| {
            let mut inputs = (scan_case().inputs)(s, draw);
            let wide = s["share"] * s["groups"] + BESIDE.iter().sum::<usize>();
            // With any bias within the limits: among so many steps one would lie where the clamp bends.
            inputs[1] = Input::new("dt", draw.uniform(&[s["batches"], s["tokens"], wide], -0.9, 0.7)).grad();
            inputs
        },
        reference: |s, i| {
            let mut i = i.to_vec();
            let dt = |at: &[usize]| i[1].at(&[at[0], at[1], BESIDE[0] + at[2]]);
            i[1] = Array::from_fn(&[s["batches"], s["tokens"], s["share"] * s["groups"]], dt);
            reference(s, &i)
        },
        part: None,
        bench: &[],
        ..plain
    }
}

fn run_by(s: &crate::testing::Sizes, i: &[Tensor], dt: &Columns, kernel: Kernel) -> Vec<Tensor> {
    let on = |name: &str, t| (s[name] == 1).then_some(t);
    let inputs = SsdInputs {
        x: &i[0],
        dt,
        dt_bias: &i[2],
        a_log: &i[3],
        b: &i[4],
        c: &i[5],
        d: on("d", &i[6]),
        initial_state: on("initial", &i[7]),
        segment: on("segment", &i[8]),
        dt_limit: LIMIT,
    };
    let (y, last) = scan(inputs, kernel);
    vec![y, last]
}

/// The scan by the best kernel.
pub(super) fn scan_case() -> Case {
    Case {
        dims: vec![
            Dim::range("batches", 1, 2),
            Dim::range("tokens", 1, 190),
            Dim::one_of("share", &[1, 2]),
            Dim::one_of("groups", &[1, 2]),
            Dim::one_of("p", &[4, 1, 10, 7]),
            Dim::one_of("n", &[4, 1, 10, 17]),
            Dim::one_of("d", &[0, 1]),
            Dim::one_of("initial", &[0, 1]),
            Dim::one_of("segment", &[0, 1]),
        ],
        inputs: |s, draw| {
            let [batches, tokens, share, groups, p, n, d, initial, _] = s.get();
            let heads = share * groups;
            let mut id = 0.0;
            let segment = Array::from_fn(&[batches, tokens], |_| {
                id += f64::from(u8::from(draw.below(40) == 0));
                id
            });
            let mut grad = |name, shape: &[usize], low, high| Input::new(name, draw.uniform(shape, low, high)).grad();
            vec![
                grad("x", &[batches, tokens, heads, p], -2.0, 2.0),
                grad("dt", &[batches, tokens, heads], -2.0, 2.0),
                grad("dt_bias", &[heads], -2.0, 0.5),
                grad("a_log", &[heads], -1.5, 1.0),
                grad("b", &[batches, tokens, groups, n], -1.0, 1.0),
                grad("c", &[batches, tokens, groups, n], -1.0, 1.0),
                Input { differentiable: d == 1, ..grad("d", &[heads], -1.0, 1.0) },
                Input { differentiable: initial == 1, ..grad("initial", &[batches, heads, p, n], -1.0, 1.0) },
                Input::new("segment", segment).of(DType::U32),
            ]
        },
        run: |s, i| run(s, i, Kernel::best(&i[0], s["n"])),
        reference,
        error: |_| 64.0,
        error_grad: Some(|s| 100.0 + 2.0 * ((s["batches"] * s["tokens"]) as f64).sqrt()),
        cost: |s| {
            let [batches, tokens, share, groups, p, n, ..]: [usize; 9] = s.get();
            let rows = batches * tokens;
            let (x, bc) = (share * groups * p, groups * n);
            Cost { bytes: 4 * rows * (2 * x + 2 * bc), flops: 5 * rows * x * n }
        },
        // Two rows of one head's state, since rows walk alone; of short texts all, whose mean size says what an error is.
        part: Some(|s, draw| {
            let [batches, tokens, share, groups, p, n, d, initial, segment] = s.get();
            let (b, h, rows) = (some(draw, batches, 1), some(draw, share * groups, 1), some(draw, p, if tokens < 256 { p } else { 2 }));
            let (t, g) = (0..tokens.min(4352), h.start / share..h.start / share + 1);
            let along = |last: &[std::ops::Range<usize>]| [&[b.clone(), t.clone()], last].concat();
            let (heads, bc) = (vec![h.clone()], along(&[g, 0..n]));
            let state = vec![b.clone(), h.clone(), rows.clone(), 0..n];
            let y = along(&[h.clone(), rows.clone()]);
            Part {
                sizes: vec![1, t.len(), 1, 1, rows.len(), n, d, initial, segment],
                inputs: vec![
                    y.clone(), along(std::slice::from_ref(&h)), heads.clone(), heads.clone(), bc.clone(), bc, heads,
                    state.clone(), along(&[]),
                ],
                outputs: vec![Share::Cut(y), if t.len() == tokens { Share::Cut(state) } else { Share::Nothing }],
            }
        }),
        bench: &[&[32, 4096, 8, 1, 64, 64, 1, 0, 1], &[8, 4096, 32, 1, 64, 128, 1, 0, 0]],
        ..Case::new("ssd_scan")
    }
}

pub(super) fn cases() -> Vec<Case> {
    let plain = scan_case();
    // Heads enough for several workgroups of `ssd_dt_backward`.
    let mut of_heads = plain.dims.clone();
    of_heads[2] = Dim::one_of("share", &[16, 1]);
    vec![
        plain.in_half("ssd_scan.f16", &["x", "dt", "b", "c"], 1.0),
        Case { bench: plain.bench, cost: half_cost, ..plain.in_half("ssd_scan.f16_f32", &["x", "b", "c"], 1.0) },
        beside(Case { stem: "ssd_scan.beside", run: |s, i| run_beside(s, i, Kernel::Tile), ..plain.clone() }),
        beside(Case {
            stem: "ssd_scan.heads",
            dims: of_heads,
            run: |s, i| run_beside(s, i, Kernel::Tile),
            large: true,
            ..plain.clone()
        }),
        Case { stem: "ssd_scan.tile", run: |s, i| run(s, i, Kernel::Tile), bench: &[], ..plain.clone() },
        // The widest heads and states: what is staged must fit the least workgroup memory.
        Case {
            stem: "ssd_scan.wide",
            dims: vec![
                Dim::one_of("batches", &[1]),
                Dim::one_of("tokens", &[9, 20, 33]),
                Dim::one_of("share", &[1]),
                Dim::one_of("groups", &[1]),
                Dim::one_of("p", &[4, 256, 70]),
                Dim::one_of("n", &[256, 250, 4]),
                Dim::one_of("d", &[0, 1]),
                Dim::one_of("initial", &[0, 1]),
                Dim::one_of("segment", &[0, 1]),
            ],
            run: |s, i| run(s, i, Kernel::Tile),
            // One sequence must fit a binding.
            large: true,
            bench: &[],
            ..plain.clone()
        },
        Case {
            stem: "ssd_scan.direct",
            dims: plain.dims.iter().map(|d| if d.name == "n" { Dim::one_of("n", &[4, 1, 10, 17, 36, 64]) } else { *d }).collect(),
            run: |s, i| run(s, i, Kernel::Direct),
            runs_on: |gpu| Kernel::Direct.runs_on(gpu),
            large: true,
            bench: &[],
            ..plain.clone()
        },
        plain,
    ]
}
