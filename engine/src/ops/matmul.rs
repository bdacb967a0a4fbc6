//! Matrix products, batched, with operands read in place whichever way they lie.

use crate::{
    DType, Gpu, Tensor,
    autograd::Gradients,
    gpu::Operand,
    launch,
    ops::PartialSums,
    reference::Array,
    tensor::rows_a_page,
    testing::{Case, Cost, Dim, Input, Part, Share, Sizes, some},
};

/// Rows whose products one partial sum of a weight's gradient adds up, whatever the number of rows.
const PIECE: usize = 2048;
/// So many times as long at most, where that takes no longer: powers of two.
const MOST_PIECES: usize = 8;
/// Rows that `first_wave` has summed at once, at most.
const LONGEST: usize = 16 * PIECE;
/// Workgroups of a product in 16 bits that a large device runs at once, and so few that they still keep it busy.
const AT_ONCE: usize = 264;
const ENOUGH: usize = 240;
/// Rows from which a weight is rounded to 16 bits before the product rather than in it.
const MANY: usize = 256;
/// Rows a launch: a dispatch has at most 65535 tiles along one dimension.
const MOST_ROWS: usize = 1 << 20;

/// What a workgroup of `matmul_coop.wgsl` computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    m: usize,
    n: usize,
    /// Of a subgroup.
    rows: usize,
    columns: usize,
    /// k of the tiles in memory; all blocks add up the same products in the same order.
    step: usize,
    /// What it reaches in large products, in hundredths of the largest.
    rate: usize,
    /// Blocks that keep a large device busy.
    busy: usize,
}

/// Runs wherever cooperative matrices do.
const SMALLEST: Block = Block { m: 64, n: 64, rows: 32, columns: 32, step: 32, rate: 55, busy: 0 };

/// From the largest on.
const BLOCKS: [Block; 4] = [
    Block { m: 128, n: 128, rows: 64, columns: 64, step: 32, rate: 100, busy: 120 },
    Block { m: 64, n: 128, rows: 64, columns: 64, step: 32, rate: 73, busy: 240 },
    Block { m: 64, n: 64, rows: 32, columns: 32, step: 64, rate: 60, busy: 0 },
    SMALLEST,
];

impl Block {
    fn subgroups(self) -> usize {
        self.m / self.rows * (self.n / self.columns)
    }

    /// Bytes of workgroup memory: both operands' tiles, an eight more a line than it holds, a matrix a subgroup.
    fn memory(self) -> usize {
        (self.m + self.n) * (self.step / 8 + 1) * 16 + self.subgroups() * 1024
    }

    fn runs_on(self, gpu: &Gpu) -> bool {
        let c = gpu.capabilities();
        c.coop
            && c.subgroups == Some((32, 32))
            && c.workgroup_memory as usize >= self.memory()
            && c.invocations as usize >= self.subgroups() * 32
    }

    /// The fastest for m × n, `batches` times.
    fn choose(gpu: &Gpu, m: usize, n: usize, batches: usize) -> Option<Block> {
        let tiles = |b: &Block| m.div_ceil(b.m) * n.div_ceil(b.n) * batches;
        let cost = |b: &Block| tiles(b) * b.m * b.n * 100 / b.rate;
        let able = BLOCKS.into_iter().filter(|b| b.runs_on(gpu));
        able.filter(|b| tiles(b) >= b.busy).min_by_key(cost)
    }
}

/// Who computes a product. All but `Coop` add up the same products in ascending order of k, each by one fused
/// multiply-add in f32, so their results agree bit for bit and the choice may depend on the number of rows; whether
/// `Coop` is chosen depends on a row's length and type alone, and its blocks do the same multiplications in one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// 64 × 64 tiles in workgroup memory: runs everywhere, on any strides.
    Tile,
    /// Tiles of 64 × so many columns (128 or 64), for lines of multiples of four elements.
    Large(usize),
    /// For few rows, both operands along k in lines of multiples of four elements: one row of a model that writes.
    Few,
    /// Register tiles straight from storage, for CPUs.
    Direct,
    /// The same without subgroups.
    Lane,
    /// Cooperative matrices, for 16-bit operands in lines of multiples of eight elements.
    Coop(Block),
}

impl Kernel {
    fn runs_on(self, gpu: &Gpu) -> bool {
        let capabilities = gpu.capabilities();
        match self {
            Kernel::Tile | Kernel::Large(_) | Kernel::Few | Kernel::Lane => true,
            Kernel::Direct => capabilities.subgroups.is_some_and(|(least, _)| least >= 8),
            Kernel::Coop(block) => block.runs_on(gpu),
        }
    }
}

/// One product c = a · b, or several along z; everything in elements.
#[derive(Clone, Copy, Default)]
struct Product {
    m: usize,
    n: usize,
    k: usize,
    /// How many k one z sums.
    piece: usize,
    /// Strides along m and k, one of them 1.
    a: [usize; 2],
    /// Strides along k and n, one of them 1.
    b: [usize; 2],
    /// How many along z, and the strides of a, b and c there; where `piece` cuts k, those of a and b are 0.
    batches: usize,
    z: [usize; 3],
    /// Where a, b and c begin.
    start: [usize; 3],
    /// Whether c is added to.
    accumulate: bool,
    kernel: Option<Kernel>,
}

impl Product {
    /// Records the launch. Operands come with their types.
    fn launch(self, a: (&Operand, DType), b: (&Operand, DType), bias: Option<&Tensor>, c: (&Operand, DType)) {
        let Product { m, n, k, piece, batches, .. } = self;
        let bias_ = bias.map_or_else(|| b.0.clone(), Tensor::operand);
        let (a_by_k, b_by_k) = (self.a[1] == 1, self.b[0] == 1);
        macro_rules! product_launch {
            ($stem:ident [$($spec:ident = $value:expr),*], $groups:expr) => {
                launch!($stem [elem_out = c.1.wgsl(), A_BY_K = u32::from(a_by_k), B_BY_K = u32::from(b_by_k),
                               $($spec = $value),*] {
                    m, n, k, piece, a_m: self.a[0], a_k: self.a[1], a_z: self.z[0],
                    b_k: self.b[0], b_n: self.b[1], b_z: self.z[1],
                    a_0: self.start[0], b_0: self.start[1], c_0: self.start[2], c_z: self.z[2],
                    has_bias: bias.is_some(), accumulate: self.accumulate,
                }, [a.0, b.0, bias_] -> [c.0], $groups)
            };
        }
        let (elem, elem_b) = (a.1.wgsl(), b.1.wgsl());
        // Loads of several elements need lines that begin and end at multiples of them.
        let line = |by: usize, i: usize, [extent, stride]: [usize; 2]| {
            [extent, stride, self.z[i], self.start[i]].iter().all(|v| v % by == 0)
        };
        let a_line = if a_by_k { [k, self.a[0]] } else { [m, self.a[1]] };
        let b_line = if b_by_k { [k, self.b[1]] } else { [n, self.b[0]] };
        let (a_four, b_four) = (line(4, 0, a_line), line(4, 1, b_line));
        let capabilities = a.0.gpu.capabilities();
        let four = a_four && b_four && line(4, 2, [n, n]);
        let eight = line(8, 0, a_line) && line(8, 1, b_line) && line(8, 2, [n, n]) && piece % 8 == 0;
        let coop = eight && a.1 == DType::F16 && !self.accumulate;
        let few = a_four && b_four && a_by_k && b_by_k && !self.accumulate;
        let large = |tn: usize| (n.div_ceil(tn), m.div_ceil(64), batches);
        // Narrow tiles where wide ones would not be two a multiprocessor of a large device.
        let (across, down, _) = large(128);
        let narrow = across * down * batches < 240;
        let kernel = match self.kernel {
            Some(kernel) => kernel,
            None if capabilities.cpu && Kernel::Direct.runs_on(&a.0.gpu) => Kernel::Direct,
            None if coop && SMALLEST.runs_on(&a.0.gpu) => {
                Kernel::Coop(Block::choose(&a.0.gpu, m, n, batches).expect("the smallest runs"))
            }
            None if few && m <= 8 => Kernel::Few,
            None if capabilities.cpu => Kernel::Lane,
            None if four && m > 32 && n > 32 => Kernel::Large(if narrow || n <= 64 { 64 } else { 128 }),
            None => Kernel::Tile,
        };
        match kernel {
            Kernel::Coop(block) if coop => {
                let Block { m: tm, n: tn, rows, columns, step, .. } = block;
                let wide = u32::from(b.1 == DType::F32);
                let whole = u32::from(m >= tm && n >= tn && piece % step == 0 && k % piece == 0);
                let groups = (n.div_ceil(tn), m.div_ceil(tm), batches);
                product_launch!(matmul_coop [WIDE_B = wide, WHOLE = whole, BIAS = u32::from(bias.is_some()), TM = tm,
                                             TN = tn, WM = rows, WN = columns, STEP = step], groups);
            }
            Kernel::Few if few => product_launch!(matmul_few [elem = elem, elem_b = elem_b], (n.div_ceil(16), m.div_ceil(8), batches)),
            Kernel::Large(_) | Kernel::Coop(_) if four => {
                let tn = if let Kernel::Large(tn) = kernel { tn } else { 128 };
                let whole = u32::from(m % 64 == 0 && n % tn == 0 && piece % 16 == 0 && k % piece == 0);
                product_launch!(matmul_large [elem = elem, elem_b = elem_b, TN = tn, WHOLE = whole,
                                              ACCUMULATE = u32::from(self.accumulate),
                                              BIAS = u32::from(bias.is_some())], large(tn));
            }
            Kernel::Direct | Kernel::Lane => {
                let unit =
                    |four, elem| if four { (4, format!("vec4<{elem}>")) } else { (1, String::from(elem)) };
                let (a_unit, b_unit) = (unit(a_four, "elem"), unit(b_four, "elem_b"));
                macro_rules! direct_launch {
                    ($stem:ident [$($rows:ident = $value:expr)?], $groups:expr) => {
                        product_launch!($stem [elem = elem, elem_b = elem_b, A_WIDTH = a_unit.0, a_unit = a_unit.1,
                                               B_WIDTH = b_unit.0, b_unit = b_unit.1 $(, $rows = $value)?], $groups)
                    };
                }
                if kernel == Kernel::Lane {
                    direct_launch!(matmul_lane [], (n.div_ceil(64), m.div_ceil(8), batches));
                } else {
                    let rows = if m <= 8 { 8 } else { 32 };
                    direct_launch!(matmul_direct [ROWS = rows], (n.div_ceil(32), m.div_ceil(rows), batches));
                }
            }
            _ => product_launch!(matmul [elem = elem, elem_b = elem_b], (n.div_ceil(64), m.div_ceil(64), batches)),
        }
    }
}

/// `y = x · weightᵀ + bias`, the layer of every projection.
///
/// `x`: (…, in), `weight`: (out, in), `bias`: (out); y is (…, out) in `x`'s type, summed in f32.
///
/// # Panics
/// Where the shapes disagree.
#[track_caller]
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    linear_to(x, weight, bias, x.dtype())
}

/// [`linear`] with another type of y: logits in f32 from what was computed in f16. Where x is f16, gradients come from dy
/// rounded to f16: their products take 16 bits as that of y does.
#[track_caller]
pub fn linear_to(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, dtype: DType) -> Tensor {
    linear_by(None, x, weight, bias, dtype)
}

#[track_caller]
fn linear_by(
    kernel: Option<Kernel>,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    dtype: DType,
) -> Tensor {
    let (rows, k) = x.rows_by_last();
    let [n, width] = weight.axes();
    assert_eq!(width, k, "linear: weight {:?} for x {:?}", weight.shape(), x.shape());
    if let Some(bias) = bias {
        assert_eq!(bias.shape(), [n], "linear: bias for weight {:?}", weight.shape());
    }
    let mut shape = x.shape().to_vec();
    *shape.last_mut().expect("x has a last axis") = n;
    let y = x.empty_on(shape, dtype);
    let used = rounded(kernel, x, weight);
    by_rows(forward(kernel, rows, n, k), x, &used, bias, &y);
    let (x_, weight_) = (x.detach(), used);
    let (need_x, need_weight) = (x.needs_grad(), weight.needs_grad());
    let need_bias = bias.is_some_and(Tensor::needs_grad);
    let mut inputs = vec![x, weight];
    inputs.extend(bias);
    let biased = bias.is_some();
    y.with_grad(&inputs, move |dy| {
        let narrow = match x_.dtype() {
            DType::F16 if dy.dtype() != DType::F16 => crate::ops::copy(dy, DType::F16),
            _ => dy.clone(),
        };
        let dx = need_x.then(|| {
            let dx = x_.like();
            by_rows(back(kernel, rows, n, k), &narrow, &weight_, None, &dx);
            dx
        });
        let mut grads = Gradients::from(if biased { vec![dx, None, None] } else { vec![dx, None] });
        if need_weight {
            grads = grads.and_sums(over_rows(kernel, &narrow, &x_, rows, n, k), [(1, [n, k].into())]);
        }
        if need_bias {
            grads = grads.and_sums(PartialSums::of(&dy.reshape([rows, n])), [(2, [n].into())]);
        }
        grads
    })
}

/// Cooperative matrices round weights to 16 bits: once for all rows of x, where these are many.
fn rounded(kernel: Option<Kernel>, x: &Tensor, weight: &Tensor) -> Tensor {
    let ((rows, k), [n, _]) = (x.rows_by_last(), weight.axes());
    let wide = weight.dtype() != DType::F16;
    let rounds = on_matrices(kernel, x.gpu()) && wide && x.dtype() == DType::F16 && k % 8 == 0 && n % 8 == 0 && rows >= MANY;
    if rounds { crate::ops::copy(&weight.detach(), DType::F16) } else { weight.detach() }
}

/// Whether products in 16 bits go over cooperative matrices.
fn on_matrices(kernel: Option<Kernel>, gpu: &Gpu) -> bool {
    match kernel {
        None => SMALLEST.runs_on(gpu) && !gpu.capabilities().cpu,
        Some(kernel) => matches!(kernel, Kernel::Coop(_)),
    }
}

/// x (rows, k) · weight (n, k)ᵀ.
fn forward(kernel: Option<Kernel>, rows: usize, n: usize, k: usize) -> Product {
    Product { m: rows, n, k, a: [k, 1], b: [1, k], kernel, ..Default::default() }
}

/// dy (rows, n) · weight (n, k).
fn back(kernel: Option<Kernel>, rows: usize, n: usize, k: usize) -> Product {
    Product { m: rows, n: k, k: n, a: [n, 1], b: [k, 1], kernel, ..Default::default() }
}

/// The weight as [`linear`] of x takes it, for the parts of it below, outside of the graph.
pub(super) fn linear_weight(x: &Tensor, weight: &Tensor) -> Tensor {
    rounded(None, x, weight)
}

/// y (rows, n) = x (rows, k) · weight (n, k)ᵀ.
pub(super) fn linear_rows(x: &Tensor, weight: &Tensor, y: &Tensor) {
    let ((rows, k), (_, n)) = (x.rows_by_last(), y.rows_by_last());
    by_rows(forward(None, rows, n, k), x, weight, None, y);
}

/// dx (rows, k) = dy (rows, n) · weight (n, k), dy in x's type.
pub(super) fn linear_rows_back(dy: &Tensor, weight: &Tensor, dx: &Tensor) {
    let ((rows, n), (_, k)) = (dy.rows_by_last(), dx.rows_by_last());
    by_rows(back(None, rows, n, k), dy, weight, None, dx);
}

/// dweight (n, k) = dy (rows, n)ᵀ · x (rows, k), in f32, dy in x's type.
pub(super) fn linear_weight_back(dy: &Tensor, x: &Tensor) -> Tensor {
    let ((rows, n), (_, k)) = (dy.rows_by_last(), x.rows_by_last());
    over_rows(None, dy, x, rows, n, k).in_order().reshape([n, k])
}

/// c (m, n) = a · b, cut along m where a binding is too small. Results do not depend on the cut.
fn by_rows(p: Product, a: &Tensor, b: &Tensor, bias: Option<&Tensor>, c: &Tensor) {
    let bytes = (p.k * a.dtype().bytes(), p.n * c.dtype().bytes());
    let step = rows_a_page(a.gpu(), &[bytes.0, bytes.1]).min(MOST_ROWS);
    for first in (0..p.m).step_by(step) {
        let m = step.min(p.m - first);
        let (a_, c_) = (a.page(first, m, bytes.0), c.page(first, m, bytes.1));
        let part = Product { m, piece: p.k, batches: 1, ..p };
        part.launch((&a_, a.dtype()), (&b.operand(), b.dtype()), bias, (&c_, c.dtype()));
    }
}

/// Rows of a piece: up to MOST_PIECES times PIECE where the tiles of all pieces then fill a large device as often, each
/// longer: fewer sums are written and added up.
fn piece(dtype: DType, rows: usize, m: usize, n: usize) -> usize {
    let tiles = |piece: usize| m.div_ceil(128) * n.div_ceil(128) * rows.div_ceil(piece);
    let time = |piece: usize| tiles(piece).div_ceil(AT_ONCE) * piece;
    let sound = |piece: &usize| *piece <= rows && tiles(*piece) >= ENOUGH && time(*piece) <= time(PIECE);
    let longer = (1..=MOST_PIECES.ilog2()).map(|i| PIECE << i).filter(sound);
    if dtype == DType::F16 { longer.max().unwrap_or(PIECE) } else { PIECE }
}

/// Rows of an m × n result whose tiles a large device runs at once, if it takes no longer to sum these over all rows and
/// only the others, a tile's at least, in pieces, of which then few sums are written and added up. Not of more rows than
/// LONGEST: what matrices cut off from each sum grows with them.
fn first_wave(rows: usize, m: usize, n: usize) -> Option<usize> {
    let across = n.div_ceil(128).max(1);
    let time = |m: usize| (m.div_ceil(128) * across * rows.div_ceil(PIECE)).div_ceil(AT_ONCE) * PIECE;
    let head = AT_ONCE / across * 128;
    (head > 0 && head + 128 <= m && (PIECE + 1..=LONGEST).contains(&rows) && rows + time(m - head) <= time(m)).then_some(head)
}

/// [`over_rows`] of what a binding holds: of the result's first `head` rows, head · n a multiple of 64, over all rows, of
/// the others in pieces that are added up where these lie.
fn in_two(kernel: Option<Kernel>, a: &Tensor, b: &Tensor, [rows, m, n]: [usize; 3], head: usize) -> PartialSums {
    let rest = m - head;
    let (sums, pieces) = (PartialSums::new(a, 1, m * n), rows.div_ceil(PIECE));
    let parts = PartialSums::new(a, pieces, rest * n);
    let first = Product { m: head, n, k: rows, piece: rows, a: [1, m], b: [n, 1], batches: 1, kernel, ..Default::default() };
    let others = Product { m: rest, piece: PIECE, batches: pieces, z: [0, 0, rest * n], start: [head, 0, 0], ..first };
    let operands = [a, b].map(Tensor::operand);
    for (product, to) in [(first, sums.all()), (others, parts.all())] {
        product.launch((&operands[0], a.dtype()), (&operands[1], b.dtype()), None, (&to, DType::F32));
    }
    parts.in_order_at(&[(sums.all().elements(DType::F32, head * n, rest * n), rest * n)]);
    sums
}

/// aᵀ · b over rows: a (rows, m), b (rows, n) → (m · n), in f32, a sum for each piece of rows. A result so large that
/// the pieces' sums would not fit a binding has tiles enough to fill the device: then one sum goes over all rows.
fn over_rows(kernel: Option<Kernel>, a: &Tensor, b: &Tensor, rows: usize, m: usize, n: usize) -> PartialSums {
    let bytes = (m * a.dtype().bytes(), n * b.dtype().bytes());
    let page = rows_a_page(a.gpu(), &[bytes.0, bytes.1]);
    let each = piece(a.dtype(), rows.min(page), m, n);
    let blocks = rows.div_ceil(each);
    let together = PartialSums::fits(a.gpu(), blocks, m * n);
    let sixteen = [a, b].iter().all(|t| t.dtype() == DType::F16) && [rows, m, n].iter().all(|n| n % 8 == 0);
    if sixteen
        && on_matrices(kernel, a.gpu())
        && each == PIECE
        && together
        && rows <= page
        && let Some(head) = first_wave(rows, m, n)
    {
        return in_two(kernel, a, b, [rows, m, n], head);
    }
    let sums = PartialSums::new(a, if together { blocks } else { blocks.min(1) }, m * n);
    let mut first = 0;
    while first < rows {
        // Whole pieces together where bindings hold them; else a piece goes on where the last launch left it.
        let into = if together { first % each } else { first };
        let most = if !together {
            page
        } else if page >= each && into == 0 {
            page / each * each
        } else {
            page.min(each - into)
        };
        let k = most.min(rows - first);
        let (piece, at) = if together { (each.min(k), first / each) } else { (k, 0) };
        let (a_, b_) = (a.page(first, k, bytes.0), b.page(first, k, bytes.1));
        let product = Product {
            m,
            n,
            k,
            piece,
            a: [1, m],
            b: [n, 1],
            batches: k.div_ceil(piece),
            z: [0, 0, m * n],
            start: [0, 0, at * m * n],
            accumulate: into != 0,
            kernel,
        };
        product.launch((&a_, a.dtype()), (&b_, b.dtype()), None, (&sums.all(), DType::F32));
        first += k;
    }
    sums
}

/// `c = a · b`, batched over leading axes: a (…, m, k), or (…, k, m) with `transpose_a`; b (…, k, n), or (…, n, k) with
/// `transpose_b`. Both have the same leading axes.
///
/// # Panics
/// Where the shapes disagree.
#[track_caller]
pub fn matmul(a: &Tensor, b: &Tensor, transpose_a: bool, transpose_b: bool) -> Tensor {
    matmul_by(None, a, b, transpose_a, transpose_b)
}

#[track_caller]
fn matmul_by(kernel: Option<Kernel>, a: &Tensor, b: &Tensor, transpose_a: bool, transpose_b: bool) -> Tensor {
    let (sa, sb) = (a.shape(), b.shape());
    let lead = sa.len() - 2;
    assert!(
        sa.len() == sb.len() && sa[..lead] == sb[..lead],
        "matmul: a {sa:?}, b {sb:?}: leading axes differ"
    );
    let batches: usize = sa[..lead].iter().product();
    let (m, k) = if transpose_a { (sa[lead + 1], sa[lead]) } else { (sa[lead], sa[lead + 1]) };
    let (n, kb) = if transpose_b { (sb[lead], sb[lead + 1]) } else { (sb[lead + 1], sb[lead]) };
    assert_eq!(
        k,
        kb,
        "matmul: a {sa:?}{}, b {sb:?}{}",
        if transpose_a { "ᵀ" } else { "" },
        if transpose_b { "ᵀ" } else { "" }
    );
    let mut shape = sa.to_vec();
    (shape[lead], shape[lead + 1]) = (m, n);
    let c = a.empty_on(shape, a.dtype());
    let (a_strides, b_strides) =
        (if transpose_a { [1, m] } else { [k, 1] }, if transpose_b { [1, k] } else { [n, 1] });
    // Batches are cut where a binding is too small; a part starts at an element that every adapter can bind.
    const ALIGNMENT: usize = 128;
    let sizes = [(a, m * k), (b, k * n), (&c, m * n)];
    let most = |(t, size): (&Tensor, usize)| {
        (t.gpu().capabilities().max_binding as usize / t.dtype().bytes()).saturating_sub(ALIGNMENT)
            / size.max(1)
    };
    let step = sizes.into_iter().map(most).min().expect("three operands").clamp(1, 32768);
    for first in (0..batches).step_by(step) {
        let z = step.min(batches - first);
        let [(a_, a_0), (b_, b_0), (c_, c_0)] = sizes.map(|(t, size)| {
            let skip = first * size % ALIGNMENT;
            (t.operand().elements(t.dtype(), first * size - skip, skip + z * size), skip)
        });
        let product = Product {
            m,
            n,
            k,
            piece: k,
            a: a_strides,
            b: b_strides,
            batches: z,
            z: [m * k, k * n, m * n],
            start: [a_0, b_0, c_0],
            accumulate: false,
            kernel,
        };
        product.launch((&a_, a.dtype()), (&b_, b.dtype()), None, (&c_, c.dtype()));
    }
    let (a_, b_) = (a.detach(), b.detach());
    c.with_grad(&[a, b], move |dc| {
        let by = |a: &Tensor, b: &Tensor, ta, tb| matmul_by(kernel, a, b, ta, tb);
        let da = if transpose_a { by(&b_, dc, transpose_b, true) } else { by(dc, &b_, false, !transpose_b) };
        let db = if transpose_b { by(dc, &a_, true, transpose_a) } else { by(&a_, dc, !transpose_a, false) };
        [da, db]
    })
}

fn transposed(x: &Array) -> Array {
    let n = x.shape.len();
    let mut shape = x.shape.clone();
    shape.swap(n - 1, n - 2);
    Array::from_fn(&shape, |i| {
        let mut i = i.to_vec();
        i.swap(n - 1, n - 2);
        x.at(&i)
    })
}

fn reference(a: &Array, b: &Array) -> Array {
    let ([z, m, k], [.., n]): ([usize; 3], [usize; 3]) = (a.axes(), b.axes());
    Array::from_fn(&[z, m, n], |i| (0..k).map(|t| a.at(&[i[0], i[1], t]) * b.at(&[i[0], t, i[2]])).sum())
}

pub(super) fn cases() -> Vec<Case> {
    // Each kernel on every adapter that runs it, whoever would be chosen there; lines of multiples of four elements.
    macro_rules! by {
        ($kernel:expr, $dims:expr, $any_matmul:ident, $matmul:literal, $any_linear:ident, $linear:literal) => {
            [
                Case {
                    run: |s, i| {
                        let (ta, tb) = (s["transpose_a"] == 1, s["transpose_b"] == 1);
                        vec![matmul_by(Some($kernel), &i[0], &i[1], ta, tb)]
                    },
                    dims: $dims(),
                    runs_on: |gpu| $kernel.runs_on(gpu),
                    bench: &[],
                    ..$any_matmul($matmul)
                },
                Case {
                    run: |s, i| {
                        vec![linear_by(
                            Some($kernel),
                            &i[0],
                            &i[1],
                            (s["bias"] == 1).then_some(&i[2]),
                            i[0].dtype(),
                        )]
                    },
                    dims: vec![
                        Dim::one_of("rows", &[1, 9, 130, 2050]),
                        Dim::one_of("in", &[8, 12, 40]),
                        Dim::one_of("out", &[8, 132, 264]),
                        Dim::one_of("bias", &[0, 1]),
                    ],
                    runs_on: |gpu| $kernel.runs_on(gpu),
                    bench: &[],
                    ..$any_linear($linear)
                },
            ]
        };
    }
    let wide = Case {
        inputs: |s, draw| {
            let mut inputs = (any_linear("").inputs)(s, draw);
            // Weights in f32 that f16 holds: some kernels round them.
            inputs[1] = inputs[1].clone().of(DType::F16).of(DType::F32);
            inputs
        },
        run: |s, i| vec![linear_to(&i[0], &i[1], (s["bias"] == 1).then_some(&i[2]), DType::F32)],
        // dy is rounded to f16: 2¹³ roundings of f32.
        error_grad: Some(|s| 8192.0 + 4.0 * (s["rows"].max(s["out"]) as f64).sqrt()),
        ..any_linear("linear").in_half("linear.to_f32", &["x"], 1.0)
    };
    let mut cases = vec![any_matmul("matmul"), any_linear("linear"), rows(), wide];
    // Matrices need not round sums to the nearest: the bound of a weight's gradient, which this is.
    let two_half =
        Case { error: |s| gradient_error(s["rows"]), ..two().in_half("linear.two.f16", &["x", "dy"], 1.0) };
    let two_coop = Case {
        stem: "linear.two.coop64.f16",
        run: |s, i| run_two(Some(Kernel::Coop(SMALLEST)), s, i),
        runs_on: |gpu| SMALLEST.runs_on(gpu),
        ..two_half.clone()
    };
    cases.extend([two_half, two(), two_coop]);
    cases.extend([half_matmul("matmul.f16"), half_linear("linear.f16")]);
    cases.extend([mlp().in_half("mlp.f16", &["x", "up", "down"], 4.0), mlp()]);
    cases.extend(by!(Kernel::Tile, fours, any_matmul, "matmul.tile", any_linear, "linear.tile"));
    cases.extend(by!(Kernel::Large(128), fours, any_matmul, "matmul.large", any_linear, "linear.large"));
    cases.extend(by!(Kernel::Large(64), fours, any_matmul, "matmul.large64", any_linear, "linear.large64"));
    // Tiles without borders.
    let [wide_tiles, _] = by!(Kernel::Large(128), wholes, any_matmul, "matmul.large.whole", any_linear, "");
    let [narrow_tiles, _] = by!(Kernel::Large(64), wholes, any_matmul, "matmul.large64.whole", any_linear, "");
    cases.extend([wide_tiles, narrow_tiles].map(|case| Case { large: true, ..case }));
    cases.extend(by!(Kernel::Few, fours, any_matmul, "matmul.few", any_linear, "linear.few"));
    cases.extend(by!(Kernel::Direct, fours, any_matmul, "matmul.direct", any_linear, "linear.direct"));
    cases.extend(by!(Kernel::Lane, fours, any_matmul, "matmul.lane", any_linear, "linear.lane"));
    cases.extend(by!(Kernel::Tile, fours, half_matmul, "matmul.tile.f16", half_linear, "linear.tile.f16"));
    cases.extend(by!(Kernel::Large(128), fours, half_matmul, "matmul.large.f16", half_linear, "linear.large.f16"));
    cases.extend(by!(Kernel::Few, fours, half_matmul, "matmul.few.f16", half_linear, "linear.few.f16"));
    cases.extend(by!(Kernel::Direct, fours, half_matmul, "matmul.direct.f16", half_linear, "linear.direct.f16"));
    cases.extend(by!(Kernel::Lane, fours, half_matmul, "matmul.lane.f16", half_linear, "linear.lane.f16"));
    cases.extend(by!(Kernel::Coop(BLOCKS[0]), eights, half_matmul, "matmul.coop128.f16", half_linear, "linear.coop128.f16"));
    cases.extend(by!(Kernel::Coop(BLOCKS[1]), eights, half_matmul, "matmul.coop64x128.f16", half_linear, "linear.coop64x128.f16"));
    cases.extend(by!(Kernel::Coop(BLOCKS[2]), eights, half_matmul, "matmul.coop64.long.f16", half_linear, "linear.coop64.long.f16"));
    cases.extend(by!(Kernel::Coop(SMALLEST), eights, half_matmul, "matmul.coop64.f16", half_linear, "linear.coop64.f16"));
    cases
}

fn fours() -> Vec<Dim> {
    vec![
        Dim::one_of("z", &[1, 2]),
        Dim::one_of("m", &[4, 20, 132]),
        Dim::one_of("n", &[4, 36, 120]),
        Dim::one_of("k", &[4, 12, 36, 68]),
        Dim::one_of("transpose_a", &[0, 1]),
        Dim::one_of("transpose_b", &[0, 1]),
    ]
}

fn wholes() -> Vec<Dim> {
    vec![
        Dim::one_of("z", &[1, 2]),
        Dim::one_of("m", &[64, 128]),
        Dim::one_of("n", &[128, 256]),
        Dim::one_of("k", &[16, 48]),
        Dim::one_of("transpose_a", &[0, 1]),
        Dim::one_of("transpose_b", &[0, 1]),
    ]
}

fn eights() -> Vec<Dim> {
    vec![
        Dim::one_of("z", &[1, 2]),
        Dim::one_of("m", &[8, 24, 136, 264]),
        Dim::one_of("n", &[8, 40, 264]),
        Dim::one_of("k", &[8, 24, 40, 72]),
        Dim::one_of("transpose_a", &[0, 1]),
        Dim::one_of("transpose_b", &[0, 1]),
    ]
}

fn any_matmul(stem: &'static str) -> Case {
    Case {
        dims: vec![
            Dim::range("z", 1, 3),
            Dim::range("m", 1, 130),
            Dim::range("n", 1, 125),
            Dim::range("k", 1, 120),
            Dim::one_of("transpose_a", &[0, 1]),
            Dim::one_of("transpose_b", &[0, 1]),
        ],
        inputs: |s, draw| {
            let [z, m, n, k, ta, tb] = s.get();
            let a = if ta == 1 { [z, k, m] } else { [z, m, k] };
            let b = if tb == 1 { [z, n, k] } else { [z, k, n] };
            vec![Input::new("a", draw.normal(&a)).grad(), Input::new("b", draw.normal(&b)).grad()]
        },
        run: |s, i| vec![matmul(&i[0], &i[1], s["transpose_a"] == 1, s["transpose_b"] == 1)],
        reference: |s, i| {
            let a = if s["transpose_a"] == 1 { transposed(&i[0]) } else { i[0].clone() };
            let b = if s["transpose_b"] == 1 { transposed(&i[1]) } else { i[1].clone() };
            vec![reference(&a, &b)]
        },
        error: |s| 4.0 + (s["k"] as f64).sqrt(),
        error_grad: Some(|s| gradient_error(s["m"].max(s["n"]).max(s["k"]))),
        cost: |s| {
            let [z, m, n, k, ..]: [usize; 6] = s.get();
            Cost { bytes: 4 * z * (m * k + k * n + m * n), flops: 2 * z * m * n * k }
        },
        cost_backward: Some(|s| {
            let [z, m, n, k, ..]: [usize; 6] = s.get();
            Cost { bytes: 4 * z * (2 * (m * k + k * n) + m * n), flops: 4 * z * m * n * k }
        }),
        part: Some(|s, draw| {
            let [z, m, n, k, ta, tb] = s.get();
            let (z, rows, columns) = (some(draw, z, 1), some(draw, m, 8), some(draw, n, 8));
            let a = if ta == 1 { [z.clone(), 0..k, rows.clone()] } else { [z.clone(), rows.clone(), 0..k] };
            let b = if tb == 1 { [z.clone(), columns.clone(), 0..k] } else { [z.clone(), 0..k, columns.clone()] };
            Part {
                sizes: vec![1, rows.len(), columns.len(), k, ta, tb],
                inputs: vec![a.into(), b.into()],
                outputs: vec![Share::Cut(vec![z, rows, columns])],
            }
        }),
        bench: &[&[1, 512, 512, 512, 0, 0], &[1, 4096, 4096, 4096, 0, 0]],
        ..Case::new(stem)
    }
}

fn any_linear(stem: &'static str) -> Case {
    Case {
        dims: vec![
            Dim::range("rows", 1, 300),
            Dim::range("in", 1, 100),
            Dim::range("out", 1, 100),
            Dim::one_of("bias", &[0, 1]),
        ],
        inputs: |s, draw| {
            let [rows, k, n, _] = s.get();
            vec![
                Input::new("x", draw.normal(&[rows, k])).grad(),
                Input::new("weight", draw.normal(&[n, k])).grad(),
                Input { differentiable: s["bias"] == 1, ..Input::new("bias", draw.normal(&[n])) },
            ]
        },
        run: |s, i| vec![linear(&i[0], &i[1], (s["bias"] == 1).then_some(&i[2]))],
        reference: |s, i| {
            let [rows, k]: [usize; 2] = i[0].axes();
            let bias = f64::from(u8::from(s["bias"] == 1));
            vec![Array::from_fn(&[rows, s["out"]], |at| {
                let dot: f64 = (0..k).map(|t| i[0].at(&[at[0], t]) * i[1].at(&[at[1], t])).sum();
                dot + bias * i[2].data[at[1]]
            })]
        },
        error: |s| 4.0 + (s["in"] as f64).sqrt(),
        error_grad: Some(|s| gradient_error(s["rows"].max(s["out"]))),
        cost: |s| {
            let [m, k, n, _]: [usize; 4] = s.get();
            Cost { bytes: 4 * (m * k + k * n + m * n), flops: 2 * m * n * k }
        },
        cost_backward: Some(|s| {
            let [m, k, n, _]: [usize; 4] = s.get();
            Cost { bytes: 4 * (2 * (m * k + k * n) + m * n), flops: 4 * m * n * k }
        }),
        part: Some(|s, draw| {
            let [rows, k, n, bias] = s.get();
            let (rows, out) = (some(draw, rows, 8), some(draw, n, 8));
            Part {
                sizes: vec![rows.len(), k, out.len(), bias],
                inputs: vec![vec![rows.clone(), 0..k], vec![out.clone(), 0..k], vec![out.clone()]],
                outputs: vec![Share::Cut(vec![rows, out])],
            }
        }),
        // The projections of a small model on 32 texts of 4096 tokens.
        bench: &[
            &[131072, 256, 1160, 0],
            &[131072, 512, 256, 0],
            &[131072, 256, 256, 0],
            &[131072, 256, 640, 0],
            &[131072, 640, 256, 0],
            &[131072, 256, 32, 0],
        ],
        ..Case::new(stem)
    }
}

/// 16-bit operands and result.
fn half_matmul(stem: &'static str) -> Case {
    Case {
        bench: &[&[1, 1024, 1024, 1024, 0, 0], &[1, 4096, 4096, 4096, 0, 0]],
        ..any_matmul(stem).in_half(stem, &["a", "b"], 1.0)
    }
}

/// 16-bit activations on weights in f32, which cooperative matrices round to 16 bits; their gradient is f32.
fn half_linear(stem: &'static str) -> Case {
    Case {
        bench: any_linear("").bench,
        ..any_linear(stem).in_half(stem, &["x"], 2.0)
    }
}

/// Rows beyond a piece, as every training step has them.
fn rows() -> Case {
    Case {
        dims: vec![
            Dim::one_of("rows", &[2047, 2049, 5000]),
            Dim::one_of("in", &[5, 17]),
            Dim::one_of("out", &[3, 16]),
        ],
        inputs: |s, draw| {
            let [rows, k, n] = s.get();
            vec![
                Input::new("x", draw.normal(&[rows, k])).grad(),
                Input::new("weight", draw.normal(&[n, k])).grad(),
            ]
        },
        run: |_, i| vec![linear(&i[0], &i[1], None)],
        reference: |s, i| {
            let k = s["in"];
            vec![Array::from_fn(&[s["rows"], s["out"]], |at| {
                (0..k).map(|t| i[0].at(&[at[0], t]) * i[1].at(&[at[1], t])).sum()
            })]
        },
        error: |_| 8.0,
        error_grad: Some(|s| gradient_error(s["rows"])),
        ..Case::new("linear.rows")
    }
}

/// Roundings allowed a gradient that sums up so many products.
fn gradient_error(products: usize) -> f64 {
    16.0 + 4.0 * (products as f64).sqrt()
}

/// A weight's gradient whose last rows alone are summed in pieces.
fn two() -> Case {
    Case {
        dims: vec![
            Dim::one_of("rows", &[4096, 2056, 5000]),
            Dim::one_of("in", &[8, 24]),
            Dim::one_of("head", &[8, 32]),
            Dim::one_of("rest", &[8, 16]),
        ],
        inputs: |s, draw| {
            let [rows, k, head, rest] = s.get();
            vec![
                Input::new("x", draw.normal(&[rows, k])),
                Input::new("dy", draw.normal(&[rows, head + rest])),
            ]
        },
        run: |s, i| run_two(None, s, i),
        reference: |s, i| {
            let [rows, k, head, rest] = s.get();
            vec![Array::from_fn(&[head + rest, k], |at| {
                (0..rows).map(|t| i[1].at(&[t, at[0]]) * i[0].at(&[t, at[1]])).sum()
            })]
        },
        error: |s| 4.0 + (s["rows"] as f64).sqrt(),
        large: true,
        ..Case::new("linear.two")
    }
}

fn run_two(kernel: Option<Kernel>, s: &Sizes, i: &[Tensor]) -> Vec<Tensor> {
    let [rows, k, head, rest] = s.get();
    let sums = in_two(kernel, &i[1], &i[0], [rows, head + rest, k], head);
    vec![sums.in_order().reshape([head + rest, k])]
}

/// Two products with SiLU between them, their gradients with them: the usual block of a network.
fn mlp() -> Case {
    Case {
        dims: vec![
            Dim::range("rows", 1, 40),
            Dim::one_of("in", &[4, 17, 64]),
            Dim::one_of("hidden", &[8, 33, 128]),
            Dim::one_of("out", &[4, 20]),
        ],
        inputs: |s, draw| {
            let [rows, k, hidden, n] = s.get();
            let mut grad = |name, shape: &[usize], most: f64| Input::new(name, draw.uniform(shape, -most, most)).grad();
            vec![
                grad("x", &[rows, k], 2.0),
                grad("up", &[k, hidden], 2.0 / (k as f64).sqrt()),
                grad("down", &[hidden, n], 2.0 / (hidden as f64).sqrt()),
            ]
        },
        run: |_, i| vec![matmul(&crate::ops::silu(&matmul(&i[0], &i[1], false, false)), &i[2], false, false)],
        reference: |s, i| {
            let [rows, k, hidden, n] = s.get();
            let product = |a: &Array, b: &Array, m, k, n| reference(&a.reshape(&[1, m, k]), &b.reshape(&[1, k, n]));
            let h = product(&i[0], &i[1], rows, k, hidden).map(|v| v / (1.0 + (-v).exp()));
            vec![product(&h, &i[2], rows, hidden, n).reshape(&[rows, n])]
        },
        error: |s| 32.0 + 2.0 * (s["in"].max(s["hidden"]) as f64).sqrt(),
        error_grad: Some(|s| 128.0 + 8.0 * (s["rows"].max(s["in"]).max(s["hidden"]) as f64).sqrt()),
        cost: |s| {
            let [m, k, h, n] = s.get();
            Cost { bytes: 4 * (m * k + k * h + h * n + m * n), flops: 2 * m * h * (k + n) }
        },
        cost_backward: Some(|s| {
            let [m, k, h, n] = s.get();
            Cost { bytes: 4 * (2 * (m * k + k * h + h * n) + m * n), flops: 4 * m * h * (k + n) }
        }),
        part: Some(|s, draw| {
            let [rows, k, hidden, n] = s.get();
            let (rows, out) = (some(draw, rows, 2), some(draw, n, 8));
            Part {
                sizes: vec![rows.len(), k, hidden, out.len()],
                inputs: vec![vec![rows.clone(), 0..k], vec![0..k, 0..hidden], vec![0..hidden, out.clone()]],
                outputs: vec![Share::Cut(vec![rows, out])],
            }
        }),
        ..Case::new("mlp")
    }
}

#[cfg(test)]
mod tests {
    use super::first_wave;

    #[test]
    fn first_waves() {
        // in_proj of RAMba-370M: 33 of 35 rows of tiles.
        assert_eq!(first_wave(32768, 4384, 1024), Some(4224));
        // A wave that is half empty, a product that is one wave, one that fills none, one piece of rows, and too many rows.
        for (rows, m, n) in
            [(32768, 384, 17024), (32768, 4224, 1024), (32768, 1024, 1024), (2048, 4384, 1024), (34816, 4384, 1024)]
        {
            assert_eq!(first_wave(rows, m, n), None, "{rows} × {m} × {n}");
        }
    }
}
