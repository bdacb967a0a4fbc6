use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn small() -> Value {
    serde_json::to_value(Config::small()).unwrap()
}

/// The small configuration with some keys replaced, and what is said about it.
fn with(changes: Value) -> Result<Config, ConfigError> {
    let mut map = small();
    map.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    Config::from_json(&map.to_string())
}

fn beside_the_repository(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(name)
}

#[test]
fn built_in_models() {
    let small = Config::small();
    assert_eq!(small.parameter_count(), 3_189_216);
    assert_eq!((small.d_inner(), small.conv_channels(), small.d_in_proj()), (512, 640, 1160));
    let names: Vec<_> = small.layers().iter().map(|layer| layer.name()).collect();
    assert_eq!(names, ["mamba", "mamba", "chunking", "retrieval", "hsa", "mamba", "hsa", "mamba"]);

    let published = Config::ramba_370m();
    assert_eq!(published.layers().iter().filter(|layer| matches!(layer, LayerKind::Hsa { .. })).count(), 3);
    assert_eq!(published.encoder_intermediate_size, 2688);
    assert_eq!(published.attention_head_dim, 64);
    let count = published.parameter_count();
    assert!((370_000_000..400_000_000).contains(&count), "{count}");
}

#[test]
fn other_mixers_have_other_layers() {
    let names = |config: &Config| config.layers().iter().map(|layer| layer.name()).collect::<Vec<_>>();
    let alone = with(json!({"enable_hsa": false})).unwrap();
    assert_eq!(names(&alone), ["mamba"; 4]);
    let window = with(json!({"token_mixer": "window", "window_kv_heads": 8})).unwrap();
    assert_eq!(names(&window), names(&Config::small()));
    let shape = |name: &str| window.parameters().into_iter().find(|p| p.name == name).unwrap().shape;
    assert_eq!(shape("backbone.layers.0.mixer.in_proj.weight"), [(16 + 2 * 8) * 32, 256]);
    assert_eq!(shape("backbone.layers.7.mixer.out_proj.weight"), [256, 16 * 32]);
}

#[test]
fn json_round_trip_keeps_everything() {
    for config in [
        Config::small(),
        Config::ramba_370m(),
        with(json!({"torch_dtype": "float32", "ssm_cfg": {"a": [1]}, "segment_size": -1, "segment_at_inference": false}))
            .unwrap(),
        with(json!({"time_step_limit": [0.01, 0.5], "initializer_range": 0.123456789})).unwrap(),
        with(json!({"segment_overlap": 70})).unwrap(),
        with(json!({"token_mixer": "window", "window_size": 100, "window_kv_heads": 4, "enable_hsa": false})).unwrap(),
    ] {
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
        assert_eq!(serde_json::from_value::<Config>(serde_json::to_value(&config).unwrap()).unwrap(), config);
    }
    assert_eq!(with(json!({"ssm_cfg": {}})).unwrap().extra["ssm_cfg"], json!({}));
}

#[test]
fn published_spellings() {
    let text = r#"{"hidden_size": 64, "num_heads": 2, "vocab_size": 97, "num_lower_layers": 1, "num_upper_layers": 2,
        "num_attention_heads": 4, "num_kv_heads": 2, "chunk_topk": 2, "_name": "say \"Infinity\" \\", "dt_rank": "auto",
        "time_step_limit": [0.0, Infinity], "pad_token_id": null, "hidden_act": "silu", "nsa_layers": [], "sm_n": 0.0}"#;
    let config = Config::from_json(text).unwrap();
    assert_eq!(config.time_step_limit, (0.0, f64::INFINITY));
    assert_eq!(config.extra["_name"], "say \"Infinity\" \\");
    assert_eq!((config.segment_size, config.encoder_layers, config.has_cls), (None, 0, false));
    assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
}

/// A configuration that says nothing of what segments are read with is written as before, and so are fingerprints.
#[test]
fn an_overlap_is_written_where_there_is_one() {
    assert_eq!((Config::small().segment_overlap, small().get("segment_overlap")), (0, None));
    assert_eq!(with(json!({"segment_overlap": 0})).unwrap(), Config::small());
    let overlapping = with(json!({"segment_overlap": 512})).unwrap();
    assert_eq!(overlapping.segment_overlap, 512);
    assert_eq!(serde_json::to_value(&overlapping).unwrap()["segment_overlap"], json!(512));
}

#[test]
fn the_recipe_is_the_small_model() {
    let path = beside_the_repository("recipe/config.json");
    match Config::open(&path) {
        Ok(config) => assert_eq!(Config { extra: Default::default(), ..config }, Config::small()),
        Err(ConfigError::File { .. }) => println!("skipped: {} is absent", path.display()),
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn what_is_refused_names_its_key() {
    for (changes, key) in [
        (json!({"hidden_size": 0}), "hidden_size"),
        (json!({"hidden_size": -4}), "hidden_size"),
        (json!({"hidden_size": 256.5}), "hidden_size"),
        (json!({"hidden_size": "256"}), "hidden_size"),
        (json!({"hidden_size": [256]}), "hidden_size"),
        (json!({"hidden_size": null}), "hidden_size"),
        (json!({"hidden_size": 1u64 << 63}), "hidden_size"),
        (json!({"hidden_size": u64::MAX, "expand": u64::MAX, "head_dim": 0}), "hidden_size"),
        (json!({"vocab_size": 1u64 << 40}), "vocab_size"),
        (json!({"vocab_size": 1}), "vocab_size"),
        (json!({"expand": 0}), "expand"),
        (json!({"num_heads": 7}), "num_heads"),
        (json!({"head_dim": 0}), "head_dim"),
        (json!({"state_size": 0}), "state_size"),
        (json!({"n_groups": 3}), "n_groups"),
        (json!({"gated_norm_groups": 7}), "gated_norm_groups"),
        (json!({"conv_kernel": 9}), "conv_kernel"),
        (json!({"use_conv_bias": false}), "use_conv_bias"),
        (json!({"use_bias": true}), "use_bias"),
        (json!({"rms_norm": false}), "rms_norm"),
        (json!({"rms_norm": 1}), "rms_norm"),
        (json!({"model_type": "llama"}), "model_type"),
        (json!({"hidden_act": "gelu"}), "hidden_act"),
        (json!({"layer_norm_epsilon": 0.0}), "layer_norm_epsilon"),
        (json!({"layer_norm_epsilon": -1e-5}), "layer_norm_epsilon"),
        (json!({"num_lower_layers": 0}), "num_lower_layers"),
        (json!({"num_upper_layers": 3, "num_mamba_per_gca": 2}), "num_upper_layers"),
        (json!({"num_upper_groups": 0}), "num_upper_groups"),
        (json!({"num_lower_layers": 1u64 << 50}), "num_lower_layers"),
        (json!({"chunk_size": 0}), "chunk_size"),
        (json!({"chunk_topk": 0}), "chunk_topk"),
        (json!({"num_kv_heads": 3}), "num_kv_heads"),
        (json!({"num_attention_heads": 0}), "num_attention_heads"),
        (json!({"retrieval_dim": 63, "num_kv_heads": 2, "singlehead_retrieval": false}), "retrieval_dim"),
        (json!({"encoder_num_attention_heads": 0}), "encoder_num_attention_heads"),
        (json!({"encoder_num_attention_heads": 3}), "encoder_num_attention_heads"),
        (json!({"encoder_num_attention_heads": 256}), "encoder_num_attention_heads"),
        (json!({"encoder_num_key_value_heads": 3}), "encoder_num_key_value_heads"),
        (json!({"encoder_intermediate_size": 0}), "encoder_intermediate_size"),
        (json!({"encoder_intermediate": 128}), "encoder_intermediate"),
        (json!({"encoder_layers": 0, "has_cls": true}), "has_cls"),
        (json!({"stick_breaking": false}), "stick_breaking"),
        (json!({"stick_breaking": true, "enable_softmax": true}), "stick_breaking"),
        (json!({"sm_n": 1.0}), "sm_n"),
        (json!({"enable_pos_decay": true}), "enable_pos_decay"),
        (json!({"mask_slide_window": true, "slide_window": 62}), "slide_window"),
        (json!({"sliding_window": 128, "slide_window": 96}), "sliding_window"),
        (json!({"segment_size": 0}), "segment_size"),
        (json!({"segment_size": -2}), "segment_size"),
        (json!({"segment_size": 100}), "segment_size"),
        (json!({"segment_size": null}), "segment_at_inference"),
        (json!({"segment_overlap": 513}), "segment_overlap"),
        (json!({"segment_overlap": -1}), "segment_overlap"),
        (json!({"segment_overlap": 1, "segment_size": -1, "segment_at_inference": false}), "segment_overlap"),
        (json!({"segment_overlaps": 64}), "segment_overlap"),
        (json!({"time_step_limit": [0.5, 0.5]}), "time_step_limit"),
        (json!({"time_step_limit": [-1.0, 0.5]}), "time_step_limit"),
        (json!({"time_step_limit": ["inf", 1.0]}), "time_step_limit"),
        (json!({"time_step_limit": 3}), "time_step_limit"),
        (json!({"time_step_min": 0.2}), "time_step_min"),
        (json!({"time_step_min": 0.0}), "time_step_min"),
        (json!({"initializer_range": -0.02}), "initializer_range"),
        (json!({"token_mixer": "lstm"}), "token_mixer"),
        (json!({"window_size": 1}), "window_size"),
        (json!({"token_mixer": "window", "window_size": 256 * 512}), "window_size"),
        (json!({"token_mixer": "window", "window_kv_heads": 3}), "window_kv_heads"),
        (json!({"token_mixer": "window", "attention_head_dim": 33}), "attention_head_dim"),
        (json!({"token_mixer": "window", "attention_head_dim": 256}), "attention_head_dim"),
        (json!({"sw_layers": [1]}), "sw_layers"),
        (json!({"insert_mlp": true}), "insert_mlp"),
        (json!({"chunk_topK": 4}), "chunk_topk"),
        (json!({"enable-softmax": true}), "enable_softmax"),
        (json!({"retrieval_dims": 64}), "retrieval_dim"),
    ] {
        match with(changes.clone()) {
            Err(e) => assert!(e.to_string().contains(key), "{changes}: {e}"),
            Ok(_) => panic!("accepted: {changes}"),
        }
    }
    let error = with(json!({"num_heads": 7})).unwrap_err().to_string();
    assert_eq!(error, "num_heads = 7: expected expand · hidden_size / head_dim = 512 / 64");
}

#[test]
fn what_is_no_configuration() {
    let deep = "[".repeat(100_000);
    let deep_object = "{\"a\":".repeat(100_000);
    let long = format!("{{\"a\": \"{}\"}}", "x".repeat(2 << 20));
    for text in [
        "",
        "{",
        "[]",
        "3",
        "null",
        "{}",
        "{\"hidden_size\": NaN}",
        "{\"a\":1,\"a\":1}",
        "\"\\",
        &deep,
        &deep_object,
        &long,
    ] {
        let error = Config::from_json(text).unwrap_err().to_string();
        assert!(error.len() < 500, "{error}");
    }
    assert!(Config::from_json_bytes(b"\xff\xfe{}").is_err());
    assert!(Config::open("/nowhere/config.json").unwrap_err().to_string().contains("/nowhere/config.json"));
}

#[test]
fn initial_values() {
    let values = Init::Normal(0.02).values(100_000, 7);
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / 1e5;
    let variance = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 1e5;
    assert!(mean.abs() < 5e-4 && (variance.sqrt() - 0.02).abs() < 5e-4);
    assert!(Init::Uniform(0.5).values(1000, 1).iter().all(|x| x.abs() <= 0.5));
    assert_eq!(Init::LogRange.values(3, 0), [0.0, 2f32.ln(), 3f32.ln()]);
    for bias in (Init::DtBias { min: 1e-3, max: 0.1, floor: 1e-4 }).values(1000, 3) {
        let dt = f64::from(bias).exp().ln_1p();
        assert!((0.99e-3..0.1001).contains(&dt), "{dt}");
    }

    let parameters = Config::small().parameters();
    assert_eq!(parameters[0].initial(1), parameters[0].initial(1));
    assert_ne!(parameters[0].initial(1)[..8], parameters[0].initial(2)[..8]);
    let of = |name: &str| parameters.iter().find(|spec| spec.name.ends_with(name)).unwrap();
    assert_eq!(of("conv1d.bias").init, Init::Uniform(0.5));
    assert_eq!(of("q_proj.bias").init, Init::Zeros);
    assert_eq!(of("in_proj.weight").init, Init::Uniform(1.0 / 16.0));
}

/// A golden file's metadata, and its parameters with their shapes.
fn golden() -> Vec<(String, Value, BTreeMap<String, Vec<usize>>)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let named = std::env::var_os("RAMBUTAN_GOLDEN").map(PathBuf::from);
    let folders = [named.unwrap_or(beside_the_repository("golden")), root.join("../tests/golden")];
    let files = folders
        .iter()
        .filter_map(|folder| folder.read_dir().ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
    let read = |path: PathBuf| {
        let header = crate::checkpoint::Header::open(&path).unwrap();
        let mut meta: Value = serde_json::from_str(&header.metadata["meta"]).unwrap();
        meta["kind"] = json!(header.metadata["kind"]);
        let parameters = header
            .tensors
            .iter()
            .filter_map(|t| Some((t.name.strip_prefix("param.")?.into(), t.shape.clone())));
        (path.file_name().unwrap().to_string_lossy().into_owned(), meta, parameters.collect())
    };
    files.map(read).collect()
}

fn shapes(specs: Vec<ParameterSpec>) -> BTreeMap<String, Vec<usize>> {
    specs.into_iter().map(|spec| (spec.name, spec.shape)).collect()
}

#[test]
fn golden_models_have_our_parameters() {
    let mut seen = 0;
    for (file, meta, parameters) in golden() {
        let kind = meta["kind"].as_str().unwrap();
        if !["ramba_model", "ramba_decode", "ramba_adamw"].contains(&kind) {
            continue;
        }
        let config = Config::from_json(&meta["config"].to_string()).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(shapes(config.parameters()), parameters, "{file}");
        let layers: Vec<_> = config.layers().iter().map(|layer| layer.name()).collect();
        assert_eq!(json!(layers), meta["layer_types"], "{file}");
        assert_eq!(json!(config.sm_n()), meta["config"]["sm_n"], "{file}");
        if kind == "ramba_adamw" {
            let decayed: Vec<_> =
                config.parameters().into_iter().filter(|p| p.decay).map(|p| p.name).collect();
            assert_eq!(json!(decayed), meta["decayed_parameters"], "{file}");
        }
        println!("{file}: {} parameters", parameters.len());
        seen += 1;
    }
    println!("{seen} golden models");
}

#[test]
fn golden_layers_have_our_parameters() {
    for (file, meta, parameters) in golden() {
        // The layers' files name some sizes otherwise than a model's configuration does.
        let mut map = small();
        let mut set = |key: &str, value: &Value| map[key] = value.clone();
        let (keys, layer) = match meta["kind"].as_str().unwrap() {
            "chunking" => {
                set(
                    "attention_head_dim",
                    &json!(meta["hidden"].as_u64().unwrap() / meta["num_attention_heads"].as_u64().unwrap()),
                );
                set("encoder_num_attention_heads", &meta["num_attention_heads"]);
                set("encoder_intermediate_size", &meta["encoder_intermediate"]);
                set("singlehead_retrieval", &json!(meta["retrieval_heads"] == 1));
                let keys = "chunk_size enable_qk_norm enc_prenorm encoder_layers encoder_num_key_value_heads has_cls \
                            num_attention_heads num_kv_heads retrieval_dim rope_theta";
                (keys, LayerKind::Chunking)
            }
            "retrieval" => {
                set("num_kv_heads", &meta["kv_heads"]);
                set("chunk_topk", &meta["topk_config"]);
                set("encoder_layers", &json!(0));
                set("has_cls", &json!(false));
                let keys = "chunk_size enable_lmk_norm enable_pos_decay enable_softmax mask_slide_window retrieval_dim \
                            singlehead_retrieval slide_window";
                (keys, LayerKind::Retrieval { group: 0 })
            }
            "mamba2_block" => {
                set("state_size", &meta["state"]);
                set("conv_kernel", &meta["conv_width"]);
                set("layer_norm_epsilon", &meta["eps"]);
                set("encoder_layers", &json!(0));
                set("has_cls", &json!(false));
                ("head_dim num_heads n_groups gated_norm_groups segment_size", LayerKind::Mamba)
            }
            _ => continue,
        };
        set("segment_at_inference", &json!(false));
        set("hidden_size", &meta["hidden"]);
        for key in keys.split_whitespace() {
            set(key, &meta[key]);
        }
        if layer != LayerKind::Mamba {
            set("num_heads", &json!(meta["hidden"].as_u64().unwrap() / 8));
            set("head_dim", &json!(16));
        }
        let config = Config::from_json(&map.to_string()).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(shapes(config.layer_parameters(layer)), parameters, "{file}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Config::from_json_bytes(&bytes);
    }

    #[test]
    fn random_text_never_panics(text in "[\\[\\]{}\",:\\\\InfityNa0-9eE.+ -]{0,64}") {
        let _ = Config::from_json(&text);
    }

    /// Any value under any key is refused, or gives a model whose sizes can be worked with.
    #[test]
    fn random_values_are_refused_or_sound(
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![
                Just(json!(null)), Just(json!(true)), Just(json!("x")), Just(json!([1])), Just(json!({})), Just(json!(u64::MAX)),
                (0u64..300).prop_map(|n| json!(n)), any::<u64>().prop_map(|n| json!(n)), any::<i64>().prop_map(|n| json!(n)),
                any::<f64>().prop_map(|n| json!(n)), (0u32..40).prop_map(|n| json!(1u64 << n)),
            ]),
            1..4,
        ),
    ) {
        let mut map = small();
        let keys: Vec<String> = map.as_object().unwrap().keys().cloned().collect();
        for (key, value) in changes {
            map[key.get(&keys)] = value;
        }
        if let Ok(config) = Config::from_json(&map.to_string()) {
            prop_assert!(config.parameters().iter().all(|spec| spec.elements() > 0));
            prop_assert_eq!(&Config::from_json(&config.to_json()).unwrap(), &config);
        }
    }
}
