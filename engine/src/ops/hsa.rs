//! Hierarchical sparse attention (arXiv 2504.16795, section 3): each token attends inside a few chunks, each chunk with
//! a softmax of its own, and weighs what they say.
//!
//! The backward pass is linear in the tokens: lists of the slots that selected each chunk are built once, and a chunk's
//! keys and values visit those alone.

use crate::{
    DType, Gpu, Tensor, launch,
    ops::{batches_a_binding, in_batches, inverse_list, split_columns},
    reference::Array,
    testing::{Case, Cost, Dim, Draw, Input, Part, Share, Sizes, some},
};

/// `o[t, hq] = Σ_i weight[t, h, i] · softmax_j(q[t, hq] · k[j, h] / √d) · v[j, h]` over the tokens j of chunk
/// `indices[t, h, i]`, h = hq · heads / query heads.
///
/// `q`: (batch, tokens, query heads, d); `k`, `v`: (batch, keys, heads, d), keys a multiple of `chunk`, all of one float
/// type; `weights` (f32)
/// and `indices` (u32): (batch, tokens, heads, K), or one head for all. With `off_by_one` each denominator has one more term,
/// exp(0). Slots of weight exactly 0 add nothing; their weight's gradient is ⟨do, what they would say⟩ all the same.
///
/// # Panics
/// Where shapes or types disagree, or d or `chunk` exceeds 256.
#[track_caller]
pub fn hsa(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    weights: &Tensor,
    indices: &Tensor,
    chunk: usize,
    off_by_one: bool,
) -> Tensor {
    let [query_heads, heads, d] = expect(q, k, v, weights, indices, chunk);
    if !d.is_multiple_of(4) {
        // Kernels read vectors of four: what fills up adds nothing to products and is cut off again.
        let wide = d.next_multiple_of(4);
        let [q, k, v] = [q, k, v].map(|x| widened(x, wide));
        return narrowed(&scaled(&q, &k, &v, weights, indices, chunk, off_by_one, d, None), d);
    }
    let coop = coop(q, query_heads / heads, d, chunk).then(|| Coop::best(q, chunk));
    scaled(q, k, v, weights, indices, chunk, off_by_one, d, coop)
}

/// Query heads, heads and d of operands that agree.
#[track_caller]
pub(super) fn expect(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    weights: &Tensor,
    indices: &Tensor,
    chunk: usize,
) -> [usize; 3] {
    let [batches, tokens, query_heads, d] = q.axes();
    let [kb, keys, heads, kd] = k.axes();
    let [.., selection_heads, _]: [usize; 4] = weights.axes();
    assert_eq!((kb, kd), (batches, d), "hsa: k {:?} for q {:?}", k.shape(), q.shape());
    assert_eq!(k.shape(), v.shape(), "hsa: k and v");
    assert!(k.dtype() == q.dtype() && v.dtype() == q.dtype(), "hsa: types of q, k and v: {}, {}, {}", q.dtype(), k.dtype(), v.dtype());
    assert_eq!(weights.shape(), indices.shape(), "hsa: weights and indices");
    assert_eq!(weights.shape()[..2], [batches, tokens], "hsa: weights for q {:?}", q.shape());
    assert!(selection_heads == heads || selection_heads == 1, "hsa: {selection_heads} selections for {heads} heads");
    assert!(query_heads.is_multiple_of(heads), "hsa: {query_heads} query heads for {heads} heads");
    assert!(keys.is_multiple_of(chunk) && (1..=256).contains(&chunk) && d <= 256, "hsa: chunk {chunk}, d {d}, {keys} keys");
    assert_eq!(indices.dtype(), DType::U32, "hsa: indices");
    [query_heads, heads, d]
}

/// x (…, d) with columns of zeros up to `wide`.
pub(super) fn widened(x: &Tensor, wide: usize) -> Tensor {
    let (rows, d) = x.rows_by_last();
    let zeros = Tensor::zeros(x.gpu(), [rows, wide - d], x.dtype());
    let mut shape = x.shape().to_vec();
    *shape.last_mut().expect("x has a last axis") = wide;
    super::concat_columns(&[&x.reshape([rows, d]), &zeros]).reshape(shape)
}

/// The first `d` columns of x (…, wide).
pub(super) fn narrowed(x: &Tensor, d: usize) -> Tensor {
    let (rows, wide) = x.rows_by_last();
    let mut shape = x.shape().to_vec();
    *shape.last_mut().expect("x has a last axis") = d;
    split_columns(&x.reshape([rows, wide]), &[d, wide - d]).swap_remove(0).reshape(shape)
}

/// Slots of a chunk's list that one workgroup sums up.
const PIECE: usize = 256;

/// [`hsa`] for vectors of four dims; scores are divided by √`dims`. With `coop` on cooperative matrices, forward with so many
/// subgroups, if any, that take neighbours together.
fn scaled(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    weights: &Tensor,
    indices: &Tensor,
    chunk: usize,
    off_by_one: bool,
    dims: usize,
    coop: Option<Coop>,
) -> Tensor {
    let [batches, tokens, query_heads, d] = q.axes();
    let [_, keys, heads, _]: [usize; 4] = k.axes();
    let [.., selection_heads, slots]: [usize; 4] = weights.axes();
    // Queries, keys, statistics; backward also keys with values, twice the statistics, and sums by piece.
    let (bytes, count, lists) = (q.dtype().bytes(), tokens * selection_heads * slots, selection_heads * keys / chunk);
    let pieces = (count / PIECE + lists.min(count) + 1) * (heads / selection_heads);
    let forward = [tokens * query_heads * d * bytes, keys * heads * d * bytes, tokens * query_heads * slots * 4];
    let backward = [2 * forward[1], 2 * forward[2], pieces * chunk * 2 * d * 4];
    let trained = [q, k, v, weights].iter().any(|x| x.needs_grad());
    let largest = forward.into_iter().chain(backward.into_iter().filter(|_| trained)).max().unwrap_or(0);
    let most = batches_a_binding(q.gpu(), batches, largest);
    if most < batches {
        let part = |i: &[Tensor]| vec![scaled(&i[0], &i[1], &i[2], &i[3], &i[4], chunk, off_by_one, dims, coop)];
        return in_batches(&[q, k, v, weights, indices], most, part).remove(0);
    }
    let (elem, scale, joint) = (q.dtype().wgsl(), 1.0 / (dims as f32).sqrt(), selection_heads == 1);
    let (o, lse) = (q.like(), q.empty_on([batches, tokens, slots, query_heads], DType::F32));
    let (d4, share) = (d / 4, query_heads / heads);
    if let Some(Coop { subgroups, last }) = coop {
        let tiles = share / COOP;
        let blocks = batches * tokens.checked_div(NEIGHBOURS * subgroups).unwrap_or(0);
        let block = if blocks > 0 { NEIGHBOURS * subgroups } else { 0 };
        // Without blocks nothing reads what tells which are done.
        let mut done = indices.clone();
        if block > 0 {
            done = q.empty_on([blocks, selection_heads], DType::U32);
            let groups = blocks.div_ceil(subgroups) * heads * tiles;
            launch!(hsa_coop_neighbours [D = d, S = chunk, G = subgroups] {
                batches, tokens, keys, query_heads, heads, slots, joint, off_by_one, scale, tiles, groups,
            }, [q, k, v, weights, indices] -> [o, lse, done], groups);
        }
        // Few workgroups that find nothing to do, and few that wait for the last ones to end: of these, each has two tokens.
        let together = block.clamp(1, 8);
        let pieces = (together / 2).max(1);
        let runs = batches * tokens.div_ceil(together);
        let whole = if block > 0 { runs.saturating_sub(last / (heads * tiles)) } else { runs };
        let groups = (whole + (runs - whole) * pieces) * heads * tiles;
        launch!(hsa_coop [D = d, S = chunk, T = together, PIECES = pieces, BLOCK = block] {
            tokens, keys, query_heads, heads, slots, joint, off_by_one, scale, tiles, whole, groups,
        }, [q, k, v, weights, indices, done] -> [o, lse], groups);
    } else {
        let tile = Tile::new(q.gpu(), share, d4, chunk, 1);
        let tiles = share.div_ceil(tile.rows());
        let groups = batches * tokens * heads * tiles;
        launch!(hsa [elem = elem, D4 = d4, S = chunk, QG = tile.row_groups, KT = tile.keys] {
            tokens, keys, query_heads, heads, slots, joint, off_by_one, scale, tiles, groups,
        }, [q, k, v, weights, indices] -> [o, lse], groups);
    }
    let [q_, k_, v_, weights_, indices_] = [q, k, v, weights, indices].map(Tensor::detach);
    o.with_grad(&[q, k, v, weights], move |dout| {
        let flat = |x: &Tensor| x.reshape([1, x.len()]);
        let kv = super::concat_columns(&[&flat(&k_), &flat(&v_)]);
        let (dq, stats) = (q_.like(), q_.empty_on([lse.len(), 2], DType::F32));
        if coop.is_some() {
            let (tiles, values) = (share / COOP, k_.len());
            let groups = batches * tokens * heads * tiles;
            launch!(hsa_coop_backward_query [D = d, S = chunk] {
                tokens, keys, query_heads, heads, slots, joint, scale, tiles, groups, values,
            }, [q_, kv, weights_, indices_, lse, dout] -> [dq, stats], groups);
        } else {
            let tile = Tile::new(q_.gpu(), share, d4, chunk, 2);
            let tiles = share.div_ceil(tile.rows());
            let (groups, values) = (batches * tokens * heads * tiles, k_.len() / 4);
            launch!(hsa_backward_query [elem = elem, D4 = d4, S = chunk, QG = tile.row_groups, KT = tile.keys] {
                tokens, keys, query_heads, heads, slots, joint, scale, tiles, groups, values,
            }, [q_, kv, weights_, indices_, lse, dout] -> [dq, stats], groups);
        }
        let dweights = weights_.like();
        let count = weights_.len();
        launch!(hsa_weights_backward { count, slots, heads: selection_heads, share: query_heads / selection_heads }, [stats] -> [dweights],
                count.div_ceil(256));
        let (dk, dv) = memory_gradients(&q_, dout, &kv, &weights_, &indices_, &stats, &k_, chunk, scale, coop.is_some());
        [dq, dk, dv, dweights]
    })
}

/// dk and dv: a chunk visits the slots that selected it, through its list.
fn memory_gradients(
    q: &Tensor,
    dout: &Tensor,
    kv: &Tensor,
    weights: &Tensor,
    indices: &Tensor,
    stats: &Tensor,
    k: &Tensor,
    chunk: usize,
    scale: f32,
    coop: bool,
) -> (Tensor, Tensor) {
    let [batches, tokens, query_heads, d] = q.axes();
    let [_, keys, heads, _]: [usize; 4] = k.axes();
    let [.., selection_heads, slots]: [usize; 4] = weights.axes();
    let (d4, joint, chunks) = (d / 4, selection_heads == 1, keys / chunk);
    let (count, lists) = (weights.len(), batches * selection_heads * chunks);
    let list_keys = indices.like();
    launch!(hsa_keys { count, tokens, slots, heads: selection_heads, chunks }, [indices, weights] -> [list_keys],
            count.div_ceil(256));
    let list = inverse_list(&list_keys, lists);
    let cut = list.pieces(PIECE);
    let list_heads = if joint { heads } else { 1 };
    let partial = q.empty_on([cut.most, list_heads, chunk, 2, d], DType::F32);
    if coop {
        let groups = cut.most * list_heads;
        let apart = u32::from(coop_memory(d, chunk, 1) <= TWO_A_MULTIPROCESSOR);
        launch!(hsa_coop_backward_memory [D = d, S = chunk, APART = apart] {
            tokens, keys, query_heads, heads, slots, joint, chunk, scale, groups, chunks, values: k.len(), lists, list_heads,
        }, [q, dout, kv, weights, stats, list.order, cut.pieces] -> [partial], groups);
    } else {
        let tile = MemoryTile::new(q.gpu(), query_heads / heads, d4, chunk);
        let blocks = chunk.div_ceil(tile.keys);
        let groups = cut.most * list_heads * blocks;
        launch!(hsa_backward_memory [elem = q.dtype().wgsl(), D4 = d4, KT = tile.keys, QT = tile.rows] {
            tokens, keys, query_heads, heads, slots, joint, chunk, scale, groups, blocks, chunks,
            values: k.len() / 4, lists, list_heads,
        }, [q, dout, kv, weights, stats, list.order, cut.pieces] -> [partial], groups);
    }
    let (dk, dv) = (k.like(), k.like());
    let count = k.len() / 4;
    launch!(hsa_backward_memory_join [elem = q.dtype().wgsl()] { count, keys, heads, d4, joint, chunk, chunks },
            [cut.starts, partial] -> [dk, dv], count.div_ceil(256));
    (dk, dv)
}

/// Rows and columns of a cooperative matrix.
const COOP: usize = 16;

/// Whether cooperative matrices serve: 16-bit operands in whole tiles, rows that lanes load evenly, subgroups of the
/// workgroups' size, and memory for what the memory's kernel holds.
fn coop(q: &Tensor, share: usize, d: usize, chunk: usize) -> bool {
    let c = q.gpu().capabilities();
    c.coop
        && c.subgroups == Some((32, 32))
        && q.dtype() == DType::F16
        && [share, d, chunk].iter().all(|n| n.is_multiple_of(COOP))
        && d.is_power_of_two()
        && d.max(chunk) <= 128
        && coop_memory(d, chunk, 0) <= c.workgroup_memory as usize
}

/// Bytes that the memory's kernel holds: two tiles of queries and do, and of each key scores (twice with slopes `apart`), P
/// and dS.
fn coop_memory(d: usize, chunk: usize, apart: usize) -> usize {
    4 * COOP * 2 * (d + 8) + chunk * ((1 + apart) * 96 + 2 * 48) + 16
}

/// Workgroup memory up to which two workgroups were seen to share a multiprocessor; 25 KiB were too much.
const TWO_A_MULTIPROCESSOR: usize = 24 << 10;

/// How the forward pass goes over cooperative matrices; a choice of one's own where it matters to a test. Results are the same.
#[derive(Clone, Copy)]
struct Coop {
    /// Those of a workgroup that takes neighbours which select alike; 0: each token goes by itself.
    subgroups: usize,
    /// Workgroups of several tokens, the last of a launch, in whose place others have two each.
    last: usize,
}

impl Coop {
    /// Neighbours together where dims are worth it, there are enough rows of queries for a device, and memory for what two
    /// workgroups then hold; more workgroups for the last tokens than such a device runs at once.
    fn best(q: &Tensor, chunk: usize) -> Coop {
        let (rows, d) = q.rows_by_last();
        let able = q.gpu().capabilities().workgroup_memory as usize >= TWO_A_MULTIPROCESSOR;
        let worth = able && d == 64 && chunk == 64 && rows >= 8192 * COOP;
        Coop { subgroups: if worth { subgroups(chunk) } else { 0 }, last: 1024 }
    }
}

/// Tokens of each of them, `T` in the kernel.
const NEIGHBOURS: usize = 2;

/// Subgroups of a workgroup that takes neighbours: at most four, and each loads a tile of the chunk.
fn subgroups(chunk: usize) -> usize {
    [4, 2, 1].into_iter().find(|n| (chunk / COOP).is_multiple_of(*n)).expect("one divides all")
}

/// What a workgroup of the queries' kernels holds: `row_groups` · 4 query rows and `keys` keys at a time.
struct Tile {
    row_groups: usize,
    keys: usize,
}

impl Tile {
    /// The largest that fits the adapter's workgroup memory, with `sets` of query rows.
    fn new(gpu: &Gpu, share: usize, d4: usize, chunk: usize, sets: usize) -> Tile {
        let mut tile =
            Tile { row_groups: if share > 8 { 4 } else { share.div_ceil(4) }.next_power_of_two(), keys: chunk.next_power_of_two().min(64) };
        let bytes = |t: &Tile| 16 * (t.keys * (d4 + 1) + (sets * 4 * d4 + chunk + 1) * t.row_groups + 64);
        while bytes(&tile) > gpu.capabilities().workgroup_memory as usize {
            let rows = (sets * 4 * d4 + chunk) * tile.row_groups;
            if tile.row_groups > 1 && (rows > tile.keys * d4 || tile.keys <= 4) { tile.row_groups /= 2 } else { tile.keys /= 2 }
        }
        tile
    }

    fn rows(&self) -> usize {
        4 * self.row_groups
    }
}

/// What a workgroup of the memory's kernel holds: the sums of `keys` keys, and `rows` query rows at a time.
struct MemoryTile {
    keys: usize,
    rows: usize,
}

impl MemoryTile {
    /// The largest that fits the adapter's workgroup memory.
    fn new(gpu: &Gpu, share: usize, d4: usize, chunk: usize) -> MemoryTile {
        let mut tile =
            MemoryTile { keys: chunk.next_power_of_two().clamp(4, 64), rows: share.next_power_of_two().min(16) };
        let bytes = |t: &MemoryTile| 16 * (2 * d4 * t.keys + 2 * t.rows * (d4 + 1) + t.rows * t.keys / 2);
        while bytes(&tile) > gpu.capabilities().workgroup_memory as usize {
            if tile.keys > 4 && (tile.rows <= 8 || tile.keys >= 32) { tile.keys /= 2 } else { tile.rows /= 2 }
        }
        tile
    }
}

/// The dense loop of the definition.
pub(super) fn reference(s: &Sizes, i: &[Array]) -> Vec<Array> {
    let [_, _, query_heads, d]: [usize; 4] = i[0].axes();
    let [.., heads, _]: [usize; 4] = i[1].axes();
    let [.., selection_heads, slots]: [usize; 4] = i[3].axes();
    let (chunk, off) = (s["chunk"], f64::from(u8::from(s["off_by_one"] == 1)));
    let mut o = Array::zeros(&i[0].shape);
    for b in 0..i[0].shape[0] {
        for t in 0..i[0].shape[1] {
            for hq in 0..query_heads {
                let h = hq / (query_heads / heads);
                for slot in 0..slots {
                    let at = [b, t, h.min(selection_heads - 1), slot];
                    let first = i[4].at(&at) as usize * chunk;
                    let scores: Vec<f64> = (first..first + chunk)
                        .map(|j| {
                            let dot: f64 = (0..d).map(|c| i[0].at(&[b, t, hq, c]) * i[1].at(&[b, j, h, c])).sum();
                            (dot / (d as f64).sqrt()).exp()
                        })
                        .collect();
                    let total = scores.iter().sum::<f64>() + off;
                    for (j, e) in scores.iter().enumerate() {
                        for c in 0..d {
                            *o.at_mut(&[b, t, hq, c]) += i[3].at(&at) * e / total * i[2].at(&[b, first + j, h, c]);
                        }
                    }
                }
            }
        }
    }
    vec![o]
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![
            Dim::range("batches", 1, 2),
            Dim::range("tokens", 1, 12),
            Dim::one_of("share", &[1, 4, 16, 17]),
            Dim::one_of("heads", &[1, 2]),
            Dim::one_of("d", &[16, 4, 8, 32, 7, 48]),
            Dim::range("chunks", 1, 3),
            Dim::one_of("chunk", &[16, 32, 5, 20]),
            Dim::range("slots", 1, 4),
            Dim::one_of("shared", &[0, 1]),
            Dim::one_of("off_by_one", &[0, 1]),
        ],
        inputs: drawn,
        run: |s, i| vec![hsa(&i[0], &i[1], &i[2], &i[3], &i[4], s["chunk"], s["off_by_one"] == 1)],
        reference,
        error: |_| 64.0,
        error_grad: Some(|s| 400.0 + 8.0 * s["tokens"] as f64),
        cost: |s| {
            let [batches, tokens, share, heads, d, chunks, chunk, slots, ..]: [usize; 10] = s.get();
            let q = batches * tokens * share * heads * d;
            Cost { bytes: 8 * (q + batches * chunks * chunk * heads * d), flops: 4 * q * slots * chunk }
        },
        cost_backward: Some(|s| {
            let [batches, tokens, share, heads, d, chunks, chunk, slots, ..]: [usize; 10] = s.get();
            let q = batches * tokens * share * heads * d;
            Cost { bytes: 4 * (3 * q + 4 * batches * chunks * chunk * heads * d), flops: 10 * q * slots * chunk }
        }),
        part: Some(|s, draw| {
            let [batches, tokens, share, heads, d, chunks, chunk, slots, shared, off_by_one] = s.get();
            let (b, t) = (some(draw, batches, 1), some(draw, tokens, 2));
            let q = vec![b.clone(), t.clone(), 0..share * heads, 0..d];
            let k = vec![b.clone(), 0..chunks * chunk, 0..heads, 0..d];
            let selection = vec![b, t.clone(), 0..if shared == 1 { 1 } else { heads }, 0..slots];
            Part {
                sizes: vec![1, t.len(), share, heads, d, chunks, chunk, slots, shared, off_by_one],
                inputs: vec![q.clone(), k.clone(), k, selection.clone(), selection],
                outputs: vec![Share::Cut(q)],
            }
        }),
        bench: &[&[8, 4096, 16, 1, 64, 64, 64, 8, 0, 0]],
        ..Case::new("hsa")
    };
    // Chunks that more slots select than a piece holds.
    let pieces = Case {
        stem: "hsa.pieces",
        dims: vec![
            Dim::range("batches", 1, 2),
            Dim::one_of("tokens", &[400, 600]),
            Dim::one_of("share", &[1, 2]),
            Dim::one_of("heads", &[1, 2]),
            Dim::one_of("d", &[4]),
            Dim::range("chunks", 1, 2),
            Dim::one_of("chunk", &[5]),
            Dim::one_of("slots", &[1, 2]),
            Dim::one_of("shared", &[0, 1]),
            Dim::one_of("off_by_one", &[0]),
        ],
        bench: &[],
        ..plain.clone()
    };
    // One sequence must fit a binding, with what its backward pass adds: these do not everywhere.
    let large = Case {
        stem: "hsa.large",
        dims: plain.dims.iter().map(|d| if d.name == "chunk" { Dim::one_of("chunk", &[64, 100, 33]) } else { *d }).collect(),
        large: true,
        bench: &[],
        ..plain.clone()
    };
    // Whole tiles of cooperative matrices, which round probabilities and ds to f16 on the way.
    let whole = Case {
        dims: vec![
            Dim::range("batches", 1, 2),
            Dim::range("tokens", 1, 40),
            Dim::one_of("share", &[16, 32]),
            Dim::one_of("heads", &[1, 2]),
            Dim::one_of("d", &[32, 16, 64]),
            Dim::range("chunks", 1, 3),
            Dim::one_of("chunk", &[64, 16, 32]),
            Dim::range("slots", 1, 4),
            Dim::one_of("shared", &[0, 1]),
            Dim::one_of("off_by_one", &[0, 1]),
        ],
        ..plain.clone()
    };
    let coop = Case {
        run: |s, i| {
            let off = s["off_by_one"] == 1;
            vec![scaled(&i[0], &i[1], &i[2], &i[3], &i[4], s["chunk"], off, s["d"], Some(Coop { subgroups: 0, last: 0 }))]
        },
        runs_on: |gpu| {
            let c = gpu.capabilities();
            c.coop && c.subgroups == Some((32, 32)) && c.workgroup_memory >= 40 << 10
        },
        ..whole.in_half("hsa.coop", &["q", "k", "v"], 2.0)
    };
    // Blocks of neighbours, every other of which selects alike.
    let neighbours = Case {
        stem: "hsa.coop_neighbours",
        inputs: |s, draw| {
            let mut inputs = drawn(s, draw);
            let indices = &mut inputs[4].array;
            let (tokens, line) = (s["tokens"], indices.data.len() / (s["batches"] * s["tokens"]));
            let block = NEIGHBOURS * subgroups(s["chunk"]);
            for (row, t) in (0..s["batches"]).flat_map(|b| (0..tokens).map(move |t| (b * tokens + t, t))) {
                if (t / block).is_multiple_of(2) && t % block > 0 { indices.data.copy_within((row - 1) * line..row * line, row * line) }
            }
            inputs
        },
        run: |s, i| {
            let off = s["off_by_one"] == 1;
            let coop = Coop { subgroups: subgroups(s["chunk"]), last: 3 };
            vec![scaled(&i[0], &i[1], &i[2], &i[3], &i[4], s["chunk"], off, s["d"], Some(coop))]
        },
        ..coop.clone()
    };
    // As a text selects: at random for each token, or alike for neighbours.
    let visible = Case {
        dims: vec![
            Dim::range("batches", 1, 2),
            Dim::range("tokens", 1, 40),
            Dim::one_of("share", &[16]),
            Dim::one_of("heads", &[1]),
            Dim::one_of("d", &[16, 32]),
            Dim::range("chunks", 1, 3),
            Dim::one_of("chunk", &[16]),
            Dim::range("slots", 1, 4),
            Dim::one_of("shared", &[0, 1]),
            Dim::one_of("off_by_one", &[0]),
        ],
        ..plain.clone()
    };
    let random = Case { inputs: |s, draw| selected(s, draw, 1), ..visible.clone() };
    let shared = Case { inputs: |s, draw| selected(s, draw, 16), ..visible };
    let half = &["q", "k", "v"];
    vec![
        random.in_half("hsa.random", half, 2.0),
        shared.in_half("hsa.shared16", half, 2.0),
        coop,
        neighbours,
        plain.in_half("hsa.f16", half, 1.0),
        plain,
        large,
        pieces,
    ]
}

/// Chunks drawn at random for each token, weights of 0 among the others.
pub(super) fn drawn(s: &Sizes, draw: &mut Draw) -> Vec<Input> {
    let [batches, tokens, share, heads, d, chunks, chunk, slots, shared, _] = s.get();
    let selection = [batches, tokens, if shared == 1 { 1 } else { heads }, slots];
    let weights = draw.uniform(&selection, -0.3, 1.0).map(|w| w.max(0.0));
    vec![
        Input::new("q", draw.uniform(&[batches, tokens, share * heads, d], -2.0, 2.0)).grad(),
        Input::new("k", draw.uniform(&[batches, chunks * chunk, heads, d], -2.0, 2.0)).grad(),
        Input::new("v", draw.uniform(&[batches, chunks * chunk, heads, d], -2.0, 2.0)).grad(),
        Input::new("weights", weights).grad(),
        Input::new("indices", draw.integers(&selection, 0, chunks as i64)).of(DType::U32),
    ]
}

/// Each run of `neighbours` tokens selects K of the chunks before the first of them, the most recent first; weights
/// break a stick, each token its own.
fn selected(s: &Sizes, draw: &mut Draw, neighbours: usize) -> Vec<Input> {
    let [batches, tokens, share, heads, d, chunks, chunk, slots, shared, _] = s.get();
    let shape = [batches, tokens, if shared == 1 { 1 } else { heads }, slots];
    let (mut indices, mut weights) = (Array::zeros(&shape), Array::zeros(&shape));
    let mut chosen: Vec<Vec<usize>> = vec![Vec::new(); shape[2]];
    for (row, (indices, weights)) in indices.data.chunks_mut(slots).zip(weights.data.chunks_mut(slots)).enumerate() {
        let (t, head) = (row / shape[2] % tokens, row % shape[2]);
        if t.is_multiple_of(neighbours) {
            let visible = (t / chunk).min(chunks);
            let chosen = &mut chosen[head];
            chosen.clear();
            // Floyd's sample of K distinct ones.
            for most in visible - slots.min(visible)..visible {
                let one = draw.below(most + 1);
                chosen.push(if chosen.contains(&one) { most } else { one });
            }
            chosen.sort_unstable_by_key(|c| std::cmp::Reverse(*c));
        }
        let mut left = 1.0;
        for (slot, c) in chosen[head].iter().enumerate() {
            let share = 1.0 / (1.0 + (-draw.gauss()).exp());
            (indices[slot], weights[slot]) = (*c as f64, left * share);
            left -= left * share;
        }
    }
    let mut grad = |name, shape: &[usize]| Input::new(name, draw.uniform(shape, -2.0, 2.0)).grad();
    vec![
        grad("q", &[batches, tokens, share * heads, d]),
        grad("k", &[batches, chunks * chunk, heads, d]),
        grad("v", &[batches, chunks * chunk, heads, d]),
        Input::new("weights", weights).grad(),
        Input::new("indices", indices).of(DType::U32),
    ]
}
