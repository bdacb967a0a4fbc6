//! The model's configuration: the published JSON keys, checked, and all that follows from them.
//!
//! A [`Config`] comes from JSON ([`Config::from_json`], [`Config::open`]) or from code, and is worth using once
//! [`Config::validate`] has agreed; what comes from JSON has been validated. From it follow the layers
//! ([`Config::layers`]), the parameters with names, shapes and initial values ([`Config::parameters`]) and the sizes
//! inside a layer.
//!
//! Keys that are not ours are kept in [`Config::extra`] and written out again: published files carry many that say
//! nothing about the computation. Three kinds are refused instead: keys that ask for a computation this crate does
//! not have (`nsa_layers`, `insert_mlp` …), keys one typing error away from a known one, and keys that stand twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::json::{UniqueMap, complaint, edit_distance, shown};

mod parameters;
#[cfg(test)]
mod tests;

pub use parameters::{DecayRule, Init, ParameterKind, ParameterSpec};

/// Epsilon of the RMSNorms outside the Mamba-2 blocks: pre-norms of chunking, retrieval and HSA, the norms on
/// queries, keys and landmarks, and those of the chunk encoder. The Mamba-2 blocks and the last norm use
/// [`Config::layer_norm_epsilon`].
pub const ATTENTION_NORM_EPSILON: f64 = 1e-6;

/// A configuration longer than this is not one.
const MAX_JSON_BYTES: usize = 1 << 20;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A key's value cannot be used, alone or beside the others.
    #[error("{key} = {value}: expected {expected}")]
    Value {
        /// The key, as in the JSON.
        key: String,
        /// Its value, as it would be written in JSON.
        value: String,
        /// What would have been right.
        expected: String,
    },
    /// A key without which there is no model is absent.
    #[error("{key} is missing: expected {expected}")]
    Missing {
        /// The key.
        key: String,
        /// What it should hold.
        expected: String,
    },
    /// A key that is almost a known one: ignoring it would be worse than refusing.
    #[error("unknown key {found}: did you mean {meant:?}?")]
    Misspelt {
        /// The key as found.
        found: String,
        /// The known key next to it.
        meant: &'static str,
    },
    /// Not a JSON object.
    #[error("not a JSON object: {0}")]
    Syntax(String),
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

fn refuse<T>(
    key: &str,
    value: impl std::fmt::Display,
    expected: impl Into<String>,
) -> Result<T, ConfigError> {
    Err(ConfigError::Value { key: key.into(), value: value.to_string(), expected: expected.into() })
}

/// What mixes tokens in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenMixer {
    /// Mamba-2, `mamba2` in JSON.
    Mamba2,
    /// Causal attention over a sliding window, with RoPE; `window` in JSON.
    Window,
}

impl TokenMixer {
    /// The word in JSON.
    pub fn name(self) -> &'static str {
        match self {
            TokenMixer::Mamba2 => "mamba2",
            TokenMixer::Window => "window",
        }
    }
}

/// One layer of the stream, in order of `backbone.layers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// The token mixer: a Mamba-2 block, or what [`Config::token_mixer`] names.
    Mamba,
    /// Cuts the lower decoder's output into chunks: keys, values and a landmark for each.
    Chunking,
    /// Chooses each token's chunks and their weights, for all HSA layers of the group.
    Retrieval {
        /// Which upper group it opens.
        group: usize,
    },
    /// Attends to the chosen chunks.
    Hsa {
        /// The upper group whose retrieval layer chose them.
        group: usize,
    },
}

impl LayerKind {
    /// The short name: `mamba`, `chunking`, `retrieval` or `hsa`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mamba => "mamba",
            Self::Chunking => "chunking",
            Self::Retrieval { .. } => "retrieval",
            Self::Hsa { .. } => "hsa",
        }
    }
}

/// What the model is. Field names are the JSON's keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Always `mamba2` in published files; `ramba` is accepted too.
    pub model_type: String,
    /// Token ids are below this; 256 for bytes.
    pub vocab_size: usize,
    /// Width of the stream, D.
    pub hidden_size: usize,
    /// What mixes tokens (ours; `mamba2` where absent).
    pub token_mixer: TokenMixer,
    /// Tokens that the mixer `window` sees, the token itself among them (ours); as many as a text has: full attention.
    pub window_size: usize,
    /// Key-value heads of the mixer `window` (ours; `num_attention_heads`, which are its query heads, where absent).
    pub window_kv_heads: usize,
    /// Whether there is memory, with chunking, retrieval and HSA layers (ours). Without it only token mixers are left.
    pub enable_hsa: bool,
    /// d_inner = expand · D in the Mamba-2 block.
    pub expand: usize,
    /// Channels a head in the Mamba-2 scan, P.
    pub head_dim: usize,
    /// Heads of the Mamba-2 scan.
    pub num_heads: usize,
    /// State size of the scan, N.
    pub state_size: usize,
    /// Groups that share B and C in the scan, G.
    pub n_groups: usize,
    /// Slices that the gated norm normalises on their own. The published evaluation uses 1 whatever `n_groups`,
    /// the published training kernel `n_groups`; a key of ours says which.
    pub gated_norm_groups: usize,
    /// Width of the causal convolution.
    pub conv_kernel: usize,
    /// The convolution has a bias; must be true.
    pub use_conv_bias: bool,
    /// The projections of the Mamba-2 block have biases; must be false.
    pub use_bias: bool,
    /// RMSNorm rather than LayerNorm; must be true.
    pub rms_norm: bool,
    /// Kept for the published files; the stream is always f32 here.
    pub residual_in_fp32: bool,
    /// Epsilon of the norms in Mamba-2 blocks and of the last one.
    pub layer_norm_epsilon: f64,
    /// The LM head is the embedding.
    pub tie_word_embeddings: bool,
    /// Mamba-2 blocks before the chunking layer.
    pub num_lower_layers: usize,
    /// Mamba-2 blocks after it, over all groups.
    pub num_upper_layers: usize,
    /// Groups of upper layers, each with a retrieval layer of its own.
    pub num_upper_groups: usize,
    /// Mamba-2 blocks after each HSA layer.
    pub num_mamba_per_gca: usize,
    /// Block length of the scan in published kernels: a hint, the engine chooses its own.
    pub mamba_chunk_size: usize,
    /// Tokens in a chunk, S.
    pub chunk_size: usize,
    /// Transformer layers of the chunk encoder; 0 for none.
    pub encoder_layers: usize,
    /// Query heads of the encoder (ours; `num_attention_heads` where absent).
    pub encoder_num_attention_heads: usize,
    /// Key-value heads of the encoder (`num_key_value_heads` in published files).
    pub encoder_num_key_value_heads: usize,
    /// Width of the encoder's MLP (ours; 64·⌊8D/3 / 64⌋ where absent).
    pub encoder_intermediate_size: usize,
    /// A learned embedding is appended to each chunk and its output becomes the landmark, rather than the mean
    /// (ours; true where absent and there is an encoder).
    pub has_cls: bool,
    /// RMSNorm before the encoder.
    pub enc_prenorm: bool,
    /// Base of the encoder's rotary angles.
    pub rope_theta: f64,
    /// Query heads of HSA.
    pub num_attention_heads: usize,
    /// Key-value heads of the memory, H.
    pub num_kv_heads: usize,
    /// Channels a head in HSA (ours; D / `num_attention_heads` where absent).
    pub attention_head_dim: usize,
    /// Width of landmarks and retrieval queries, over all retrieval heads.
    pub retrieval_dim: usize,
    /// One retrieval head for all key-value heads, rather than one each.
    pub singlehead_retrieval: bool,
    /// Chunks a token selects, K.
    pub chunk_topk: usize,
    /// Softmax over the selected scores, rather than stick-breaking.
    pub enable_softmax: bool,
    /// Softmax off by one inside a chunk: the denominator has + exp(0).
    pub enable_softmax1: bool,
    /// RMSNorm per head on retrieval queries and landmarks.
    pub enable_lmk_norm: bool,
    /// RMSNorm per head on HSA's queries and keys.
    pub enable_qk_norm: bool,
    /// A learned multiple of the slot number is added to the scores, with `enable_softmax`.
    pub enable_pos_decay: bool,
    /// Chunks inside `slide_window` are invisible.
    pub mask_slide_window: bool,
    /// Tokens before the query that `mask_slide_window` hides.
    pub slide_window: usize,
    /// Scan and convolution restart every so many tokens in training; none (−1 in JSON) for never.
    pub segment_size: Option<usize>,
    /// They restart when reading too (ours): memory is then local to a segment.
    pub segment_at_inference: bool,
    /// Tokens in front of a segment that it is read with (ours; 0 where absent): what its memory knows of the text before,
    /// none of which it holds. Reading alone has them, neither training nor a forward pass.
    pub segment_overlap: usize,
    /// Lower and upper limit of dt; the upper may be infinite.
    pub time_step_limit: (f64, f64),
    /// Smallest dt of the initialisation.
    pub time_step_min: f64,
    /// Largest dt of the initialisation.
    pub time_step_max: f64,
    /// dt of the initialisation is raised to this.
    pub time_step_floor: f64,
    /// Standard deviation of normal initialisations.
    pub initializer_range: f64,
    /// Keys that are not ours, written out again as they came.
    pub extra: BTreeMap<String, Value>,
}

/// The recipe's model of 3.19 M parameters on bytes.
const SMALL: &str = r#"{
    "model_type": "mamba2", "vocab_size": 256, "hidden_size": 256, "expand": 2, "head_dim": 64, "num_heads": 8,
    "state_size": 64, "n_groups": 1, "conv_kernel": 4, "layer_norm_epsilon": 1e-05, "tie_word_embeddings": false,
    "num_lower_layers": 2, "num_upper_layers": 2, "num_upper_groups": 1, "num_mamba_per_gca": 1, "chunk_size": 64,
    "encoder_layers": 1, "num_attention_heads": 16, "encoder_num_attention_heads": 4,
    "encoder_num_key_value_heads": 4, "encoder_intermediate_size": 640, "num_kv_heads": 1, "attention_head_dim": 32,
    "retrieval_dim": 64, "singlehead_retrieval": true, "chunk_topk": 8, "segment_size": 512,
    "segment_at_inference": true
}"#;

/// The published 370 M model: 48 Mamba-2 blocks, three HSA layers, one encoder layer, trained at 4096 tokens.
const RAMBA_370M: &str = r#"{
    "model_type": "mamba2", "vocab_size": 50280, "hidden_size": 1024, "expand": 2, "head_dim": 64, "num_heads": 32,
    "state_size": 128, "n_groups": 1, "conv_kernel": 4, "layer_norm_epsilon": 1e-05, "tie_word_embeddings": true,
    "num_lower_layers": 24, "num_upper_layers": 24, "num_upper_groups": 1, "num_mamba_per_gca": 8,
    "mamba_chunk_size": 256, "chunk_size": 64, "encoder_layers": 1, "num_attention_heads": 16,
    "num_key_value_heads": 16, "num_kv_heads": 1, "retrieval_dim": 1024, "chunk_topk": 8, "segment_size": 4096
}"#;

/// Keys that change what is computed, in ways this crate does not compute.
const UNSUPPORTED: &[&str] = &[
    "sw_layers",
    "nsa_layers",
    "insert_mlp",
    "enable_rope",
    "rope_scaling",
    "enable_gumbel_noise",
    "norm_before_gate",
    "quantization_config",
];

impl Config {
    /// The small model of bytes that finds passkeys in hundreds of millions of tokens.
    pub fn small() -> Self {
        Self::from_json(SMALL).expect("the built-in configuration is valid")
    }

    /// The published RAMba with 370 M parameters.
    pub fn ramba_370m() -> Self {
        Self::from_json(RAMBA_370M).expect("the built-in configuration is valid")
    }

    /// Reads a configuration and validates it. Python's `Infinity`, which published files hold, is understood.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        if text.len() > MAX_JSON_BYTES {
            return Err(ConfigError::Syntax(format!("{} bytes, more than {MAX_JSON_BYTES}", text.len())));
        }
        let entries: UniqueMap<Value> =
            serde_json::from_str(&quote_infinities(text)).map_err(|e| ConfigError::Syntax(complaint(&e)))?;
        Self::from_entries(entries)
    }

    /// [`Config::from_json`] for bytes, which may not be text.
    pub fn from_json_bytes(bytes: &[u8]) -> Result<Self, ConfigError> {
        Self::from_json(std::str::from_utf8(bytes).map_err(|e| ConfigError::Syntax(e.to_string()))?)
    }

    /// Reads and validates a configuration file.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self, ConfigError> {
        use std::io::Read;
        let path = path.as_ref();
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_JSON_BYTES as u64 + 1).read_to_end(&mut bytes))
            .map_err(|source| ConfigError::File { path: path.display().to_string(), source })?;
        Self::from_json_bytes(&bytes)
    }

    /// The configuration as JSON, one key a line, readable by [`Config::from_json`].
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(&self.to_map()).expect("a map with string keys is JSON")
    }

    fn from_entries(entries: UniqueMap<Value>) -> Result<Self, ConfigError> {
        let mut keys = Keys { map: entries.0.into_iter().collect(), asked: Vec::new(), given: Vec::new() };
        let hidden_size = keys.count("hidden_size", None)?;
        let expand = keys.count("expand", Some(2))?;
        let head_dim = keys.count("head_dim", Some(64))?;
        let num_heads =
            keys.count("num_heads", Some(expand.saturating_mul(hidden_size) / head_dim.max(1)))?;
        let num_attention_heads = keys.count("num_attention_heads", None)?;
        let num_kv_heads = keys.count("num_kv_heads", None)?;
        let encoder_layers = keys.count("encoder_layers", Some(0))?;
        let encoder_num_attention_heads =
            keys.count("encoder_num_attention_heads", Some(num_attention_heads))?;
        let published_kv_heads = keys.count("num_key_value_heads", Some(encoder_num_attention_heads))?;
        let encoder_intermediate = hidden_size.saturating_mul(8) / 3 / 64 * 64;
        let encoder_intermediate = keys.count("encoder_intermediate", Some(encoder_intermediate))?;
        let enable_softmax = keys.switch("enable_softmax", false)?;
        let enable_softmax1 = keys.switch("enable_softmax1", false)?;
        let slide_window = keys.count("sliding_window", Some(0))?;
        let token_mixer = match keys.text("token_mixer", "mamba2")?.as_str() {
            "mamba2" => TokenMixer::Mamba2,
            "window" => TokenMixer::Window,
            other => return refuse("token_mixer", shown(other), "\"mamba2\" or \"window\""),
        };
        let config = Self {
            model_type: keys.text("model_type", "mamba2")?,
            vocab_size: keys.count("vocab_size", None)?,
            hidden_size,
            token_mixer,
            window_size: keys.count("window_size", Some(512))?,
            window_kv_heads: keys.count("window_kv_heads", Some(num_attention_heads))?,
            enable_hsa: keys.switch("enable_hsa", true)?,
            expand,
            head_dim,
            num_heads,
            state_size: keys.count("state_size", Some(128))?,
            n_groups: keys.count("n_groups", Some(1))?,
            gated_norm_groups: keys.count("gated_norm_groups", Some(1))?,
            conv_kernel: keys.count("conv_kernel", Some(4))?,
            use_conv_bias: keys.switch("use_conv_bias", true)?,
            use_bias: keys.switch("use_bias", false)?,
            rms_norm: keys.switch("rms_norm", true)?,
            residual_in_fp32: keys.switch("residual_in_fp32", true)?,
            layer_norm_epsilon: keys.number("layer_norm_epsilon", 1e-5)?,
            tie_word_embeddings: keys.switch("tie_word_embeddings", false)?,
            num_lower_layers: keys.count("num_lower_layers", None)?,
            num_upper_layers: keys.count("num_upper_layers", None)?,
            num_upper_groups: keys.count("num_upper_groups", Some(1))?,
            num_mamba_per_gca: keys.count("num_mamba_per_gca", Some(1))?,
            mamba_chunk_size: keys.count("mamba_chunk_size", Some(256))?,
            chunk_size: keys.count("chunk_size", Some(64))?,
            encoder_layers,
            encoder_num_attention_heads,
            encoder_num_key_value_heads: keys
                .count("encoder_num_key_value_heads", Some(published_kv_heads))?,
            encoder_intermediate_size: keys.count("encoder_intermediate_size", Some(encoder_intermediate))?,
            has_cls: keys.switch("has_cls", encoder_layers > 0)?,
            enc_prenorm: keys.switch("enc_prenorm", false)?,
            rope_theta: keys.number("rope_theta", 10000.0)?,
            num_attention_heads,
            num_kv_heads,
            attention_head_dim: keys
                .count("attention_head_dim", Some(hidden_size / num_attention_heads.max(1)))?,
            retrieval_dim: keys.count("retrieval_dim", Some(hidden_size))?,
            singlehead_retrieval: keys.switch("singlehead_retrieval", false)?,
            chunk_topk: keys.count("chunk_topk", None)?,
            enable_softmax,
            enable_softmax1,
            enable_lmk_norm: keys.switch("enable_lmk_norm", false)?,
            enable_qk_norm: keys.switch("enable_qk_norm", false)?,
            enable_pos_decay: keys.switch("enable_pos_decay", false)?,
            mask_slide_window: keys.switch("mask_slide_window", false)?,
            slide_window: keys.count("slide_window", Some(slide_window))?,
            segment_size: keys.segment("segment_size")?,
            segment_at_inference: keys.switch("segment_at_inference", false)?,
            segment_overlap: keys.count("segment_overlap", Some(0))?,
            time_step_limit: keys.limits("time_step_limit")?,
            time_step_min: keys.number("time_step_min", 1e-3)?,
            time_step_max: keys.number("time_step_max", 0.1)?,
            time_step_floor: keys.number("time_step_floor", 1e-4)?,
            initializer_range: keys.number("initializer_range", 0.02)?,
            extra: BTreeMap::new(),
        };

        // Second spellings of what has been read must agree with it.
        if keys.switch("stick_breaking", !enable_softmax)? == enable_softmax {
            let expected = format!("{} beside enable_softmax = {enable_softmax}", !enable_softmax);
            return refuse("stick_breaking", enable_softmax, expected);
        }
        let sm_n = if enable_softmax1 { 1.0 } else { 0.0 };
        let found = keys.number("sm_n", sm_n)?;
        if found != sm_n {
            return refuse("sm_n", found, format!("{sm_n} beside enable_softmax1 = {enable_softmax1}"));
        }
        let activation = keys.text("hidden_act", "silu")?;
        if activation != "silu" {
            return refuse("hidden_act", shown(&activation), "\"silu\"");
        }
        config.same_as_alias(
            &keys,
            "encoder_intermediate",
            encoder_intermediate,
            config.encoder_intermediate_size,
        )?;
        config.same_as_alias(&keys, "sliding_window", slide_window, config.slide_window)?;

        for key in UNSUPPORTED {
            if let Some(value) = keys.map.get(*key).filter(|value| asks_for_something(value)) {
                return refuse(key, shown_value(value), "no such key: this computation is not supported");
            }
        }
        for found in keys.map.keys() {
            let plain = found.to_lowercase().replace('-', "_");
            let near = |known: &&&'static str| edit_distance(&plain, known) <= 1;
            if found.len() <= 64
                && let Some(meant) = keys.asked.iter().find(near)
            {
                return Err(ConfigError::Misspelt { found: shown(found), meant });
            }
        }
        let config = Self { extra: keys.map, ..config };
        config.validate()?;
        Ok(config)
    }

    /// A key with two names may stand under both, with one value.
    fn same_as_alias(
        &self,
        keys: &Keys,
        alias: &str,
        aliased: usize,
        value: usize,
    ) -> Result<(), ConfigError> {
        if keys.given.contains(&alias) && aliased != value {
            return refuse(alias, aliased, format!("{value}, as under the key's other name"));
        }
        Ok(())
    }

    fn to_map(&self) -> Map<String, Value> {
        let limit = |x: f64| if x == f64::INFINITY { json!("inf") } else { json!(x) };
        let ours = [
            ("model_type", json!(self.model_type)),
            ("vocab_size", json!(self.vocab_size)),
            ("hidden_size", json!(self.hidden_size)),
            ("token_mixer", json!(self.token_mixer.name())),
            ("window_size", json!(self.window_size)),
            ("window_kv_heads", json!(self.window_kv_heads)),
            ("enable_hsa", json!(self.enable_hsa)),
            ("expand", json!(self.expand)),
            ("head_dim", json!(self.head_dim)),
            ("num_heads", json!(self.num_heads)),
            ("state_size", json!(self.state_size)),
            ("n_groups", json!(self.n_groups)),
            ("gated_norm_groups", json!(self.gated_norm_groups)),
            ("conv_kernel", json!(self.conv_kernel)),
            ("use_conv_bias", json!(self.use_conv_bias)),
            ("use_bias", json!(self.use_bias)),
            ("rms_norm", json!(self.rms_norm)),
            ("residual_in_fp32", json!(self.residual_in_fp32)),
            ("layer_norm_epsilon", json!(self.layer_norm_epsilon)),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
            ("num_lower_layers", json!(self.num_lower_layers)),
            ("num_upper_layers", json!(self.num_upper_layers)),
            ("num_upper_groups", json!(self.num_upper_groups)),
            ("num_mamba_per_gca", json!(self.num_mamba_per_gca)),
            ("mamba_chunk_size", json!(self.mamba_chunk_size)),
            ("chunk_size", json!(self.chunk_size)),
            ("encoder_layers", json!(self.encoder_layers)),
            ("encoder_num_attention_heads", json!(self.encoder_num_attention_heads)),
            ("encoder_num_key_value_heads", json!(self.encoder_num_key_value_heads)),
            ("encoder_intermediate_size", json!(self.encoder_intermediate_size)),
            ("has_cls", json!(self.has_cls)),
            ("enc_prenorm", json!(self.enc_prenorm)),
            ("rope_theta", json!(self.rope_theta)),
            ("num_attention_heads", json!(self.num_attention_heads)),
            ("num_kv_heads", json!(self.num_kv_heads)),
            ("attention_head_dim", json!(self.attention_head_dim)),
            ("retrieval_dim", json!(self.retrieval_dim)),
            ("singlehead_retrieval", json!(self.singlehead_retrieval)),
            ("chunk_topk", json!(self.chunk_topk)),
            ("enable_softmax", json!(self.enable_softmax)),
            ("enable_softmax1", json!(self.enable_softmax1)),
            ("enable_lmk_norm", json!(self.enable_lmk_norm)),
            ("enable_qk_norm", json!(self.enable_qk_norm)),
            ("enable_pos_decay", json!(self.enable_pos_decay)),
            ("mask_slide_window", json!(self.mask_slide_window)),
            ("slide_window", json!(self.slide_window)),
            ("segment_size", self.segment_size.map_or(json!(-1), |size| json!(size))),
            ("segment_at_inference", json!(self.segment_at_inference)),
            ("time_step_limit", json!([limit(self.time_step_limit.0), limit(self.time_step_limit.1)])),
            ("time_step_min", json!(self.time_step_min)),
            ("time_step_max", json!(self.time_step_max)),
            ("time_step_floor", json!(self.time_step_floor)),
            ("initializer_range", json!(self.initializer_range)),
        ];
        let mut map: Map<_, _> = ours.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        if self.segment_overlap > 0 {
            // Configurations from before there was one stay as they were written, and fingerprints of checkpoints with them.
            map.insert("segment_overlap".into(), json!(self.segment_overlap));
        }
        map.extend(self.extra.clone());
        map
    }

    /// Checks every value alone and beside the others. All other methods take a configuration that passed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (key, value, least, most) in [
            ("vocab_size", self.vocab_size, 2, 1 << 24),
            ("hidden_size", self.hidden_size, 1, 1 << 16),
            ("expand", self.expand, 1, 16),
            ("head_dim", self.head_dim, 1, 1 << 12),
            ("num_heads", self.num_heads, 1, 1 << 16),
            ("state_size", self.state_size, 1, 1 << 12),
            ("n_groups", self.n_groups, 1, 1 << 16),
            ("gated_norm_groups", self.gated_norm_groups, 1, 1 << 16),
            ("conv_kernel", self.conv_kernel, 2, 4),
            ("num_lower_layers", self.num_lower_layers, 1, 1024),
            ("num_upper_layers", self.num_upper_layers, 1, 1024),
            ("num_upper_groups", self.num_upper_groups, 1, 1024),
            ("num_mamba_per_gca", self.num_mamba_per_gca, 1, 1024),
            ("mamba_chunk_size", self.mamba_chunk_size, 1, 1 << 16),
            ("chunk_size", self.chunk_size, 1, 1 << 12),
            ("encoder_layers", self.encoder_layers, 0, 64),
            ("num_attention_heads", self.num_attention_heads, 1, 1 << 12),
            ("num_kv_heads", self.num_kv_heads, 1, 1 << 12),
            ("attention_head_dim", self.attention_head_dim, 1, 1 << 12),
            ("retrieval_dim", self.retrieval_dim, 1, 1 << 16),
            ("chunk_topk", self.chunk_topk, 1, 1 << 10),
            ("slide_window", self.slide_window, 0, 1 << 30),
            // A window of the token alone would mix nothing.
            ("window_size", self.window_size, 2, 1 << 30),
            ("window_kv_heads", self.window_kv_heads, 1, 1 << 12),
        ] {
            if !(least..=most).contains(&value) {
                return refuse(key, value, format!("a whole number from {least} to {most}"));
            }
        }
        for (key, value, least, most) in [
            ("layer_norm_epsilon", self.layer_norm_epsilon, 1e-12, 1.0),
            ("rope_theta", self.rope_theta, 1.0, 1e12),
            ("time_step_min", self.time_step_min, 1e-12, 1e3),
            ("time_step_max", self.time_step_max, 1e-12, 1e3),
            ("time_step_floor", self.time_step_floor, 0.0, 1e3),
            ("initializer_range", self.initializer_range, 0.0, 10.0),
        ] {
            if !(least..=most).contains(&value) {
                return refuse(key, value, format!("a number from {least:e} to {most:e}"));
            }
        }
        if !["mamba2", "ramba"].contains(&self.model_type.as_str()) {
            return refuse("model_type", shown(&self.model_type), "\"mamba2\"");
        }
        for (key, value, only) in [
            ("rms_norm", self.rms_norm, true),
            ("use_conv_bias", self.use_conv_bias, true),
            ("use_bias", self.use_bias, false),
        ] {
            if value != only {
                return refuse(key, value, format!("{only}: the other variant is not supported"));
            }
        }

        let d_inner = self.expand * self.hidden_size;
        if self.num_heads * self.head_dim != d_inner {
            let expected = format!("expand · hidden_size / head_dim = {d_inner} / {}", self.head_dim);
            return refuse("num_heads", self.num_heads, expected);
        }
        if !self.num_heads.is_multiple_of(self.n_groups) {
            return refuse("n_groups", self.n_groups, format!("a divisor of num_heads = {}", self.num_heads));
        }
        if !d_inner.is_multiple_of(self.gated_norm_groups) {
            let expected = format!("a divisor of expand · hidden_size = {d_inner}");
            return refuse("gated_norm_groups", self.gated_norm_groups, expected);
        }
        let inner_layers = self.num_upper_groups * self.num_mamba_per_gca;
        if !self.num_upper_layers.is_multiple_of(inner_layers) {
            let expected = format!("a multiple of num_upper_groups · num_mamba_per_gca = {inner_layers}");
            return refuse("num_upper_layers", self.num_upper_layers, expected);
        }
        if !self.num_attention_heads.is_multiple_of(self.num_kv_heads) {
            let expected = format!("a divisor of num_attention_heads = {}", self.num_attention_heads);
            return refuse("num_kv_heads", self.num_kv_heads, expected);
        }
        if self.token_mixer == TokenMixer::Window {
            let (heads, d) = (self.num_attention_heads, self.attention_head_dim);
            if !heads.is_multiple_of(self.window_kv_heads) {
                let expected = format!("a divisor of num_attention_heads = {heads}");
                return refuse("window_kv_heads", self.window_kv_heads, expected);
            }
            // As many segments as their codes tell apart.
            if let Some(segment) = self.segment_size.filter(|_| self.segment_at_inference && self.enable_hsa)
                && self.window_size > segment.saturating_mul(255)
            {
                let expected = format!("at most 255 segments of {segment} tokens");
                return refuse("window_size", self.window_size, expected);
            }
            // Rotary pairs; the kernel's most, less the columns that tell segments apart.
            if !d.is_multiple_of(2) || d > 240 {
                return refuse(
                    "attention_head_dim",
                    d,
                    "an even number up to 240 beside token_mixer = \"window\"",
                );
            }
        }
        if !self.retrieval_dim.is_multiple_of(self.retrieval_heads()) {
            let expected = format!("a multiple of the {} retrieval heads", self.retrieval_heads());
            return refuse("retrieval_dim", self.retrieval_dim, expected);
        }
        if self.encoder_layers > 0 {
            let heads = self.encoder_num_attention_heads;
            if heads == 0 || !self.hidden_size.is_multiple_of(heads) {
                let expected = format!("a divisor of hidden_size = {}", self.hidden_size);
                return refuse("encoder_num_attention_heads", heads, expected);
            }
            if !self.encoder_head_dim().is_multiple_of(2) {
                let expected = format!(
                    "hidden_size / heads to be even for rotary pairs, not {}",
                    self.encoder_head_dim()
                );
                return refuse("encoder_num_attention_heads", heads, expected);
            }
            let kv_heads = self.encoder_num_key_value_heads;
            if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
                let expected = format!("a divisor of encoder_num_attention_heads = {heads}");
                return refuse("encoder_num_key_value_heads", kv_heads, expected);
            }
            let width = self.encoder_intermediate_size;
            if !(1..=1 << 18).contains(&width) {
                let expected = "a whole number from 1 to 262144 (the default needs hidden_size ≥ 24)";
                return refuse("encoder_intermediate_size", width, expected);
            }
        } else {
            for (key, value) in [("has_cls", self.has_cls), ("enc_prenorm", self.enc_prenorm)] {
                if value {
                    return refuse(key, value, "false: there is no encoder (encoder_layers = 0)");
                }
            }
        }
        // The chunk just completed may be visible at its own last token, an unfinished one never.
        if self.mask_slide_window && self.slide_window + 1 < self.chunk_size {
            let expected = format!("at least chunk_size − 1 = {}, or tokens see ahead", self.chunk_size - 1);
            return refuse("slide_window", self.slide_window, expected);
        }
        if self.enable_pos_decay && !self.enable_softmax {
            return refuse("enable_pos_decay", true, "enable_softmax beside it");
        }
        match self.segment_size {
            Some(size) if !(1..=1 << 30).contains(&size) => {
                return refuse("segment_size", size, "-1, or a whole number from 1 to 1073741824");
            }
            Some(size) if self.segment_at_inference && !size.is_multiple_of(self.chunk_size) => {
                let expected =
                    format!("a multiple of chunk_size = {} (segment_at_inference)", self.chunk_size);
                return refuse("segment_size", size, expected);
            }
            None if self.segment_at_inference => {
                return refuse("segment_at_inference", true, "a segment_size");
            }
            _ => {}
        }
        let most = self.segment_size.unwrap_or(0);
        if self.segment_overlap > most {
            let expected = match self.segment_size {
                Some(size) => format!("at most segment_size = {size}"),
                None => "0, or a segment_size".into(),
            };
            return refuse("segment_overlap", self.segment_overlap, expected);
        }
        let (low, high) = self.time_step_limit;
        if !(low >= 0.0 && low < high) {
            return refuse("time_step_limit", format!("[{low}, {high}]"), "0 ≤ lower < upper");
        }
        if self.time_step_min > self.time_step_max {
            let expected = format!("at most time_step_max = {}", self.time_step_max);
            return refuse("time_step_min", self.time_step_min, expected);
        }
        // Sizes that later arithmetic multiplies must fit an address, on 32-bit hosts too.
        let elements: u128 = self.parameters().iter().map(ParameterSpec::elements_wide).sum();
        if elements > isize::MAX as u128 / 4 {
            let expected = format!("a model that fits an address space, not one of {elements} parameters");
            return refuse("hidden_size", self.hidden_size, expected);
        }
        Ok(())
    }

    /// Channels inside a Mamba-2 block: expand · D = heads · P.
    pub fn d_inner(&self) -> usize {
        self.expand * self.hidden_size
    }

    /// Channels of the causal convolution: x, B and C.
    pub fn conv_channels(&self) -> usize {
        self.d_inner() + 2 * self.n_groups * self.state_size
    }

    /// Rows of `in_proj`: z, x, B, C and dt, in this order.
    pub fn d_in_proj(&self) -> usize {
        self.d_inner() + self.conv_channels() + self.num_heads
    }

    /// Channels a head in the chunk encoder.
    pub fn encoder_head_dim(&self) -> usize {
        self.hidden_size / self.encoder_num_attention_heads
    }

    /// Retrieval heads, R: one for each key-value head, or one for all.
    pub fn retrieval_heads(&self) -> usize {
        if self.singlehead_retrieval { 1 } else { self.num_kv_heads }
    }

    /// Channels a retrieval head, r.
    pub fn retrieval_head_dim(&self) -> usize {
        self.retrieval_dim / self.retrieval_heads()
    }

    /// HSA's query heads for each key-value head.
    pub fn attention_group(&self) -> usize {
        self.num_attention_heads / self.num_kv_heads
    }

    /// What the softmax denominator inside a chunk has added: 1 with softmax off by one, else 0.
    pub fn sm_n(&self) -> f32 {
        if self.enable_softmax1 { 1.0 } else { 0.0 }
    }

    /// HSA layers in each upper group.
    pub fn hsa_per_group(&self) -> usize {
        self.num_upper_layers / self.num_upper_groups / self.num_mamba_per_gca
    }

    /// The layers in order; a layer's place here is its number in `backbone.layers`.
    pub fn layers(&self) -> Vec<LayerKind> {
        if !self.enable_hsa {
            return vec![LayerKind::Mamba; self.num_lower_layers + self.num_upper_layers];
        }
        let mut layers = vec![LayerKind::Mamba; self.num_lower_layers];
        layers.push(LayerKind::Chunking);
        for group in 0..self.num_upper_groups {
            layers.push(LayerKind::Retrieval { group });
            for _ in 0..self.hsa_per_group() {
                layers.push(LayerKind::Hsa { group });
                layers.resize(layers.len() + self.num_mamba_per_gca, LayerKind::Mamba);
            }
        }
        layers
    }
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_map().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Config {
    /// As [`Config::from_json`], from any format.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_entries(UniqueMap::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The entries not yet read, and which keys have been asked for.
struct Keys {
    map: BTreeMap<String, Value>,
    asked: Vec<&'static str>,
    given: Vec<&'static str>,
}

impl Keys {
    /// A key's value; null counts as absent.
    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        let value = self.map.remove(key).filter(|value| !value.is_null())?;
        self.given.push(key);
        Some(value)
    }

    fn count(&mut self, key: &'static str, default: Option<usize>) -> Result<usize, ConfigError> {
        const EXPECTED: &str = "a whole number, not negative";
        match (self.take(key), default) {
            (Some(value), _) => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
                Some(n) => Ok(n),
                None => refuse(key, shown_value(&value), EXPECTED),
            },
            (None, Some(default)) => Ok(default),
            (None, None) => Err(ConfigError::Missing { key: key.into(), expected: EXPECTED.into() }),
        }
    }

    fn switch(&mut self, key: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.take(key) {
            Some(Value::Bool(value)) => Ok(value),
            Some(value) => refuse(key, shown_value(&value), "true or false"),
            None => Ok(default),
        }
    }

    fn number(&mut self, key: &'static str, default: f64) -> Result<f64, ConfigError> {
        match self.take(key) {
            Some(value) => match value.as_f64() {
                Some(number) => Ok(number),
                None => refuse(key, shown_value(&value), "a number"),
            },
            None => Ok(default),
        }
    }

    fn text(&mut self, key: &'static str, default: &str) -> Result<String, ConfigError> {
        match self.take(key) {
            Some(Value::String(value)) => Ok(value),
            Some(value) => refuse(key, shown_value(&value), "a string"),
            None => Ok(default.into()),
        }
    }

    /// A length, or −1 for none.
    fn segment(&mut self, key: &'static str) -> Result<Option<usize>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(value) if value.as_i64() == Some(-1) => Ok(None),
            Some(value) => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
                Some(size) => Ok(Some(size)),
                None => refuse(key, shown_value(&value), "-1, or a whole number from 1"),
            },
        }
    }

    fn limits(&mut self, key: &'static str) -> Result<(f64, f64), ConfigError> {
        const EXPECTED: &str = "[lower, upper], two numbers, the upper may be \"inf\"";
        let Some(value) = self.take(key) else { return Ok((0.0, f64::INFINITY)) };
        let end = |value: &Value| match value.as_str() {
            Some("inf" | "Infinity") => Some(f64::INFINITY),
            _ => value.as_f64(),
        };
        match value.as_array().map(Vec::as_slice) {
            Some([low, high]) => match (low.as_f64(), end(high)) {
                (Some(low), Some(high)) => Ok((low, high)),
                _ => refuse(key, shown_value(&value), EXPECTED),
            },
            _ => refuse(key, shown_value(&value), EXPECTED),
        }
    }
}

fn shown_value(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
    }
}

/// Python writes infinities bare, JSON has none: they become the string `"inf"`, wherever no string encloses them.
fn quote_infinities(text: &str) -> String {
    let (mut out, mut rest, mut in_string) = (String::with_capacity(text.len() + 16), text, false);
    while let Some(c) = rest.chars().next() {
        if !in_string && let Some(after) = rest.strip_prefix("Infinity") {
            out.push_str("\"inf\"");
            rest = after;
            continue;
        }
        let mut length = c.len_utf8();
        match c {
            '"' => in_string = !in_string,
            // The escaped character, whatever it is, cannot end the string.
            '\\' if in_string => length += rest[1..].chars().next().map_or(0, char::len_utf8),
            _ => {}
        }
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}
