//! Scores of tokens against landmarks and the best K chunks of each (arXiv 2504.16795, section 3.2), in one pass that
//! streams the chunks by: memory is O(tokens · K), never tokens · chunks. Landmarks that lie in pages may be in eight bits,
//! with a scale for each 32 dims: scores are those of scale · number. (One scale for all 64 dims of the shipped weights'
//! landmarks changed twice as many of the selected chunks, scales for 16 hardly fewer.)

use crate::{
    DType, Gpu, Tensor, autograd, launch,
    ops::{self, batches_a_binding, in_batches, inverse_list, quantize_chunks, widened},
    reference::Array,
    testing::{Case, Cost, Dim, Input, Part, Share, Sizes, some},
};

/// The score of an empty slot.
const NONE: f32 = -3.0e38;

/// Which chunks a token may select.
#[derive(Clone)]
pub struct Visibility {
    /// Tokens a chunk, S.
    pub chunk: usize,
    /// The position of the first token.
    pub first_position: usize,
    /// None: chunk c is visible to position t from (c + 1)·S ≤ t on; with a window: from c·S + window ≤ t on.
    pub window: Option<usize>,
    /// Sequences that share their chunks: those are then numbered over the group's sequences in order.
    pub group: Option<Group>,
}

/// Sequences of a batch of which each sees chunks of the others.
#[derive(Clone)]
pub struct Group {
    /// How many, one after another in the batch.
    pub sequences: usize,
    /// (batch, chunks), u32: a token also sees the chunks of its group's other sequences that are not 0 here.
    pub clean: Tensor,
    /// Added to the scores of other sequences' chunks, before the best are chosen and in the scores that come out; 0 or more.
    /// A step of training has few chunks in sight, a long text many: the largest of N scores of a normal distribution of
    /// width σ grows as σ · √(2 ln N), so a margin stands for more chunks than there are.
    pub margin: f32,
}

/// Landmarks of chunks that follow one another: a page of a text's.
#[derive(Clone)]
pub enum Landmarks {
    /// (1, chunks, heads, r), f32 or f16.
    Floats(Tensor),
    /// What [`quantize_landmarks`] gives.
    Bytes {
        /// (1, chunks, heads, r / 4), u32, r a multiple of 16: four signed bytes a word.
        numbers: Tensor,
        /// (1, chunks, heads, spans), f32: each for r / spans dims, a multiple of 16.
        scales: Tensor,
    },
}

/// Dims that landmarks in eight bits have a multiple of: 16 bytes, which kernels load at once.
const SIXTEEN: usize = 16;
/// Dims that share a scale, where landmarks have a multiple of them.
const SPAN: usize = 32;
/// Bytes of landmarks that are in floats at a time where all scores of a token are wanted.
const SLAB: usize = 16 << 20;

impl From<Tensor> for Landmarks {
    fn from(landmarks: Tensor) -> Landmarks {
        Landmarks::Floats(landmarks)
    }
}

impl Landmarks {
    /// Chunks.
    pub fn chunks(&self) -> usize {
        let (Landmarks::Floats(x) | Landmarks::Bytes { numbers: x, .. }) = self;
        x.shape()[1]
    }

    /// As (1, chunks, heads, `dims`) in floats of `dtype`.
    pub fn floats(&self, dims: usize, dtype: DType) -> Tensor {
        self.some_floats(0, self.chunks(), dims, dtype)
    }

    /// The same of `count` chunks from `first` on.
    fn some_floats(&self, first: usize, count: usize, dims: usize, dtype: DType) -> Tensor {
        let (numbers, scales) = match self {
            Landmarks::Floats(x) => {
                let [_, chunks, heads, r]: [usize; 4] = x.axes();
                if count == chunks {
                    return x.clone();
                }
                return ops::slice(x, first * heads * r, count * heads * r).reshape([1, count, heads, r]);
            }
            Landmarks::Bytes { numbers, scales } => (numbers, scales),
        };
        let ([_, chunks, heads, words], [.., spans]): ([usize; 4], [usize; 4]) = (numbers.axes(), scales.axes());
        let numbers_ = numbers.reshape([chunks, heads * spans, words / spans]);
        let pages = [(numbers_, scales.reshape([chunks, heads * spans]))];
        let indices: Vec<u32> = (first as u32..(first + count) as u32).collect();
        let indices = Tensor::from_slice(numbers.gpu(), &indices, [count]).expect("as many numbers as chunks");
        let out = Tensor::empty(numbers.gpu(), [count, heads * spans, 4 * words / spans], dtype);
        ops::gather_quantized_into(&out, &pages, &indices, 1);
        let out = out.reshape([1, count, heads, 4 * words]);
        if dims == 4 * words { out } else { ops::narrowed(&out, dims) }
    }

    /// Heads and dims; those in eight bits may have zeros behind.
    fn row(&self) -> [usize; 2] {
        match self {
            Landmarks::Floats(x) => [x.shape()[2], x.shape()[3]],
            Landmarks::Bytes { numbers, .. } => [numbers.shape()[2], 4 * numbers.shape()[3]],
        }
    }
}

/// Numbers of a landmark of `dims` dims in eight bits, those of zeros behind them included, and its scales.
pub fn landmark_in_bytes(dims: usize) -> [usize; 2] {
    let wide = dims.next_multiple_of(SIXTEEN);
    [wide, wide / if wide.is_multiple_of(SPAN) { SPAN } else { SIXTEEN }]
}

/// Landmarks (1, chunks, heads, r), floats of either width, in eight bits: no element is off by more than 1/254 of the
/// largest of those that it shares a scale with. Outside of the graph.
///
/// # Panics
/// Where there are several sequences.
#[track_caller]
pub fn quantize_landmarks(landmarks: &Tensor) -> Landmarks {
    let [one, chunks, heads, r]: [usize; 4] = landmarks.axes();
    assert_eq!(one, 1, "quantize_landmarks: {:?}: expected one sequence", landmarks.shape());
    let [wide, spans] = landmark_in_bytes(r);
    let x = autograd::no_grad(|| if wide == r { landmarks.detach() } else { widened(landmarks, wide) });
    let (numbers, scales) = quantize_chunks(&x.reshape([chunks, heads * spans, wide / spans]), 1);
    Landmarks::Bytes {
        numbers: numbers.reshape([1, chunks, heads, wide / 4]),
        scales: scales.reshape([1, chunks, heads, spans]),
    }
}

/// (scores, indices), both (batch, tokens, heads, K): the K best visible chunks of each token, most recent first, an
/// equal score of a more recent chunk winning. `score = q · landmark / √r`; empty slots come last, with index 0 and a
/// score of −3·10³⁸. K is `top_k`, or the number of chunks where that is smaller. A group's margin comes on top of scores.
///
/// `q`: (batch, tokens, heads, r); `landmarks`: (batch, chunks, heads, r), both f32 or both f16. Scores are f32 and
/// differentiable to both.
///
/// # Panics
/// Where shapes or types disagree, there are no chunks, K exceeds 64, or a margin is below 0 or not finite.
#[track_caller]
pub fn select(q: &Tensor, landmarks: &Tensor, top_k: usize, visibility: &Visibility) -> (Tensor, Tensor) {
    select_by(Plan::default(), q, landmarks, top_k, visibility)
}

#[track_caller]
fn select_by(
    plan: Plan,
    q: &Tensor,
    landmarks: &Tensor,
    top_k: usize,
    visibility: &Visibility,
) -> (Tensor, Tensor) {
    let [batches, .., r]: [usize; 4] = q.axes();
    let [lb, .., lr]: [usize; 4] = landmarks.axes();
    assert_eq!((lb, lr), (batches, r), "select: landmarks {:?} for q {:?}", landmarks.shape(), q.shape());
    let wide = r.next_multiple_of(unit(q));
    match wide == r {
        true => scaled(plan, q, landmarks, top_k, visibility, r),
        // Zeros add nothing to products.
        false => scaled(plan, &widened(q, wide), &widened(landmarks, wide), top_k, visibility, r),
    }
}

/// The score of every chunk of `pages` for one token, mean over heads, (chunks) in f32: what [`select_pages`] selects by,
/// laid out for drawing or reading.
///
/// `q`: (1, 1, heads, r); pages: in the text's order, floats of one type. Outside of the graph.
///
/// # Panics
/// Where shapes or types disagree, or there are no pages.
#[track_caller]
pub fn chunk_scores(q: &Tensor, pages: &[Landmarks]) -> Tensor {
    let [batches, tokens, heads, r] = q.axes();
    assert_eq!((batches, tokens), (1, 1), "chunk_scores: q {:?}: expected one token", q.shape());
    assert!(!pages.is_empty(), "chunk_scores: no pages");
    autograd::no_grad(|| {
        // The heads' products are one longer product.
        let row = q.detach().reshape([1, heads * r]);
        let mut scores = Vec::new();
        for page in pages {
            let chunks = page.chunks();
            let slab = match page {
                Landmarks::Floats(_) => chunks,
                Landmarks::Bytes { .. } => (SLAB / (heads * r * q.dtype().bytes())).max(1),
            };
            for first in (0..chunks).step_by(slab.max(1)) {
                let count = slab.min(chunks - first);
                let part = page.some_floats(first, count, r, q.dtype());
                let [_, _, part_heads, part_r]: [usize; 4] = part.axes();
                assert_eq!((part_heads, part_r), (heads, r), "chunk_scores: landmarks {:?} for q {:?}", part.shape(), q.shape());
                scores.push(ops::linear_to(&row, &part.detach().reshape([count, heads * r]), None, DType::F32));
            }
        }
        let all = match &scores[..] {
            [one] => one.clone(),
            several => ops::concat_columns(&several.iter().collect::<Vec<_>>()),
        };
        let chunks = all.len();
        ops::scale(&all, 1.0 / (heads as f32 * (r as f32).sqrt())).reshape([chunks])
    })
}

/// Who computes the scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// Register tiles in f32: runs everywhere.
    Tile,
    /// Cooperative matrices, for 16-bit operands.
    Coop,
}

impl Kernel {
    /// Depends on r and the type alone.
    fn best(q: &Tensor) -> Kernel {
        let r: usize = q.shape()[3];
        let whole = q.dtype() == DType::F16 && r.is_multiple_of(16);
        if whole && Kernel::Coop.runs_on(q.gpu()) { Kernel::Coop } else { Kernel::Tile }
    }

    fn runs_on(self, gpu: &Gpu) -> bool {
        let c = gpu.capabilities();
        self == Kernel::Tile
            || c.coop && c.subgroups == Some((32, 32)) && c.workgroup_memory >= 40 << 10 && c.invocations >= 256
    }

    /// Tokens and chunks a tile, and steps of landmarks under way.
    fn tile(self, tokens: usize, chunks: usize) -> [usize; 3] {
        match self {
            Kernel::Tile => [64, 64, 1],
            // What few tokens wait for is the landmarks: products with tokens that are not there would take longer.
            Kernel::Coop if (2..=32).contains(&tokens) => [32, 128, 2],
            Kernel::Coop => [128, if chunks > 128 { 128 } else { 64 }, 1],
        }
    }
}

/// How a selection is computed; a choice of one's own where it matters to a test. Scores are the same sums however the
/// chunks are cut, and the K best of the parts' K best are the K best: what is selected does not depend on the parts.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    kernel: Option<Kernel>,
    /// Workgroups that share a tile of tokens.
    parts: Option<usize>,
}

/// Dims that `select_coop.wgsl` stages at a time.
const STEP: usize = 32;
/// Workgroups that keep a large device busy.
const BUSY: usize = 264;
/// Chunks that are worth a workgroup.
const LEAST: usize = 256;

/// Elements of 16 bytes, which kernels load at once.
fn unit(x: &Tensor) -> usize {
    16 / x.dtype().bytes()
}

/// Slots of a chunk's list that one workgroup sums up; `PIECE` in the kernel.
const PIECE: usize = 256;

/// [`select`] for vectors of whole units; scores are divided by √`dims`.
#[track_caller]
fn scaled(
    plan: Plan,
    q: &Tensor,
    landmarks: &Tensor,
    top_k: usize,
    visibility: &Visibility,
    dims: usize,
) -> (Tensor, Tensor) {
    let [batches, tokens, heads, r] = q.axes();
    let [_, own_chunks, ..]: [usize; 4] = landmarks.axes();
    let group = visibility.group.as_ref().map_or(1, |g| g.sequences);
    assert!(group > 0 && batches.is_multiple_of(group), "select: groups of {group} in a batch of {batches}");
    let chunks = own_chunks * group;
    let sequences = batches / group;
    let width = heads * (r * q.dtype().bytes()).max(top_k * 4);
    let count = group * tokens * heads * top_k.min(chunks);
    let pieces = count / PIECE + (heads * chunks).min(count) + 1;
    let sums = if q.needs_grad() || landmarks.needs_grad() { pieces * r * 4 } else { 0 };
    let most = batches_a_binding(q.gpu(), sequences, sums.max(group * (tokens * width).max(own_chunks * heads * r * 4)));
    if most < sequences {
        let mut cut = vec![q, landmarks];
        cut.extend(visibility.group.as_ref().map(|g| &g.clean));
        let mut parts = in_batches(&cut, most * group, |i| {
            let group = visibility.group.as_ref().map(|g| Group { clean: i[2].clone(), ..g.clone() });
            let (scores, indices) = scaled(plan, &i[0], &i[1], top_k, &Visibility { group, ..visibility.clone() }, dims);
            vec![scores, indices]
        });
        return (parts.remove(0), parts.remove(0));
    }
    let pages = [landmarks.reshape([sequences, chunks, heads, r]).into()];
    let (scores, indices) = running(plan, q, &pages, own_chunks, top_k, visibility, dims);
    let (q_, l_, indices_, scores_) = (q.detach(), landmarks.detach(), indices.clone(), scores.clone());
    let [scores] = autograd::record(&[q, landmarks], [scores], move |[dscores]| {
        let dscores = dscores.expect("the only output has a gradient");
        let (dq, dl) = (q_.like(), l_.like());
        let [.., slots]: [usize; 4] = scores_.axes();
        let (tokens, scale) = (tokens * group, 1.0 / (dims as f32).sqrt());
        let (units, half) = (r / unit(&q_), u32::from(q_.dtype() == DType::F16));
        let count = q_.len() / unit(&q_);
        launch!(select_backward_query [HALF = half] { count, units, slots, heads, tokens, chunks, scale },
                [dscores, scores_, indices_, l_] -> [dq], count.div_ceil(256));
        let keys = indices_.like();
        let count = keys.len();
        launch!(select_keys { count, tokens, heads, slots, chunks }, [scores_, indices_] -> [keys], count.div_ceil(256));
        let lists = sequences * heads * chunks;
        let list = inverse_list(&keys, lists);
        let cut = list.pieces(PIECE);
        let partial = q_.empty_on([cut.most, r], DType::F32);
        let blocks = units.div_ceil(64);
        let groups = cut.most * blocks;
        launch!(select_backward_landmark [HALF = half] { groups, blocks, lists, slots, units },
                [dscores, q_, list.order, cut.pieces] -> [partial], groups);
        let count = dl.len() / unit(&dl);
        launch!(select_backward_landmark_join [HALF = half] { count, units, heads, chunks, scale },
                [cut.starts, partial] -> [dl], count.div_ceil(256));
        [dq, dl]
    });
    (scores, indices)
}

/// [`select`] over landmarks that lie in pages, in the order of their text, some of which may be in eight bits. Outside of
/// the graph; the result does not depend on how the chunks are cut into pages.
///
/// # Panics
/// As [`select`], and where the visibility is by group or q holds several sequences.
#[track_caller]
pub fn select_pages(q: &Tensor, pages: &[Landmarks], top_k: usize, visibility: &Visibility) -> (Tensor, Tensor) {
    select_pages_by(Plan::default(), q, pages, top_k, visibility)
}

#[track_caller]
fn select_pages_by(
    plan: Plan,
    q: &Tensor,
    pages: &[Landmarks],
    top_k: usize,
    visibility: &Visibility,
) -> (Tensor, Tensor) {
    assert!(visibility.group.is_none() && q.shape()[0] == 1, "select_pages: one sequence, no group");
    let chunks = pages.iter().map(Landmarks::chunks).sum();
    let (q_, pages) = wide(q, pages);
    running(plan, &q_, &pages, chunks, top_k, visibility, q.shape()[3])
}

/// q and pages with zeros behind, so that vectors are of whole units: they add nothing to products.
fn wide(q: &Tensor, pages: &[Landmarks]) -> (Tensor, Vec<Landmarks>) {
    let bytes = pages.iter().any(|p| matches!(p, Landmarks::Bytes { .. }));
    let unit = if bytes { SIXTEEN } else { unit(q) };
    let wide = |x: &Tensor| match x.shape()[3].next_multiple_of(unit) {
        same if same == x.shape()[3] => x.clone(),
        wide => widened(x, wide),
    };
    let page = |page: &Landmarks| match page {
        Landmarks::Floats(x) => wide(x).into(),
        bytes => bytes.clone(),
    };
    (wide(q), pages.iter().map(page).collect())
}

/// A selection that further chunks may join: [`select_begun`].
#[derive(Clone)]
pub struct Begun {
    /// (1, tokens, heads, K): the best so far, in no order that means anything.
    scores: Tensor,
    indices: Tensor,
    /// Chunks seen.
    chunks: usize,
}

impl Begun {
    /// The part of the tokens from `first` on, `count` of them: for who asks on behalf of several.
    pub fn tokens(&self, first: usize, count: usize) -> Begun {
        let [_, _, heads, k]: [usize; 4] = self.scores.axes();
        let cut = |x: &Tensor| ops::slice(x, first * heads * k, count * heads * k).reshape([1, count, heads, k]);
        Begun { scores: cut(&self.scores), indices: cut(&self.indices), chunks: self.chunks }
    }
}

/// [`select_pages`] over the first pages of a text, all of which every token sees; [`select_further`] goes on with the chunks
/// behind them. The result is that of all pages at once.
///
/// # Panics
/// As [`select_pages`], and where there are fewer than `top_k` chunks.
#[track_caller]
pub fn select_begun(q: &Tensor, pages: &[Landmarks], top_k: usize) -> Begun {
    let [sequences, tokens, heads, r] = q.axes();
    let chunks: usize = pages.iter().map(Landmarks::chunks).sum();
    assert!(sequences == 1 && chunks >= top_k, "select_begun: {top_k} of {chunks} chunks, for {sequences} sequences");
    let k = top_k;
    let (scores, indices) = (q.empty_on([1, tokens, heads, k], DType::F32), q.empty_on([1, tokens, heads, k], DType::U32));
    let begun = Begun { scores, indices, chunks };
    // All lie before every token.
    let all = Visibility { chunk: 1, first_position: chunks, window: None, group: None };
    let (q, pages) = wide(q, pages);
    stream(Plan::default(), &q, &pages, chunks, &all, r, &begun, Stretch { first: 0, resume: false, finish: false });
    begun
}

/// The selection that [`select_begun`] began, for the same queries, with the chunks of further pages, which may be none.
///
/// # Panics
/// As [`select_pages`].
#[track_caller]
pub fn select_further(q: &Tensor, begun: Begun, pages: &[Landmarks], visibility: &Visibility) -> (Tensor, Tensor) {
    let [.., heads, r]: [usize; 4] = q.axes();
    assert!(visibility.group.is_none(), "select_further: no group");
    // A page of one chunk that nobody sees ends what has no further pages.
    let none = [Tensor::zeros(q.gpu(), [1, 1, heads, r], q.dtype()).into()];
    let (pages, visibility) = match pages {
        [] => (&none[..], Visibility { chunk: 1 << 20, first_position: 0, ..visibility.clone() }),
        pages => (pages, visibility.clone()),
    };
    let (q, pages) = wide(q, pages);
    let stretch = Stretch { first: begun.chunks, resume: true, finish: true };
    let chunks = begun.chunks + pages.iter().map(Landmarks::chunks).sum::<usize>();
    stream(Plan::default(), &q, &pages, chunks, &visibility, r, &begun, stretch);
    (begun.scores, begun.indices)
}

/// Which chunks pages begin with, and whether chunks before and behind them count.
struct Stretch {
    first: usize,
    resume: bool,
    finish: bool,
}

fn running(
    plan: Plan,
    q: &Tensor,
    pages: &[Landmarks],
    own_chunks: usize,
    top_k: usize,
    visibility: &Visibility,
    dims: usize,
) -> (Tensor, Tensor) {
    let [batches, tokens, heads, _] = q.axes();
    let group = visibility.group.as_ref().map_or(1, |g| g.sequences);
    let k = top_k.min(own_chunks * group);
    assert!((1..=64).contains(&k), "select: K = {k} of {own_chunks} chunks, from 1 to 64");
    let (scores, indices) =
        (q.empty_on([batches, tokens, heads, k], DType::F32), q.empty_on([batches, tokens, heads, k], DType::U32));
    let lists = Begun { scores, indices, chunks: 0 };
    let all = Stretch { first: 0, resume: false, finish: true };
    stream(plan, q, pages, own_chunks, visibility, dims, &lists, all);
    (lists.scores, lists.indices)
}

/// Streams a stretch of chunks by the lists.
fn stream(
    plan: Plan,
    q: &Tensor,
    pages: &[Landmarks],
    own_chunks: usize,
    visibility: &Visibility,
    dims: usize,
    Begun { scores, indices, .. }: &Begun,
    stretch: Stretch,
) {
    let [batches, tokens, heads, r] = q.axes();
    let [.., k]: [usize; 4] = scores.axes();
    let shared = visibility.group.as_ref();
    let (group, margin) = shared.map_or((1, 0.0), |g| (g.sequences, g.margin));
    assert!(margin.is_finite() && margin >= 0.0, "select: a margin of {margin}: expected a finite number, 0 or more");
    let kernel = plan.kernel.unwrap_or_else(|| Kernel::best(q));
    let (rows, units, half) = (batches * tokens * heads, r / unit(q), u32::from(q.dtype() == DType::F16));
    if rows == 0 {
        return;
    }
    // Without groups nobody reads flags, without bytes nobody scales.
    let nothing = q.empty_on([1], DType::U32);
    let clean = shared.map_or(&nothing, |g| &g.clean);
    let (window, has_window) = (visibility.window.unwrap_or(0), visibility.window.is_some());
    let (chunk, first_position, scale) = (visibility.chunk, visibility.first_position, 1.0 / (dims as f32).sqrt());
    let mut first_chunk = stretch.first;
    for (i, page) in pages.iter().enumerate() {
        let chunks = page.chunks();
        assert_eq!(page.row(), [heads, r], "select: heads and dims of landmarks for q {:?}", q.shape());
        let (page, scales, spans, bytes) = match page {
            Landmarks::Floats(x) => {
                assert_eq!(x.dtype(), q.dtype(), "select: types of landmarks and q");
                (x, &nothing, 1, 0u32)
            }
            Landmarks::Bytes { numbers, scales } => (numbers, scales, scales.shape()[3], 1),
        };
        let (resume, finish) = (stretch.resume || i > 0, stretch.finish && i + 1 == pages.len());
        // A single token has time for nothing but a tile.
        let alone = tokens == 1;
        let [tt, ct, depth] = kernel.tile(tokens, if alone { 1 } else { chunks });
        let tiles = batches * heads * tokens.div_ceil(tt);
        let most = plan.parts.unwrap_or_else(|| (BUSY / tiles).min(chunks / if alone { ct } else { LEAST }));
        // Their lists fit a binding.
        let most = most.min(q.gpu().capabilities().max_binding as usize / (4 * rows * k)).max(1);
        let span = chunks.div_ceil(ct).div_ceil(most).max(1) * ct;
        let parts = chunks.div_ceil(span).max(1);
        let lists = [parts, batches, tokens, heads, k];
        let to = match parts {
            1 => [scores.clone(), indices.clone()],
            _ => [q.empty_on(lists, DType::F32), q.empty_on(lists, DType::U32)],
        };
        let groups = tiles * parts;
        macro_rules! launch_select {
            ($stem:ident [$($spec:ident = $value:expr),*]) => {
                launch!($stem [$($spec = $value,)* K = k, BYTES = bytes] {
                    tokens, chunks, heads, units, chunk, first_position, window, has_window, group, own_chunks,
                    first_chunk, span, parts, rows, resume: resume && parts == 1, finish: finish && parts == 1,
                    spans, scale, margin, groups,
                }, [q, page, scales, clean] -> [to[0], to[1]], groups)
            };
        }
        match kernel {
            Kernel::Tile => launch_select!(select [HALF = half]),
            Kernel::Coop => {
                let whole = u32::from(r.is_multiple_of(depth * STEP));
                launch_select!(select_coop [TT = tt, CT = ct, DEPTH = depth, WHOLE = whole])
            }
        }
        if parts > 1 {
            let [part_scores, part_indices] = to;
            launch!(select_merge [K = k] { rows, parts, resume, finish }, [part_scores, part_indices] -> [scores, indices],
                    rows);
        }
        first_chunk += chunks;
    }
}

fn reference(s: &Sizes, i: &[Array]) -> Vec<Array> {
    let [.., k, chunk, first, window, group, margin] = s.get::<11>();
    best(Rule { k, chunk, first, window, group, margin }, i)
}

/// What may be selected, and how much.
struct Rule {
    k: usize,
    chunk: usize,
    first: usize,
    window: usize,
    group: usize,
    margin: usize,
}

/// All scores of a token, sorted: the definition.
fn best(rule: Rule, i: &[Array]) -> Vec<Array> {
    let Rule { k, chunk, first, window, group, margin } = rule;
    let [batches, tokens, heads, r]: [usize; 4] = i[0].axes();
    let [_, own, ..]: [usize; 4] = i[1].axes();
    let k = k.min(own * group);
    let shape = [batches, tokens, heads, k];
    let (mut scores, mut indices) = (Array::from_fn(&shape, |_| f64::from(NONE)), Array::zeros(&shape));
    for b in 0..batches {
        for t in 0..tokens {
            for h in 0..heads {
                let visible = |c: usize| match (c / own == b % group, window) {
                    (true, 0) => (c % own + 1) * chunk <= t + first,
                    (true, w) => c % own * chunk + w <= t + first,
                    (false, _) => i[2].at(&[b / group * group + c / own, c % own]) != 0.0,
                };
                let score = |c: usize| {
                    let l = |x: usize| i[1].at(&[b / group * group + c / own, c % own, h, x]);
                    let margin = if c / own == b % group { 0.0 } else { margin as f64 };
                    // −0 is no worse than 0.
                    (0..r).map(|x| i[0].at(&[b, t, h, x]) * l(x)).sum::<f64>() / (r as f64).sqrt() + margin
                };
                let mut best: Vec<(f64, usize)> =
                    (0..own * group).filter(|c| visible(*c)).map(|c| (score(c), c)).collect();
                best.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
                best.truncate(k);
                best.sort_by_key(|s| std::cmp::Reverse(s.1));
                for (slot, (score, c)) in best.into_iter().enumerate() {
                    *scores.at_mut(&[b, t, h, slot]) = score;
                    *indices.at_mut(&[b, t, h, slot]) = c as f64;
                }
            }
        }
    }
    // Empty slots carry no gradient: what weighs them is zero there.
    vec![scores.map(|v| if *v < -1e38 { 0.0 } else { *v }), indices]
}

pub(super) fn cases() -> Vec<Case> {
    let values = Case {
        dims: vec![
            Dim::range("sequences", 1, 2),
            Dim::range("tokens", 1, 66),
            Dim::range("chunks", 1, 70),
            Dim::one_of("heads", &[1, 2]),
            Dim::one_of("r", &[8, 4, 17]),
            Dim::one_of("k", &[8, 1, 3, 20]),
            Dim::one_of("chunk", &[2, 16]),
            Dim::one_of("first", &[0, 37]),
            Dim::one_of("window", &[0, 40]),
            Dim::one_of("group", &[1, 3]),
            Dim::one_of("margin", &[0, 3]),
        ],
        inputs: |s, draw| {
            let [sequences, tokens, chunks, heads, r, .., group, _] = s.get::<11>();
            let batches = sequences * group;
            vec![
                // Small integers make scores exact, and ties frequent.
                Input::new("q", draw.integers(&[batches, tokens, heads, r], -2, 3)),
                Input::new("landmarks", draw.integers(&[batches, chunks, heads, r], -2, 3)),
                Input::new("clean", draw.integers(&[batches, chunks], 0, 2)).of(DType::U32),
            ]
        },
        run: |s, i| {
            near(select(&i[0], &i[1], s["k"], &seen(s, i)))
        },
        reference,
        error: |s| 8.0 + s["r"] as f64,
        error_grad: Some(|s| 64.0 + 8.0 * s["tokens"] as f64),
        cost: |s| {
            let [sequences, tokens, chunks, heads, r, k, ..] = s.get::<11>();
            let b = sequences * s["group"];
            let pairs = b * tokens * chunks * s["group"] * heads;
            Cost { bytes: 4 * b * heads * (tokens * (r + 2 * k) + chunks * r), flops: 2 * pairs * r }
        },
        bench: &[&[2, 4096, 64, 1, 64, 8, 16, 0, 0, 3, 0]],
        ..Case::new("select")
    };
    // Gradients need scores without ties, between which a step could switch.
    let gradients = Case {
        stem: "select.gradients",
        inputs: |s, draw| {
            let [sequences, tokens, chunks, heads, r, .., group, _] = s.get::<11>();
            let batches = sequences * group;
            vec![
                Input::new("q", draw.uniform(&[batches, tokens, heads, r], -2.0, 2.0)).grad(),
                Input::new("landmarks", draw.uniform(&[batches, chunks, heads, r], -2.0, 2.0)).grad(),
                Input::new("clean", draw.integers(&[batches, chunks], 0, 2)).of(DType::U32),
            ]
        },
        bench: &[],
        ..values.clone()
    };
    // With the weights that follow, as one layer of the model.
    let weights = Case {
        dims: vec![
            Dim::range("batches", 1, 2),
            Dim::range("tokens", 1, 66),
            Dim::range("chunks", 1, 40),
            Dim::one_of("r", &[8, 4, 16]),
            Dim::one_of("k", &[8, 1, 3]),
            Dim::one_of("chunk", &[2, 16]),
            Dim::one_of("first", &[0, 37]),
        ],
        inputs: |s, draw| {
            let [batches, tokens, chunks, r, ..]: [usize; 7] = s.get();
            let mut grad = |name, shape: &[usize]| Input::new(name, draw.uniform(shape, -2.0, 2.0)).grad();
            vec![grad("q", &[batches, tokens, 1, r]), grad("landmarks", &[batches, chunks, 1, r])]
        },
        run: |s, i| {
            let visibility =
                Visibility { chunk: s["chunk"], first_position: s["first"], window: None, group: None };
            let (scores, indices) = select(&i[0], &i[1], s["k"], &visibility);
            vec![crate::ops::stick_breaking(&scores), indices]
        },
        reference: |s, i| {
            let [_, tokens, _, _, k, chunk, first] = s.get();
            let mut found = best(Rule { k, chunk, first, window: 0, group: 1, margin: 0 }, i);
            for (row, scores) in found[0].data.chunks_mut(k.min(i[1].shape[1])).enumerate() {
                let (visible, mut left) = ((row % tokens + first) / chunk, 1.0);
                for (slot, s) in scores.iter_mut().enumerate() {
                    let share = if slot < visible { 1.0 / (1.0 + (-*s).exp()) } else { 0.0 };
                    *s = left * share;
                    left -= *s;
                }
            }
            found
        },
        error: |s| 40.0 + s["r"] as f64,
        error_grad: Some(|s| 200.0 + 8.0 * s["tokens"] as f64),
        // Half of all pairs are in the past.
        cost: |s| {
            let [b, tokens, chunks, r, k, ..]: [usize; 7] = s.get();
            Cost { bytes: 4 * b * (tokens * (r + 2 * k) + chunks * r), flops: b * tokens * chunks * r }
        },
        // Each slot's landmark for q, and q for each slot's landmark.
        cost_backward: Some(|s| {
            let [b, tokens, chunks, r, k, ..]: [usize; 7] = s.get();
            Cost { bytes: 8 * b * r * (tokens + chunks), flops: 4 * b * tokens * k * r }
        }),
        part: Some(|s, draw| {
            let [batches, tokens, chunks, r, k, chunk, first] = s.get();
            let (b, t) = (some(draw, batches, 1), some(draw, tokens, 2));
            let found = Share::Cut(vec![b.clone(), t.clone(), 0..1, 0..k.min(chunks)]);
            Part {
                sizes: vec![1, t.len(), chunks, r, k, chunk, first + t.start],
                inputs: vec![vec![b.clone(), t, 0..1, 0..r], vec![b, 0..chunks, 0..1, 0..r]],
                outputs: vec![found.clone(), found],
            }
        }),
        ..Case::new("select.weights")
    };
    // Lists of several pieces.
    let long = Case {
        stem: "select.long",
        dims: vec![Dim::range("tokens", 260, 600), Dim::one_of("heads", &[1, 2]), Dim::one_of("r", &[24, 1040])],
        inputs: |s, draw| {
            let [tokens, heads, r] = s.get();
            let mut grad = |name, shape: &[usize]| Input::new(name, draw.uniform(shape, -2.0, 2.0)).grad();
            vec![grad("q", &[1, tokens, heads, r]), grad("landmarks", &[1, 2, heads, r])]
        },
        run: |_, i| {
            let visibility = Visibility { chunk: 16, first_position: 0, window: None, group: None };
            near(select(&i[0], &i[1], 2, &visibility))
        },
        reference: |_, i| best(Rule { k: 2, chunk: 16, first: 0, window: 0, group: 1, margin: 0 }, i),
        cost: |s| Cost { bytes: 4 * s["tokens"] * s["heads"] * (s["r"] + 4), flops: 4 * s["tokens"] * s["heads"] * s["r"] },
        bench: &[],
        ..values.clone()
    };
    // One group must fit a binding: these do not everywhere.
    let large = |case: Case| Case { large: true, ..case };
    let large_half =
        |case: &Case, stem, roundings| large(case.in_half(stem, &["q", "landmarks"], roundings));
    // Several tiles both ways, and chunks enough to be cut into parts.
    let wide = Case {
        stem: "select.wide",
        dims: vec![
            Dim::range("sequences", 1, 1),
            Dim::one_of("tokens", &[63, 1, 129]),
            Dim::one_of("chunks", &[200, 1, 65, 600]),
            Dim::one_of("heads", &[1, 2]),
            Dim::one_of("r", &[16, 48]),
            Dim::one_of("k", &[8, 1, 20]),
            Dim::one_of("chunk", &[2, 16]),
            Dim::one_of("first", &[1300, 0, 37]),
            Dim::one_of("window", &[0, 40]),
            Dim::one_of("group", &[1, 2]),
            Dim::one_of("margin", &[0, 3]),
        ],
        bench: &[],
        ..values.clone()
    };
    let cut = Case {
        stem: "select.parts",
        run: |s, i| {
            let plan = Plan { kernel: None, parts: Some(3) };
            near(select_by(plan, &i[0], &i[1], s["k"], &seen(s, i)))
        },
        ..values.clone()
    };
    // Two pages, in parts too, of one sequence.
    let pages = Case {
        stem: "select.pages",
        dims: {
            let alone = |d: &Dim| match d.name {
                "group" => Dim::one_of("group", &[1]),
                "margin" => Dim::one_of("margin", &[0]),
                _ => *d,
            };
            wide.dims.iter().map(alone).collect()
        },
        run: |s, i| {
            let [_, chunks, heads, r]: [usize; 4] = i[1].axes();
            let (line, first) = (heads * r, chunks.div_ceil(3));
            let flat = i[1].reshape([1, chunks * line]);
            let parts = crate::ops::split_columns(&flat, &[first * line, (chunks - first) * line]);
            let pages: Vec<Tensor> = parts.iter().map(|p| p.reshape([1, p.len() / line, heads, r])).collect();
            let pages = pages.into_iter().map(Landmarks::from).take(if chunks > first { 2 } else { 1 });
            near(select_pages(&i[0], &pages.collect::<Vec<_>>(), s["k"], &seen(s, i)))
        },
        bench: &[],
        ..wide.clone()
    };
    // Everywhere by the kernel of everywhere.
    let tile = Case {
        run: |s, i| {
            let plan = Plan { kernel: Some(Kernel::Tile), parts: None };
            near(select_by(plan, &i[0], &i[1], s["k"], &seen(s, i)))
        },
        ..wide.clone()
    };
    let coop = Case {
        run: |s, i| {
            let plan = Plan { kernel: Some(Kernel::Coop), parts: None };
            near(select_by(plan, &i[0], &i[1], s["k"], &seen(s, i)))
        },
        ..wide.clone()
    };
    let coop_gradients = Case { dims: wide.dims.clone(), run: coop.run, ..gradients.clone() };
    let half = &["q", "landmarks"];
    let on_matrices = |case: &Case, stem, roundings| Case {
        runs_on: |gpu| Kernel::Coop.runs_on(gpu),
        large: true,
        ..case.in_half(stem, half, roundings)
    };
    // All scores of one token, from two pages where there are chunks enough.
    let all = Case {
        stem: "select.all",
        dims: vec![Dim::range("chunks", 1, 700), Dim::one_of("heads", &[1, 3]), Dim::one_of("r", &[64, 7, 24])],
        inputs: |s, draw| {
            let [chunks, heads, r] = s.get();
            let q = draw.uniform(&[1, 1, heads, r], -2.0, 2.0);
            let mut landmarks = draw.uniform(&[1, chunks, heads, r], -2.0, 2.0);
            // One score that cannot cancel: errors are told by the largest.
            landmarks.data[..q.len()].copy_from_slice(&q.data);
            vec![Input::new("q", q), Input::new("landmarks", landmarks)]
        },
        run: |_, i| {
            let [_, chunks, heads, r]: [usize; 4] = i[1].axes();
            let (line, first) = (heads * r, chunks.div_ceil(3));
            let parts = match chunks - first {
                0 => vec![i[1].clone()],
                rest => crate::ops::split_columns(&i[1].reshape([1, chunks * line]), &[first * line, rest * line]),
            };
            let page = |p: &Tensor| p.reshape([1, p.len() / line, heads, r]).into();
            vec![chunk_scores(&i[0], &parts.iter().map(page).collect::<Vec<_>>())]
        },
        reference: |_, i| {
            let (heads, r) = (i[0].shape[2], i[0].shape[3]);
            let dot = |landmark: &[f64]| -> f64 { landmark.iter().zip(&i[0].data).map(|(a, b)| a * b).sum() };
            let scores: Vec<f64> =
                i[1].data.chunks(heads * r).map(|l| dot(l) / (heads as f64 * (r as f64).sqrt())).collect();
            vec![Array::new(&[scores.len()], scores)]
        },
        error: |s| 8.0 + (s["heads"] * s["r"]) as f64,
        error_grad: None,
        cost: |s| {
            let [chunks, heads, r]: [usize; 3] = s.get();
            Cost { bytes: 4 * chunks * (heads * r + 1), flops: 2 * chunks * heads * r }
        },
        bench: &[],
        ..Case::new("select.all")
    };
    // A page in eight bits and one in floats behind it, as a text's chunks and a question's. Scales are powers of two: all
    // scores are exact, and many are equal.
    let bytes = Case {
        stem: "select.bytes",
        dims: vec![
            Dim::range("tokens", 1, 70),
            Dim::range("chunks", 2, 150),
            Dim::one_of("heads", &[1, 2]),
            Dim::one_of("r", &[64, 16, 48]),
            Dim::one_of("k", &[8, 1, 20]),
            Dim::one_of("first", &[2000, 0, 37]),
            Dim::one_of("parts", &[1, 3]),
        ],
        inputs: |s, draw| {
            let [tokens, chunks, heads, r, ..]: [usize; 7] = s.get();
            let words = draw.integers(&[1, chunks - 1, heads, r], -3, 4).data;
            let word = |four: &[f64]| four.iter().rev().fold(0.0, |w, v| 256.0 * w + v.rem_euclid(256.0));
            let words: Vec<f64> = words.chunks(4).map(word).collect();
            vec![
                Input::new("q", draw.integers(&[1, tokens, heads, r], -2, 3)),
                Input::new("numbers", Array::new(&[1, chunks - 1, heads, r / 4], words)).of(DType::U32),
                Input::new("scales", draw.integers(&[1, chunks - 1, heads, landmark_in_bytes(r)[1]], -2, 2).map(|v| v.exp2())),
                Input::new("landmarks", draw.integers(&[1, 1, heads, r], -3, 4)),
            ]
        },
        run: |s, i| near(select_bytes(None, s, i)),
        reference: |s, i| {
            let [_, chunks, heads, r, k, first, _] = s.get();
            let byte = |word: f64, n: usize| f64::from((word as u32 >> (8 * n)) as u8 as i8);
            let before = Array::from_fn(&[1, chunks - 1, heads, r], |at| {
                let span = at[3] / (r / i[2].shape[3]);
                byte(i[1].at(&[0, at[1], at[2], at[3] / 4]), at[3] % 4) * i[2].at(&[0, at[1], at[2], span])
            });
            let all = Array::new(&[1, chunks, heads, r], [&before.data[..], &i[3].data].concat());
            best(Rule { k, chunk: 16, first, window: 0, group: 1, margin: 0 }, &[i[0].clone(), all])
        },
        error_grad: None,
        cost: |s| {
            let [tokens, chunks, heads, r, k, ..]: [usize; 7] = s.get();
            Cost { bytes: heads * (tokens * (4 * r + 8 * k) + chunks * r), flops: 2 * tokens * chunks * heads * r }
        },
        bench: &[],
        ..values.clone()
    };
    let bytes_coop = Case { run: |s, i| near(select_bytes(Some(Kernel::Coop), s, i)), ..bytes.clone() };
    let bytes_tile = Case { run: |s, i| near(select_bytes(Some(Kernel::Tile), s, i)), ..bytes.clone() };
    vec![
        on_matrices(&bytes_coop, "select.coop.bytes.f16", 0.0),
        bytes_tile.in_half("select.bytes.f16", half, 0.0),
        bytes,
        large_half(&all, "select.all.f16", 0.0),
        large(all),
        on_matrices(&coop, "select.coop.f16", 0.0),
        on_matrices(&coop_gradients, "select.coop.gradients.f16", 1.0),
        large_half(&tile, "select.wide.f16", 0.0),
        large(wide),
        cut,
        large(pages),
        large_half(&long, "select.long.f16", 1.0),
        large(long),
        weights.in_half("select.weights.f16", half, 1.0),
        weights,
        values.in_half("select.f16", half, 0.0),
        gradients.in_half("select.gradients.f16", half, 1.0),
        values,
        gradients,
    ]
}

fn seen(s: &Sizes, i: &[Tensor]) -> Visibility {
    Visibility {
        chunk: s["chunk"],
        first_position: s["first"],
        window: (s["window"] > 0).then_some(s["window"]),
        group: (s["group"] > 1).then(|| Group {
            sequences: s["group"],
            clean: i[2].clone(),
            margin: s["margin"] as f32,
        }),
    }
}

/// A selection from bytes and floats: the case `select.bytes`.
fn select_bytes(kernel: Option<Kernel>, s: &Sizes, i: &[Tensor]) -> (Tensor, Tensor) {
    let plan = Plan { kernel, parts: Some(s["parts"]) };
    let visibility = Visibility { chunk: 16, first_position: s["first"], window: None, group: None };
    let pages = [Landmarks::Bytes { numbers: i[1].clone(), scales: i[2].clone() }, i[3].clone().into()];
    select_pages_by(plan, &i[0], &pages, s["k"], &visibility)
}

/// What is empty reads as 0, as in the reference: the sentinel would drown every other number.
fn near((scores, indices): (Tensor, Tensor)) -> Vec<Tensor> {
    vec![crate::ops::mul(&scores, &crate::no_grad(|| held(&scores))), indices]
}

/// 1 where a slot holds a chunk, else 0.
fn held(scores: &Tensor) -> Tensor {
    let huge = crate::ops::scale(scores, 1e-30);
    crate::ops::sigmoid(&crate::ops::add(&huge, &Tensor::full(scores.gpu(), Vec::new(), DType::F32, 200.0)))
}
