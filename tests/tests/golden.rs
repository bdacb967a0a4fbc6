//! Every golden file at hand: outputs and gradients of the authors' own modules, computed in f64.
//!
//! Where the published code departs from its mathematics we follow the mathematics; the files were made where both
//! agree. Ours differs from the published code in that
//!
//! - landmarks are normalised anew by each retrieval layer, never twice (they are by the second of two upper groups);
//! - equal scores go to the more recent chunk (unspecified there);
//! - a slot that holds no visible chunk is (0, 0.0), the last ones of a row (with a window it holds any chunk's number);
//! - a window shorter than a chunk less one token, which would see ahead, is refused in a model;
//! - decoding keeps the width − 1 inputs that the convolution reads again (there width);
//! - texts need not be multiples of a segment, and a continuation of two tokens keeps its past.

use std::{
    panic::{self, AssertUnwindSafe},
    path::Path,
    time::Instant,
};

use rambutan_engine::{
    DType, Gpu, Tensor, no_grad,
    ops::{self, SsdInputs, Visibility},
    optim::{AdamW, AdamWOptions, LossScale},
    reference::Array,
    testing,
};
use rambutan_model::{
    Checkpoint, Config, Ramba,
    checkpoint::{HostTensor, Metadata},
    chunking::Chunking,
    config::{ATTENTION_NORM_EPSILON, LayerKind},
    mamba2::Mamba2,
    mixer::MixerState,
    ramba::{Sharing, Trace},
    retrieval::{Retrieval, Selection},
    weights::{Scope, Stream},
};
use rambutan_tests::golden::{self, Vectors, Worst, read};
use serde_json::{Value, json};

type Check = fn(&Vectors) -> Result<(), String>;

const KINDS: &[(&str, Check)] = &[
    ("rmsnorm", norm),
    ("gated_rmsnorm", norm),
    ("causal_conv1d", causal_conv1d),
    ("ssd_scan", ssd_scan),
    ("ssd_step", ssd_step),
    ("selective_scan", selective_scan),
    ("hsa", hsa),
    ("chunking", chunking),
    ("retrieval", retrieval),
    ("mamba2_block", mamba2_block),
    ("ramba_model", ramba_model),
    ("ramba_decode", ramba_decode),
    ("ramba_adamw", ramba_adamw),
];

/// A file's kind and its worst comparison; what cannot be computed, a panic included, is an error.
fn held(gpu: &Gpu, path: &Path) -> Result<(String, Worst), String> {
    let run = || {
        let vectors = Vectors::open(gpu, path)?;
        let (_, check) = KINDS.iter().find(|k| k.0 == vectors.kind).expect("all known kinds are here");
        check(&vectors)?;
        Ok((vectors.kind.clone(), vectors.verdict()?))
    };
    panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|e| {
        let text = e.downcast_ref::<String>().cloned();
        Err(text.or_else(|| e.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default())
    })
}

#[test]
fn every_file_is_met() {
    let gpu = testing::gpu();
    let files = golden::files().unwrap_or_else(|e| panic!("{e}"));
    let (mut failed, mut seen) = (Vec::new(), Vec::new());
    for path in &files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let start = Instant::now();
        let result = held(&gpu, path);
        let took = start.elapsed().as_secs_f64();
        match result {
            Ok((kind, Worst { tensor, error, allowed })) => {
                let met = error <= allowed;
                let verdict = if met { "ok" } else { "FAILED" };
                println!(
                    "{name:40} {verdict:6} worst {error:.1e} of {allowed:.1e} allowed, {tensor}, {took:.1} s"
                );
                seen.push(kind);
                if !met {
                    failed.push(format!("{name}: {tensor}: {error:.2e}, allowed {allowed:.2e}"));
                }
            }
            Err(e) => {
                println!("{name:40} FAILED {e}");
                failed.push(format!("{name}: {e}"));
            }
        }
    }
    println!("{} files, {} failed", files.len(), failed.len());
    assert!(failed.is_empty(), "{} of {} files failed:\n{}", failed.len(), files.len(), failed.join("\n"));
    for kind in golden::kinds().filter(|_| std::env::var_os("RAMBUTAN_CASE").is_none()) {
        assert!(seen.iter().any(|s| s == kind), "no file of kind {kind} is committed");
    }
}

/// The gate can fail: a committed file with something changed does not pass.
#[test]
fn what_is_wrong_or_unknown_fails() {
    let gpu = testing::gpu();
    let bytes =
        std::fs::read(golden::committed().join("rmsnorm_eps1e-5.safetensors")).expect("it is committed");
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..start]).expect("a header");
    let folder = std::env::temp_dir().join(format!("rambutan-golden-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let changed = |name: &str, change: &dyn Fn(&mut Value, &mut Vec<u8>)| {
        let (mut header, mut data) = (header.clone(), bytes[start..].to_vec());
        change(&mut header, &mut data);
        let text = header.to_string();
        let mut all = (text.len() as u64).to_le_bytes().to_vec();
        all.extend(text.bytes());
        all.extend(data);
        let path = folder.join(format!("{name}.safetensors"));
        std::fs::write(&path, all).expect("the temporary folder takes a file");
        held(&gpu, &path)
    };
    let option = |header: &mut Value, key: &str, value: Value| {
        let meta = header["__metadata__"]["meta"].as_str().expect("options").to_string();
        let mut meta: Value = serde_json::from_str(&meta).expect("JSON");
        meta[key] = value;
        header["__metadata__"]["meta"] = json!(meta.to_string());
    };
    let fails = |result: Result<(String, Worst), String>, words: &[&str]| match result {
        Ok((_, worst)) => panic!("it passes: {worst:?}"),
        Err(e) => words.iter().for_each(|word| assert!(e.contains(word), "{word}: {e}")),
    };
    let (_, worst) = changed("same", &|_, _| ()).expect("nothing has changed");
    assert!(worst.error <= worst.allowed, "{worst:?}");
    fails(
        changed("kind", &|header, _| header["__metadata__"]["kind"] = json!("layernorm")),
        &["unknown kind `layernorm`", "rmsnorm", "ramba_model"],
    );
    fails(
        changed("option", &|header, _| option(header, "offset", json!(1.0))),
        &["unknown option `offset`", "eps", "groups"],
    );
    fails(
        changed("tensor", &|header, _| {
            let y = header["out.y"].take();
            header.as_object_mut().expect("an object").remove("out.y");
            header["out.other"] = y;
        }),
        &["out.y"],
    );
    fails(changed("eps", &|header, _| option(header, "eps", json!("small"))), &["eps", "expected a number"]);
    // Numbers: another epsilon, and one element of the output.
    for (name, change) in [
        (
            "numbers",
            &(|header: &mut Value, _: &mut Vec<u8>| option(header, "eps", json!(1e-4)))
                as &dyn Fn(&mut _, &mut _),
        ),
        ("element", &|header: &mut Value, data: &mut Vec<u8>| {
            let at = header["out.y"]["data_offsets"][0].as_u64().expect("an offset") as usize;
            let value = f32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes"));
            data[at..at + 4].copy_from_slice(&(value + 1e-4).to_le_bytes());
        }),
    ] {
        let (_, worst) = changed(name, change).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(worst.error > worst.allowed, "{name}: {worst:?}");
    }
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}

fn norm(v: &Vectors) -> Result<(), String> {
    let o = &v.options;
    let (eps, groups, before) = (o.number("eps")? as f32, o.count("groups")?, o.flag("norm_before_gate")?);
    o.note(&["shape", "loss_f64"]);
    let (x, weight) = (v.leaf("x")?, v.leaf("weight")?);
    let z = if o.flag("gated")? { Some(v.leaf("z")?) } else { None };
    let normed = |x: &Tensor| {
        let columns = weight.len();
        let slices = x.reshape([x.len() / columns * groups, columns / groups]);
        let ones = Tensor::full(v.gpu(), [columns / groups], x.dtype(), 1.0);
        match groups {
            1 => ops::rms_norm(x, &weight, eps),
            _ => ops::mul(&ops::rms_norm(&slices, &ones, eps).reshape(x.shape()), &weight),
        }
    };
    let y = match &z {
        None => normed(&x),
        Some(z) if before => ops::swiglu(z, &normed(&x)),
        Some(z) => ops::gated_rms_norm(&x, z, &weight, groups, eps),
    };
    v.outputs(&[("y", &y)])?;
    v.gradients(&[("x", Some(&x)), ("weight", Some(&weight)), ("z", z.as_ref())])
}

fn causal_conv1d(v: &Vectors) -> Result<(), String> {
    let o = &v.options;
    o.only("activation", &[json!("silu")])?;
    o.note(&["B", "C", "L", "width", "loss_f64"]);
    let (x, weight, bias) = (v.leaf("x")?, v.leaf("weight")?, v.find_leaf("bias")?);
    let initial = if o.flag("has_initial_state")? { Some(v.leaf("initial_state")?) } else { None };
    let [.., channels] = x.axes::<3>();
    let taps = weight.reshape([channels, weight.len() / channels]);
    let (y, state) = ops::causal_conv1d(&x, &taps, bias.as_ref(), initial.as_ref(), None);
    v.outputs(&[("y", &y), ("final_state", &state)])?;
    let gradients = [
        ("x", Some(&x)),
        ("weight", Some(&weight)),
        ("bias", bias.as_ref()),
        ("initial_state", initial.as_ref()),
    ];
    v.gradients(&gradients)
}

fn ssd_scan(v: &Vectors) -> Result<(), String> {
    let o = &v.options;
    o.only("dt_softplus", &[json!(true)])?;
    o.note(&["B", "G", "H", "L", "N", "P", "reference_chunk", "loss_f64"]);
    let (x, dt, dt_bias, a_log) = (v.leaf("x")?, v.leaf("dt")?, v.leaf("dt_bias")?, v.leaf("A_log")?);
    let (b, c, d) = (v.leaf("B")?, v.leaf("C")?, v.find_leaf("D")?);
    let initial = if o.flag("has_initial_state")? { Some(v.leaf("initial_state")?) } else { None };
    let (y, last) = ops::ssd_scan(SsdInputs {
        x: &x,
        dt: &(&dt).into(),
        dt_bias: &dt_bias,
        a_log: &a_log,
        b: &b,
        c: &c,
        d: d.as_ref(),
        initial_state: initial.as_ref(),
        segment: None,
        dt_limit: o.limits("dt_limit")?,
    });
    v.outputs(&[("y", &y), ("final_state", &last)])?;
    let leaves = [("x", &x), ("dt", &dt), ("dt_bias", &dt_bias), ("A_log", &a_log), ("B", &b), ("C", &c)];
    v.gradients(&leaves.map(|(name, leaf)| (name, Some(leaf))))?;
    v.gradients(&[("D", d.as_ref()), ("initial_state", initial.as_ref())])
}

fn ssd_step(v: &Vectors) -> Result<(), String> {
    let o = &v.options;
    o.only("dt_softplus", &[json!(true)])?;
    o.note(&["B", "G", "H", "N", "P", "steps", "has_initial_state"]);
    let [batch, steps, heads, p] = v.axes("in.x")?;
    let [.., groups, n] = v.axes::<4>("in.B")?;
    let (dt_bias, a_log) = (v.tensor("in.dt_bias")?, v.tensor("in.A_log")?);
    let d = if v.has("in.D") { Some(v.tensor("in.D")?) } else { None };
    // Step by step, each token's values of a batch beside one another.
    let columns = |name: &str, width: usize| -> Result<Vec<Tensor>, String> {
        Ok(ops::split_columns(&v.tensor(name)?.reshape([batch, steps * width]), &vec![width; steps]))
    };
    let (x, dt) = (columns("in.x", heads * p)?, columns("in.dt", heads)?);
    let (b, c) = (columns("in.B", groups * n)?, columns("in.C", groups * n)?);
    let mut state = match v.has("in.initial_state") {
        true => v.tensor("in.initial_state")?,
        false => Tensor::zeros(v.gpu(), [batch, heads, p, n], DType::F32),
    };
    let (mut ys, mut states) = (Vec::new(), Vec::new());
    for t in 0..steps {
        let xbc = ops::concat_columns(&[&x[t], &b[t], &c[t]]);
        let limits = o.limits("dt_limit")?;
        let (y, next) = ops::ssd_step(&xbc, &dt[t], &dt_bias, &a_log, d.as_ref(), &state, limits);
        ys.push(y.reshape([batch, heads * p]));
        states.push(next.reshape([batch, heads * p * n]));
        state = next;
    }
    v.compare("out.y", &ops::concat_columns(&ys.iter().collect::<Vec<_>>()))?;
    v.compare("out.states", &ops::concat_columns(&states.iter().collect::<Vec<_>>()))
}

fn selective_scan(v: &Vectors) -> Result<(), String> {
    let o = &v.options;
    o.only("delta_softplus", &[json!(true)])?;
    o.note(&["D", "L", "N", "batch", "groups", "note", "loss_f64"]);
    let (u, delta, a) = (v.leaf("u")?, v.leaf("delta")?, v.leaf("A")?);
    let (b, c) = (v.leaf("B")?, v.leaf("C")?);
    let (d, bias) = (v.find_leaf("D")?, v.find_leaf("delta_bias")?);
    let z = if o.flag("has_z")? { Some(v.leaf("z")?) } else { None };
    // Without groups B and C have no axis for them.
    let grouped = |x: &Tensor| match *x.shape() {
        [batch, n, tokens] => x.reshape([batch, 1, n, tokens]),
        _ => x.clone(),
    };
    let (y, last) = ops::selective_scan(
        &u,
        &delta,
        &a,
        &grouped(&b),
        &grouped(&c),
        d.as_ref(),
        z.as_ref(),
        bias.as_ref(),
    );
    v.outputs(&[("y", &y), ("last_state", &last)])?;
    let leaves = [("u", &u), ("delta", &delta), ("A", &a), ("B", &b), ("C", &c)];
    v.gradients(&leaves.map(|(name, leaf)| (name, Some(leaf))))?;
    v.gradients(&[("D", d.as_ref()), ("delta_bias", bias.as_ref()), ("z", z.as_ref())])
}

fn hsa(v: &Vectors) -> Result<(), String> {
    let o = &v.options;
    o.only("sm_n", &[json!(0.0), json!(1.0)])?;
    o.only("sm_scale", &[json!("1/sqrt(head_dim)")])?;
    o.only("weights_rule", &[json!("softmax"), json!("stick_breaking")])?;
    // Whoever chose the indices saw to their being in the past: HSA itself has no positions.
    o.note(&["B", "H", "HQ", "K", "L", "L_kv", "first_position", "group", "head_dim", "loss_f64"]);
    let (q, k, values, weights) = (v.leaf("q")?, v.leaf("k")?, v.leaf("v")?, v.leaf("weights")?);
    let off_by_one = o.number("sm_n")? != 0.0;
    let out = ops::hsa(&q, &k, &values, &weights, &v.ids("indices")?, o.count("S")?, off_by_one);
    v.outputs(&[("o", &out)])?;
    v.gradients(&[("q", Some(&q)), ("k", Some(&k)), ("v", Some(&values)), ("weights", Some(&weights))])
}

/// A configuration of which one layer counts: keys of its own, and the least of all others.
fn layer_config(keys: Value) -> Result<Config, String> {
    let mut all = json!({
        "vocab_size": 2, "head_dim": 1, "num_lower_layers": 1, "num_upper_layers": 1, "num_attention_heads": 1,
        "num_kv_heads": 1, "chunk_topk": 1,
    });
    let map = all.as_object_mut().expect("an object");
    map.extend(keys.as_object().expect("an object").clone());
    map.retain(|_, value| !value.is_null());
    Config::from_json(&all.to_string()).map_err(|e| e.to_string())
}

fn chunking(v: &Vectors) -> Result<(), String> {
    let o = &v.options;
    o.only("eps", &[json!(ATTENTION_NORM_EPSILON)])?;
    o.note(&["B", "L", "loss_f64"]);
    let option = |key| o.find(key).cloned();
    let (retrieval_heads, kv_heads) = (o.count("retrieval_heads")?, o.count("num_kv_heads")?);
    let config = layer_config(json!({
        "hidden_size": o.count("hidden")?, "chunk_size": o.count("chunk_size")?,
        "num_attention_heads": o.count("num_attention_heads")?, "num_kv_heads": kv_heads,
        "attention_head_dim": option("head_dim"), "encoder_layers": o.count("encoder_layers")?,
        "encoder_num_key_value_heads": option("encoder_num_key_value_heads"),
        "encoder_intermediate_size": option("encoder_intermediate"), "enable_qk_norm": option("enable_qk_norm"),
        "enc_prenorm": option("enc_prenorm"), "has_cls": option("has_cls"), "rope_theta": option("rope_theta"),
        "retrieval_dim": o.count("retrieval_dim")?, "singlehead_retrieval": retrieval_heads != kv_heads,
    }))?;
    if config.retrieval_heads() != retrieval_heads {
        return Err(format!("retrieval_heads = {retrieval_heads}; known: 1, num_kv_heads = {kv_heads}"));
    }
    let parameters = v.parameters(config.layer_parameters(LayerKind::Chunking))?;
    let hidden = v.leaf("hidden")?;
    let layer = Chunking::new(&config, &Scope::new(&parameters, ""));
    let memory = layer.forward(&hidden).ok_or("the hidden states fill no chunk")?;
    v.outputs(&[("mem_k", &memory.k), ("mem_v", &memory.v), ("landmarks", &memory.landmarks)])?;
    v.gradient("hidden", &hidden)?;
    v.parameter_gradients(&parameters)
}

/// Our selection as the files have it: a head each of `heads`, `slots` slots.
fn canonical(selection: &Selection, heads: usize, slots: usize) -> Result<[Vec<f64>; 2], String> {
    let [.., own, k]: [usize; 4] = selection.weights.axes();
    if k > slots || !(own == heads || own == 1) {
        return Err(format!("{own} heads of {k} slots are ours, {heads} of {slots} the file's"));
    }
    let widen = |x: &Tensor| -> Result<Vec<f64>, String> {
        let mut out = Vec::new();
        for token in read(x)?.chunks(own * k) {
            for head in 0..heads {
                out.extend_from_slice(&token[head.min(own - 1) * k..][..k]);
                out.resize(out.len() + slots - k, 0.0);
            }
        }
        Ok(out)
    };
    Ok([widen(&selection.weights)?, widen(&selection.indices)?])
}

fn retrieval(v: &Vectors) -> Result<(), String> {
    let o = &v.options;
    o.only("eps", &[json!(ATTENTION_NORM_EPSILON)])?;
    o.note(&["B", "D", "K", "L", "loss_f64", "effective_seed", "max_abs_score", "min_any_gap"]);
    o.note(&["min_topk_boundary_gap"]);
    let option = |key| o.find(key).cloned();
    let (heads, retrieval_heads) = (o.count("kv_heads")?, o.count("retrieval_heads")?);
    let with_top_k = |k: usize| {
        layer_config(json!({
            "hidden_size": o.count("hidden")?, "chunk_size": o.count("chunk_size")?, "num_attention_heads": heads,
            "num_kv_heads": heads, "attention_head_dim": 1, "retrieval_dim": o.count("retrieval_dim")?,
            "singlehead_retrieval": option("singlehead_retrieval"), "chunk_topk": k,
            "enable_softmax": option("enable_softmax"), "enable_lmk_norm": option("enable_lmk_norm"),
            "enable_pos_decay": option("enable_pos_decay"),
        }))
    };
    let config = with_top_k(o.count("topk_config")?)?;
    if config.retrieval_heads() != retrieval_heads {
        return Err(format!(
            "retrieval_heads = {retrieval_heads}, the other options say {}",
            config.retrieval_heads()
        ));
    }
    let kind = LayerKind::Retrieval { group: 0 };
    let parameters = v.parameters(config.layer_parameters(kind))?;
    let scope = Scope::new(&parameters, "");
    let (hidden, landmarks) = (v.leaf("hidden")?, v.leaf("landmarks")?);
    let window = o.count("slide_window")?;
    let window = o.flag("mask_slide_window")?.then_some(window);
    let visibility = Visibility { chunk: config.chunk_size, first_position: 0, window, group: None };
    let selection = Retrieval::new(&config, &scope).forward(&hidden, &landmarks, &visibility);

    let [batch, tokens, file_heads, slots] = v.axes("out.canon_weights")?;
    let [weights, indices] = canonical(&selection, file_heads, slots)?;
    v.compare_exactly("out.canon_indices", &indices)?;
    v.compare_values("out.canon_weights", &weights)?;

    // Which chunks are visible, and the scores of those: all of them, where that many can be selected at once.
    let [.., chunks] = v.axes::<4>("out.visible")?;
    let visible =
        |t: usize, c: usize| window.map_or((c + 1) * config.chunk_size, |w| c * config.chunk_size + w) <= t;
    let all = Array::from_fn(&[batch, tokens, retrieval_heads, chunks], |i| {
        f64::from(u8::from(visible(i[1], i[3])))
    });
    v.compare_exactly("out.visible", &all.data)?;
    let wide = Retrieval::new(&with_top_k(chunks.min(64))?, &scope);
    let (scores, at) = no_grad(|| wide.scores(&hidden, &landmarks, &visibility));
    let most = *scores.shape().last().expect("four axes");
    let mut masked = vec![f64::NEG_INFINITY; batch * tokens * retrieval_heads * chunks];
    for (slot, (score, c)) in read(&scores)?.into_iter().zip(read(&at)?).enumerate() {
        if score > -1e38 {
            masked[slot / most * chunks + c as usize] = score;
        }
    }
    let recorded = v.values("out.masked_scores")?;
    if most < chunks {
        // More chunks than one selection holds: what it left out is not compared.
        masked.iter_mut().zip(recorded).filter(|(m, _)| m.is_infinite()).for_each(|(m, r)| *m = *r);
    }
    v.compare_values("out.masked_scores", &masked)?;

    // The published layer's own slots: the same chunks, with invisible ones of weight 0 among them.
    let (valid, theirs) = (v.values("out.valid")?, v.values("out.indices")?);
    let (mut raw_indices, mut raw_weights) = (theirs.to_vec(), vec![0.0; theirs.len()]);
    for start in (0..theirs.len()).step_by(slots.max(1)) {
        let t = start / slots / file_heads % tokens;
        let seen = (0..chunks).filter(|c| visible(t, *c)).count().min(slots);
        let places: Vec<usize> = (start..start + slots).filter(|i| valid[*i] != 0.0).collect();
        if places.len() != seen {
            return Err(format!("out.valid: {} slots of token {t} hold chunks, ours {seen}", places.len()));
        }
        for (slot, place) in places.into_iter().enumerate() {
            raw_indices[place] = indices[start + slot];
            raw_weights[place] = weights[start + slot];
        }
    }
    v.compare_exactly("out.indices", &raw_indices)?;
    v.compare_values("out.weights", &raw_weights)?;

    // Heads that share a selection share its gradient.
    let projection = v.values("proj.canon_weights")?;
    let [.., own, k]: [usize; 4] = selection.weights.axes();
    let mut seed = vec![0.0f32; selection.weights.len()];
    for (i, p) in projection.iter().enumerate() {
        let (slot, head, token) = (i % slots, i / slots % file_heads, i / slots / file_heads);
        if slot < k {
            seed[(token * own + head.min(own - 1)) * k + slot] += *p as f32;
        }
    }
    let seed = Tensor::from_slice(v.gpu(), &seed, selection.weights.shape()).map_err(|e| e.to_string())?;
    selection.weights.backward_from(&seed);
    v.gradients(&[("hidden", Some(&hidden)), ("landmarks", Some(&landmarks))])?;
    v.parameter_gradients(&parameters)
}

/// Segment numbers (batch, tokens) that change every `size` tokens.
fn segments(v: &Vectors, batch: usize, tokens: usize, size: usize) -> Result<Tensor, String> {
    let ids: Vec<u32> = (0..batch * tokens).map(|i| (i % tokens / size) as u32).collect();
    Tensor::from_slice(v.gpu(), &ids, [batch, tokens]).map_err(|e| e.to_string())
}

fn mamba2_block(v: &Vectors) -> Result<(), String> {
    let o = &v.options;
    o.only("mode", &[json!("train"), json!("eval")])?;
    o.only("in_proj_split", &[json!("z | x B C | dt")])?;
    o.note(&["B", "L", "reference_chunk", "loss_f64"]);
    let option = |key| o.find(key).cloned();
    let (hidden, heads, head_dim) = (o.count("hidden")?, o.count("num_heads")?, o.count("head_dim")?);
    let config = layer_config(json!({
        "hidden_size": hidden, "expand": heads * head_dim / hidden.max(1), "num_heads": heads, "head_dim": head_dim,
        "n_groups": o.count("n_groups")?, "state_size": o.count("state")?, "conv_kernel": option("conv_width"),
        "layer_norm_epsilon": o.number("eps")?, "gated_norm_groups": option("gated_norm_groups"),
        "segment_size": option("segment_size"), "time_step_limit": option("dt_limit"),
    }))?;
    let parameters = v.parameters(config.layer_parameters(LayerKind::Mamba))?;
    let x = v.leaf("hidden")?;
    let [batch, tokens, _] = x.axes();
    let segment = match config.segment_size {
        Some(size) if o.find("mode") == Some(&json!("train")) => Some(segments(v, batch, tokens, size)?),
        _ => None,
    };
    let block = Mamba2::new(&config, &Scope::new(&parameters, ""));
    let mut y = block.forward(Stream::from(x.clone()), segment.as_ref(), None).0;
    v.outputs(&[("y", y.settled())])?;
    v.gradient("hidden", &x)?;
    v.parameter_gradients(&parameters)
}

/// The model that a file's `config` and `param.*` describe.
fn model(v: &Vectors, trained: bool) -> Result<Ramba, String> {
    let o = &v.options;
    let text = o.find("config").ok_or("meta has no `config`")?.to_string();
    let config = Config::from_json(&text).map_err(|e| e.to_string())?;
    // The epsilons in words: ours are constants and `layer_norm_epsilon`.
    if let Some(key) = config.extra.keys().find(|key| *key != "rms_eps") {
        return Err(format!("config: unknown key `{key}`"));
    }
    if let Some(Value::Object(eps)) = config.extra.get("rms_eps") {
        for (what, value) in eps {
            let ours =
                if what.contains("mamba") { config.layer_norm_epsilon } else { ATTENTION_NORM_EPSILON };
            if value.as_f64() != Some(ours) {
                return Err(format!("config: rms_eps of {what} is {value}, ours {ours}"));
            }
        }
    }
    let layers: Vec<_> = config.layers().into_iter().map(LayerKind::name).collect();
    o.only("layer_types", &[json!(layers)])?;
    o.note(&["effective_seed", "max_abs_score", "min_any_gap", "min_topk_boundary_gap"]);
    let specs = v.parameters(config.parameters())?;
    let host = |(name, tensor): (&str, &Tensor)| {
        let data = tensor.to_vec::<f32>().map_err(|e| e.to_string())?;
        Ok((name.to_string(), HostTensor::new(tensor.shape(), data)))
    };
    let tensors = specs.iter().map(host).collect::<Result<_, String>>()?;
    let checkpoint = Checkpoint {
        config,
        tensors,
        extras: std::collections::BTreeMap::new(),
        metadata: Metadata::default(),
    };
    Ramba::new(v.gpu(), &checkpoint, trained).map_err(|e| e.to_string())
}

/// Mean cross entropy of all tokens but the first of each sequence, ids (batch, tokens).
fn loss(model: &Ramba, ids: &Tensor, segment: Option<&Tensor>) -> Result<Tensor, String> {
    let [batch, tokens] = ids.axes();
    let host = ids.to_vec::<u32>().map_err(|e| e.to_string())?;
    let next = |i: usize| if (i + 1).is_multiple_of(tokens) { 0 } else { host[i + 1] };
    let weight = 1.0 / (batch * (tokens - 1)) as f32;
    let targets: Vec<u32> = (0..host.len()).map(next).collect();
    let weights: Vec<f32> =
        (0..host.len()).map(|i| if (i + 1).is_multiple_of(tokens) { 0.0 } else { weight }).collect();
    let targets = Tensor::from_slice(ids.gpu(), &targets, [batch, tokens]).map_err(|e| e.to_string())?;
    let weights = Tensor::from_slice(ids.gpu(), &weights, [batch, tokens]).map_err(|e| e.to_string())?;
    Ok(model.loss(ids, segment, &Sharing::default(), &targets, &weights, None).total)
}

fn ramba_model(v: &Vectors) -> Result<(), String> {
    v.options.only("loss_def", &[json!("mean CE of logits[:, :-1] vs input_ids[:, 1:]")])?;
    v.options.only("mode", &[json!("train")])?;
    v.options.note(&["B", "L", "loss_f64"]);
    let (model, ids) = (model(v, true)?, v.ids("input_ids")?);
    let [batch, tokens] = ids.axes();
    let mut trace = Trace::default();
    let segment = model.regular_segments(batch, tokens, 0).map_err(|e| e.to_string())?;
    let logits = no_grad(|| model.traced(&ids, segment.as_ref(), &Sharing::default(), Some(&mut trace)));
    v.compare("out.logits", &logits)?;
    if v.has("out.logits_eval") {
        v.compare("out.logits_eval", &no_grad(|| model.forward(&ids, None, &Sharing::default())))?;
    }
    // Of the stream the files hold the first sequence.
    for (i, x) in trace.hidden.iter().enumerate() {
        let name = format!("out.hidden.{i:02}");
        if v.has(&name) {
            v.compare_values(&name, &read(x)?[..x.len() / batch])?;
        }
    }
    for (i, selection) in trace.selections.iter().enumerate() {
        let name = |what: &str| format!("out.retrieval{i}.canon_{what}");
        if v.has(&name("weights")) {
            let [_, _, heads, slots] = v.axes(&name("weights"))?;
            let [weights, indices] = canonical(selection, heads, slots)?;
            v.compare_exactly(&name("indices"), &indices)?;
            v.compare_values(&name("weights"), &weights)?;
        }
    }
    let loss = loss(&model, &ids, segment.as_ref())?;
    v.compare("out.loss", &loss)?;
    loss.backward();
    v.parameter_gradients(model.parameters())
}

fn ramba_decode(v: &Vectors) -> Result<(), String> {
    let o = &v.options;
    o.only("mode", &[json!("eval")])?;
    o.note(&["B", "decode_vs_full_forward_max_abs_diff"]);
    let (model, ids) = (model(v, false)?, v.ids("input_ids")?);
    let (prefill, total) = (o.count("prefill_len")?, o.count("total_len")?);
    let [batch, tokens] = ids.axes();
    if prefill > total || total != tokens {
        return Err(format!("prefill_len {prefill}, total_len {total} of {tokens} ids"));
    }
    let mut widths = vec![prefill];
    widths.resize(1 + total - prefill, 1);
    widths.retain(|w| *w > 0);
    let mut cache = model.cache();
    let parts: Vec<Tensor> = no_grad(|| {
        let parts = ops::split_columns(&ids, &widths);
        parts.iter().map(|ids| model.extend(&mut cache, ids, None)).collect()
    });
    let flat: Vec<Tensor> = parts.iter().map(|p| p.reshape([batch, p.len() / batch])).collect();
    v.compare("out.logits", &ops::concat_columns(&flat.iter().collect::<Vec<_>>()))?;
    let states: Vec<_> = cache
        .states
        .iter()
        .map(|s| s.as_ref().and_then(MixerState::mamba2).expect("each block has read"))
        .collect();
    let mut ssm = Vec::new();
    let mut conv = Vec::new();
    for state in &states {
        ssm.extend(read(&state.ssm)?);
        conv.extend(read(&state.conv)?);
    }
    v.compare_values("out.final_ssm_states", &ssm)?;
    // The files keep an input more, which nothing reads again.
    let [.., width] = v.axes::<4>("out.final_conv_states")?;
    let kept = *states[0].conv.shape().last().expect("three axes");
    let theirs = v.values("out.final_conv_states")?;
    let ours: Vec<f64> = theirs
        .chunks(width)
        .zip(conv.chunks(kept))
        .flat_map(|(theirs, ours)| theirs[..width - kept].iter().chain(ours))
        .copied()
        .collect();
    v.compare_values("out.final_conv_states", &ours)
}

fn ramba_adamw(v: &Vectors) -> Result<(), String> {
    let o = &v.options;
    o.only("mode", &[json!("train")])?;
    o.note(&["B", "L", "losses_f64"]);
    let model = model(v, true)?;
    let decays = model.config.parameters().into_iter().filter(|p| p.decay).map(|p| json!(p.name));
    let decays: Vec<_> = decays.collect();
    let listed = o.find("decayed_parameters").and_then(Value::as_array).cloned().unwrap_or_default();
    if listed.len() != decays.len() || !decays.iter().all(|name| listed.contains(name)) {
        return Err(format!("decayed_parameters are {listed:?}, ours {decays:?}"));
    }
    let beta = |i: usize| {
        let value = o.find("betas").and_then(|b| b[i].as_f64()).ok_or("betas: expected two numbers")?;
        Ok::<_, String>(value as f32)
    };
    let max_norm = if o.find("grad_clip").is_some() { Some(o.number("grad_clip")? as f32) } else { None };
    let options = AdamWOptions {
        beta1: beta(0)?,
        beta2: beta(1)?,
        eps: o.number("eps")? as f32,
        weight_decay: o.number("weight_decay")? as f32,
        max_norm,
        loss_scale: LossScale::None,
    };
    let mut optimizer = AdamW::new(model.parameters(), options);
    let ids = v.ids("input_ids")?;
    let [steps, batch, tokens] = ids.axes();
    if o.count("steps")? != steps {
        return Err(format!("steps = {}, input_ids has {steps}", o.count("steps")?));
    }
    let segment = model.regular_segments(batch, tokens, 0).map_err(|e| e.to_string())?;
    let each = ops::split_columns(&ids.reshape([1, ids.len()]), &vec![batch * tokens; steps]);
    let mut losses = Vec::new();
    for ids in each {
        let ids = ids.reshape([batch, tokens]);
        let loss = loss(&model, &ids, segment.as_ref())?;
        loss.backward();
        optimizer.step(model.parameters(), o.number("lr")? as f32);
        losses.extend(read(&loss)?);
    }
    v.compare_values("out.losses", &losses)?;
    for (name, values) in model.parameters().iter() {
        v.compare_update(name, values)?;
    }
    Ok(())
}
