//! Training: steps that read nothing back, memory that stays flat, runs that resume and repeat bit for bit.

use pollster::block_on;
use rambutan_engine::{
    DType, Gpu, Tensor, no_grad,
    optim::{AdamW, AdamWOptions, LossScale},
    tensor::{ParameterSpec, Parameters},
    testing,
};
use rambutan_model::{
    Checkpoint, Config,
    checkpoint::Precision,
    ramba::{Sharing, Trace},
    tasks::{Batch, Sampler, TaskMix},
    train::{OptimizerPlan, Phase, Plan, StepLosses, Trainer},
};

/// One step, of which nothing is asked but to train.
const PHASE: Phase = Phase {
    steps: 1,
    length: 256,
    sequences: 2,
    group: 1,
    margin: 0.0,
    evidence: 0.0,
    evidence_margin: 0.0,
    at_once: 0,
};

/// A model small enough for software Vulkan, with every kind of layer.
fn config() -> Config {
    Config {
        hidden_size: 32,
        head_dim: 16,
        num_heads: 4,
        state_size: 8,
        num_lower_layers: 1,
        num_upper_layers: 1,
        encoder_num_attention_heads: 2,
        encoder_num_key_value_heads: 2,
        encoder_intermediate_size: 32,
        num_attention_heads: 4,
        attention_head_dim: 8,
        retrieval_dim: 16,
        chunk_topk: 2,
        ..Config::small()
    }
}

fn plan(steps: [u64; 2]) -> Plan {
    Plan {
        seed: 5,
        half: false,
        phases: vec![
            Phase { steps: steps[0], length: 256, sequences: 2, ..PHASE },
            Phase {
                steps: steps[1],
                length: 256,
                sequences: 4,
                group: 2,
                margin: 1.5,
                evidence: 0.5,
                evidence_margin: 2.0,
                at_once: 2,
            },
        ],
        optimizer: OptimizerPlan { warmup: 2, ..OptimizerPlan::default() },
    }
}

fn sampler() -> Sampler {
    Sampler::new(TaskMix { tail: 100, ..TaskMix::default() }, None, 5).expect("the mixture makes sense")
}

/// Trains up to step `until` → the losses of each step, as bits.
fn run(trainer: &mut Trainer, until: u64) -> Vec<[u32; 3]> {
    let sampler = sampler();
    let mut losses = Vec::new();
    while trainer.next_step() < until {
        let step = trainer.next_step();
        let phase = *trainer.plan().phase(step).expect("within the plan");
        let batch = sampler.batch(step, phase.sequences, phase.length).expect("a batch");
        let StepLosses { loss, answers, evidence } =
            block_on(trainer.step(&batch).expect("a step").read()).expect("losses");
        losses.push([loss, answers, evidence].map(f32::to_bits));
    }
    losses
}

fn initial() -> Checkpoint {
    Checkpoint::initial(config(), 5).expect("the configuration is valid")
}

fn trainer(gpu: &Gpu, checkpoint: &Checkpoint, plan: Plan) -> Trainer {
    Trainer::new(gpu, checkpoint, plan).expect("a trainer")
}

#[test]
fn resume_is_bit_identical() {
    let gpu = testing::gpu();
    let mut whole = trainer(&gpu, &initial(), plan([3, 3]));
    let expected = run(&mut whole, 6);
    // Interrupted within a phase and at a border, each time through a file.
    let mut part = trainer(&gpu, &initial(), plan([3, 3]));
    let mut losses = run(&mut part, 2);
    for until in [3, 6] {
        let checkpoint = block_on(part.checkpoint()).expect("a checkpoint");
        let bytes = checkpoint.to_bytes(Precision::F32).expect("its bytes");
        let read = Checkpoint::from_bytes(&bytes).expect("it reads");
        part = trainer(&gpu, &read, plan([3, 3]));
        losses.extend(run(&mut part, until));
    }
    assert_eq!(losses, expected);
    let [a, b] = [&whole, &part].map(|t| block_on(t.checkpoint()).expect("a checkpoint"));
    assert_eq!(a.to_bytes(Precision::F32).expect("bytes"), b.to_bytes(Precision::F32).expect("bytes"));
}

#[test]
fn steps_repeat_bit_for_bit_and_learn() {
    let gpu = testing::gpu();
    let once = || run(&mut trainer(&gpu, &initial(), plan([12, 1])), 12);
    let first = once();
    assert_eq!(first, once());
    let [begin, end] = [first[0], first[11]].map(|l| f32::from_bits(l[0]));
    assert!(end < begin - 0.3, "12 steps took the loss from {begin} to {end}");
}

/// Sequences in parts sum the same gradients in another order.
#[test]
fn parts_of_a_batch_train_alike() {
    let gpu = testing::gpu();
    let with = |at_once| {
        let phases = vec![Phase { at_once, ..plan([1, 3]).phases[1] }];
        run(&mut trainer(&gpu, &initial(), Plan { phases, ..plan([1, 1]) }), 3)
    };
    for (whole, parts) in with(0).into_iter().flatten().zip(with(2).into_iter().flatten()) {
        let (whole, parts) = (f32::from_bits(whole), f32::from_bits(parts));
        assert!((whole - parts).abs() < 1e-4 * whole, "{whole} and {parts}");
    }
}

/// A step trains with its phase's margin: its loss is that of a forward pass with it, in which all tokens choose other
/// sequences' chunks where it is large. A phase without the key has none.
#[test]
fn a_margin_stands_for_more_distractors() {
    let gpu = testing::gpu();
    let (sequences, length) = (4, 256);
    let mut batch = sampler().batch(0, sequences, length).expect("a batch");
    // The others' chunks are enough for all slots.
    batch.clean.fill(1);
    let chunks = batch.clean.len() / sequences;
    let words = |x: &[u32], columns| Tensor::from_slice(&gpu, x, [sequences, columns]).expect("a tensor");
    let weights = Tensor::from_slice(&gpu, &batch.weights, [sequences, length]).expect("a tensor");
    let (ids, targets, segment) =
        (words(&batch.ids, length), words(&batch.targets, length), words(&batch.segment, length));
    let losses = [0.0, 50.0].map(|margin| {
        let phases = vec![Phase { steps: 1, length, sequences, group: sequences, margin, ..PHASE }];
        let mut trainer = trainer(&gpu, &initial(), Plan { phases, ..plan([1, 1]) });
        let clean = words(&batch.clean, chunks);
        let sharing = Sharing { group: sequences, clean: Some(clean), margin };
        let mut trace = Trace::default();
        let model = trainer.model();
        no_grad(|| model.traced(&ids, Some(&segment), &sharing, Some(&mut trace)));
        let expected = no_grad(|| model.loss(&ids, Some(&segment), &sharing, &targets, &weights, None)).total;
        let expected = expected.to_vec::<f32>().expect("a loss")[0];
        let indices = trace.selections[0].indices.to_vec::<u32>().expect("indices");
        let own = |(i, chunk): (usize, &u32)| *chunk as usize / chunks == i / (indices.len() / sequences);
        let own = indices.iter().enumerate().filter(|i| own(*i)).count();
        assert_eq!(own == 0, margin > 0.0, "{own} of {} chosen chunks are a sequence's own", indices.len());
        let StepLosses { loss, .. } = block_on(trainer.step(&batch).expect("a step").read()).expect("losses");
        assert!((loss - expected).abs() < 1e-5, "margin {margin}: {loss} in training, {expected} without");
        loss
    });
    assert!((losses[0] - losses[1]).abs() > 1e-4, "{losses:?}");
    let phase: Phase =
        serde_json::from_str(r#"{"steps": 1, "length": 64, "sequences": 2, "group": 2}"#).expect("a phase");
    assert_eq!(phase.margin, 0.0);
}

/// The evidence's loss that a step tells is that of its retrieval layer's scores, is no part of the other loss, and falls
/// where a batch is trained on again and again: answers then select the chunks that state them.
#[test]
fn evidence_teaches_what_to_select() {
    let gpu = testing::gpu();
    let (sequences, length, steps) = (4, 256, 40);
    let mix = TaskMix { tail: 100, question_gap: 70, ..TaskMix::default() };
    let batch = Sampler::new(mix, None, 5).and_then(|s| s.batch(0, sequences, length)).expect("a batch");
    let phase = Phase { steps, length, sequences, group: 2, evidence_margin: 5.0, at_once: 2, ..PHASE };
    let initial = initial();
    let mut first = Vec::new();
    for evidence in [0.0, 1.0] {
        let phases = vec![Phase { evidence, ..phase }];
        let mut trainer = trainer(&gpu, &initial, Plan { phases, ..plan([1, 1]) });
        let mut told = Vec::new();
        for step in 0..if evidence > 0.0 { steps } else { 1 } {
            let losses = trainer.step(&Batch { step, ..batch.clone() }).expect("a step");
            told.push(block_on(losses.read()).expect("losses"));
        }
        first.push(told[0]);
        if evidence > 0.0 {
            let (before, after) = (told[0].evidence, told[told.len() - 1].evidence);
            assert!(after < 0.5 * before, "{before} before, {after} after");
        }
    }
    assert_eq!((first[0].loss, first[0].answers), (first[1].loss, first[1].answers));
    assert_eq!(first[0].evidence, 0.0);
    // Of an untrained model all scores are about 0: what counts is how many rivals a row has, and of which kind. Of a margin
    // of 5 such rows are held to 1.
    let chunks = batch.clean.len() / sequences;
    let flag = |flags: &[u32], row: usize, chunk: usize| flags[row * chunks + chunk] as f32;
    let expected: f32 = (batch.evidence_weights.iter().zip(&batch.evidence_chunks))
        .map(|(weight, &[chunk, from, to])| {
            let row = chunk as usize / chunks;
            let own = (0..chunks).filter(|c| !(from..=to).contains(&((row * chunks + c) as u32)));
            let own: f32 = own.map(|c| flag(&batch.unasked, row, c)).sum();
            let others: f32 = (0..chunks).map(|c| flag(&batch.clean, row ^ 1, c)).sum();
            let rho = (1.0 + own + others * 1f32.exp()).ln();
            weight * (rho + (1.0 + (rho + 4.0).exp()).ln())
        })
        .sum();
    assert!((first[1].evidence - expected).abs() < 0.1, "{} for about {expected}", first[1].evidence);
}

/// What tells chunks by their numbers needs those of the model.
#[test]
fn batches_in_other_chunks_are_refused() {
    let gpu = testing::gpu();
    let mix = TaskMix { tail: 100, chunk: 32, ..TaskMix::default() };
    for (group, evidence) in [(2, 0.0), (1, 1.0)] {
        let phases = vec![Phase { group, evidence, ..PHASE }];
        let mut trainer = trainer(&gpu, &initial(), Plan { phases, ..plan([1, 1]) });
        let batch = Sampler::new(mix.clone(), None, 5).and_then(|s| s.batch(0, 2, 256)).expect("a batch");
        let error = trainer.step(&batch).err().expect("chunks of another size").to_string();
        assert!(error.contains("tasks.chunk = 32: expected 64, the model's chunk_size"), "{error}");
    }
    let blind = Checkpoint::initial(Config { enable_hsa: false, ..config() }, 3).expect("a model");
    let phases = vec![Phase { evidence: 1.0, ..PHASE }];
    let error =
        Trainer::new(&gpu, &blind, Plan { phases, ..plan([1, 1]) }).err().expect("no retrieval").to_string();
    assert!(
        error.contains("plan.phases[0].evidence = 1: expected 0: this model selects no chunks"),
        "{error}"
    );
}

#[test]
fn margins_that_make_no_sense_are_refused() {
    for (group, margin, expected) in [
        (2, -0.5, "plan.phases[0].margin = -0.5: expected a finite number, 0 or more"),
        (2, f32::NAN, "plan.phases[0].margin = NaN: expected a finite number, 0 or more"),
        (2, f32::INFINITY, "plan.phases[0].margin = inf: expected a finite number, 0 or more"),
        (1, 3.0, "plan.phases[0].margin = 3: expected 0, or a group of several sequences"),
    ] {
        let phases = vec![Phase { steps: 1, length: 256, sequences: 2, group, margin, ..PHASE }];
        let error = Plan { phases, ..plan([1, 1]) }.check().expect_err("a wrong margin").to_string();
        assert!(error.contains(expected), "{error}");
    }
    for (evidence, evidence_margin, expected) in [
        (-1.0, 0.0, "plan.phases[0].evidence = -1: expected a finite number, 0 or more"),
        (1.0, f32::NAN, "plan.phases[0].evidence_margin = NaN: expected a finite number, 0 or more"),
    ] {
        let phases = vec![Phase { evidence, evidence_margin, ..PHASE }];
        let error = Plan { phases, ..plan([1, 1]) }.check().expect_err("no evidence").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Counters prove it: no read, a fixed number of dispatches and writes a step, nothing created after the first steps.
#[test]
fn steps_read_nothing_and_grow_nothing() {
    let gpu = Gpu::new(rambutan_engine::GpuOptions::from_env()).expect("an adapter");
    let phases = vec![Phase { steps: 240, length: 64, sequences: 1, ..PHASE }];
    let mut trainer = trainer(&gpu, &initial(), Plan { phases, ..plan([1, 1]) });
    let plain = TaskMix { facts_min: 0, facts_max: 0, ..TaskMix::default() };
    let sampler = Sampler::new(plain, None, 5).expect("the mixture makes sense");
    let mut after = Vec::new();
    for step in 0..240 {
        let batch = sampler.batch(step, 1, 64).expect("a batch");
        drop(trainer.step(&batch).expect("a step"));
        // The host must not run ahead for ever: as a run does with its log, wait now and then.
        if step % 20 == 19 {
            gpu.wait().expect("the device works");
            after.push((gpu.counters(), gpu.memory().reserved));
        }
    }
    let (first, last) = (after[1], after[11]);
    assert_eq!(last.0.reads, 0, "steps read back");
    assert_eq!(last.0.pipelines, first.0.pipelines, "pipelines grew");
    assert_eq!(last.0.buffers, first.0.buffers, "buffers were created after step 40");
    assert_eq!(last.1, first.1, "memory grew after step 40");
    let per_20 = |i: usize| {
        let (a, b) = (after[i].0, after[i + 1].0);
        (b.dispatches - a.dispatches, b.writes - a.writes)
    };
    assert!((1..11).all(|i| per_20(i) == per_20(1)), "steps differ in what they record");
}

/// A gradient that is not finite skips the step and halves the scale; good steps double it.
#[test]
fn loss_scale_follows_the_gradients() {
    let gpu = testing::gpu();
    let spec = |name: &str, decay| ParameterSpec {
        name: name.into(),
        shape: vec![3],
        decay,
        values: vec![1.0, -2.0, 3.0],
    };
    let parameters =
        Parameters::new(&gpu, vec![spec("w", true), spec("b", false)], true).expect("parameters");
    let options = AdamWOptions {
        loss_scale: LossScale::Dynamic { first: 1024.0, grow_after: 2 },
        ..AdamWOptions::default()
    };
    let mut optimizer = AdamW::new(&parameters, options);
    let values = || parameters.get("w").expect("w").to_vec::<f32>().expect("values");
    let set = |value: f32| {
        parameters.gradients().expect("gradients").iter().for_each(|g| g.fill(value.into()));
    };
    let before = values();
    for bad in [f32::NAN, f32::INFINITY, 1e30] {
        set(bad);
        optimizer.step(&parameters, 0.1);
    }
    assert_eq!(values(), before, "skipped steps change nothing");
    let report = block_on(optimizer.report()).expect("a report");
    assert_eq!((report.loss_scale, report.steps, report.skipped), (128.0, 0, 3));
    for _ in 0..2 {
        set(128.0);
        optimizer.step(&parameters, 0.1);
    }
    let report = block_on(optimizer.report()).expect("a report");
    assert_eq!((report.loss_scale, report.steps, report.skipped), (256.0, 2, 3));
    let padded = 2.0 * 64.0f32;
    assert!((report.norm - padded.sqrt()).abs() < 1e-3, "{} without the scale", report.norm);
    let gradient = parameters.get("w").and_then(Tensor::grad).expect("a gradient");
    assert_eq!(gradient.to_vec::<f32>().expect("values"), [0.0; 3], "gradients start anew");
    assert_eq!(Tensor::zeros(&gpu, [1], DType::F32).to_vec::<f32>().expect("values"), [0.0]);
}
