//! RAMba: lower token mixers (Mamba-2 blocks), one memory, and upper groups that retrieve from it (arXiv 2504.16795).

use rambutan_engine::{
    DType, Gpu, Tensor,
    ops::{self, Begun, Group, Landmarks, Visibility},
    tensor::Parameters,
};

use crate::{
    Checkpoint, Config, Error,
    chunking::{Chunking, Memory},
    config::LayerKind,
    hsa::Hsa,
    mixer::{Mixer, MixerState},
    retrieval::{Compared, Retrieval, Selection},
    weights::{Norm, Stream, Weights},
    window::last_tokens,
};

/// The most chunks a token may select: what the kernel of selection keeps in registers.
const MAX_TOP_K: usize = 64;

/// One layer.
enum Layer {
    Mixer(Mixer),
    Chunking(Chunking),
    Retrieval(Retrieval),
    Hsa(Hsa),
}

/// What a model is uploaded for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Gradients are allocated.
    pub trained: bool,
    /// Layers compute in f16; parameters, the residual stream, states, scores, weights and logits stay f32, as do all
    /// sums. Needs the adapter's f16; training needs a loss scale. Without training matrices are kept in f16 alone.
    pub half: bool,
}

/// A model on a device.
pub struct Ramba {
    /// Its configuration.
    pub config: Config,
    /// Whether HSA layers run. Without them memory stays unread: what is answered then comes from the state alone.
    pub hsa: bool,
    dtype: DType,
    weights: Weights,
    embeddings: Tensor,
    layers: Vec<Layer>,
    norm_f: Norm,
    head: Tensor,
}

/// Who shares memory with whom in training.
#[derive(Clone, Default)]
pub struct Sharing {
    /// Sequences a group; 0 or 1 for none.
    pub group: usize,
    /// (batch, chunks), u32: chunks that the other sequences of a group may select.
    pub clean: Option<Tensor>,
    /// Added to the scores of other sequences' chunks, 0 or more: [`ops::Group::margin`].
    pub margin: f32,
}

/// What some tokens of a batch should select, and what it costs where they do not: [`ops::contrast`].
#[derive(Clone)]
pub struct Evidence {
    /// (rows), u32: tokens, counted through the batch; beyond it for none.
    pub tokens: Tensor,
    /// The chunks they are told.
    pub told: ops::Told,
    /// What [`ops::contrast_margin`] holds them to at most: ln n for a text of n times as many chunks. 0 or more.
    pub margin: f32,
    /// Times the mean over retrieval layers.
    pub weight: f32,
}

/// The parts of a loss in training: see [`Ramba::loss`].
pub struct Loss {
    /// (1): the sum of both parts, to go back from.
    pub total: Tensor,
    /// (1): of the predicted tokens.
    pub text: Tensor,
    /// (batch · tokens): the cross entropy of each.
    pub ce: Tensor,
    /// (1): of the evidence, mean over retrieval layers before its weight; None without any.
    pub evidence: Option<Tensor>,
}

/// What a forward pass saw on its way.
#[derive(Default)]
pub struct Trace {
    /// The stream after each layer, f32, then what the last norm made of it.
    pub hidden: Vec<Tensor>,
    /// What each retrieval layer selected.
    pub selections: Vec<Selection>,
}

/// Logits, and where the model looked.
pub struct Selected {
    /// (1, rows, vocabulary): of the last rows asked for.
    pub logits: Tensor,
    /// (1, tokens, retrieval heads, K), where there was anything to look into.
    pub weights: Option<Tensor>,
    /// The same shape, u32: chunks counted from the text's start, newest first.
    pub indices: Option<Tensor>,
    /// (chunks), f32: how well each matches what the first of those rows looks for, mean over heads, where asked for.
    pub scores: Option<Tensor>,
}

/// Tokens on their way through the layers: see [`Ramba::set_out`].
pub struct Passage {
    x: Stream,
    visibility: Visibility,
    /// States are let go of together.
    _before: Vec<Option<MixerState>>,
    rows: usize,
    scored: bool,
    /// The next layer, and the next Mamba-2 block.
    layer: usize,
    block: usize,
    /// What the latest retrieval layer selected, until it is brought.
    wanted: Option<Selection>,
    sought: usize,
    /// Whether it stops before landmarks are looked at, so that others may look at them together; what it looks for then,
    /// and what was found in company.
    together: bool,
    looks_for: Option<Tensor>,
    begun: Option<Begun>,
    /// Where ranks share the text, its chunks, whoever keeps them; and what was selected among all.
    spread: Option<usize>,
    found: Option<Selection>,
    brought: Option<([Tensor; 2], Selection)>,
    first: Option<Selection>,
    scores: Option<Tensor>,
}

impl Passage {
    /// The same, stopping before each retrieval layer: see [`Pass::Seeks`].
    #[must_use]
    pub fn together(self) -> Passage {
        Passage { together: true, ..self }
    }

    /// The same over a text of `chunks` chunks that ranks share: at [`Pass::Seeks`] it waits for [`Ramba::select`].
    pub(crate) fn spread(self, chunks: usize) -> Passage {
        Passage { spread: Some(chunks), ..self }
    }

    /// How many retrieval layers have selected so far.
    pub fn sought(&self) -> usize {
        self.sought
    }

    /// The stream of `count` of the last tokens, before the last `skipped`: (1, count, width).
    fn last_rows(&mut self, count: usize, skipped: usize) -> Tensor {
        let [_, tokens, width] = self.x.axes();
        ops::slice(self.x.settled(), (tokens - count - skipped) * width, count * width)
            .reshape([1, count, width])
    }
}

/// How far [`Ramba::pass`] came.
pub enum Pass {
    /// To a retrieval layer: [`Ramba::seek`] may look at the landmarks for this one and others in one pass over them; without
    /// it [`Ramba::pass`] does.
    Seeks,
    /// The keys and values of these chunks are wanted: (1, tokens, retrieval heads, K), u32, counted from the text's start.
    Wants(Tensor),
    /// All layers are behind it.
    Over(Box<Selected>),
}

/// What one rank finds: see [`Ramba::found_here`].
pub(crate) struct FoundHere {
    /// Tokens, heads and K.
    pub sizes: [usize; 3],
    /// Scores and indices: of the text's chunks that are kept here, and of the passage's own.
    pub best: [Option<(Tensor, Tensor)>; 2],
}

/// Keys and values of selected chunks, a chunk for each slot in order: (slots · S, heads, head dim).
pub struct Brought {
    /// Keys.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
}

/// What decoding carries from one call to the next.
#[derive(Clone)]
pub struct Cache {
    /// The state of each token mixer, in order.
    pub states: Vec<Option<MixerState>>,
    /// The lower stream of the incomplete last chunk, (batch, tokens, width).
    pending: Option<Tensor>,
    memory: Option<Memory>,
    /// The last segment numbers seen, (batch, tokens).
    segment: Option<Tensor>,
    /// Tokens seen.
    pub position: usize,
}

impl Cache {
    /// The memory of the whole chunks that went through it.
    pub fn memory(&self) -> Option<&Memory> {
        self.memory.as_ref()
    }
}

impl Ramba {
    /// Uploads a checkpoint to compute in f32; gradients are allocated where it is to be trained.
    ///
    /// # Errors
    /// The checkpoint lacks a parameter, the device its memory, or a kernel what the configuration asks of it.
    pub fn new(gpu: &Gpu, checkpoint: &Checkpoint, trained: bool) -> Result<Ramba, Error> {
        Ramba::with(gpu, checkpoint, Options { trained, ..Options::default() })
    }

    /// Uploads a checkpoint.
    ///
    /// # Errors
    /// The checkpoint lacks a parameter, or the device its memory or the f16 asked for.
    pub fn with(gpu: &Gpu, checkpoint: &Checkpoint, options: Options) -> Result<Ramba, Error> {
        if options.half && !gpu.capabilities().f16 {
            return Err(Error::NoHalf(gpu.capabilities().name.clone()));
        }
        let config = checkpoint.config.clone();
        if config.chunk_topk > MAX_TOP_K {
            return Err(Error::Setting {
                field: "chunk_topk".into(),
                value: config.chunk_topk.to_string(),
                expected: format!("at most {MAX_TOP_K}, what selection keeps at hand"),
            });
        }
        let dtype = if options.half { DType::F16 } else { DType::F32 };
        let weights = Weights::upload(gpu, checkpoint, options.trained, dtype)?;
        let root = weights.scope();
        let layers = config
            .layers()
            .into_iter()
            .enumerate()
            .map(|(i, kind)| {
                let scope = root.within(&format!("backbone.layers.{i}."));
                match kind {
                    LayerKind::Mamba => Layer::Mixer(Mixer::new(&config, &scope)),
                    LayerKind::Chunking => Layer::Chunking(Chunking::new(&config, &scope)),
                    LayerKind::Retrieval { .. } => Layer::Retrieval(Retrieval::new(&config, &scope)),
                    LayerKind::Hsa { .. } => Layer::Hsa(Hsa::new(&config, &scope)),
                }
            })
            .collect();
        let embeddings = root.get("backbone.embeddings.weight");
        Ok(Ramba {
            head: root.find("lm_head.weight").unwrap_or_else(|| match (options.trained, dtype) {
                (false, DType::F16) => ops::copy(&embeddings, DType::F16),
                _ => embeddings.clone(),
            }),
            norm_f: root.norm("backbone.norm_f.weight", config.layer_norm_epsilon),
            embeddings,
            layers,
            weights,
            config,
            dtype,
            hsa: true,
        })
    }

    /// The parameters, for an optimizer: without the matrices of a model that keeps them in f16.
    pub fn parameters(&self) -> &Parameters {
        &self.weights.parameters
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        self.embeddings.gpu()
    }

    /// The type that layers compute in, and memory is kept in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    fn visibility(&self, first_position: usize) -> Visibility {
        Visibility {
            chunk: self.config.chunk_size,
            first_position,
            window: self.config.mask_slide_window.then_some(self.config.slide_window),
            group: None,
        }
    }

    /// Segment numbers (batch, tokens) that restart states every `segment_size` tokens from position `first` on.
    pub fn regular_segments(
        &self,
        batch: usize,
        tokens: usize,
        first: usize,
    ) -> Result<Option<Tensor>, Error> {
        let Some(size) = self.config.segment_size else { return Ok(None) };
        let row = (first..first + tokens).map(|t| (t / size) as u32);
        let ids: Vec<u32> = (0..batch).flat_map(|_| row.clone()).collect();
        Ok(Some(Tensor::from_slice(self.gpu(), &ids, [batch, tokens])?))
    }

    /// ids: (batch, tokens), u32 → logits (batch, tokens, vocabulary), f32.
    ///
    /// `segment`: (batch, tokens), u32, states restart wherever it changes.
    pub fn forward(&self, ids: &Tensor, segment: Option<&Tensor>, sharing: &Sharing) -> Tensor {
        self.traced(ids, segment, sharing, None)
    }

    /// [`Ramba::forward`], noting the stream after each layer and the selections.
    pub fn traced(
        &self,
        ids: &Tensor,
        segment: Option<&Tensor>,
        sharing: &Sharing,
        trace: Option<&mut Trace>,
    ) -> Tensor {
        self.logits(&self.hidden(ids, segment, sharing, trace, &mut |_| ()))
    }

    /// ids: (batch, tokens) → what the head takes, (batch, tokens, width). `retrieves` is told what each
    /// retrieval layer compares.
    fn hidden(
        &self,
        ids: &Tensor,
        segment: Option<&Tensor>,
        sharing: &Sharing,
        mut trace: Option<&mut Trace>,
        retrieves: &mut dyn FnMut(&Compared),
    ) -> Tensor {
        let mut x = Stream::from(ops::embedding(&self.embeddings, ids));
        let (mut memory, mut selection) = (None, None);
        let mut visibility = self.visibility(0);
        if let (Some(clean), true) = (&sharing.clean, sharing.group > 1) {
            visibility.group =
                Some(Group { sequences: sharing.group, clean: clean.clone(), margin: sharing.margin });
        }
        for layer in &self.layers {
            match layer {
                Layer::Mixer(mixer) => x = mixer.forward(x, segment, None).0,
                Layer::Chunking(chunking) => memory = chunking.forward(x.settled()),
                Layer::Retrieval(retrieval) => {
                    selection = memory.as_ref().map(|m| {
                        let compared = retrieval.compared(x.settled(), &m.landmarks);
                        retrieves(&compared);
                        retrieval.select(&compared, &visibility)
                    });
                    if let (Some(trace), Some(s)) = (&mut trace, &selection) {
                        trace.selections.push(s.clone());
                    }
                }
                Layer::Hsa(hsa) => {
                    if let (Some(m), Some(s), true) = (&memory, &selection, self.hsa) {
                        x = hsa.forward(x.settled(), joined(m, sharing.group).each_ref(), s).into();
                    }
                }
            }
            if let Some(trace) = &mut trace {
                trace.hidden.push(x.settled().clone());
            }
        }
        let x = self.norm_f.forward(x.settled());
        if let Some(trace) = trace {
            trace.hidden.push(x.clone());
        }
        x
    }

    /// x (batch, tokens, width), after the last norm → (batch, tokens, vocabulary) in f32.
    fn logits(&self, x: &Tensor) -> Tensor {
        ops::linear_to(x, &self.head, None, DType::F32)
    }

    /// Nothing read yet.
    pub fn cache(&self) -> Cache {
        self.cache_at(0)
    }

    /// Nothing read yet of what begins at `position`, where states restart and a chunk begins.
    pub fn cache_at(&self, position: usize) -> Cache {
        assert!(position.is_multiple_of(self.config.chunk_size), "position {position} begins no chunk");
        let blocks = self.layers.iter().filter(|l| matches!(l, Layer::Mixer(_))).count();
        Cache { states: vec![None; blocks], pending: None, memory: None, segment: None, position }
    }

    /// Reads further tokens, (batch, tokens), after those that `cache` has seen → their logits. Any split of a text
    /// into calls gives the logits of one forward pass. `segment`: (batch, tokens), u32, states restart wherever it
    /// changes, from one call to the next too; calls without it continue.
    pub fn extend(&self, cache: &mut Cache, ids: &Tensor, segment: Option<&Tensor>) -> Tensor {
        let x = self.extended(cache, ids, segment);
        self.norm_f.project_to(&x, &self.head, DType::F32)
    }

    /// [`Ramba::extend`] of one text, ids (1, tokens) → the logits of the last token alone: a vocabulary is wide.
    pub fn extend_to_last(&self, cache: &mut Cache, ids: &Tensor, segment: Option<&Tensor>) -> Tensor {
        let x = self.extended(cache, ids, segment);
        let [_, tokens, width] = x.axes();
        if tokens == 1 {
            return self.norm_f.project_to(&x, &self.head, DType::F32);
        }
        // The last of many is computed as all of them are.
        let x = ops::slice(&x, (tokens - 1) * width, width).reshape([1, 1, width]);
        self.logits(&self.norm_f.forward(&x))
    }

    /// The stream of further tokens after the last layer.
    fn extended(&self, cache: &mut Cache, ids: &Tensor, segment: Option<&Tensor>) -> Tensor {
        if let Some(segment) = segment
            && let Some(before) = cache.segment.replace(segment.detach())
        {
            for state in cache.states.iter_mut().flatten() {
                *state = state.restarted(&before, segment);
            }
        }
        let visibility = self.visibility(cache.position);
        // States are let go of together: token after token then swaps two sets of buffers, which are bound already,
        // instead of handing each layer's on to the next.
        let _before = cache.states.clone();
        let mut x = Stream::from(ops::embedding(&self.embeddings, ids));
        let (mut selection, mut block) = (None, 0);
        for layer in &self.layers {
            match layer {
                Layer::Mixer(mixer) => {
                    let (y, state) = mixer.forward(x, segment, cache.states[block].as_ref());
                    cache.states[block] = Some(state);
                    (x, block) = (y, block + 1);
                }
                Layer::Chunking(chunking) => self.remember(cache, chunking, x.settled()),
                Layer::Retrieval(retrieval) => {
                    selection = cache
                        .memory
                        .as_ref()
                        .map(|m| retrieval.forward(x.settled(), &m.landmarks, &visibility));
                }
                Layer::Hsa(hsa) => {
                    if let (Some(m), Some(s), true) = (&cache.memory, &selection, self.hsa) {
                        x = hsa.forward(x.settled(), [&m.k, &m.v], s).into();
                    }
                }
            }
        }
        cache.position += ids.shape()[1];
        x.settled().clone()
    }

    /// Adds the chunks that `x` completes to memory, and keeps the rest of it.
    fn remember(&self, cache: &mut Cache, chunking: &Chunking, x: &Tensor) {
        let [batch, _, width] = x.axes();
        let hidden = match cache.pending.take() {
            Some(before) => join(&[&before, x]),
            None => x.clone(),
        };
        let tokens = hidden.shape()[1];
        let whole = tokens / self.config.chunk_size * self.config.chunk_size;
        if let Some(new) = chunking.forward(&hidden) {
            cache.memory = Some(match cache.memory.take() {
                None => new,
                Some(old) => Memory {
                    k: join(&[&old.k, &new.k]),
                    v: join(&[&old.v, &new.v]),
                    landmarks: join(&[&old.landmarks, &new.landmarks]),
                },
            });
        }
        cache.pending = (whole < tokens).then(|| {
            if whole == 0 {
                return hidden.clone();
            }
            let flat = hidden.reshape([batch, tokens * width]);
            let rest = ops::split_columns(&flat, &[whole * width, (tokens - whole) * width]).swap_remove(1);
            rest.reshape([batch, tokens - whole, width])
        });
    }

    /// ids: (segments, overlap + tokens), u32, each row a segment of its own and the `overlap` tokens in front of it → the
    /// memory of the segments' whole chunks. States begin with the row.
    pub fn remember_segments(&self, ids: &Tensor, overlap: usize) -> Memory {
        let tokens = ids.shape()[1] - overlap;
        let mut x = Stream::from(ops::embedding(&self.embeddings, ids));
        for layer in &self.layers {
            match layer {
                Layer::Mixer(mixer) => x = mixer.forward(x, None, None).0,
                Layer::Chunking(chunking) => {
                    let own = last_tokens(x.settled(), tokens);
                    return chunking.forward(&own).expect("a segment holds whole chunks");
                }
                _ => break,
            }
        }
        unreachable!("the configuration has a chunking layer before all retrieval")
    }

    /// Lets what `cache` is to read begin with the states that `ids`, (batch, tokens), u32, leave in the layers below memory.
    /// These stand in front of where it begins: none of them is remembered, its position stays, and the upper layers know
    /// nothing of them.
    pub fn lead_in(&self, cache: &mut Cache, ids: &Tensor) {
        self.below_memory(cache, ids);
    }

    /// Reads further tokens, (batch, tokens), u32, into memory alone: the upper layers never see them.
    pub fn remember_further(&self, cache: &mut Cache, ids: &Tensor) {
        let (mut x, chunking) = self.below_memory(cache, ids);
        if let Some(chunking) = chunking {
            self.remember(cache, chunking, x.settled());
        }
        cache.position += ids.shape()[1];
    }

    /// The stream below memory, and the layer that takes it there, where there is one.
    fn below_memory(&self, cache: &mut Cache, ids: &Tensor) -> (Stream, Option<&Chunking>) {
        let mut x = Stream::from(ops::embedding(&self.embeddings, ids));
        let mut states = cache.states.iter_mut();
        for layer in &self.layers {
            match (layer, states.next()) {
                (Layer::Mixer(mixer), Some(state)) => {
                    let (y, new) = mixer.forward(x, None, state.as_ref());
                    (x, *state) = (y, Some(new));
                }
                (Layer::Chunking(chunking), _) => return (x, Some(chunking)),
                _ => break,
            }
        }
        (x, None)
    }

    /// Further tokens of one text, ids (1, tokens), u32, set out on their way through the layers; what came before is in
    /// memory but for what `cache` holds. [`Ramba::pass`] takes them on. Logits are of the last `rows` tokens; with `scored`
    /// the first retrieval layer scores every chunk for the first of those rows.
    pub fn set_out(&self, cache: &Cache, ids: &Tensor, rows: usize, scored: bool) -> Passage {
        Passage {
            x: ops::embedding(&self.embeddings, ids).into(),
            visibility: self.visibility(cache.position),
            _before: cache.states.clone(), // as in `extended`
            rows,
            scored,
            layer: 0,
            block: 0,
            wanted: None,
            sought: 0,
            together: false,
            looks_for: None,
            begun: None,
            spread: None,
            found: None,
            brought: None,
            first: None,
            scores: None,
        }
    }

    /// Takes `passage` on: to the next layer that selected chunks, whose keys and values the caller then brings, or to its
    /// end. `landmarks`: pages of the whole chunks that `cache` began behind, in the text's order.
    /// [`Ramba::extend`] of all gives the same logits.
    ///
    /// # Panics
    /// Where chunks were wanted and are not brought, or brought and not wanted.
    #[track_caller]
    pub fn pass(
        &self,
        passage: &mut Passage,
        cache: &mut Cache,
        landmarks: &[Landmarks],
        brought: Option<Brought>,
    ) -> Pass {
        assert_eq!(passage.wanted.is_some(), brought.is_some(), "pass: chunks wanted, and brought");
        if let (Some(selection), Some(Brought { k, v })) = (passage.wanted.take(), brought) {
            // Each slot has a chunk of its own.
            let slots: Vec<u32> = (0..selection.indices.len() as u32).collect();
            let indices = Tensor::from_slice(self.gpu(), &slots, selection.indices.shape())
                .expect("as many numbers as slots");
            let kv = [k, v].map(|x| x.reshape([&[1], x.shape()].concat()));
            passage.brought = Some((kv, Selection { weights: selection.weights, indices }));
        }
        while let Some(layer) = self.layers.get(passage.layer) {
            passage.layer += 1;
            match layer {
                Layer::Mixer(mixer) => {
                    let state = &mut cache.states[passage.block];
                    let (y, new) = mixer.forward(passage.x.clone(), None, state.as_ref());
                    *state = Some(new);
                    (passage.x, passage.block) = (y, passage.block + 1);
                }
                Layer::Chunking(chunking) => self.remember(cache, chunking, passage.x.settled()),
                Layer::Retrieval(retrieval) => {
                    let own = cache.memory.as_ref().map(|m| Landmarks::from(m.landmarks.clone()));
                    let landmarks: Vec<Landmarks> = landmarks.iter().cloned().chain(own.clone()).collect();
                    let own = own.is_some();
                    let elsewhere = passage.spread.is_some_and(|chunks| chunks > 0);
                    if landmarks.is_empty() && !elsewhere {
                        continue;
                    }
                    if passage.spread.is_some() && passage.found.is_none() {
                        passage.looks_for = Some(retrieval.sought(passage.x.settled()));
                        passage.layer -= 1;
                        return Pass::Seeks;
                    }
                    // A window may hide chunks of the text, from each token others.
                    let shared = passage.together && passage.visibility.window.is_none();
                    let selection = match (passage.begun.take(), passage.looks_for.take()) {
                        _ if passage.found.is_some() => passage.found.take().expect("it is there"),
                        (Some(begun), Some(q)) => {
                            let own = &landmarks[landmarks.len() - usize::from(own)..];
                            retrieval.forward_further(&q, begun, own, &passage.visibility)
                        }
                        (None, None) if shared => {
                            passage.looks_for = Some(retrieval.sought(passage.x.settled()));
                            passage.layer -= 1;
                            return Pass::Seeks;
                        }
                        _ => retrieval.forward_pages(passage.x.settled(), &landmarks, &passage.visibility),
                    };
                    if passage.scored && passage.first.is_none() && passage.spread.is_none() {
                        let row = passage.last_rows(1, passage.rows - 1);
                        passage.scores = Some(retrieval.every_score(&row, &landmarks));
                    }
                    passage.first.get_or_insert_with(|| selection.clone());
                    if self.hsa {
                        let indices = selection.indices.clone();
                        passage.wanted = Some(selection);
                        passage.sought += 1;
                        return Pass::Wants(indices);
                    }
                }
                Layer::Hsa(hsa) => {
                    if let Some((kv, selection)) = &passage.brought {
                        passage.x = hsa.forward(passage.x.settled(), kv.each_ref(), selection).into();
                    }
                }
            }
        }
        cache.position += passage.x.axes()[1];
        let logits = self.logits(&self.norm_f.forward(&passage.last_rows(passage.rows, 0)));
        let (weights, indices) = passage.first.take().map(|s| (s.weights, s.indices)).unzip();
        let scores = passage.scores.take();
        Pass::Over(Box::new(Selected { logits, weights, indices, scores }))
    }

    /// What a passage that waits for [`Ramba::select`] finds by itself: the best of `landmarks`, which are any of the text's
    /// and are numbered as they come, and the best of its own chunks.
    pub(crate) fn found_here(
        &self,
        passage: &Passage,
        cache: &Cache,
        landmarks: &[Landmarks],
    ) -> Option<FoundHere> {
        let Layer::Retrieval(retrieval) = self.layers.get(passage.layer)? else { return None };
        let (q, spread) = (passage.looks_for.as_ref()?, passage.spread?);
        let [_, tokens, heads, _]: [usize; 4] = q.axes();
        let chunks: usize = landmarks.iter().map(Landmarks::chunks).sum();
        // All lie before every token.
        let all = Visibility { chunk: 1, first_position: chunks, window: None, group: None };
        let here = (chunks > 0).then(|| retrieval.best(q, landmarks, &all));
        let before = spread * self.config.chunk_size;
        let seen = Visibility {
            first_position: passage.visibility.first_position - before,
            ..passage.visibility.clone()
        };
        let own = cache.memory.as_ref().map(|m| retrieval.best(q, &[m.landmarks.clone().into()], &seen));
        let of_all = spread + cache.memory.as_ref().map_or(0, |m| m.landmarks.shape()[1]);
        Some(FoundHere { sizes: [tokens, heads, self.config.chunk_topk.min(of_all)], best: [here, own] })
    }

    /// Lets a passage over a shared text go on with what was selected for it: (1, tokens, heads, K), as
    /// [`ops::select_pages`] gives scores and indices.
    pub(crate) fn select(&self, passage: &mut Passage, scores: Tensor, indices: Tensor) {
        if let Some(Layer::Retrieval(retrieval)) = self.layers.get(passage.layer) {
            passage.found = Some(retrieval.selection(scores, indices));
        }
    }

    /// Looks at the landmarks of a text once for all `passages` that [`Pass::Seeks`] stopped before the same layer.
    pub fn seek(&self, passages: &mut [&mut Passage], landmarks: &[Landmarks]) {
        let Some(layer) = passages.first().map(|p| p.layer) else { return };
        let Some(Layer::Retrieval(retrieval)) = self.layers.get(layer) else { return };
        let here = |p: &&mut &mut Passage| p.layer == layer && p.looks_for.is_some();
        let q: Vec<Tensor> = passages.iter_mut().filter(here).filter_map(|p| p.looks_for.clone()).collect();
        let begun = retrieval.begin_together(&q.iter().collect::<Vec<_>>(), landmarks);
        for (passage, begun) in passages.iter_mut().filter(here).zip(begun.into_iter().flatten()) {
            passage.begun = Some(begun);
        }
    }

    /// Σ weight · cross entropy of what [`Ramba::forward`] predicts against targets, and the evidence's loss where there is
    /// any. Targets and weights are (batch, tokens) as ids are.
    pub fn loss(
        &self,
        ids: &Tensor,
        segment: Option<&Tensor>,
        sharing: &Sharing,
        targets: &Tensor,
        weights: &Tensor,
        evidence: Option<&Evidence>,
    ) -> Loss {
        let mut contrasts = Vec::new();
        let x = self.hidden(ids, segment, sharing, None, &mut |compared| {
            if let Some(evidence) = evidence {
                let scores = compared.scores_of(&evidence.tokens);
                let margins = ops::contrast_margin(&scores, &evidence.told.chunks, evidence.margin);
                contrasts.push(ops::contrast(&scores, &evidence.told, &margins).0);
            }
        });
        let (rows, width) = x.rows_by_last();
        let [targets, weights] = [targets, weights].map(|t| t.reshape([rows]));
        let (text, ce) = ops::linear_cross_entropy(&x.reshape([rows, width]), &self.head, &targets, &weights);
        let layers = contrasts.len() as f32;
        let mean =
            contrasts.into_iter().reduce(|a, b| ops::add(&a, &b)).map(|sum| ops::scale(&sum, 1.0 / layers));
        let total = match (&mean, evidence) {
            (Some(mean), Some(evidence)) => ops::add(&text, &ops::scale(mean, evidence.weight)),
            _ => text.clone(),
        };
        Loss { total, text: text.detach(), ce, evidence: mean.map(|m| m.detach()) }
    }
}

/// Keys and values of `group` sequences after one another as those of one.
fn joined(memory: &Memory, group: usize) -> [Tensor; 2] {
    [&memory.k, &memory.v].map(|x| {
        let mut shape = x.shape().to_vec();
        (shape[0], shape[1]) = (shape[0] / group.max(1), shape[1] * group.max(1));
        x.reshape(shape)
    })
}

/// Joins (batch, tokens, …) along the tokens.
pub(crate) fn join(parts: &[&Tensor]) -> Tensor {
    let batch = parts[0].shape()[0];
    let flat: Vec<Tensor> = parts.iter().map(|p| p.reshape([batch, p.len() / batch])).collect();
    let mut shape = parts[0].shape().to_vec();
    shape[1] = parts.iter().map(|p| p.shape()[1]).sum();

    ops::concat_columns(&flat.iter().collect::<Vec<_>>()).reshape(shape)
}
