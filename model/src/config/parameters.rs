//! The parameters that follow from a configuration: official names, shapes, roles and initial values.

use super::{Config, LayerKind, TokenMixer};

/// What a parameter does, and so how it is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// Token embeddings, [vocabulary, D].
    Embedding,
    /// A linear map, [out, in].
    Matrix,
    /// A bias, of a linear map or of the convolution.
    Bias,
    /// Scale of an RMSNorm.
    Norm,
    /// Depthwise convolution, [channels, 1, width].
    Conv,
    /// Logarithm of the scan's decay, one a head.
    ALog,
    /// The scan's skip, one a head.
    D,
    /// Added to dt before softplus, one a head.
    DtBias,
    /// The embedding appended to each chunk, [1, 1, D].
    Cls,
    /// What a slot's number is worth in its score.
    PosDecay,
}

/// Which parameters weight decay applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DecayRule {
    /// Those with two dimensions: linear maps, embeddings and LM head. The convolution, the appended embedding and
    /// everything with one dimension stay free. The golden optimizer runs use this rule, and so do we.
    #[default]
    TwoDimensional,
    /// All but A_log, D, dt_bias, norms and biases, as the paper's text has it: the convolution, the appended
    /// embedding and the slot decay shrink too.
    AllButMarked,
}

/// How a parameter begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Normal with this standard deviation around 0.
    Normal(f64),
    /// Uniform between minus and plus this bound.
    Uniform(f64),
    /// All ones.
    Ones,
    /// All zeros.
    Zeros,
    /// log 1, log 2, log 3, …: A = −1, −2, −3, … over the heads.
    LogRange,
    /// The inverse softplus of a dt that is log-uniform between `min` and `max`, raised to `floor`.
    DtBias {
        /// Smallest dt.
        min: f64,
        /// Largest dt.
        max: f64,
        /// dt is at least this.
        floor: f64,
    },
}

impl Init {
    /// `count` values, the same for the same seed on every machine.
    pub fn values(self, count: usize, seed: u64) -> Vec<f32> {
        let mut random = SplitMix(seed);
        let draw = |i: usize| match self {
            Self::Normal(std) => std * random.normal(),
            Self::Uniform(bound) => bound * (2.0 * random.uniform() - 1.0),
            Self::Ones => 1.0,
            Self::Zeros => 0.0,
            Self::LogRange => ((i + 1) as f64).ln(),
            Self::DtBias { min, max, floor } => {
                let dt = (min.ln() + random.uniform() * (max / min).ln()).exp().max(floor);
                dt + (-(-dt).exp_m1()).ln()
            }
        };
        (0..count).map(draw).map(|x| x as f32).collect()
    }
}

/// SplitMix64: small, and its sequence is fixed for good, unlike a library's.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Box and Muller's, one of the pair.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// One parameter of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterSpec {
    /// The official name.
    pub name: String,
    /// Row-major; linear maps are [out, in].
    pub shape: Vec<usize>,
    /// Its role.
    pub kind: ParameterKind,
    /// Weight decay applies, by [`DecayRule::TwoDimensional`].
    pub decay: bool,
    /// How it begins.
    pub init: Init,
}

impl ParameterSpec {
    fn new(name: impl Into<String>, shape: &[usize], kind: ParameterKind, init: Init) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), kind, decay: shape.len() == 2, init }
    }

    /// How many numbers it holds.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The same where a `usize` may not do: before the configuration is known to be valid.
    pub(super) fn elements_wide(&self) -> u128 {
        self.shape.iter().map(|&n| n as u128).product()
    }

    /// Whether weight decay applies by this rule.
    pub fn decays(&self, rule: DecayRule) -> bool {
        use ParameterKind::{ALog, Bias, D, DtBias, Norm};
        match rule {
            DecayRule::TwoDimensional => self.shape.len() == 2,
            DecayRule::AllButMarked => !matches!(self.kind, ALog | D | DtBias | Norm | Bias),
        }
    }

    /// Initial values. They depend on seed and name alone, so that a model that differs in one layer begins the same
    /// in the others.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        // FNV-1a of the name, so that no two parameters share a sequence.
        let hash = self
            .name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        self.init.values(self.elements(), SplitMix(seed ^ hash).next())
    }
}

/// Collects parameters under a prefix.
struct List<'a> {
    config: &'a Config,
    prefix: String,
    specs: Vec<ParameterSpec>,
}

impl List<'_> {
    fn add(&mut self, name: &str, shape: &[usize], kind: ParameterKind, init: Init) {
        self.specs.push(ParameterSpec::new(format!("{}{name}", self.prefix), shape, kind, init));
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(&format!("{name}.weight"), &[width], ParameterKind::Norm, Init::Ones);
    }

    /// A linear map that starts normal with `initializer_range`.
    fn normal(&mut self, name: &str, out: usize, inputs: usize) {
        let init = Init::Normal(self.config.initializer_range);
        self.add(&format!("{name}.weight"), &[out, inputs], ParameterKind::Matrix, init);
    }

    /// A linear map that starts uniform in ±1/√inputs, PyTorch's habit.
    fn uniform(&mut self, name: &str, out: usize, inputs: usize) {
        let init = Init::Uniform(1.0 / (inputs as f64).sqrt());
        self.add(&format!("{name}.weight"), &[out, inputs], ParameterKind::Matrix, init);
    }

    fn layer(&mut self, kind: LayerKind) {
        match kind {
            LayerKind::Mamba => self.mamba(),
            LayerKind::Chunking => self.chunking(),
            LayerKind::Retrieval { .. } => self.retrieval(),
            LayerKind::Hsa { .. } => self.hsa(),
        }
    }

    fn mamba(&mut self) {
        let c = self.config;
        if c.token_mixer == TokenMixer::Window {
            return self.window();
        }
        let (heads, channels) = (c.num_heads, c.conv_channels());
        let conv_bound = Init::Uniform(1.0 / (c.conv_kernel as f64).sqrt());
        let dt = Init::DtBias { min: c.time_step_min, max: c.time_step_max, floor: c.time_step_floor };
        self.norm("norm", c.hidden_size);
        self.uniform("mixer.in_proj", c.d_in_proj(), c.hidden_size);
        self.add("mixer.conv1d.weight", &[channels, 1, c.conv_kernel], ParameterKind::Conv, conv_bound);
        self.add("mixer.conv1d.bias", &[channels], ParameterKind::Bias, conv_bound);
        self.add("mixer.dt_bias", &[heads], ParameterKind::DtBias, dt);
        self.add("mixer.A_log", &[heads], ParameterKind::ALog, Init::LogRange);
        self.add("mixer.D", &[heads], ParameterKind::D, Init::Ones);
        self.norm("mixer.norm", c.d_inner());
        self.uniform("mixer.out_proj", c.hidden_size, c.d_inner());
    }

    fn window(&mut self) {
        let c = self.config;
        let query_width = c.num_attention_heads * c.attention_head_dim;
        self.norm("norm", c.hidden_size);
        self.uniform(
            "mixer.in_proj",
            query_width + 2 * c.window_kv_heads * c.attention_head_dim,
            c.hidden_size,
        );
        self.uniform("mixer.out_proj", c.hidden_size, query_width);
    }

    fn chunking(&mut self) {
        let c = self.config;
        let (width, kv_width) = (c.hidden_size, c.num_kv_heads * c.attention_head_dim);
        if c.encoder_layers == 0 {
            self.norm("norm", width);
        }
        if c.has_cls {
            self.add("cls_emb", &[1, 1, width], ParameterKind::Cls, Init::Normal(c.initializer_range));
        }
        if c.enc_prenorm {
            self.norm("enc_prenorm", width);
        }
        for j in 0..c.encoder_layers {
            let head = c.encoder_head_dim();
            let at = |name: &str| format!("encoder.layers.{j}.{name}");
            self.norm(&at("input_layernorm"), width);
            for (name, heads) in [
                ("q_proj", c.encoder_num_attention_heads),
                ("k_proj", c.encoder_num_key_value_heads),
                ("v_proj", c.encoder_num_key_value_heads),
            ] {
                let name = at(&format!("self_attn.{name}"));
                self.uniform(&name, heads * head, width);
                self.add(&format!("{name}.bias"), &[heads * head], ParameterKind::Bias, Init::Zeros);
            }
            self.uniform(&at("self_attn.o_proj"), width, width);
            self.norm(&at("self_attn.q_norm"), head);
            self.norm(&at("self_attn.k_norm"), head);
            self.norm(&at("post_attention_layernorm"), width);
            self.uniform(&at("mlp.gate_proj"), c.encoder_intermediate_size, width);
            self.uniform(&at("mlp.up_proj"), c.encoder_intermediate_size, width);
            self.uniform(&at("mlp.down_proj"), width, c.encoder_intermediate_size);
        }
        if c.encoder_layers > 0 {
            self.norm("encoder.norm", width);
        }
        self.normal("proj_k", kv_width, width);
        self.normal("proj_v", kv_width, width);
        if c.enable_qk_norm {
            self.norm("k_rmsnorm", c.attention_head_dim);
        }
        self.normal("lmk_ln", c.retrieval_dim, width);
    }

    fn retrieval(&mut self) {
        let c = self.config;
        self.norm("pre_norm", c.hidden_size);
        self.normal("ln", c.retrieval_dim, c.hidden_size);
        if c.enable_lmk_norm {
            self.norm("lmk_q_norm", c.retrieval_head_dim());
            self.norm("lmk_k_norm", c.retrieval_head_dim());
        }
        if c.enable_pos_decay {
            self.add("pos_decay", &[1], ParameterKind::PosDecay, Init::Zeros);
        }
    }

    fn hsa(&mut self) {
        let c = self.config;
        let query_width = c.num_attention_heads * c.attention_head_dim;
        self.norm("pre_norm", c.hidden_size);
        self.normal("q_proj", query_width, c.hidden_size);
        if c.enable_qk_norm {
            self.norm("q_norm", c.attention_head_dim);
        }
        self.normal("o_proj", c.hidden_size, query_width);
    }
}

impl Config {
    /// All parameters in the order of computation. A tied LM head is no parameter of its own.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        let mut list = List { config: self, prefix: "backbone.".into(), specs: Vec::new() };
        let normal = Init::Normal(self.initializer_range);
        list.add("embeddings.weight", &[self.vocab_size, self.hidden_size], ParameterKind::Embedding, normal);
        for (i, kind) in self.layers().into_iter().enumerate() {
            list.prefix = format!("backbone.layers.{i}.");
            list.layer(kind);
        }
        list.prefix = "backbone.".into();
        list.norm("norm_f", self.hidden_size);
        list.prefix.clear();
        if !self.tie_word_embeddings {
            list.uniform("lm_head", self.vocab_size, self.hidden_size);
        }
        list.specs
    }

    /// One layer's parameters, with names inside the layer: `mixer.in_proj.weight`, `encoder.norm.weight` ….
    pub fn layer_parameters(&self, kind: LayerKind) -> Vec<ParameterSpec> {
        let mut list = List { config: self, prefix: String::new(), specs: Vec::new() };
        list.layer(kind);
        list.specs
    }

    /// How many numbers the parameters hold.
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(ParameterSpec::elements).sum()
    }
}
