//! Texts through models that keep no memory of them: Mamba-2's state, or the keys and values of all tokens seen, goes from a
//! text's first token to its last.

use rambutan_engine::{Tensor, no_grad};

use super::{BATCH, BATCH_CPU, agreed};
use crate::{Error, Ramba, ramba::Cache};

/// What a model without memory carries on from the text before. A clone goes its own way from there.
#[derive(Clone)]
pub struct States<'m> {
    model: &'m Ramba,
    cache: Cache,
    piece: usize,
}

impl<'m> States<'m> {
    /// Those before any text.
    ///
    /// # Errors
    /// The model has a memory, for which there is [`Reader`](super::Reader), or its tokens are no bytes.
    pub fn new(model: &'m Ramba) -> Result<States<'m>, Error> {
        let config = &model.config;
        let refuse = |field: &str, value: String, expected: &str| {
            Err(Error::Setting { field: field.into(), value, expected: expected.into() })
        };
        if config.enable_hsa {
            return refuse("enable_hsa", "true".into(), "false: what has a memory is read into it");
        }
        if config.vocab_size != 256 {
            return refuse("vocab_size", config.vocab_size.to_string(), "256, one for each byte");
        }
        let numbers = if model.gpu().capabilities().cpu { BATCH_CPU } else { BATCH };
        Ok(States { model, cache: model.cache(), piece: (numbers / config.hidden_size).max(1) })
    }

    /// The same, taking about so many tokens at once: fewer need less memory.
    #[must_use]
    pub fn with_piece(self, tokens: usize) -> Self {
        States { piece: tokens.max(1), ..self }
    }

    /// Those before any text.
    #[must_use]
    pub fn anew(&self) -> States<'m> {
        States { cache: self.model.cache(), ..*self }
    }

    /// Tokens read.
    pub fn len(&self) -> usize {
        self.cache.position
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens that are taken at once.
    pub fn piece(&self) -> usize {
        self.piece
    }

    /// Reads further text, waiting.
    ///
    /// # Errors
    /// The device failed, or its memory does not suffice.
    pub fn read(&mut self, text: &[u8]) -> Result<(), Error> {
        for piece in text.chunks(self.piece) {
            let ids = self.ids(piece)?;
            no_grad(|| self.model.extend_to_last(&mut self.cache, &ids, None));
            self.model.gpu().wait()?;
        }
        Ok(())
    }

    fn ids(&self, bytes: &[u8]) -> Result<Tensor, Error> {
        let ids: Vec<u32> = bytes.iter().map(|&b| b.into()).collect();
        Ok(Tensor::from_slice(self.model.gpu(), &ids, [1, ids.len()])?)
    }

    /// What is answered to `question`, up to the first token that differs from `expected`: as
    /// [`Reader::examine`](super::Reader::examine).
    ///
    /// # Errors
    /// The device failed, or the question is empty.
    pub async fn examine(&self, question: &[u8], expected: &[u8]) -> Result<Vec<u8>, Error> {
        let (before, last) = question.split_at(question.len().checked_sub(1).ok_or(Error::Empty)?);
        let mut after = self.clone();
        after.read(before)?;
        let ids = self.ids(&[last, &expected[..expected.len().saturating_sub(1)]].concat())?;
        let logits = no_grad(|| self.model.extend(&mut after.cache, &ids, None));
        Ok(agreed(&logits.read::<f32>().await?, self.model.config.vocab_size, expected))
    }
}
