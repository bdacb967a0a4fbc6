//! Text as tokens: bytes, or what a Hugging Face `tokenizer.json` says (with the feature `tokenizers`).

use std::path::Path;

use crate::Error;

/// How text becomes tokens, and tokens text.
pub enum Tokenizer {
    /// A token for each byte.
    Bytes,
    /// A `tokenizer.json`.
    #[cfg(feature = "tokenizers")]
    HuggingFace(Box<tokenizers::Tokenizer>),
}

/// What ends a text, by the names that published vocabularies give it.
#[cfg(feature = "tokenizers")]
const ENDS: [&str; 3] = ["<|endoftext|>", "</s>", "<|im_end|>"];

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// It cannot be read, is no tokenizer, or this was built without the feature `tokenizers`.
    pub fn open(path: &Path) -> Result<Tokenizer, Error> {
        Tokenizer::from_json(&crate::data::read_bytes(path)?)
            .map_err(|reason| Error::Tokenizer { path: path.display().to_string(), reason })
    }

    /// From the text of a `tokenizer.json`, or why not.
    #[cfg(feature = "tokenizers")]
    fn from_json(json: &[u8]) -> Result<Tokenizer, String> {
        let tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(|e| e.to_string())?;
        Ok(Tokenizer::HuggingFace(Box::new(tokenizer)))
    }

    #[cfg(not(feature = "tokenizers"))]
    fn from_json(_: &[u8]) -> Result<Tokenizer, String> {
        Err("this was built for bytes alone: build with `--features tokenizers`".into())
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        match self {
            Tokenizer::Bytes => 256,
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace(t) => t.get_vocab_size(true),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// It is no UTF-8, where the tokens are no bytes.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, Error> {
        match self {
            Tokenizer::Bytes => Ok(text.iter().map(|&b| b.into()).collect()),
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace(t) => {
                let text = std::str::from_utf8(text).map_err(|e| Error::Setting {
                    field: "the text".into(),
                    value: format!("{e}"),
                    expected: "UTF-8, as this tokenizer reads".into(),
                })?;
                let encoding = t.encode(text, true).map_err(|e| Error::Setting {
                    field: "the text".into(),
                    value: e.to_string(),
                    expected: "what this tokenizer can encode".into(),
                })?;
                Ok(encoding.get_ids().to_vec())
            }
        }
    }

    /// The text of tokens; what is no byte of a [`Tokenizer::Bytes`], and what a tokenizer does not know, is left out.
    pub fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        match self {
            Tokenizer::Bytes => tokens.iter().filter_map(|&t| u8::try_from(t).ok()).collect(),
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace(t) => t.decode(tokens, true).unwrap_or_default().into_bytes(),
        }
    }

    /// Whether `token` ends a text.
    pub fn is_end(&self, token: u32) -> bool {
        match self {
            Tokenizer::Bytes => {
                let _ = token;
                false
            }
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace(t) => ENDS.iter().any(|name| t.token_to_id(name) == Some(token)),
        }
    }
}

#[cfg(all(test, feature = "tokenizers"))]
mod tests {
    use super::*;

    /// Two merges over bytes, and an end.
    const JSON: &str = r#"{
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 5, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                                              "use_regex": true},
        "post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                                            "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false,
                  "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġab": 4}, "merges": ["a b", "Ġ ab"]}
    }"#;

    #[test]
    fn a_tokenizer_json_reads_and_writes() {
        let tokenizer = Tokenizer::from_json(JSON.as_bytes()).expect("it is one");
        assert_eq!(tokenizer.len(), 6);
        assert_eq!(tokenizer.encode(b"ab abba").expect("UTF-8"), [3, 4, 1, 0]);
        assert_eq!(tokenizer.decode(&[3, 4, 1, 0, 5]), b"ab abba");
        assert!(tokenizer.is_end(5) && !tokenizer.is_end(4));
        assert!(tokenizer.encode(b"\xff").is_err());
        assert!(Tokenizer::from_json(b"{}").is_err());
        assert!(Tokenizer::from_json(b"\xff\xff").is_err());
    }
}
