//! Causal attention over a sliding window (Beltagy et al. 2020, arXiv 2004.05150, section 3.1; a window of all tokens is
//! causal attention), with shared key-value heads (Ainslie et al. 2023, arXiv 2305.13245), in tiles that never hold the
//! scores (Dao 2023, arXiv 2307.08691).
//!
//! Beside [`attention`](super::attention), which sees all of a short chunk and both ways. Neither knows positions: rotate
//! queries and keys with [`rope`](super::rope) before, `window_attention(&rope(&q, theta, 0), &rope(&k, theta, 0), &v,
//! window)`; scores then depend on t − j alone, so one rotation serves whatever window slides over it.

use crate::{
    DType, Gpu, Tensor, launch,
    ops::{batches_a_binding, in_batches, narrowed, widened},
    reference::Array,
    testing::{Case, Cost, Dim, Draw, Input, Part, Share, Sizes, some},
};

/// `o[t, hq] = Σ_j softmax_j(q[t, hq] · k[j, h] / √d) · v[j, h]` over the keys t − `window` < j ≤ t, h = hq · heads / query
/// heads.
///
/// `q`: (batch, queries, query heads, d); `k`, `v`: (batch, tokens, heads, d), all of one float type, d up to 256; the
/// result has `q`'s shape and type. Queries are those of the last tokens: where text is read a piece at a time, earlier
/// tokens have keys and values alone, and no gradient flows. A token's result depends on the `window` tokens that end there
/// alone, bit for bit.
///
/// # Panics
/// Where shapes or types disagree, d exceeds 256, `window` is 0, or fewer queries than keys are to have a gradient.
#[track_caller]
pub fn window_attention(q: &Tensor, k: &Tensor, v: &Tensor, window: usize) -> Tensor {
    attend(q, k, v, window, Kernel::best(q))
}

/// Query heads whose queries are added up in one go, where they share keys: the sums of such pieces are then added in
/// order, for any number of batches and tokens.
const PIECE: usize = 4;

/// Who computes it. The choice depends on d and the type alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// Register tiles, sums and probabilities in f32: runs everywhere.
    Tile,
    /// Cooperative matrices, for 16-bit operands and whole matrices of dims.
    Coop,
}

impl Kernel {
    fn best(q: &Tensor) -> Kernel {
        let [.., d]: [usize; 4] = q.axes();
        let whole = d.is_multiple_of(16) && (16..=128).contains(&d);
        if whole && q.dtype() == DType::F16 && Kernel::Coop.runs_on(q.gpu()) { Kernel::Coop } else { Kernel::Tile }
    }

    fn runs_on(self, gpu: &Gpu) -> bool {
        let c = gpu.capabilities();
        // What 128 dims take, rounded up to what adapters offer.
        self == Kernel::Tile || c.coop && c.subgroups == Some((32, 32)) && c.workgroup_memory >= 48 << 10
    }
}

#[track_caller]
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, window: usize, kernel: Kernel) -> Tensor {
    let [batches, queries, query_heads, d] = q.axes();
    let [_, tokens, heads, _]: [usize; 4] = k.axes();
    let expected = [batches, tokens, heads, d];
    assert_eq!(k.shape(), expected, "window_attention: k for q {:?}", q.shape());
    assert_eq!(v.shape(), expected, "window_attention: v for q {:?}", q.shape());
    assert!(queries <= tokens, "window_attention: {queries} queries for the keys of {tokens} tokens");
    assert!(
        queries == tokens || ![q, k, v].into_iter().any(Tensor::needs_grad),
        "window_attention: {queries} queries for the keys of {tokens} tokens have no gradient"
    );
    let types = [q, k, v].map(Tensor::dtype);
    assert!(types[1] == types[0] && types[2] == types[0], "window_attention: types of q, k and v: {types:?}");
    assert!(
        heads > 0 && query_heads.is_multiple_of(heads),
        "window_attention: {query_heads} query heads for {heads} heads"
    );
    assert!((1..=256).contains(&d), "window_attention: d: expected 1 … 256, got {d}");
    assert!(window > 0, "window_attention: a window of 0 tokens");
    let window = window.min(tokens);
    if d.is_multiple_of(4) {
        return scaled(q, k, v, window, kernel, d);
    }
    // Kernels read vectors of four: what fills up adds nothing to products and is cut off again.
    let [q, k, v] = [q, k, v].map(|x| widened(x, d.next_multiple_of(4)));
    narrowed(&scaled(&q, &k, &v, window, kernel, d), d)
}

/// [`attend`] for vectors of four dims; scores are divided by √`dims`.
fn scaled(q: &Tensor, k: &Tensor, v: &Tensor, window: usize, kernel: Kernel, dims: usize) -> Tensor {
    let [batches, queries, query_heads, d] = q.axes();
    let [_, tokens, heads, _]: [usize; 4] = k.axes();
    let (share, before) = (query_heads / heads, tokens - queries);
    let pieces = share.div_ceil(PIECE);
    // Queries and statistics; backward also the sums of pieces.
    let bytes = [query_heads * d * q.dtype().bytes(), query_heads * 4, if pieces > 1 { pieces * heads * d * 4 } else { 0 }];
    let most = batches_a_binding(q.gpu(), batches, tokens * bytes.into_iter().max().unwrap_or(0));
    if most < batches {
        let part = |i: &[Tensor]| vec![scaled(&i[0], &i[1], &i[2], window, kernel, dims)];
        return in_batches(&[q, k, v], most, part).remove(0);
    }
    let (elem, scale, d4) = (q.dtype().wgsl(), 1.0 / (dims as f32).sqrt(), d / 4);
    let (o, lse) = (q.like(), q.empty_on([batches, query_heads, queries], DType::F32));
    match kernel {
        Kernel::Tile => {
            let tile = Tile::new(q.gpu(), d4, 1);
            let tiles = queries.div_ceil(4 * tile.query_groups);
            let groups = batches * query_heads * tiles;
            launch!(window_attention [elem = elem, D4 = d4, QG = tile.query_groups, KT = tile.keys] {
                tokens, before, query_heads, heads, tiles, window, scale, groups,
            }, [q, k, v] -> [o, lse], groups);
        }
        Kernel::Coop => {
            let tiles = queries.div_ceil(128);
            let groups = batches * query_heads * tiles;
            launch!(window_attention_coop [D = d] {
                tokens, before, query_heads, heads, tiles, window, scale, groups,
            }, [q, k, v] -> [o, lse], groups);
        }
    }
    let [q_, k_, v_, o_] = [q, k, v, &o].map(Tensor::detach);
    o.with_grad(&[q, k, v], move |dout| {
        let (q, k, v, o) = (q_, k_, v_, o_);
        let (dq, delta) = (q.like(), lse.like());
        // A piece alone is the whole sum.
        let sums = |x: &Tensor| {
            if pieces > 1 { x.empty_on([pieces, x.len()], DType::F32) } else { x.like() }
        };
        let (dk, dv) = (sums(&k), sums(&v));
        match kernel {
            Kernel::Tile => {
                let tile = Tile::new(q.gpu(), d4, 2);
                let tiles = tokens.div_ceil(4 * tile.query_groups);
                let groups = batches * query_heads * tiles;
                launch!(window_attention_backward_query [elem = elem, D4 = d4, QG = tile.query_groups, KT = tile.keys] {
                    tokens, query_heads, heads, tiles, window, scale, groups,
                }, [q, k, v, o, dout, lse] -> [dq, delta], groups);
                let tile = KeyTile::new(q.gpu(), d4);
                let tiles = tokens.div_ceil(tile.keys);
                let groups = batches * heads * pieces * tiles;
                launch!(window_attention_backward_key
                        [elem = elem, elem_out = dk.dtype().wgsl(), D4 = d4, KT = tile.keys, QT = tile.queries] {
                    batches, tokens, query_heads, heads, piece: PIECE, pieces, tiles, window, scale, groups,
                }, [q, k, v, dout, lse, delta] -> [dk, dv], groups);
            }
            Kernel::Coop => {
                let tiles = tokens.div_ceil(64);
                let groups = batches * query_heads * tiles;
                launch!(window_attention_coop_backward_query [D = d] {
                    tokens, query_heads, heads, tiles, window, scale, groups,
                }, [q, k, v, o, dout, lse] -> [dq, delta], groups);
                let groups = batches * heads * pieces * tiles;
                launch!(window_attention_coop_backward_key [D = d, elem_out = dk.dtype().wgsl()] {
                    batches, tokens, query_heads, heads, piece: PIECE, pieces, tiles, window, scale, groups,
                }, [q, k, v, dout, lse, delta] -> [dk, dv], groups);
            }
        }
        let joined = |sums: Tensor, x: &Tensor| {
            if pieces == 1 {
                return sums;
            }
            let (dx, count) = (x.like(), x.len() / 4);
            launch!(window_attention_join [elem = elem] { count, pieces }, [sums] -> [dx], count.div_ceil(256));
            dx
        };
        [dq, joined(dk, &k), joined(dv, &v)]
    })
}

/// What a workgroup of the queries' kernels holds: `query_groups` · 4 queries and `keys` keys at a time.
struct Tile {
    query_groups: usize,
    keys: usize,
}

impl Tile {
    /// The largest that fits the adapter's workgroup memory, with `sets` of query rows.
    fn new(gpu: &Gpu, d4: usize, sets: usize) -> Tile {
        let mut tile = Tile { query_groups: 8, keys: 32 };
        // Keys in padded rows, query rows, probabilities, two statistics; what lanes exchange.
        let bytes = |t: &Tile| 16 * (t.keys * (d4 + 1) + (sets * 4 * d4 + t.keys + 2) * t.query_groups + 64);
        while bytes(&tile) > gpu.capabilities().workgroup_memory as usize {
            if tile.query_groups > 1 && (sets * 4 * tile.query_groups > tile.keys || tile.keys <= 4) {
                tile.query_groups /= 2;
            } else {
                tile.keys /= 2;
            }
        }
        tile
    }
}

/// What a workgroup of the keys' kernel holds: the sums of `keys` keys, and `queries` queries at a time.
struct KeyTile {
    keys: usize,
    queries: usize,
}

impl KeyTile {
    /// The largest that fits the adapter's workgroup memory.
    fn new(gpu: &Gpu, d4: usize) -> KeyTile {
        let mut tile = KeyTile { keys: 32, queries: 16 };
        let bytes = |t: &KeyTile| 16 * (2 * d4 * t.keys + 2 * t.queries * (d4 + 1) + t.queries * t.keys / 2);
        while bytes(&tile) > gpu.capabilities().workgroup_memory as usize {
            if tile.keys > 4 && (tile.queries <= 8 || tile.keys >= 32) { tile.keys /= 2 } else { tile.queries /= 2 }
        }
        tile
    }
}

/// The definition, one query at a time; queries are those of the last tokens, where there are fewer of them than of keys.
fn reference(s: &Sizes, i: &[Array]) -> Vec<Array> {
    let [_, queries, query_heads, d]: [usize; 4] = i[0].axes();
    let [_, tokens, heads, _]: [usize; 4] = i[1].axes();
    let mut row = 0;
    let o = i[0].reshape(&[i[0].len() / d, d]).map_rows(|q| {
        let (b, h) = (row / query_heads / queries, row % query_heads * heads / query_heads);
        let t = tokens - queries + row / query_heads % queries;
        row += 1;
        let of = |x: &'_ Array, j: usize, c: usize| x.data[((b * tokens + j) * heads + h) * d + c];
        let keys = (0..=t).filter(|j| t - j < s["window"]);
        let dot = |j: usize| (0..d).map(|c| q[c] * of(&i[1], j, c)).sum::<f64>() / (d as f64).sqrt();
        let p: Vec<(usize, f64)> = keys.map(|j| (j, dot(j).exp())).collect();
        let total: f64 = p.iter().map(|(_, e)| e).sum();
        (0..d).map(|c| p.iter().map(|(j, e)| e * of(&i[2], *j, c)).sum::<f64>() / total).collect()
    });
    vec![o.reshape(&i[0].shape)]
}

/// Two queries of one head with all that they see.
fn part(s: &Sizes, draw: &mut Draw) -> Part {
    let [batches, tokens, window, share, heads, d] = s.get();
    let (b, t, h) = (some(draw, batches, 1), some(draw, tokens, 2), draw.below(heads));
    let head = h * share + draw.below(share);
    let q = vec![b.clone(), t.clone(), head..head + 1, 0..d];
    let keys = (t.start + 1).saturating_sub(window)..t.end;
    let kv = vec![b, keys.clone(), h..h + 1, 0..d];
    let sizes = vec![1, keys.len(), window, 1, 1, d];
    Part { sizes, inputs: vec![q.clone(), kv.clone(), kv], outputs: vec![Share::Cut(q)] }
}

/// Elements of q and of k, and products of a query and a key that it sees, one a dim.
fn amounts(s: &Sizes) -> [usize; 3] {
    let [batches, tokens, window, share, heads, d] =
        ["batches", "tokens", "window", "share", "heads", "d"].map(|name| s[name]);
    let (rows, window) = (batches * heads * d, window.min(tokens));
    let pairs = window * (window + 1) / 2 + (tokens - window) * window;
    [rows * share * tokens, rows * tokens, rows * share * pairs]
}

/// q, k and v between −`most` and `most`.
fn inputs(s: &Sizes, draw: &mut Draw, most: f64) -> [Input; 3] {
    let [batches, tokens, _, share, heads, d] = s.get();
    [("q", share * heads), ("k", heads), ("v", heads)]
        .map(|(name, heads)| Input::new(name, draw.uniform(&[batches, tokens, heads, d], -most, most)))
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![
            Dim::range("batches", 1, 2),
            Dim::range("tokens", 1, 66),
            Dim::one_of("window", &[1000, 1, 5, 33, 2, 64]),
            Dim::one_of("share", &[1, 2, 5]),
            Dim::one_of("heads", &[1, 2]),
            Dim::one_of("d", &[16, 4, 7]),
        ],
        // Scores reach about 10: a probability loses as many roundings.
        inputs: |s, draw| inputs(s, draw, 2.0).map(Input::grad).into(),
        run: |s, i| vec![window_attention(&i[0], &i[1], &i[2], s["window"])],
        reference,
        error: |s| 32.0 + 2.0 * ((s["tokens"] + s["d"]) as f64).sqrt(),
        cost: |s| {
            let [q, k, products] = amounts(s);
            Cost { bytes: 8 * (q + k), flops: 4 * products }
        },
        cost_backward: Some(|s| {
            let [q, k, products] = amounts(s);
            Cost { bytes: 16 * (q + k), flops: 10 * products }
        }),
        part: Some(part),
        bench: &[&[1, 1024, 1024, 16, 1, 64], &[1, 4096, 4096, 16, 1, 64], &[1, 16384, 16384, 16, 1, 64]],
        ..Case::new("window_attention")
    };
    // Several tiles of queries and of keys, and heads as wide as they may be.
    let wide = Case {
        stem: "window_attention.wide",
        dims: vec![
            Dim::range("batches", 1, 1),
            Dim::range("tokens", 60, 140),
            Dim::one_of("window", &[1000, 1, 33, 64, 100]),
            Dim::one_of("share", &[1, 5]),
            Dim::one_of("heads", &[1]),
            Dim::one_of("d", &[64, 40, 128, 256, 65]),
        ],
        // One sequence must fit a binding: these do not everywhere.
        large: true,
        bench: &[],
        ..plain.clone()
    };
    // Whole matrices of dims. Beside a result's own rounding, probabilities or their gradients are rounded to f16 on the
    // way, and D is made of rounded results.
    let whole = Case {
        dims: vec![
            Dim::range("batches", 1, 2),
            Dim::range("tokens", 1, 300),
            Dim::one_of("window", &[1000, 1, 33, 64, 130]),
            Dim::one_of("share", &[1, 5]),
            Dim::one_of("heads", &[1, 2]),
            Dim::one_of("d", &[64, 16, 48, 128]),
        ],
        run: |s, i| vec![attend(&i[0], &i[1], &i[2], s["window"], Kernel::Coop)],
        ..plain.clone()
    };
    // Scores reach about 50 and keep growing, so that sums are rescaled on the way. Where one key takes all, the slopes of
    // scores are differences of nearly equal numbers: only v has a gradient to check.
    let steep = Case {
        inputs: |s, draw| {
            let [q, k, v] = inputs(s, draw, 5.0);
            vec![q, k, v.grad()]
        },
        error: |s| 128.0 + 2.0 * ((s["tokens"] + s["d"]) as f64).sqrt(),
        ..whole.clone()
    };
    // Queries of the last tokens alone, as where text is read a piece at a time.
    let late = |case: &Case| Case {
        stem: "window_attention.late",
        dims: [&case.dims[..], &[Dim::one_of("before", &[1, 40, 3, 64, 131, 0])]].concat(),
        inputs: |s, draw| {
            let [batches, tokens, _, share, heads, d, before] = s.get();
            let queries = tokens - before.min(tokens - 1);
            [("q", queries, share * heads), ("k", tokens, heads), ("v", tokens, heads)]
                .map(|(name, n, heads)| Input::new(name, draw.uniform(&[batches, n, heads, d], -2.0, 2.0)))
                .into()
        },
        large: true,
        part: None,
        bench: &[],
        cost_backward: None,
        ..case.clone()
    };
    let on_matrices = |case: &Case, stem, bench| Case {
        runs_on: |gpu| Kernel::Coop.runs_on(gpu),
        bench,
        ..case.in_half(stem, &["q", "k", "v"], 3.0)
    };
    let coop = on_matrices(
        &whole,
        "window_attention.coop",
        &[
            &[1, 1024, 1024, 16, 1, 64],
            &[1, 4096, 4096, 16, 1, 64],
            &[1, 16384, 16384, 16, 1, 64],
            &[1, 65536, 65536, 16, 1, 64],
        ],
    );
    let steep = on_matrices(&steep, "window_attention.coop_steep", &[]);
    let coop_late = on_matrices(&late(&whole), "window_attention.coop_late", &[]);
    // By the kernel that runs everywhere, here too.
    let half = Case {
        run: |s, i| vec![attend(&i[0], &i[1], &i[2], s["window"], Kernel::Tile)],
        ..plain.in_half("window_attention.f16", &["q", "k", "v"], 2.0)
    };
    vec![coop, steep, coop_late, half, late(&wide), wide, plain]
}
