//! The chunking layer: what each chunk of S tokens leaves in memory (keys, values and one landmark), written once.
//!
//! encoder_layers × bidirectional Transformer layer over a chunk's S tokens, with a learned CLS embedding behind them;
//! landmark = W_lmk · CLS (or the mean of the tokens); mem_k, mem_v = W_k, W_v · tokens.

use rambutan_engine::{Tensor, ops};

use crate::{
    Config,
    config::ATTENTION_NORM_EPSILON as EPS,
    weights::{Norm, Scope},
};

/// The layer's parameters.
pub struct Chunking {
    prenorm: Option<Tensor>,
    cls: Option<Tensor>,
    layers: Vec<EncoderLayer>,
    /// Of the encoder's outputs; without an encoder, of the hidden states.
    norm: Norm,
    proj_k: Tensor,
    proj_v: Tensor,
    k_norm: Option<Norm>,
    landmark: Tensor,
    chunk: usize,
    kv_heads: usize,
    retrieval_heads: usize,
}

/// What chunks leave behind, in the type that the model computes in.
#[derive(Clone)]
pub struct Memory {
    /// (batch, chunks · S, heads, head dim).
    pub k: Tensor,
    /// (batch, chunks · S, heads, head dim).
    pub v: Tensor,
    /// (batch, chunks, retrieval heads, retrieval head dim).
    pub landmarks: Tensor,
}

impl Chunking {
    /// The layer whose parameters lie in `scope`.
    pub fn new(config: &Config, scope: &Scope<'_>) -> Chunking {
        let encoder = scope.within("encoder.");
        Chunking {
            prenorm: scope.find("enc_prenorm.weight"),
            cls: scope.find("cls_emb").map(|c| c.reshape([config.hidden_size])),
            layers: (0..config.encoder_layers)
                .map(|i| EncoderLayer::new(config, &encoder.within(&format!("layers.{i}."))))
                .collect(),
            norm: if config.encoder_layers > 0 {
                encoder.norm("norm.weight", EPS)
            } else {
                scope.norm("norm.weight", EPS)
            },
            proj_k: scope.get("proj_k.weight"),
            proj_v: scope.get("proj_v.weight"),
            k_norm: scope.find_norm("k_rmsnorm.weight", EPS),
            landmark: scope.get("lmk_ln.weight"),
            chunk: config.chunk_size,
            kv_heads: config.num_kv_heads,
            retrieval_heads: config.retrieval_heads(),
        }
    }

    /// hidden: (batch, tokens, width), f32 → the memory of its whole chunks; None where there is none yet.
    pub fn forward(&self, hidden: &Tensor) -> Option<Memory> {
        let [batch, tokens, width] = hidden.axes();
        let chunks = tokens / self.chunk;
        if batch * chunks == 0 {
            return None;
        }
        let whole = chunks * self.chunk;
        let hidden = if whole == tokens {
            hidden.clone()
        } else {
            let flat = hidden.reshape([batch, tokens * width]);
            ops::split_columns(&flat, &[whole * width, (tokens - whole) * width]).swap_remove(0)
        };
        let n = batch * chunks;
        let (memory, summary) = self.encode(&hidden.reshape([n, self.chunk, width]));
        let heads = |x: Tensor, length: usize, heads: usize| {
            let dim = x.len() / (batch * length * heads);
            x.reshape([batch, length, heads, dim])
        };
        let mut k = heads(ops::linear(&memory, &self.proj_k, None), whole, self.kv_heads);
        if let Some(norm) = &self.k_norm {
            k = norm.forward(&k);
        }
        Some(Memory {
            k,
            v: heads(ops::linear(&memory, &self.proj_v, None), whole, self.kv_heads),
            landmarks: heads(ops::linear(&summary, &self.landmark, None), chunks, self.retrieval_heads),
        })
    }

    /// x: (n, S, width) → the tokens' outputs (n, S, width) and each chunk's summary (n, width).
    fn encode(&self, x: &Tensor) -> (Tensor, Tensor) {
        let [n, chunk, width] = x.axes();
        if self.layers.is_empty() {
            let memory = self.norm.forward(x);
            let mean = ops::mean_middle(&memory);
            return (memory, mean);
        }
        let mut x = match &self.cls {
            Some(cls) => {
                let flat = x.reshape([n, chunk * width]);
                ops::concat_columns(&[&flat, &ops::broadcast_rows(cls, n)]).reshape([n, chunk + 1, width])
            }
            None => x.clone(),
        };
        if let Some(weight) = &self.prenorm {
            x = ops::rms_norm(&x, weight, EPS as f32);
        }
        for layer in &self.layers {
            x = layer.forward(&x);
        }
        let x = self.norm.forward(&x);
        if self.cls.is_none() {
            let mean = ops::mean_middle(&x);
            return (x, mean);
        }
        let flat = x.reshape([n, (chunk + 1) * width]);
        let mut parts = ops::split_columns(&flat, &[chunk * width, width]);
        let summary = parts.swap_remove(1);
        (parts.swap_remove(0).reshape([n, chunk, width]), summary)
    }
}

/// One bidirectional Transformer layer: norms before, RMSNorm on q and k per head, RoPE, SwiGLU.
struct EncoderLayer {
    input_norm: Norm,
    q: (Tensor, Option<Tensor>),
    k: (Tensor, Option<Tensor>),
    v: (Tensor, Option<Tensor>),
    q_norm: Norm,
    k_norm: Norm,
    o: Tensor,
    mlp_norm: Norm,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    head_dim: usize,
    theta: f32,
}

impl EncoderLayer {
    fn new(config: &Config, scope: &Scope<'_>) -> EncoderLayer {
        let attention = scope.within("self_attn.");
        let projection = |name: &str| {
            (attention.get(&format!("{name}_proj.weight")), attention.find(&format!("{name}_proj.bias")))
        };
        EncoderLayer {
            input_norm: scope.norm("input_layernorm.weight", EPS),
            q: projection("q"),
            k: projection("k"),
            v: projection("v"),
            q_norm: attention.norm("q_norm.weight", EPS),
            k_norm: attention.norm("k_norm.weight", EPS),
            o: attention.get("o_proj.weight"),
            mlp_norm: scope.norm("post_attention_layernorm.weight", EPS),
            gate: scope.get("mlp.gate_proj.weight"),
            up: scope.get("mlp.up_proj.weight"),
            down: scope.get("mlp.down_proj.weight"),
            head_dim: config.encoder_head_dim(),
            theta: config.rope_theta as f32,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let [n, length, width] = x.axes();
        let h = self.input_norm.forward(x);
        let project = |(weight, bias): &(Tensor, Option<Tensor>)| {
            let y = ops::linear(&h, weight, bias.as_ref());
            let heads = y.len() / (n * length * self.head_dim);
            y.reshape([n, length, heads, self.head_dim])
        };
        let q = ops::rope(&self.q_norm.forward(&project(&self.q)), self.theta, 0);
        let k = ops::rope(&self.k_norm.forward(&project(&self.k)), self.theta, 0);
        let attended = ops::attention(&q, &k, &project(&self.v)).reshape([n, length, width]);
        let x = ops::add(x, &ops::linear(&attended, &self.o, None));
        let h = self.mlp_norm.forward(&x);
        let gated = ops::swiglu(&ops::linear(&h, &self.gate, None), &ops::linear(&h, &self.up, None));
        ops::add(&x, &ops::linear(&gated, &self.down, None))
    }
}
