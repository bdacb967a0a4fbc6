//! A text whose memory is shared by ranks: whole segments are dealt in turn, so that where each is follows from its number.
//!
//! Every rank has the text's end and goes through each question. What a retrieval layer looks for, each rank looks for among
//! its own landmarks, and the best of all are those of each, merged; the keys and values of selected chunks come from the
//! ranks that keep them, whatever the place, and all ranks get them. Nothing else travels.

use std::{cmp::Ordering, sync::Arc};

use half::f16;
use rambutan_engine::{DType, Tensor};

use super::{Reader, Source, Text, cut::Cut, values::downloaded};
use crate::{Error, ranks::Ranks};

/// This rank's share of a text.
#[derive(Clone, Copy)]
pub(super) struct Share<'m> {
    pub ranks: &'m dyn Ranks,
    /// Tokens of the text in whole segments.
    pub base: usize,
    /// Tokens a segment, in front of one, and chunks.
    pub segment: usize,
    pub overlap: usize,
    pub chunks: usize,
}

impl<'m> Share<'m> {
    /// Of the first `tokens` tokens, whole segments, those that are kept here.
    pub fn kept(&self, tokens: usize) -> usize {
        let (rank, size) = (self.ranks.rank(), self.ranks.size());
        (tokens / self.segment + size - 1 - rank) / size * self.segment
    }

    /// Where the memory of whole segments from token `start` on is kept here, and these segments with what is in front of them.
    /// `text` begins `lead` tokens before the first.
    pub fn part(&self, start: usize, text: &[u8], lead: usize) -> (usize, Vec<u8>) {
        let cut = Cut::along(self.segment, self.overlap, lead);
        let (first, count) = (start / self.segment, (text.len() - lead) / self.segment);
        let mine = |number: &usize| (first + number) % self.ranks.size() == self.ranks.rank();
        let rows: Vec<&[u8]> = (0..count).filter(mine).map(|number| &text[cut.row(number)]).collect();
        (self.kept(start), rows.concat())
    }

    /// What adds `text` behind `rest`, as far as it is this rank's; `before` stands in front of both.
    pub fn deal(&self, before: Vec<u8>, rest: &[u8], text: &Text<'_>) -> Dealt {
        let whole = (rest.len() + text.len()) / self.segment * self.segment;
        let (kept, lead) = (self.kept(self.base), before.len());
        // The text's first segment is rank 0's.
        let beginning = self.base == 0 && self.ranks.rank() == 0;
        Dealt {
            text: text.shared(),
            whole,
            lead,
            cut: Cut::apart(self.segment, self.overlap, if beginning { 0 } else { self.overlap }),
            base: self.base,
            first: kept / self.segment,
            tokens: self.kept(self.base + whole) - kept,
            rank: self.ranks.rank(),
            ranks: self.ranks.size(),
            head: [&before, rest].concat(),
        }
    }

    /// The rank that keeps a chunk of the text, and its number there.
    fn place(&self, chunk: u32) -> (usize, u32) {
        let (segment, within) = (chunk as usize / self.chunks, chunk as usize % self.chunks);
        let size = self.ranks.size();
        (segment % size, (segment / size * self.chunks + within) as u32)
    }

    /// The number in the text of a chunk that is kept here.
    fn number(&self, chunk: u32) -> u32 {
        let (segment, within) = (chunk as usize / self.chunks, chunk as usize % self.chunks);
        let segment = segment * self.ranks.size() + self.ranks.rank();
        (segment * self.chunks + within) as u32
    }

    /// The selection of each of `rows` tokens and heads: `k` slots of scores and chunks, newest first. `here` are the best of
    /// the landmarks that this rank keeps, `own` those of the question's own chunks, which all ranks have; as
    /// [`rambutan_engine::ops::select_pages`] gives both.
    pub fn merge(&self, found: [Option<(Tensor, Tensor)>; 2], rows: usize, k: usize) -> Result<Found, Error> {
        let [here, own] = found;
        let mut bytes = Vec::new();
        if let Some((scores, indices)) = here {
            let numbers: Vec<u32> = read::<u32>(&indices)?.into_iter().map(|c| self.number(c)).collect();
            bytes.extend_from_slice(bytemuck::cast_slice(&read::<f32>(&scores)?));
            bytes.extend_from_slice(bytemuck::cast_slice(&numbers));
        }
        let mut lists: Vec<(Vec<f32>, Vec<u32>)> = Vec::new();
        for theirs in self.ranks.gather(&bytes) {
            let (scores, numbers) = theirs.split_at(theirs.len() / 2);
            lists.push((bytemuck::pod_collect_to_vec(scores), bytemuck::pod_collect_to_vec(numbers)));
        }
        if let Some((scores, indices)) = own {
            let first = (self.base / self.segment * self.chunks) as u32;
            let numbers = read::<u32>(&indices)?.into_iter().map(|c| first + c).collect();
            lists.push((read(&scores)?, numbers));
        }
        Ok(best(&lists, rows, k))
    }

    /// Keys and values of chunks of the text, in order and each once, (chunks · S, heads, head dim); `fetch` gives those that
    /// are kept here.
    pub fn fetch(
        &self,
        reader: &Reader<'_>,
        chunks: &[u32],
        fetch: impl FnOnce(&[u32]) -> Result<[Tensor; 2], Error>,
    ) -> Result<[Tensor; 2], Error> {
        let places: Vec<(usize, u32)> = chunks.iter().map(|c| self.place(*c)).collect();
        let rank = self.ranks.rank();
        let mine: Vec<u32> = places.iter().filter(|(owner, _)| *owner == rank).map(|(_, c)| *c).collect();
        let mut bytes = Vec::new();
        if !mine.is_empty() {
            for x in fetch(&mine)? {
                bytes.extend(downloaded(&x)?);
            }
        }
        let all = self.ranks.gather(&bytes);
        let config = &reader.model.config;
        let shape = [chunks.len() * config.chunk_size, config.num_kv_heads, config.attention_head_dim];
        let dtype = reader.model.dtype();
        let chunk = config.chunk_size * shape[1] * shape[2] * dtype.bytes();
        let mut kv = Vec::new();
        for i in [0, 1] {
            let mut next: Vec<usize> = all.iter().map(|theirs| i * theirs.len() / 2).collect();
            let mut bytes = Vec::with_capacity(chunks.len() * chunk);
            for (owner, _) in &places {
                let at = next[*owner];
                bytes.extend_from_slice(&all[*owner][at..at + chunk]);
                next[*owner] += chunk;
            }
            let gpu = reader.gpu();
            kv.push(match dtype {
                DType::F16 => {
                    Tensor::from_slice(gpu, &bytemuck::pod_collect_to_vec::<u8, f16>(&bytes), shape)?
                }
                _ => Tensor::from_slice(gpu, &bytemuck::pod_collect_to_vec::<u8, f32>(&bytes), shape)?,
            });
        }
        let [k, v] = kv.try_into().unwrap_or_else(|_| unreachable!("keys and values"));
        Ok([k, v])
    }
}

fn read<T: rambutan_engine::Element>(x: &Tensor) -> Result<Vec<T>, Error> {
    Ok(pollster::block_on(x.read::<T>())?)
}

/// (rows, k) scores and chunks.
pub(super) type Found = (Vec<f32>, Vec<u32>);

/// What an empty slot scores, in [`rambutan_engine::ops::select`].
const NONE: f32 = -3.0e38;

/// The `k` best of each row among lists of as many rows: of equal scores that of the newer chunk; newest first, empty slots
/// last.
fn best(lists: &[Found], rows: usize, k: usize) -> Found {
    let (mut scores, mut numbers) = (Vec::with_capacity(rows * k), Vec::with_capacity(rows * k));
    for row in 0..rows {
        let mut all: Vec<(f32, u32)> = Vec::new();
        for (scores, numbers) in lists {
            let held = scores.len() / rows;
            let row = row * held..(row + 1) * held;
            let filled = scores[row.clone()].iter().copied().zip(numbers[row].iter().copied());
            all.extend(filled.filter(|(score, _)| *score > NONE));
        }
        all.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then(b.1.cmp(&a.1)));
        all.truncate(k);
        all.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
        all.resize(k, (NONE, 0));
        scores.extend(all.iter().map(|(score, _)| *score));
        numbers.extend(all.iter().map(|(_, number)| *number));
    }
    (scores, numbers)
}

/// This rank's segments of a text that is added, one after another, each behind what is in front of it.
pub(super) struct Dealt {
    /// What is added: the text's last tokens, in no whole segment before, and what comes behind them. `lead` tokens of `head`
    /// stand in front of it.
    head: Vec<u8>,
    lead: usize,
    pub text: Arc<dyn Source>,
    /// Tokens of it in whole segments; those of the text before it.
    pub whole: usize,
    base: usize,
    /// Where this rank's segments lie in what this gives.
    pub cut: Cut,
    /// The first segment's number here, and this rank's tokens.
    first: usize,
    pub tokens: usize,
    rank: usize,
    ranks: usize,
}

impl Dealt {
    /// What stands last in whole segments then, and what remains in none.
    pub fn behind(&self) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let end = self.lead + self.whole;
        let mut before = vec![0; self.cut.overlap.min(end)];
        self.added(end - before.len(), &mut before)?;
        let mut rest = vec![0; self.head.len() + self.text.size() - end];
        self.added(end, &mut rest)?;
        Ok((before, rest))
    }

    /// Bytes of head and text.
    fn added(&self, at: usize, into: &mut [u8]) -> Result<(), Error> {
        let kept = self.head.len();
        let (head, behind) = into.split_at_mut(kept.saturating_sub(at).min(into.len()));
        head.copy_from_slice(&self.head[at.min(kept)..][..head.len()]);
        if behind.is_empty() { Ok(()) } else { self.text.fill(at + head.len() - kept, behind) }
    }
}

impl Source for Dealt {
    fn size(&self) -> usize {
        self.tokens.checked_sub(1).map_or(0, |last| self.cut.row(last / self.cut.segment).end)
    }

    fn fill(&self, at: usize, into: &mut [u8]) -> Result<(), Error> {
        let Cut { segment, overlap, lead, .. } = self.cut;
        let mut done = 0;
        while done < into.len() {
            // Counted as if something were in front of the text's first segment, too.
            let at = at + done + overlap - lead;
            let (number, within) = (at / (overlap + segment), at % (overlap + segment));
            let n = (overlap + segment - within).min(into.len() - done);
            let start = ((self.first + number) * self.ranks + self.rank) * segment;
            self.added(self.lead + start + within - self.base - overlap, &mut into[done..done + n])?;
            done += n;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of several ranks, that talks to nobody.
    struct One(usize, usize);

    impl Ranks for One {
        fn rank(&self) -> usize {
            self.0
        }
        fn size(&self) -> usize {
            self.1
        }
        fn local(&self) -> usize {
            self.0
        }
        fn gather(&self, _: &[u8]) -> Vec<Vec<u8>> {
            unreachable!("nobody is there")
        }
        fn broadcast(&self, _: Vec<u8>) -> Vec<u8> {
            unreachable!("nobody is there")
        }
        fn exchange(&self, _: &[f32], _: &[usize]) -> Vec<f32> {
            unreachable!("nobody is there")
        }
        fn join(&self, _: &[f32], _: &[usize]) -> Vec<f32> {
            unreachable!("nobody is there")
        }
        fn abort(&self, _: u8) -> ! {
            unreachable!("nobody is there")
        }
    }

    /// Whatever is added in which pieces, each segment is with one rank, and there in order.
    #[test]
    fn segments_are_dealt_in_turn() {
        let text: Vec<u8> = (0..1000u32).map(|i| ((i * i) >> 3) as u8).collect();
        for (size, overlap) in [(1, 0), (2, 0), (3, 0), (4, 0), (1, 5), (2, 1), (3, 16), (4, 7)] {
            let mut kept = vec![Vec::<u8>::new(); size];
            for (rank, kept) in kept.iter_mut().enumerate() {
                let ranks = One(rank, size);
                let mut share = Share { ranks: &ranks, base: 0, segment: 16, overlap, chunks: 4 };
                let (mut before, mut rest) = (Vec::new(), Vec::new());
                // Segments with what is in front of them.
                let mut rows: Vec<Vec<u8>> = Vec::new();
                for piece in [&text[..7], &text[7..100], &text[100..100], &text[100..117], &text[117..]] {
                    let dealt = share.deal(before.clone(), &rest, &piece.into());
                    let mut new = vec![0; dealt.size()];
                    // In stretches that cut segments.
                    new.chunks_mut(21)
                        .enumerate()
                        .for_each(|(i, into)| dealt.fill(i * 21, into).expect("bytes"));
                    rows.extend((0..dealt.tokens / 16).map(|number| new[dealt.cut.row(number)].to_vec()));
                    share.base += dealt.whole;
                    (before, rest) = dealt.behind().expect("bytes");
                }
                assert_eq!((share.base, &rest[..]), (992, &text[992..]));
                assert_eq!(before, text[992 - overlap..992]);
                let whole = |i: usize| (i * size + rank) * 16;
                for (i, row) in rows.iter().enumerate() {
                    assert_eq!(
                        *row,
                        text[whole(i).saturating_sub(overlap)..whole(i) + 16],
                        "{rank} of {size}"
                    );
                }
                kept.extend((0..rows.len()).flat_map(|i| &text[whole(i)..whole(i) + 16]));
                assert_eq!(share.kept(992), kept.len());
                for (start, lead) in [(320, overlap), (0, 0)] {
                    let (at, part) = share.part(start, &text[start - lead..640], lead);
                    let theirs = &rows[at / 16..share.kept(640) / 16];
                    assert_eq!(part, theirs.concat(), "rank {rank} of {size}, from {start} on");
                }
            }
            let ranks = One(0, size);
            let share = Share { ranks: &ranks, base: 992, segment: 16, overlap, chunks: 4 };
            for (number, bytes) in text[..992].chunks(4).enumerate() {
                let (owner, chunk) = share.place(number as u32);
                assert_eq!(kept[owner][4 * chunk as usize..][..4], *bytes, "chunk {number} of {size} ranks");
                let owner = One(owner, size);
                assert_eq!(Share { ranks: &owner, ..share }.number(chunk), number as u32);
            }
        }
    }

    /// Merged, the best of each are the best of all, the newer of equals, newest first.
    #[test]
    fn lists_merge_exactly() {
        let scores =
            |list: &[(f32, u32)]| (list.iter().map(|l| l.0).collect(), list.iter().map(|l| l.1).collect());
        let a = scores(&[(0.0, 8), (2.0, 2), (1.0, 8), (NONE, 0)]);
        let b = scores(&[(-0.0, 9), (1.0, 9)]);
        let (merged, numbers) = best(&[a, b, (Vec::new(), Vec::new())], 2, 2);
        assert_eq!(numbers, [9, 2, 9, 8]);
        assert_eq!(merged, [0.0, 2.0, 1.0, 1.0]);
        let (merged, numbers) = best(&[scores(&[(1.0, 3)])], 1, 3);
        assert_eq!((merged, numbers), (vec![1.0, NONE, NONE], vec![3, 0, 0]));
    }
}
