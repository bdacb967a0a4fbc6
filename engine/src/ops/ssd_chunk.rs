//! The scan of [`ssd_scan`](super::ssd_scan) as matrix products over chunks of T tokens (Dao & Gu 2024, section 6), for
//! cooperative matrices. With L[t, s] = Π decays s + 1 … t, H the state that enters a chunk and G the gradient of the
//! one that leaves it:
//!
//! ```text
//! y  = (L ∘ C·Bᵀ ∘ dt) · x + (decay from start) ∘ C·Hᵀ + D · x          H' = total · H + (decay to end ∘ dt ∘ x)ᵀ · B
//! ```
//!
//! A workgroup walks along a span of chunks and leaves H of each; outputs are then one workgroup a chunk and some of a
//! group's heads, one after the other, which share C·Bᵀ: of each head one product of (decay from start ∘ C,
//! L ∘ C·Bᵀ ∘ dt + D) with (H, x), along state dims and tokens. Decays between tokens are exponentials of differences of
//! sums of logarithms that begin anew with each chunk (`ssd_logs`). A sum is rounded to 2⁻²⁴ of itself, so that decays keep
//! the digits of operands in 16 bits while sums stay below some thousands: no logarithm is less than −160, whose exponential
//! is 0, and restarts are that.
//!
//! Of several spans each is walked once, from zeros: a state is linear in its start, so what leaves spans goes through
//! `ssd_state_passing`, as between the recurrence's blocks, and whoever reads a chunk's state adds what enters its span
//! times the decay from there, which the walk leaves too. Where states do not fit at once, spans go in order.
//!
//! Backward: H is walked again from what entered spans, the same walk in reverse leaves G, then one workgroup a chunk
//! and some of a group's heads makes dx and the gradients of dt and decays and leaves its heads' sum of L ∘ dy·xᵀ ∘ dt,
//! and one a chunk, a group and a tile of state dims makes dB or dC of that and of all heads' states. Of the states
//! only those that enter spans are kept. In 16 bits operands of products are rounded, weights and states with them;
//! decays, sums, the states that a walk carries and those handed between spans are f32.

use std::ops::Range;

use crate::{
    DType, Gpu, Tensor, launch,
    ops::{
        Columns,
        ssd_scan::{Kernel, Kept, beside, pass, run, run_beside, scan_case},
    },
    testing::{Case, Cost, Dim, Sizes},
};

/// What G is stored over; `SCALE` in the kernels.
const SCALE: f32 = 16.0;

/// Most bytes of workgroup memory, invocations and buffers of one of the kernels.
const MEMORY: u32 = 46336;
const INVOCATIONS: u32 = 512;
const BUFFERS: u32 = 12;

/// Tokens times heads a workgroup of `ssd_logs`; `WG` in the kernel.
const LOGS: usize = 256;

/// Most heads a workgroup, of outputs where they leave ENOUGH of these, and of gradients.
const OUTPUTS: usize = 16;
const ENOUGH: usize = 528;
const GRADIENTS: usize = 16;

/// Who multiplies.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Form {
    /// Chunks of 16 tokens: the same kernels but for the products.
    Plain,
    /// Chunks of 64 tokens on cooperative matrices.
    Coop,
}

impl Form {
    /// Whether the adapter runs it.
    pub(super) fn runs_on(self, gpu: &Gpu) -> bool {
        let c = gpu.capabilities();
        let fits = c.workgroup_memory >= MEMORY && c.invocations >= INVOCATIONS;
        let coop = c.coop && c.subgroups == Some((32, 32)) && fits;
        c.storage_buffers >= BUFFERS && (self == Form::Plain || coop)
    }

    /// Whether it takes these operands: one tile a head, in vectors of four.
    pub(super) fn takes(self, dtype: DType, p: usize, n: usize) -> bool {
        let fours = p.is_multiple_of(4) && n.is_multiple_of(4) && p <= self.tile();
        fours && dtype == DType::F16
    }

    /// Tokens a chunk, and rows and columns of all tiles; `T` in the kernels.
    fn tile(self) -> usize {
        match self {
            Form::Plain => 16,
            Form::Coop => 64,
        }
    }

    /// Bytes of the chunks' states at a time: of the plain kernels so few that small cases take several.
    fn room(self) -> usize {
        match self {
            Form::Plain => 1 << 9,
            Form::Coop => 512 << 20,
        }
    }

    /// Most chunks a span: a workgroup's walk.
    fn most(self) -> usize {
        match self {
            Form::Plain => 4,
            Form::Coop => 64,
        }
    }
}

/// What the kernels take, checked by the op.
#[derive(Clone, Copy)]
pub(super) struct Scan {
    pub form: Form,
    pub batches: usize,
    pub tokens: usize,
    pub heads: usize,
    pub p: usize,
    pub n: usize,
    /// Heads a group of B and C.
    pub share: usize,
}

/// One walk along spans.
#[derive(Clone, Copy)]
struct Walk<'a> {
    reverse: bool,
    input: &'a Tensor,
    wr: &'a Tensor,
    /// As `ssd_logs` leaves them.
    logs: &'a Tensor,
    /// The states that enter spans; zeros without.
    start: Option<&'a Tensor>,
}

/// What is handed on from span to span.
struct Ends {
    /// (batches, spans, heads, P, N): what leaves spans that start from zeros, then what enters them; of one span,
    /// what leaves it.
    states: Tensor,
    /// (batches, spans, heads): decays.
    totals: Tensor,
    /// (spans of a launch, chunks, heads): decays from where a walk begins.
    carried: Tensor,
    /// (batches, heads, P, N): what leaves the last span.
    last: Tensor,
}

/// Chunks' states, of some spans at a time.
struct Pages {
    ranges: Vec<Range<usize>>,
    /// Sets of (spans, chunks, heads, P, N), and of several spans in a sequence, what enters them: (spans, heads, P, N).
    states: Tensor,
    /// Spans that it holds.
    most: usize,
    /// Where the second set begins, in fours.
    later: usize,
    /// Where what enters spans begins, in fours.
    starts: usize,
}

impl Scan {
    /// Chunks a sequence.
    pub(super) fn chunks(self) -> usize {
        self.tokens.div_ceil(self.form.tile())
    }

    /// Chunk by chunk and head by head, decays' products from a chunk's start on, as logarithms, and dt:
    /// (batches, chunks, heads, 2, tokens a chunk). From dt before bias and softplus, its bias, a_log and segments.
    pub(super) fn logs(
        self,
        dt: &Columns,
        [dt_bias, a_log, segment]: [&Tensor; 3],
        has_segment: bool,
        (low, high): (f32, f32),
    ) -> Tensor {
        let Scan { batches, tokens, heads, form, .. } = self;
        let (chunks, tile) = (self.chunks(), form.tile());
        let logs = dt_bias.empty_on([batches, chunks, heads, 2, tile], DType::F32);
        let sets = heads.div_ceil(LOGS / tile);
        let groups = batches * chunks * sets;
        launch!(ssd_logs [elem = dt.dtype().wgsl(), T = tile]
                { tokens, heads, stride: dt.stride(), start: dt.start(), chunks, sets, groups, low, high, has_segment },
                [dt.input(), dt_bias, a_log, segment] -> [logs], groups);
        logs
    }

    /// Tiles of state dims.
    fn n_tiles(self) -> usize {
        self.n.div_ceil(self.form.tile())
    }

    /// Whether nothing of a tile lies outside.
    fn whole(self) -> u32 {
        let tile = self.form.tile();
        let fits = self.tokens.is_multiple_of(tile) && self.p == tile && self.n.is_multiple_of(tile);
        u32::from(fits)
    }

    /// Invocations, columns a turn and tiles of state dims of a walk's workgroup.
    fn width(self) -> (usize, usize, usize) {
        match self.form {
            Form::Plain => (64, 16, 1),
            Form::Coop if self.n_tiles().is_multiple_of(2) => (512, 64, 2),
            Form::Coop => (256, 16, 1),
        }
    }

    /// Heads of a group that share one product C · Bᵀ: a workgroup's, one after the other.
    fn each(self, most: usize) -> usize {
        (1..=most).rev().find(|each| self.share.is_multiple_of(*each)).expect("one divides all")
    }

    /// Pairs of a span's tokens, for each workgroup's heads.
    fn pairs(self) -> usize {
        let (chunks, tile) = (self.spans().0, self.form.tile());
        chunks * self.heads / self.each(GRADIENTS) * tile * tile
    }

    /// Chunks a span, and spans.
    fn spans(self) -> (usize, usize) {
        let all = self.chunks();
        let chunks = all.min(self.form.most());
        (chunks, all.div_ceil(chunks))
    }

    /// Bytes of a sequence's largest operand: x, B, states that enter spans; of a span's pairs.
    pub(super) fn largest(self, dtype: DType) -> usize {
        let Scan { tokens, heads, p, n, share, .. } = self;
        let (_, spans) = self.spans();
        let [x, b] = [heads * p, heads / share * n].map(|line| tokens * line * dtype.bytes());
        x.max(b).max(spans * heads * p * n * 4).max(self.pairs() * 4)
    }

    /// Walks along some spans: leaves the states that enter chunks in `states`, from a set's beginning on, and in `ends`
    /// what is handed on.
    fn walk(self, walk: &Walk<'_>, range: Range<usize>, (states, to): (&Tensor, usize), ends: Option<&Ends>) {
        let Scan { form, tokens, heads, p, n, share, .. } = self;
        let (chunks, spans) = self.spans();
        let n_tiles = self.n_tiles();
        let (wg, columns, wide) = self.width();
        let groups = range.len() * heads * n_tiles / wide;
        let none = [(); 3].map(|()| walk.input.empty_on([4], DType::F32));
        let [left, totals, carried] = ends.map_or(none.each_ref(), |e| [&e.states, &e.totals, &e.carried]);
        let (start, reverse) = (walk.start.unwrap_or(walk.logs), u32::from(walk.reverse));
        macro_rules! states_launch {
            ($stem:ident) => {
                launch!($stem [REVERSE = reverse, NT = n_tiles, WG = wg, COLUMNS = columns, WIDE = wide,
                               WHOLE = self.whole()] {
                    tokens, heads, p, n, share, spans, chunks, first: range.start, groups,
                    has_start: walk.start.is_some(), leaves: ends.is_some(), to,
                }, [walk.input, walk.wr, walk.logs, start] -> [states, left, totals, carried], groups)
            };
        }
        match form {
            Form::Plain => states_launch!(ssd_chunk_states),
            Form::Coop => states_launch!(ssd_coop_states),
        }
    }

    /// A walk that knows what enters the one span, or starts each of several from zeros and hands on what leaves them,
    /// from `initial` on: to the spans of this launch in `pages`, and beyond them in `last`.
    fn enter(
        self,
        walk: &Walk<'_>,
        range: Range<usize>,
        initial: Option<&Tensor>,
        pages: &Pages,
        set: usize,
        ends: &Ends,
    ) {
        let Scan { batches, heads, p, n, .. } = self;
        let (_, spans) = self.spans();
        let states = (&pages.states, set * pages.later);
        if spans == 1 {
            return self.walk(&Walk { start: initial, ..*walk }, range, states, Some(ends));
        }
        self.walk(walk, range.clone(), states, Some(ends));
        let factor = if walk.reverse { 1.0 / SCALE } else { 1.0 };
        let kept = Kept { tensor: &pages.states, to: pages.starts * 4, factor };
        let handed = [&ends.states, &ends.totals, &ends.last];
        pass(walk.reverse, [batches, spans, heads, p * n], range, handed, initial, Some(kept));
    }

    /// Room for what walks leave.
    fn ends(self, x: &Tensor, pages: &Pages) -> Ends {
        let Scan { batches, heads, p, n, .. } = self;
        let (chunks, spans) = self.spans();
        let last = x.empty_on([batches, heads, p, n], DType::F32);
        Ends {
            states: if spans == 1 { last.clone() } else { x.empty_on([batches, spans, heads, p, n], DType::F32) },
            totals: x.empty_on([batches, spans, heads], DType::F32),
            carried: x.empty_on([pages.most * chunks * heads], DType::F32),
            last,
        }
    }

    /// Room for `sets` of chunks' states, of as many spans at a time as it holds.
    fn pages(self, x: &Tensor, sets: usize) -> Pages {
        let (chunks, spans) = self.spans();
        let (all, start) = (self.batches * spans, self.heads * self.p * self.n);
        let (size, start) = (chunks * start, if spans > 1 { start } else { 0 });
        let binding = x.gpu().capabilities().max_binding as usize;
        let room = |bytes: usize, a_span: usize| bytes / (a_span * x.dtype().bytes());
        let most = room(self.form.room(), sets * size).min(room(binding, sets * size + start));
        // Backward, tokens' pairs too.
        let most = if sets > 1 { most.min(binding / (self.pairs() * 4)) } else { most }.clamp(1, all);
        // Of about as many spans each.
        let most = all.div_ceil(all.div_ceil(most));
        Pages {
            ranges: (0..all).step_by(most).map(|first| first..(first + most).min(all)).collect(),
            states: x.empty_on([most * (sets * size + start)], x.dtype()),
            most,
            later: most * size / 4,
            starts: most * sets * size / 4,
        }
    }

    /// y, the last state, and the states that enter spans.
    pub(super) fn forward(
        self,
        [x, b, c]: [&Tensor; 3],
        logs: &Tensor,
        d: Option<&Tensor>,
        initial: Option<&Tensor>,
    ) -> (Tensor, Tensor, Option<Tensor>) {
        let Scan { form, tokens, heads, p, n, share, .. } = self;
        let (chunks, spans) = self.spans();
        let walk = Walk { reverse: false, input: x, wr: b, logs, start: None };
        let y = x.like();
        let pages = self.pages(x, 1);
        let ends = self.ends(x, &pages);
        let (carry, states, carried) = (u32::from(spans > 1), &pages.states, &ends.carried);
        for range in pages.ranges.iter().cloned() {
            let (first, pairs) = (range.start, range.len() * chunks * heads);
            let each = self.each(OUTPUTS.min(pairs / ENOUGH).max(4));
            let groups = pairs / each;
            self.enter(&walk, range, initial, &pages, 0, &ends);
            let (has_d, d) = (d.is_some(), d.unwrap_or(logs));
            macro_rules! output_launch {
                ($stem:ident) => {
                    launch!($stem [CARRY = carry, NT = self.n_tiles(), WHOLE = self.whole()] {
                        tokens, heads, p, n, share, spans, chunks, first, groups, has_d, each, starts: pages.starts,
                    }, [x, b, c, logs, states, d, carried] -> [y], groups)
                };
            }
            match form {
                Form::Plain => output_launch!(ssd_chunk_output),
                Form::Coop => output_launch!(ssd_coop_output),
            }
        }
        let Ends { states, last, .. } = ends;
        (y, last, if spans == 1 { initial.map(Tensor::detach) } else { Some(states) })
    }

    /// Gradients, from what `forward` took and the states that enter spans.
    pub(super) fn backward(
        self,
        [x, b, c, dy]: [&Tensor; 4],
        logs: &Tensor,
        starts: Option<&Tensor>,
        dlast: Option<&Tensor>,
        (a_log, d): (&Tensor, Option<&Tensor>),
    ) -> Gradients {
        let Scan { form, batches, tokens, heads, p, n, share } = self;
        let (chunks, spans) = self.spans();
        let forward = Walk { reverse: false, input: x, wr: b, logs, start: starts };
        let reverse = Walk { reverse: true, input: dy, wr: c, logs, start: None };
        let has_d = d.is_some();
        let d = d.unwrap_or(a_log);
        let (dx, db, dc) = (x.like(), b.like(), c.like());
        let side = x.empty_on([batches, tokens, heads, 4], DType::F32);
        let n_tiles = self.n_tiles();
        let pages = self.pages(x, 2);
        let ends = self.ends(x, &pages);
        let (carry, carried) = (u32::from(spans > 1), &ends.carried);
        let Pages { states, later, starts, .. } = &pages;
        let each = self.each(GRADIENTS);
        let parts = share / each;
        let pairs = x.empty_on([pages.most * self.pairs()], DType::F32);
        for range in pages.ranges.iter().rev().cloned() {
            let (first, visited) = (range.start, range.len() * chunks);
            self.walk(&forward, range.clone(), (states, 0), None);
            self.enter(&reverse, range, dlast, &pages, 1, &ends);
            let groups = visited * heads / each;
            macro_rules! backward_launch {
                ($stem:ident) => {
                    launch!($stem [CARRY = carry, NT = n_tiles, WHOLE = self.whole()] {
                        tokens, heads, p, n, share, spans, chunks, first, groups, each, later: *later,
                        starts: *starts, has_d,
                    }, [x, dy, b, c, logs, states, a_log, d, carried] -> [dx, side, pairs], groups)
                };
            }
            match form {
                Form::Plain => backward_launch!(ssd_chunk_backward),
                Form::Coop => backward_launch!(ssd_coop_backward),
            }
            let groups = 2 * visited * (heads / share) * n_tiles;
            macro_rules! groups_launch {
                ($stem:ident) => {
                    launch!($stem [CARRY = carry, NT = n_tiles, WHOLE = self.whole()] {
                        tokens, heads, p, n, share, spans, chunks, first, groups, parts, later: *later,
                        starts: *starts,
                    }, [x, dy, b, c, logs, states, carried, pairs] -> [db, dc], groups)
                };
            }
            match form {
                Form::Plain => groups_launch!(ssd_chunk_groups),
                Form::Coop => groups_launch!(ssd_coop_groups),
            }
        }
        Gradients { dx, db, dc, dinitial: ends.last, side }
    }
}

/// What [`ssd_scan`](super::ssd_scan) makes its gradients of.
pub(super) struct Gradients {
    pub dx: Tensor,
    pub db: Tensor,
    pub dc: Tensor,
    pub dinitial: Tensor,
    /// (batch, tokens, heads, 4): ddt, each token's part of dA_log and of dD.
    pub side: Tensor,
}

/// x, B, C and y in 16 bits.
pub(super) fn half_cost(s: &Sizes) -> Cost {
    let Cost { bytes, flops } = (scan_case().cost)(s);
    Cost { bytes: bytes / 2, flops }
}

/// Tiles that operands fill and do not, several spans. In 16 bits, weights and states are rounded on the way to each
/// product: what is f32 carries roundings of f16, 2¹³ of its own.
pub(super) fn cases() -> Vec<Case> {
    let dims = |p: &'static [usize], n: &'static [usize], tokens: &'static [usize]| {
        let sizes = |d: &Dim| match d.name {
            "p" => Dim::one_of("p", p),
            "n" => Dim::one_of("n", n),
            "tokens" if !tokens.is_empty() => Dim::one_of("tokens", tokens),
            _ => *d,
        };
        scan_case().dims.iter().map(sizes).collect()
    };
    let chunk = Case {
        dims: dims(&[4, 16, 12, 8], &[4, 16, 20, 36], &[]),
        run: |s, i| run(s, i, Kernel::Chunk(Form::Plain)),
        runs_on: |gpu| Form::Plain.runs_on(gpu),
        // One sequence must fit a binding, with the states of a span's chunks.
        large: true,
        bench: &[],
        ..scan_case()
    };
    const HALF: &[&str] = &["x", "b", "c"];
    let half = |case: Case, stem| Case {
        large: true,
        error: |_| 8192.0,
        error_grad: Some(|_| 16384.0),
        cost: half_cost,
        ..case.in_half(stem, HALF, 2.0)
    };
    let coop = Case {
        dims: dims(&[64, 32, 4, 36], &[64, 128, 4, 68], &[1, 64, 65, 130, 190]),
        run: |s, i| run(s, i, Kernel::Chunk(Form::Coop)),
        runs_on: |gpu| Form::Coop.runs_on(gpu),
        bench: &[
            &[32, 4096, 8, 1, 64, 64, 1, 0, 1],
            &[8, 4096, 32, 1, 64, 128, 1, 0, 0],
            &[1, 65536, 32, 1, 64, 128, 1, 0, 0],
            &[1, 262144, 32, 1, 64, 128, 1, 0, 0],
        ],
        ..half(scan_case(), "ssd_scan.coop")
    };
    // Whichever kernel an adapter is given.
    let best = Case { dims: dims(&[32, 4], &[32, 4], &[1, 64, 65]), bench: &[], ..scan_case() };
    let columns = Case { run: |s, i| run_beside(s, i, Kernel::Chunk(Form::Plain)), ..chunk.clone() };
    vec![
        half(best, "ssd_scan.best.f16"),
        half(beside(columns), "ssd_scan.chunk.beside.f16"),
        half(chunk, "ssd_scan.chunk.f16"),
        coop,
    ]
}
