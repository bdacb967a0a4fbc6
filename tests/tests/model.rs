//! The model as a whole, against a trained checkpoint and the logits of an f64 forward pass.

use std::path::PathBuf;

use rambutan_engine::{Tensor, no_grad, testing};
use rambutan_model::{Checkpoint, Ramba, ramba::Sharing};

/// A folder beside a developer's checkout; a stranger's clone has none, and then this passes with a note.
fn recipe() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/recipe");
    let found = folder.join("weights.safetensors").exists();
    if !found {
        println!("no recipe folder: nothing to compare with");
    }
    found.then_some(folder)
}

#[test]
fn trained_weights_give_the_recorded_logits() {
    let Some(folder) = recipe() else { return };
    let checkpoint = Checkpoint::open(folder.join("weights.safetensors")).expect("the checkpoint reads");
    let gpu = testing::gpu();
    let model = Ramba::new(&gpu, &checkpoint, false).expect("it uploads");
    let bytes = std::fs::read(folder.join("sample.safetensors")).expect("the sample reads");
    let sample = safetensors::SafeTensors::deserialize(&bytes).expect("it parses");
    let words = |name: &str| -> Option<Vec<[u8; 4]>> {
        let view = sample.tensor(name).ok()?;
        Some(view.data().chunks_exact(4).map(|b| b.try_into().expect("four bytes")).collect())
    };
    for text in 0.. {
        let Some(ids) = words(&format!("{text}.input_ids")) else { break };
        let ids: Vec<u32> = ids.into_iter().map(u32::from_le_bytes).collect();
        let logits: Vec<f64> = words(&format!("{text}.logits_last96"))
            .expect("logits")
            .into_iter()
            .map(|b| f32::from_le_bytes(b).into())
            .collect();
        let tokens = ids.len();
        let ids = Tensor::from_slice(&gpu, &ids, [1, tokens]).expect("ids fill their shape");
        let got = no_grad(|| {
            let segment = model.regular_segments(1, tokens, 0).expect("segments upload");
            model.forward(&ids, segment.as_ref(), &Sharing::default())
        });
        let got: Vec<f64> = got.to_vec::<f32>().expect("logits read").into_iter().map(f64::from).collect();
        let last = &got[got.len() - logits.len()..];
        let largest = logits.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let worst = last.iter().zip(&logits).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / largest;
        println!("text {text}: {tokens} tokens, worst error {worst:.1e} of the largest logit");
        // What f32 leaves of a whole model: elsewhere measured as 2e-6, ten times that is allowed.
        assert!(worst < 2e-5, "text {text}: {worst:.1e}");
    }
}
