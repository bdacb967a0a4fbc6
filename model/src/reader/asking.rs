//! A question being answered: a token at a time, each in slices that fit a frame.

use std::{ops::Range, time::Duration};

use rambutan_engine::{
    Tensor,
    gpu::{Download, Instant},
    no_grad,
};

use super::{Answer, PIECE_BYTES, Reader, bringing::Recent, mean_over_heads, most_probable};
use crate::{
    Error,
    ramba::{Brought, Cache, Pass, Passage, Selected},
};

/// Numbers on their way.
enum Coming<T> {
    No(Download<T>),
    Yes(Vec<T>),
}

impl<T: rambutan_engine::Element> Coming<T> {
    /// Whether they are there.
    fn poll(&mut self) -> Result<bool, Error> {
        if let Coming::No(download) = self {
            let Some(numbers) = download.try_take()? else { return Ok(false) };
            *self = Coming::Yes(numbers);
        }
        Ok(true)
    }

    /// Waits until they are.
    async fn arrive(&mut self) -> Result<(), Error> {
        if let Coming::No(download) = self {
            *self = Coming::Yes(download.await?);
        }
        Ok(())
    }

    /// # Panics
    /// Where they are not.
    fn get(self) -> Vec<T> {
        match self {
            Coming::No(_) => panic!("numbers are taken before they came"),
            Coming::Yes(numbers) => numbers,
        }
    }
}

/// What the device was asked for last.
enum Pending {
    /// Which chunks a retrieval layer selected.
    Chunks(Coming<u32>),
    /// What a piece gives.
    Said { logits: Coming<f32>, selected: Option<Box<Chosen>> },
}

/// Tokens between their first layer and their last.
struct Piece {
    passage: Passage,
    /// Its tokens, and how many of the last give logits.
    tokens: Range<usize>,
    rows: usize,
    /// The chunks to bring, once they are known.
    chunks: Option<Vec<u32>>,
}

/// The chunks of one token.
struct Chosen {
    weights: Coming<f32>,
    indices: Coming<u32>,
    row: Range<usize>,
    heads: usize,
    held: usize,
}

/// Tokens fed behind those that a cache has seen, a piece at a time.
pub(super) struct Feed {
    /// The tokens in front of the first, until their states are there.
    lead: Vec<u8>,
    tokens: Vec<u8>,
    /// The first whose logits are wanted.
    first: usize,
    fed: usize,
    scored: bool,
    /// Whether it stops where landmarks can be looked at together with others, and whether it has.
    together: bool,
    seeks: bool,
    piece: Option<Piece>,
    /// What each retrieval layer had brought lately.
    recent: Vec<Recent>,
    pending: Option<Pending>,
    /// The logits after each token from the first wanted on.
    pub logits: Vec<f32>,
    /// What was selected there.
    pub selected: Vec<(usize, f32)>,
    /// And the scores of all chunks.
    pub scores: Option<Tensor>,
}

impl Feed {
    pub fn new(lead: Vec<u8>, tokens: Vec<u8>, first: usize) -> Feed {
        Feed {
            lead,
            tokens,
            first,
            fed: 0,
            scored: false,
            together: false,
            seeks: false,
            piece: None,
            recent: Vec::new(),
            pending: None,
            logits: Vec::new(),
            selected: Vec::new(),
            scores: None,
        }
    }

    /// The same with the scores of all chunks.
    pub fn scored(self) -> Feed {
        Feed { scored: true, ..self }
    }

    /// Further tokens, where these were.
    fn again(&mut self, tokens: Vec<u8>) {
        let (recent, lead) = (std::mem::take(&mut self.recent), Vec::new());
        let (together, scored) = (self.together, self.scored);
        *self = Feed { recent, together, scored, ..Feed::new(lead, tokens, 0) };
    }

    /// Sets the next piece out.
    fn set_out(&mut self, reader: &Reader<'_>, cache: &mut Cache) -> Result<Piece, Error> {
        if !self.lead.is_empty() {
            let ids = reader.ids(&std::mem::take(&mut self.lead), 1)?;
            no_grad(|| reader.model.lead_in(cache, &ids));
        }
        let config = &reader.model.config;
        // Keys, and as many values, of the chunks that a token selects; all of a piece's keys must fit a binding.
        let slots = config.chunk_topk * config.retrieval_heads() * config.chunk_size;
        let keys = slots * config.num_kv_heads * config.attention_head_dim * reader.model.dtype().bytes();
        let most = (reader.gpu().capabilities().max_binding as usize).min(PIECE_BYTES / 2);
        let (start, first) = (self.fed, self.first);
        let end = (start + (most / keys).max(1)).min(self.tokens.len());
        self.fed = end;
        let ids = reader.ids(&self.tokens[start..end], 1)?;
        let rows = end - start.max(first.min(end));
        let scored = self.scored && (start..end).contains(&first);
        let passage = no_grad(|| reader.model.set_out(cache, &ids, rows.max(1), scored));
        let passage = match &reader.share {
            Some(share) => passage.spread(share.base / config.chunk_size),
            None if self.together => passage.together(),
            None => passage,
        };
        Ok(Piece { passage, tokens: start..end, rows, chunks: None })
    }

    /// Records the next piece, or how it goes on.
    fn record(&mut self, reader: &Reader<'_>, cache: &mut Cache) -> Result<(), Error> {
        let mut piece = match self.piece.take() {
            Some(piece) => piece,
            None => self.set_out(reader, cache)?,
        };
        let mut brought = match piece.chunks.take() {
            Some(numbers) => Some(self.bring(reader, cache, piece.passage.sought(), &numbers)?),
            None => None,
        };
        let landmarks = reader.landmarks.pages();
        let selected = loop {
            let pass = no_grad(|| reader.model.pass(&mut piece.passage, cache, &landmarks, brought.take()));
            match pass {
                Pass::Over(selected) => break *selected,
                Pass::Seeks if reader.share.is_some() => {
                    select_over_ranks(reader, &mut piece.passage, cache)?
                }
                Pass::Seeks => {
                    self.piece = Some(piece);
                    self.seeks = true;
                    return Ok(());
                }
                Pass::Wants(indices) if reader.values.by_number() || reader.share.is_some() => {
                    self.pending = Some(Pending::Chunks(Coming::No(indices.download()?)));
                    self.piece = Some(piece);
                    return Ok(());
                }
                Pass::Wants(indices) => {
                    brought = Some(reader.values.gather(reader, &indices, cache.memory()));
                }
            }
        };
        self.ask_for(reader, cache, &piece, selected)
    }

    fn bring(
        &mut self,
        reader: &Reader<'_>,
        cache: &Cache,
        layer: usize,
        numbers: &[u32],
    ) -> Result<Brought, Error> {
        if self.recent.len() < layer {
            self.recent.resize_with(layer, Recent::default);
        }
        no_grad(|| reader.values.bring(reader, &mut self.recent[layer - 1], numbers, cache.memory()))
    }

    /// Asks for what a piece gives.
    fn ask_for(
        &mut self,
        reader: &Reader<'_>,
        cache: &Cache,
        piece: &Piece,
        selected: Selected,
    ) -> Result<(), Error> {
        let (Range { start, end }, first) = (piece.tokens.clone(), self.first);
        if piece.rows == 0 {
            return Ok(());
        }
        let here = piece.tokens.contains(&first);
        let Selected { logits, weights, indices, scores } = selected;
        if here {
            self.scores = scores;
        }
        let selected = match (weights, indices) {
            (Some(weights), Some(indices)) if here => {
                let [_, _, heads, k] = weights.axes();
                Some(Box::new(Chosen {
                    weights: Coming::No(weights.download()?),
                    indices: Coming::No(indices.download()?),
                    row: (first - start) * heads * k..(first - start + 1) * heads * k,
                    heads,
                    held: reader.visible(cache.position - (end - first)).min(k),
                }))
            }
            _ => None,
        };
        self.pending = Some(Pending::Said { logits: Coming::No(logits.download()?), selected });
        Ok(())
    }

    /// Whether what was asked for last is there.
    fn poll(&mut self) -> Result<bool, Error> {
        Ok(match &mut self.pending {
            None => true,
            Some(Pending::Chunks(chunks)) => chunks.poll()?,
            Some(Pending::Said { logits, selected }) => {
                logits.poll()?
                    && match selected {
                        Some(chosen) => chosen.weights.poll()? && chosen.indices.poll()?,
                        None => true,
                    }
            }
        })
    }

    /// Waits until it is.
    async fn arrive(&mut self) -> Result<(), Error> {
        match &mut self.pending {
            None => Ok(()),
            Some(Pending::Chunks(chunks)) => chunks.arrive().await,
            Some(Pending::Said { logits, selected }) => {
                if let Some(chosen) = selected {
                    chosen.weights.arrive().await?;
                    chosen.indices.arrive().await?;
                }
                logits.arrive().await
            }
        }
    }

    /// Takes note of it.
    fn hear(&mut self) {
        match self.pending.take() {
            None => {}
            Some(Pending::Chunks(chunks)) => {
                self.piece.as_mut().expect("a piece waits for its chunks").chunks = Some(chunks.get());
            }
            Some(Pending::Said { logits, selected }) => {
                if let Some(chosen) = selected {
                    let Chosen { weights, indices, row, heads, held } = *chosen;
                    self.selected =
                        mean_over_heads(&weights.get()[row.clone()], &indices.get()[row], heads, held);
                }
                self.logits.extend(logits.get());
            }
        }
    }

    fn is_done(&self) -> bool {
        self.fed == self.tokens.len() && self.piece.is_none() && self.pending.is_none()
    }

    /// All pieces, one after another.
    pub async fn run(&mut self, reader: &Reader<'_>, cache: &mut Cache) -> Result<(), Error> {
        while !self.is_done() {
            self.record(reader, cache)?;
            self.arrive().await?;
            self.hear();
        }
        Ok(())
    }
}

/// Selects for a passage among the landmarks of all ranks.
fn select_over_ranks(reader: &Reader<'_>, passage: &mut Passage, cache: &Cache) -> Result<(), Error> {
    let Some(share) = &reader.share else { return Ok(()) };
    let model = reader.model;
    let Some(found) = no_grad(|| model.found_here(passage, cache, &reader.landmarks.pages())) else {
        return Ok(());
    };
    let [tokens, heads, k] = found.sizes;
    let (scores, numbers) = share.merge(found.best, tokens * heads, k)?;
    let scores = Tensor::from_slice(reader.gpu(), &scores, [1, tokens, heads, k])?;
    let numbers = Tensor::from_slice(reader.gpu(), &numbers, [1, tokens, heads, k])?;
    no_grad(|| model.select(passage, scores, numbers));
    Ok(())
}

/// A question on its way to its answer; dropping this cancels.
pub struct Asking {
    stop: Vec<u8>,
    most: usize,
    cache: Cache,
    feed: Feed,
    scored: bool,
    scores: Option<Tensor>,
    first: Option<Tensor>,
    answer: Answer,
    over: bool,
}

impl Asking {
    pub(super) fn new(
        reader: &Reader<'_>,
        question: &[u8],
        stop: &[u8],
        most: usize,
    ) -> Result<Asking, Error> {
        let tail = [&reader.rest, question].concat();
        let last = tail.len().checked_sub(1).ok_or(Error::Empty)?;
        let (cache, feed) = reader.feed(tail, last);
        Ok(Asking {
            stop: stop.to_vec(),
            most,
            cache,
            feed,
            scored: false,
            scores: None,
            first: None,
            answer: Answer::default(),
            over: false,
        })
    }

    /// The same, computing the scores of all chunks with each token: see [`Asking::scores`].
    #[must_use]
    pub fn scored(mut self) -> Self {
        self.scored = true;
        self.feed.scored = true;
        self
    }

    /// What was said so far, and where the model looked.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The score of every chunk, (chunks) in f32, at the latest token of the question or the answer: mean over heads, in
    /// the first retrieval layer; chunks counted from the text's start, those of the question itself behind them. None
    /// before there is one, and where none was asked for.
    pub fn scores(&self) -> Option<&Tensor> {
        self.scores.as_ref()
    }

    /// [`Asking::scores`] at the first token of the answer, where [`Answer::selected`] was selected.
    pub fn first_scores(&self) -> Option<&Tensor> {
        self.first.as_ref()
    }

    /// Whether the answer is complete.
    pub fn is_done(&self) -> bool {
        self.over
    }

    /// Goes on for about `budget` of the device's time, and returns whether the answer is complete. A token that is under
    /// way is waited for in later calls; see [`rambutan_engine::Gpu::advance`].
    ///
    /// # Errors
    /// The device failed.
    pub fn step(&mut self, reader: &Reader<'_>, budget: Duration) -> Result<bool, Error> {
        let gpu = reader.gpu();
        let begin = Instant::now();
        let left = || budget.saturating_sub(begin.elapsed());
        let mut recorded = false;
        while !self.over && gpu.advance(left())? && self.feed.poll()? {
            self.feed.hear();
            if self.feed.is_done() {
                self.say(reader);
            }
            if self.over || (recorded && left().is_zero()) {
                break;
            }
            gpu.defer(|| self.feed.record(reader, &mut self.cache))?;
            recorded = true;
        }
        Ok(self.over)
    }

    /// Completes when [`Asking::step`] can go on.
    pub(super) async fn turn(&mut self, reader: &Reader<'_>) -> Result<(), Error> {
        let gpu = reader.gpu();
        gpu.turn().await;
        // What is kept back is not to be submitted at once.
        if gpu.is_idle() { self.feed.arrive().await } else { Ok(()) }
    }

    /// Goes on until the answer is complete.
    pub(super) async fn run(mut self, reader: &Reader<'_>) -> Result<Answer, Error> {
        while !self.over {
            self.feed.run(reader, &mut self.cache).await?;
            self.say(reader);
        }
        Ok(self.answer)
    }

    /// Goes on with all until each answer is complete; what several look for at a time is sought in one pass over the
    /// landmarks.
    pub(super) async fn run_together(all: &mut [Asking], reader: &Reader<'_>) -> Result<(), Error> {
        for asking in all.iter_mut() {
            asking.feed.together = true;
        }
        while all.iter().any(|a| !a.over) {
            // Each up to where it seeks or asks the device.
            loop {
                for asking in all.iter_mut().filter(|a| !a.over && a.feed.pending.is_none()) {
                    asking.feed.record(reader, &mut asking.cache)?;
                }
                let mut seeking: Vec<&mut Passage> = Vec::new();
                for asking in all.iter_mut().filter(|a| a.feed.seeks) {
                    asking.feed.seeks = false;
                    seeking.extend(asking.feed.piece.as_mut().map(|piece| &mut piece.passage));
                }
                if seeking.is_empty() {
                    break;
                }
                no_grad(|| reader.model.seek(&mut seeking, &reader.landmarks.pages()));
            }
            for asking in all.iter_mut().filter(|a| !a.over) {
                asking.feed.arrive().await?;
                asking.feed.hear();
                if asking.feed.is_done() {
                    asking.say(reader);
                }
            }
        }
        Ok(())
    }

    /// Says the most probable token, and feeds it where there is more to say.
    fn say(&mut self, reader: &Reader<'_>) {
        if self.answer.text.is_empty() {
            self.answer.selected = std::mem::take(&mut self.feed.selected);
        }
        self.scores = self.feed.scores.take();
        if self.first.is_none() {
            self.first = self.scores.clone();
        }
        if self.answer.text.len() < self.most {
            let mut best = most_probable(&self.feed.logits);
            if let Some(share) = &reader.share {
                // All say what rank 0 says, and end when it ends.
                best = share.ranks.broadcast(vec![best])[0];
            }
            self.answer.text.push(best);
            let stopped = !self.stop.is_empty() && self.answer.text.ends_with(&self.stop);
            if !stopped && self.answer.text.len() < self.most {
                self.feed.again(vec![best]);
                return;
            }
        }
        self.over = true;
    }
}
