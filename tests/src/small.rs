//! A small model that reads texts by segments.

use rambutan_model::Config;

/// Of a plan, the model that trains in a few seconds on software Vulkan. More of its keys may follow.
pub const TINY: &str = r#"
[model]
preset = "small"
hidden_size = 32
head_dim = 16
num_heads = 4
state_size = 8
num_lower_layers = 1
num_upper_layers = 1
encoder_num_attention_heads = 2
encoder_num_key_value_heads = 2
encoder_intermediate_size = 32
num_attention_heads = 4
attention_head_dim = 8
retrieval_dim = 16
"#;

/// A small model whose every size differs from the others', but for these keys.
pub fn config(changes: &str) -> Config {
    let base = r#"{
        "model_type": "mamba2", "vocab_size": 256, "hidden_size": 48, "expand": 2, "head_dim": 32, "num_heads": 3,
        "state_size": 16, "n_groups": 1, "conv_kernel": 4, "layer_norm_epsilon": 1e-05, "tie_word_embeddings": false,
        "num_lower_layers": 1, "num_upper_layers": 2, "num_upper_groups": 1, "num_mamba_per_gca": 1, "chunk_size": 16,
        "encoder_layers": 1, "num_attention_heads": 4, "encoder_num_attention_heads": 3,
        "encoder_num_key_value_heads": 3, "encoder_intermediate_size": 64, "num_kv_heads": 2, "attention_head_dim": 8,
        "retrieval_dim": 32, "singlehead_retrieval": false, "chunk_topk": 4, "segment_size": 64,
        "segment_at_inference": true, "initializer_range": 0.2
    }"#;
    let parse = |text: &str| serde_json::from_str::<serde_json::Map<_, _>>(text).expect("JSON");
    let mut map = parse(base);
    map.extend(parse(&format!("{{{changes}}}")));
    Config::from_json(&serde_json::Value::from(map).to_string()).expect("a valid configuration")
}
