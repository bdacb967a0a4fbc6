//! The command line as users meet it: help, JSON, and input that cannot be used. Each such input ends with its exit
//! code, one line that says what is wrong, one with a hint, and nothing half-written.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{LazyLock, OnceLock},
    time::{Duration, Instant},
};

use rambutan_model::{
    Checkpoint, Config,
    checkpoint::{HostTensor, Precision},
    reader::file::MemoryFile,
    rng::Rng,
    train,
};
use rambutan_tests::{Folder, by_itself, small::TINY};
use serde_json::{Value, json};

/// The built program.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| rambutan_tests::program(&[]))
}

fn rambutan(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).current_dir(folder);
    by_itself(&mut command);
    command
}

fn run(arguments: &[&str], folder: &Path) -> Output {
    rambutan(arguments, folder).output().expect("the program starts")
}

/// A model of bytes so small that software Vulkan reads with it at once.
fn small() -> Config {
    let text = r#"{
        "model_type": "mamba2", "vocab_size": 256, "hidden_size": 32, "expand": 2, "head_dim": 16, "num_heads": 4,
        "state_size": 16, "n_groups": 1, "conv_kernel": 4, "layer_norm_epsilon": 1e-05, "tie_word_embeddings": false,
        "num_lower_layers": 1, "num_upper_layers": 1, "num_upper_groups": 1, "num_mamba_per_gca": 1, "chunk_size": 16,
        "encoder_layers": 0, "num_attention_heads": 2, "num_kv_heads": 1, "attention_head_dim": 16,
        "retrieval_dim": 16, "singlehead_retrieval": true, "chunk_topk": 4, "segment_size": 128,
        "segment_at_inference": true
    }"#;
    Config::from_json(text).expect("a valid configuration")
}

fn weights() -> Checkpoint {
    Checkpoint::initial(small(), 1).expect("a valid configuration")
}

/// A safetensors file with this header and so many bytes behind it.
fn raw(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
}

/// What is wrong with an ended program, if anything is.
fn misbehaved(output: &Output, code: i32) -> Option<String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = stderr.lines().collect();
    let starts = |prefix: &str| lines.iter().filter(|l| l.starts_with(prefix)).count();
    if output.status.code() != Some(code) {
        return Some(format!("ended with {:?}, expected {code}", output.status.code()));
    }
    if lines.len() != 2 || starts("error: ") != 1 || starts("hint: ") != 1 {
        return Some("not one error and one hint".into());
    }
    let panicked = ["panicked", "RUST_BACKTRACE", "internal:", "src/"].iter().any(|w| stderr.contains(w));
    let empty = lines.iter().any(|l| l.split_once(": ").is_none_or(|(_, text)| text.trim().len() < 8));
    (panicked || empty).then(|| "a panic, or an empty line".into())
}

#[test]
fn bad_input_ends_with_one_error_and_one_hint() {
    let folder = Folder::new("bad");
    let good = weights();
    let save = |name: &str, checkpoint: &Checkpoint| {
        checkpoint.save(folder.path(name), Precision::F32).expect("it saves");
        folder.path(name)
    };
    let model = save("model.safetensors", &good);
    let bytes = fs::read(&model).expect("it reads");
    let text = folder.write("text.txt", "Nothing in particular was said here. ".repeat(40));
    let short = folder.write("short.txt", "short");
    let empty = folder.write("empty.txt", "");
    let blank = folder.write("blank.txt", " \n\t ");
    let binary = folder.write("binary.bin", [0u8, 159, 146, 150, 255].repeat(100));
    let latin = folder.write("latin.txt", b"caf\xe9 ".repeat(100));
    folder.write("peers.json", PEERS.replace('\n', " "));
    folder.write("ours.jsonl", OURS);
    folder.write("no-results.json", r#"{"device": "an abacus", "results": []}"#);
    folder.write("no-time.json", r#"{"results": [{"name": "add", "shape": "1", "dtype": "f32"}]}"#);
    let stated = folder.write("stated.txt", format!("|The passkey is:12345| {}", "and so on. ".repeat(100)));

    // Checkpoints that are none.
    let cut = folder.write("cut.safetensors", &bytes[..bytes.len() / 2]);
    let head = folder.write("head.safetensors", &bytes[..5]);
    let longer = folder.write("longer.safetensors", [&bytes[..], b"more"].concat());
    let huge = folder.write("huge.safetensors", [&u64::MAX.to_le_bytes()[..], b"{}"].concat());
    let beyond = folder.write("beyond.safetensors", [&1000u64.to_le_bytes()[..], b"{}"].concat());
    let not_json = folder.write("not-json.safetensors", raw("{\"a\": [", 0));
    let overflow = folder.write(
        "overflow.safetensors",
        raw(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,16],"data_offsets":[0,18446744073709551615]}}"#, 8),
    );
    let negative = folder
        .write("negative.safetensors", raw(r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4));
    let no_config = folder
        .write("no-config.safetensors", raw(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4));
    // The same length in other letters, so that offsets stay right.
    let changed = |name: &str, from: &str, to: &str| {
        let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).expect("it is in the header");
        let mut changed = bytes.clone();
        changed[at..at + from.len()].copy_from_slice(to.as_bytes());
        folder.write(name, changed)
    };
    let renamed = changed("renamed.safetensors", "backbone.norm_f.weight", "backbone.norm_g.weight");
    let integers = changed("integers.safetensors", "\"F32\"", "\"I32\"");
    let config_value = changed("config-value.safetensors", r#"num_heads\":4"#, r#"num_heads\":5"#);
    let config_key = changed("config-key.safetensors", "chunk_topk", "chunk_topq");
    let nan = {
        let mut nan = bytes.clone();
        let at = nan.len() - 4;
        nan[at..].copy_from_slice(&f32::NAN.to_le_bytes());
        folder.write("nan.safetensors", nan)
    };
    // Sound models that cannot read texts.
    let with = |name: &str, change: fn(&mut Config)| {
        let mut config = small();
        change(&mut config);
        save(name, &Checkpoint::initial(config, 1).expect("a valid configuration"))
    };
    let unsegmented = with("unsegmented.safetensors", |c| c.segment_at_inference = false);
    let words = with("words.safetensors", |c| c.vocab_size = 300);
    let many = with("many.safetensors", |c| c.chunk_topk = 1000);

    // A memory, and what may have become of it and its text.
    let others = save("others.safetensors", &Checkpoint::initial(small(), 2).expect("a valid configuration"));
    let memory_of = |file: &str, name: &str, keep: &str| {
        let line = ["read", file, "--memory", name, "--checkpoint", &model, "--keep", keep];
        let output = run(&line, &folder.0);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        folder.path(name)
    };
    let [sound, values] = ["text", "values"].map(|keep| memory_of(&text, &format!("{keep}.mem"), keep));
    let grown = folder.write("grown.txt", "Nothing in particular was said here. ".repeat(40));
    let shrunk = memory_of(&grown, "shrunk.mem", "text");
    folder.write("grown.txt", "Nothing in particular");
    let changing = folder.write("changing.txt", "Nothing in particular was said here. ".repeat(40));
    let stale = memory_of(&changing, "stale.mem", "text");
    folder.write("changing.txt", "Something in particular was said now. ".repeat(40));
    let memory = |name: &str, of: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(of).expect("it reads");
        change(&mut bytes);
        folder.write(name, bytes)
    };
    let cut_memory = memory("cut.mem", &sound, &|b| b.truncate(b.len() - 9));
    let begun_memory = memory("begun.mem", &sound, &|b| b.truncate(5000));
    let newer_memory = memory("newer.mem", &sound, &|b| b[8] = 9);
    let damaged_memory = memory("damaged.mem", &sound, &|b| {
        let at = b.len() - 70;
        b[12288..at].iter_mut().for_each(|b| *b ^= 1);
    });
    let damaged_values = memory("damaged-values.mem", &values, &|b| {
        let at = b.windows(4).position(|w| w == b"PAGE").expect("a page") + 64;
        // Behind the head of eleven segments, each of eight landmarks of sixteen channels.
        b[at + 11 * (16 + 8 * 16 * 4)..][..11 * 128 * 32 * 4].fill(3);
    });

    let ask_memory =
        |memory: &str| ["ask", "--checkpoint", &model, "--memory", memory, "What is the passkey?"].join("\0");
    let read =
        |file: &str, memory: &str| ["read", file, "--checkpoint", &model, "--memory", memory].join("\0");
    let ask =
        |m: &str, file: &str| ["ask", "--checkpoint", m, "--file", file, "What is the passkey?"].join("\0");
    let eval = |more: &str| format!("eval\0passkey\0--checkpoint\0{model}\0{more}");
    let demo = |more: &str| format!("demo\0--checkpoint\0{model}\0--out\0{}\0{more}", folder.path("out"));
    let demo_on = |file: &str| demo(&format!("--tokens\x001024\0--text\0{file}"));
    let inspect = |file: &str| format!("inspect\0{file}");
    let toml = |name: &str, from: &str, to: &str| {
        assert!(PLAN.contains(from), "the plan has no `{from}`");
        folder.write(name, PLAN.replace(from, to))
    };
    let plan = folder.write("plan.toml", &*PLAN);
    let ruler = |more: &str| format!("eval\0ruler\0--checkpoint\0{model}\0{more}");
    let perplexity = |more: &str| format!("eval\0perplexity\0--checkpoint\0{model}\0{more}");
    let jobs = |name: &str, jobs: &str| {
        let head = "plan = \"plan.toml\"\n[examine]\nlengths = [1024]\ntrials = 1\ntasks = [\"named\"]\n";
        format!("jobs\0{}\0--out\0{}", folder.write(name, format!("{head}{jobs}")), folder.path("jobs"))
    };
    let train = |plan: &str, more: &str| format!("train\0{plan}\0--out\0{}{more}", folder.path("out"));
    let plain = |text: &str| text.replace(' ', "\0");
    let rows: Vec<(&str, String)> = vec![
        // Words that are no commands, options or numbers.
        ("unknown command", plain("finds")),
        ("unknown option", plain("info --fast")),
        ("no question", format!("ask\0--file\0{text}")),
        ("no file", plain("ask What?")),
        ("empty question", format!("ask\0--checkpoint\0{model}\0--file\0{text}\0 ")),
        ("nothing to go on from", plain("generate")),
        ("an empty prompt", "generate\0".into()),
        ("two prompts", format!("generate\0Once\0--prompt-file\0{text}")),
        ("a missing prompt", format!("generate\0--prompt-file\0{}", folder.path("none.txt"))),
        ("a temperature below 0", plain("generate Once --temperature -1")),
        ("a temperature that is no number", plain("generate Once --temperature NaN")),
        ("no probability", plain("generate Once --top-p 0")),
        ("an empty stop", "generate\0Once\0--stop\0".into()),
        ("no tokens to generate", plain("generate Once --tokens 0")),
        ("a tokenizer that is not there", plain("generate Once --tokenizer nowhere.json")),
        ("a tokenizer that is none", format!("generate\0Once\0--tokenizer\0{text}")),
        ("eval of something else", plain("eval poetry")),
        ("unknown kind", eval("--kind\0poems")),
        ("no trials", eval("--trials\x000")),
        ("negative trials", eval("--trials\0-3")),
        ("trials in words", eval("--trials\0many")),
        ("no length", eval("--lengths\0")),
        ("length 0", eval("--lengths\x000")),
        ("length in words", eval("--lengths\x004096,long")),
        ("length below a chunk", eval("--lengths\x0015")),
        ("length below a fact", eval("--lengths\x0016")),
        ("length beyond all devices", eval("--lengths\x0099999999999999")),
        ("seed below 0", eval("--seed\0-1")),
        ("an unknown task", ruler("--tasks\0poems")),
        ("no task", ruler("--tasks\0")),
        ("a text and generated formats", ruler(&format!("--formats\0--text\0{text}"))),
        ("length below six statements", ruler("--tasks\0variables\0--lengths\x00200")),
        ("nothing before what is foretold", perplexity("--lengths\x00512")),
        ("nothing to foretell", perplexity("--last\x000")),
        ("a text too short to foretell", perplexity(&format!("--text\0{short}"))),
        ("zero tokens", demo("--tokens\x000")),
        ("tokens below a chunk", demo("--tokens\x0010")),
        ("tokens below a fact", demo("--tokens\x0030")),
        ("tokens beyond all numbers", demo("--tokens\x0099999999999999999999999")),
        ("tokens in words", demo("--tokens\0lots")),
        ("no facts", demo("--facts\x000")),
        ("more facts than fit", demo("--tokens\x001024\0--facts\x005000")),
        ("trailing words", demo("now")),
        ("unknown op", plain("selfcheck nothing_of_the_kind")),
        ("a report where none can be", plain("selfcheck rope --quick --report nowhere/report.md")),
        ("a report in place of a folder", plain("selfcheck rope --quick --report .")),
        ("unknown op to time", plain("bench nothing_of_the_kind")),
        ("peers that are not there", plain("bench rope --compare nowhere.json")),
        ("peers that are no JSON", plain("bench rope --compare text.txt")),
        ("peers without results", plain("bench rope --compare no-results.json")),
        ("a peer's result without a time", plain("bench rope --compare no-time.json")),
        ("results without peers", plain("bench --results ours.jsonl")),
        ("results to draw without attention", plain("bench crossover --results ours.jsonl --out pictures")),
        ("results that are not there", plain("bench --results nowhere.jsonl --compare peers.json")),
        ("results that are no JSON", plain("bench --results text.txt --compare peers.json")),
        ("results that are of no row", plain("bench --results peers.json --compare peers.json")),
        (
            "a record where none can be",
            plain("bench --results ours.jsonl --compare peers.json --record text.txt"),
        ),
        ("unknown kernel", plain("shaders nothing_of_the_kind --to wgsl")),
        ("unknown language", plain("shaders rms_norm --to cuda")),
        // Adapters.
        ("unknown adapter", plain("selfcheck --quick --adapter abacus")),
        ("adapter's index", plain("selfcheck --quick --adapter 99")),
        ("unknown backend", plain("info --backend cuda")),
        ("unknown adapter for a demo", demo("--adapter\0abacus")),
        // Texts.
        ("missing text", ask(&model, &folder.path("none.txt"))),
        ("folder as text", ask(&model, &folder.path(""))),
        ("empty text", ask(&model, &empty)),
        ("endless text", ask(&model, "/dev/zero")),
        ("missing text to hide in", demo_on(&folder.path("none.txt"))),
        ("folder to hide in", demo_on(&folder.path(""))),
        ("empty text to hide in", demo_on(&empty)),
        ("blank text to hide in", demo_on(&blank)),
        ("binary text to hide in", demo_on(&binary)),
        ("Latin-1 to hide in", demo_on(&latin)),
        ("endless text to hide in", demo_on("/dev/zero")),
        ("text with the fact's own words", demo_on(&stated)),
        ("text below a fact", demo(&format!("--text\0{short}"))),
        ("binary text to examine on", eval(&format!("--text\0{binary}"))),
        ("empty text to examine on", eval(&format!("--text\0{empty}"))),
        // Memories.
        ("a memory that is not there", ask_memory(&folder.path("none.mem"))),
        ("a folder as memory", ask_memory(&folder.path(""))),
        ("an empty memory", ask_memory(&empty)),
        ("a text as memory", ask_memory(&text)),
        ("weights as memory", ask_memory(&model)),
        ("an endless memory", ask_memory("/dev/zero")),
        ("half a memory", ask_memory(&cut_memory)),
        ("the beginning of a memory", ask_memory(&begun_memory)),
        ("a memory of another version", ask_memory(&newer_memory)),
        ("a damaged memory", ask_memory(&damaged_memory)),
        ("damaged keys and values", ask_memory(&damaged_values)),
        ("a memory whose text was cut", ask_memory(&shrunk)),
        ("a memory whose text is another", ask_memory(&stale)),
        ("a memory by other weights", ask_memory(&sound).replace(&model, &others)),
        ("a memory and a place", format!("{}\0--memory-in\0host", ask_memory(&sound))),
        ("a memory and landmarks", format!("{}\0--landmarks\0int8", ask_memory(&sound))),
        ("landmarks of another kind", format!("{}\0--landmarks\0int8", read(&text, &sound))),
        ("an unknown kind", format!("{}\0--landmarks\0stone", ask(&model, &text))),
        ("a length of nothing", "eval\0memory\0--lengths\0tiny".into()),
        ("an unknown place of memory", "eval\0memory\0--places\0attic".into()),
        ("an empty question to a memory", format!("{}\0 ", ask_memory(&sound))),
        ("a memory and no question", format!("ask\0--memory\0{sound}")),
        ("an unknown place", format!("{}\0--memory-in\0attic", ask(&model, &text))),
        ("a cap in words", format!("{}\0--max-memory\0lots", ask(&model, &text))),
        ("a cap below nothing", format!("{}\0--max-memory=-1", ask(&model, &text))),
        ("nothing to read", plain("read")),
        ("nowhere to read into", format!("read\0{text}")),
        ("a missing text to read", read(&folder.path("none.txt"), &folder.path("new.mem"))),
        ("a folder to read", read(&folder.path(""), &folder.path("new.mem"))),
        ("an empty text to read", read(&empty, &folder.path("new.mem"))),
        ("an endless text to read", read("/dev/zero", &folder.path("new.mem"))),
        ("a text to read into itself", read(&text, &text)),
        ("to read into a folder", read(&text, &folder.path(""))),
        ("to read into another text", read(&text, &short)),
        ("to read into a folder that is not there", read(&text, &folder.path("no/where.mem"))),
        ("to read into a device", read(&text, "/dev/full")),
        ("to go on with other weights", read(&text, &sound).replace(&model, &others)),
        ("to go on with half a memory", read(&text, &cut_memory)),
        ("to keep what a memory does not", format!("{}\0--keep\0values", read(&text, &sound))),
        ("to keep something else", format!("{}\0--keep\0calm", read(&text, &sound))),
        ("pages of nothing", format!("{}\0--page\x000", read(&text, &folder.path("new.mem")))),
        // Folders.
        ("a file as folder", format!("demo\0--checkpoint\0{model}\0--tokens\x001024\0--out\0{text}")),
        (
            "a folder under a file",
            format!("demo\0--checkpoint\0{model}\0--tokens\x001024\0--out\0{text}/deep"),
        ),
        ("a device as folder", format!("demo\0--checkpoint\0{model}\0--tokens\x001024\0--out\0/dev/full")),
        (
            "the kernel's folder",
            format!("demo\0--checkpoint\0{model}\0--tokens\x001024\0--out\0/proc/rambutan"),
        ),
        // Checkpoints.
        (
            "no weights",
            format!("ask\0--checkpoint\0{}\0--file\0{text}\0What?", folder.path("none.safetensors")),
        ),
        ("folder as weights", ask(&folder.path(""), &text)),
        ("empty weights", ask(&empty, &text)),
        ("text as weights", ask(&text, &text)),
        ("endless weights", ask("/dev/zero", &text)),
        ("half a checkpoint", ask(&cut, &text)),
        ("five bytes", ask(&head, &text)),
        ("bytes too many", ask(&longer, &text)),
        ("header of 2^64 bytes", ask(&huge, &text)),
        ("header beyond the file", ask(&beyond, &text)),
        ("header that is no JSON", ask(&not_json, &text)),
        ("sizes that overflow", ask(&overflow, &text)),
        ("a negative size", ask(&negative, &text)),
        ("no configuration", ask(&no_config, &text)),
        ("a wrong name", ask(&renamed, &text)),
        ("a wrong type", ask(&integers, &text)),
        ("a wrong value", ask(&config_value, &text)),
        ("a misspelt key", ask(&config_key, &text)),
        ("not a number", ask(&nan, &text)),
        ("no segments", ask(&unsegmented, &text)),
        ("no segments to examine", format!("eval\0passkey\0--checkpoint\0{unsegmented}")),
        ("no bytes", ask(&words, &text)),
        ("more chunks than kernels keep", ask(&many, &text)),
        // Plans.
        ("no plan", train(&folder.path("none.toml"), "")),
        ("a folder as plan", train(&folder.path(""), "")),
        ("a text as plan", train(&text, "")),
        ("bytes as plan", train(&binary, "")),
        ("an unknown table", train(&toml("t0.toml", "[run]", "[walk]"), "")),
        ("a misspelt setting", train(&toml("t1.toml", "log_steps", "log_step"), "")),
        ("no steps", train(&toml("t2.toml", "steps = 30", "steps = 0"), "")),
        ("steps below 0", train(&toml("t3.toml", "steps = 30", "steps = -1"), "")),
        ("length 0", train(&toml("t4.toml", "length = 64", "length = 0"), "")),
        ("a length in part chunks", train(&toml("t5.toml", "length = 64", "length = 65"), "")),
        ("a group that does not divide", train(&toml("t6.toml", "group = 1", "group = 2"), "")),
        ("a learning rate of 0", train(&toml("t7.toml", "lr = 1e-3", "lr = 0.0"), "")),
        ("a learning rate that is none", train(&toml("t8.toml", "lr = 1e-3", "lr = nan"), "")),
        ("beta of 1", train(&toml("t9.toml", "warmup = 2", "beta1 = 1.0"), "")),
        ("an unknown preset", train(&toml("t10.toml", "\"small\"", "\"gigantic\""), "")),
        ("a misspelt key of the model", train(&toml("t11.toml", "head_dim", "head_dmi"), "")),
        ("heads that do not fit", train(&toml("t12.toml", "num_heads = 4", "num_heads = 3"), "")),
        ("more facts at least than at most", train(&toml("t13.toml", "facts_min = 0", "facts_min = 3"), "")),
        ("a log that is never written", train(&toml("t14.toml", "log_steps = 10", "log_steps = 0"), "")),
        ("no list", format!("jobs\0{}", folder.path("none.toml"))),
        ("a plan as list", format!("jobs\0{plan}")),
        ("jobs of one name", jobs("j0.toml", "[[jobs]]\nname = \"a\"\n[[jobs]]\nname = \"a\"")),
        ("a job that leaves its folder", jobs("j1.toml", "[[jobs]]\nname = \"../a\"")),
        ("a job with a misspelt setting", jobs("j2.toml", "[[jobs]]\nname = \"a\"\nset.plan.sed = 1")),
        ("a job of an impossible model", jobs("j3.toml", "[[jobs]]\nname = \"a\"\nset.model.num_heads = 3")),
        ("only a job that is not there", jobs("j4.toml", "[[jobs]]\nname = \"a\"") + "\0--only\0b"),
        ("nothing to resume", train(&plan, "\0--resume")),
        ("no weights to begin with", train(&plan, &format!("\0--init\0{}", folder.path("none.safetensors")))),
        ("weights of another model", train(&plan, &format!("\0--init\0{model}"))),
        ("a text to train on that is none", train(&plan, &format!("\0--text\0{binary}"))),
        ("a text too short to train on", train(&plan, &format!("\0--text\0{short}"))),
        ("a file as the run's folder", format!("train\0{plan}\0--out\0{text}")),
        ("seconds in words", train(&plan, "\0--seconds\0many")),
        ("nothing to inspect", inspect(&folder.path("none.safetensors"))),
        ("a folder to inspect", inspect(&folder.path(""))),
        ("half a checkpoint to inspect", inspect(&cut)),
        ("numbers that are none to inspect", inspect(&nan)),
        ("overflow to inspect", inspect(&overflow)),
    ];
    assert!(rows.len() >= 40);
    let before = folder.list();
    let mut failures = Vec::new();
    // Programs of their own: as many at a time as there are cores.
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| {
        let rows = &rows;
        let here = &folder.0;
        let workers: Vec<_> = (0..cores)
            .map(|first| {
                scope.spawn(move || {
                    let mut failures = Vec::new();
                    for (name, line) in rows.iter().skip(first).step_by(cores) {
                        let arguments: Vec<&str> = line.split('\0').collect();
                        let output = run(&arguments, here);
                        if let Some(why) = misbehaved(&output, 2) {
                            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                            failures.push(format!("{name}: {why}\n  {}\n  {stderr}", arguments.join(" ")));
                        }
                    }
                    failures
                })
            })
            .collect();
        for worker in workers {
            failures.extend(worker.join().expect("no worker panics"));
        }
    });
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), rows.len(), failures.join("\n"));
    // A folder for pictures may be there, but nothing in it.
    let after: Vec<_> = folder.list().into_iter().filter(|p| !p.ends_with("out")).collect();
    assert_eq!(after, before, "nothing is left behind");
    if let Ok(mut out) = fs::read_dir(folder.0.join("out")) {
        assert!(out.next().is_none(), "no picture of a demo that failed");
    }
}

/// A run of a few seconds on software Vulkan.
static PLAN: LazyLock<String> = LazyLock::new(|| TINY.to_owned() + REST);
const REST: &str = r#"
[plan]
seed = 3
[[plan.phases]]
steps = 30
length = 64
sequences = 1
group = 1
[plan.optimizer]
lr = 1e-3
warmup = 2

[tasks]
facts_min = 0
facts_max = 0
prose = 0.5

[run]
log_steps = 10
checkpoint_steps = 4
threads = 1
"#;

/// A run ended by its time, one interrupted and one killed, each gone on with, leave what an unbroken one does.
#[test]
fn training_that_stops_resumes_to_the_same_weights() {
    let folder = Folder::new("resume");
    folder.write("plan.toml", &*PLAN);
    let weights = |out: &str| fs::read(folder.0.join(out).join("weights.safetensors")).expect("weights");
    let train = |more: &[&str]| {
        let output = run(&[&["train", "plan.toml"], more].concat(), &folder.0);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{more:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    train(&["--out", "whole"]);
    let again = run(&["train", "plan.toml", "--out", "whole"], &folder.0);
    assert_eq!(misbehaved(&again, 2), None, "a run is not overwritten");

    assert!(train(&["--out", "timed", "--seconds", "0"]).contains("out of time at step 1 of 30"));
    train(&["--out", "timed", "--resume"]);
    assert!(weights("timed") == weights("whole"), "after its time was up");

    for (out, signal) in [("interrupted", "-INT"), ("killed", "-KILL")] {
        let kept = folder.0.join(out).join("checkpoint.safetensors");
        let mut child = rambutan(&["train", "plan.toml", "--out", out], &folder.0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        while !kept.exists() && child.try_wait().expect("a state").is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
        if !sent.is_ok_and(|s| s.success()) {
            println!("{out}: no signal could be sent here");
        }
        let status = child.wait().expect("it ends");
        assert!(status.success() || signal == "-KILL", "{out}: {status}");
        train(&["--out", out, "--resume"]);
        assert!(weights(out) == weights("whole"), "after it was {out}");
        let log = fs::read_to_string(folder.0.join(out).join("log.jsonl")).expect("a log");
        let steps: Vec<u64> = log
            .lines()
            .map(|l| {
                serde_json::from_str::<Value>(l).expect("a line of JSON")["step"].as_u64().expect("a step")
            })
            .collect();
        assert_eq!(steps, [10, 20, 30], "{out}: each line once");
        assert!(folder.0.join(out).join("curves.png").exists());
    }
}

/// Jobs whose time is up, or that are killed, go on where they stopped; what is done is not done again.
#[test]
fn jobs_go_on_where_they_stopped() {
    let folder = Folder::new("jobs");
    folder.write("plan.toml", &*PLAN);
    let list = folder.write(
        "list.toml",
        r#"
plan = "plan.toml"
[examine]
lengths = [1024]
trials = 2
tasks = ["named", "variables"]
[[jobs]]
name = "base"
[[jobs]]
name = "window"
set.model = { token_mixer = "window", window_size = 32, window_kv_heads = 2 }
set.plan.seed = 4
[[jobs]]
name = "alone"
set.model.enable_hsa = false
[[jobs]]
name = "attention"
examine = { lengths = [1024], trials = [1] }
set.model = { enable_hsa = false, token_mixer = "window", window_size = 1048576, window_kv_heads = 2 }
[[findings]]
question = "Is memory used?"
found = "it is"
source = "a paper"
jobs = ["base", "alone"]
compare = "Hardly."
"#,
    );
    let document = || {
        let output = run(&["jobs", &list, "--out", "jobs", "--results", "jobs/results.md"], &folder.0);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read_to_string(folder.0.join("jobs/results.md")).expect("it is written")
    };
    let jobs = |more: &[&str]| {
        let output = run(&[&["jobs", &list, "--out", "jobs"], more].concat(), &folder.0);
        assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let read = |name: &str| fs::read_to_string(folder.0.join("jobs").join(name)).unwrap_or_default();
    // The second alone, then a kill within the first, then all that is left.
    jobs(&["--only", "window"]);
    let window = read("window/results.jsonl");
    let half = document();
    assert!(half.contains("1 of 4 jobs were run on ") && half.contains("Hardly."), "{half}");
    assert_eq!(half.matches(" not run |").count(), 2 * 3 + 2 * 2, "{half}");
    assert_eq!((window.lines().count(), read("results.jsonl")), (2, window.clone()));
    let kept = folder.0.join("jobs/base/checkpoint.safetensors");
    let mut child = rambutan(&["jobs", &list, "--out", "jobs"], &folder.0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    while !kept.exists() && child.try_wait().expect("a state").is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("it is killed");
    child.wait().expect("it ends");
    let said = jobs(&[]);
    assert!(said.contains("base: ") && said.contains("alone: ") && !said.contains("window: "), "{said}");
    assert_eq!(read("window/results.jsonl"), window, "what was done stays");
    let lines: Vec<Value> =
        read("results.jsonl").lines().map(|l| serde_json::from_str(l).expect("a line of JSON")).collect();
    let heads: Vec<_> = lines.iter().map(|l| (l["job"].as_str(), l["task"].as_str())).collect();
    let expected: Vec<_> = ["base", "window", "alone", "attention"]
        .into_iter()
        .flat_map(|job| ["named", "variables"].map(|task| (Some(job), Some(task))))
        .collect();
    assert_eq!(heads, expected, "in the list's order");
    assert_eq!(read("table.md").lines().count(), 2 + 4);
    assert!(lines[4]["selected"].is_null() && lines[0]["selected"].is_number(), "no memory, no selection");
    assert_eq!(
        lines.iter().map(|l| l["trials"].as_u64()).collect::<Vec<_>>()[5..],
        [Some(2), Some(1), Some(1)]
    );
    assert!(!document().contains("not run |"));
    assert_eq!(jobs(&[]), "", "nothing is left to do");
}

/// An examination whose time is up goes on where it stopped, and finds what an undisturbed one does.
#[test]
fn examinations_go_on_where_they_stopped() {
    let folder = Folder::new("examined");
    weights().save(folder.path("m.safetensors"), Precision::F32).expect("it saves");
    let eval = |more: &[&str]| {
        let line =
            ["eval", "passkey", "--checkpoint", "m.safetensors", "--lengths", "2048,700", "--trials", "3"];
        run(&[&line[..], &["--json"], more].concat(), &folder.0)
    };
    let rows = |output: &Output| -> Vec<Value> {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        lines.lines().map(|l| serde_json::from_str(l).expect("a line of JSON")).collect()
    };
    let found = |rows: &[Value]| -> Vec<Value> {
        let of = |r: &Value| json!([r["length"], r["kind"], r["exact"], r["selected"], r["memory_in"]]);
        rows.iter().map(of).collect()
    };
    let whole = rows(&eval(&["--out", "whole"]));
    assert_eq!(whole.len(), 4);
    // Where its time is up at once, a call tries nothing more than a trial, if any.
    let mut calls = 0;
    let parts = loop {
        let rows = rows(&eval(&["--out", "parts", "--seconds", if calls < 2 { "0" } else { "1000" }]));
        calls += 1;
        let left = rows.last().expect("a line")["trials_left"].as_u64();
        assert_eq!(left, (calls <= 2).then_some(12), "call {calls}: {rows:?}");
        if left.is_none() {
            break rows;
        }
    };
    assert_eq!(found(&parts), found(&whole));
    // A call ended in the middle of a line, and a trial that is missing.
    let path = folder.0.join("parts/trials.jsonl");
    let text = fs::read_to_string(&path).expect("it is there");
    let kept: Vec<&str> =
        text.lines().filter(|l| !(l.contains("\"trial\":1") && l.contains("named"))).collect();
    fs::write(&path, format!("{}\n{{\"length\":20", kept.join("\n"))).expect("it writes");
    assert_eq!(found(&rows(&eval(&["--out", "parts"]))), found(&whole));
    let trials = |out: &str| {
        let text = fs::read_to_string(folder.0.join(out).join("trials.jsonl")).expect("it is there");
        let lines = text.lines().map(|l| serde_json::from_str::<Value>(l).expect("a line of JSON"));
        let of =
            |l: &Value| format!("{}", json!([l["length"], l["what"], l["trial"], l["depth"], l["said"]]));
        let mut all: Vec<String> = lines.filter(|l| l["trial"].is_number()).map(|l| of(&l)).collect();
        all.sort();
        all
    };
    assert_eq!(trials("parts"), trials("whole"));
    assert_eq!(trials("whole").len(), 12);
    assert!(folder.0.join("parts/heatmap.png").exists());
    let other = eval(&["--out", "parts", "--seed", "5"]);
    assert_eq!(misbehaved(&other, 2), None, "another examination's folder");
}

/// Numbers that are finite alone, but not once they are multiplied: an error or an answer, never a panic.
#[test]
fn enormous_weights_do_not_panic() {
    let folder = Folder::new("enormous");
    let mut checkpoint = weights();
    for tensor in checkpoint.tensors.values_mut() {
        *tensor = HostTensor::new(tensor.shape.clone(), vec![3e38; tensor.data.len()]);
    }
    checkpoint.save(folder.path("m.safetensors"), Precision::F32).expect("it saves");
    folder.write("t.txt", "text ".repeat(100));
    let output = run(&["ask", "--checkpoint", "m.safetensors", "--file", "t.txt", "What?"], &folder.0);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 2)) && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_full_disk_is_an_error() {
    if !Path::new("/dev/full").exists() {
        println!("no /dev/full here: nothing to fill");
        return;
    }
    let folder = Folder::new("full");
    weights().save(folder.path("m.safetensors"), Precision::F32).expect("it saves");
    folder.write("t.txt", "text ".repeat(100));
    for line in [
        "info",
        "info --json",
        "inspect m.safetensors",
        "inspect m.safetensors --json",
        "shaders rms_norm --to wgsl",
        "ask --checkpoint m.safetensors --file t.txt What?",
        "ask --checkpoint m.safetensors --file t.txt What? --json",
        "eval passkey --checkpoint m.safetensors --lengths 256 --trials 1 --json",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("it opens");
        let output = rambutan(&arguments, &folder.0).stdout(full).output().expect("the program starts");
        let why = misbehaved(&output, 2);
        assert!(why.is_none(), "{line}: {why:?}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn without_weights_it_says_where_it_looked() {
    let folder = Folder::new("without");
    folder.write("t.txt", "text ".repeat(100));
    let output = run(&["ask", "--file", "t.txt", "What?"], &folder.0);
    if output.status.success() {
        println!("the shipped weights are in the source tree: nothing is missing");
        return;
    }
    assert_eq!(misbehaved(&output, 2), None);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--checkpoint"));
}

#[test]
fn a_cap_on_memory_says_how_much_fits() {
    let folder = Folder::new("cap");
    weights().save(folder.path("m.safetensors"), Precision::F32).expect("it saves");
    let line = ["eval", "passkey", "--checkpoint", "m.safetensors", "--lengths", "4194304", "--trials", "1"];
    let line = [&line[..], &["--memory-in", "device"]].concat();
    let output = rambutan(&line, &folder.0).env("RAMBUTAN_MAX_MEMORY", (128 << 20).to_string()).output();
    let output = output.expect("the program starts");
    assert_eq!(misbehaved(&output, 2), None, "{}", String::from_utf8_lossy(&output.stderr));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("fit") && stderr.contains("--lengths"), "{stderr}");
}

/// Starts a program and ends it by force, twenty times: within `late` microseconds after `mark`, which grows as the program
/// gets somewhere, has grown by up to `far`, and now and then within `early` of its start. How far it gets does not depend
/// on how fast it is. `after` is called after each end.
fn end_by_force(
    rng: &mut Rng,
    [early, late]: [usize; 2],
    far: usize,
    start: impl Fn() -> Command,
    mark: impl Fn() -> u64,
    mut after: impl FnMut(),
) {
    for kill in 0..20 {
        let until = mark() + rng.below(far) as u64;
        let mut child = start().stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
        let soon = rng.below(5) == 0;
        while !soon && mark() <= until && child.try_wait().expect("it runs").is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_micros(rng.below(if soon { early } else { late }) as u64));
        child.kill().expect("it is ours");
        let ended = child.wait().expect("it ends").success();
        assert!(!ended, "kill {kill} came too late: there must be more to do");
        after();
    }
}

/// Ended by force at random moments, reading goes on each time, and leaves what an undisturbed one does.
#[test]
fn a_memory_survives_being_killed_at_any_moment() {
    const PAGES: u64 = 600;
    const PAGE: u64 = 512;
    let folder = Folder::new("killed");
    weights().save(folder.path("m.safetensors"), Precision::F32).expect("it saves");
    let mut rng = Rng::new(5);
    let text: Vec<u8> = (0..PAGES * PAGE + 77).map(|_| b' ' + rng.below(95) as u8).collect();
    folder.write("t.txt", text);
    let line = |memory: &str| {
        let line = format!("read t.txt --memory {memory} --checkpoint m.safetensors --page {PAGE}");
        rambutan(&line.split(' ').collect::<Vec<_>>(), &folder.0)
    };
    let output = line("whole.mem").output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let size = |name: &str| fs::metadata(folder.0.join(name)).map_or(0, |m| m.len());
    // Header, and what the last page does not fill.
    let (outline, page) = (20_000, size("whole.mem") / PAGES);
    let mut kept = Vec::new();
    let (start, mark) = (|| line("killed.mem"), || size("killed.mem").max(outline));
    end_by_force(&mut rng, [300_000, 15_000], 40 * page as usize, start, mark, || {
        let memory = folder.0.join("killed.mem");
        let tokens = if memory.exists() {
            MemoryFile::open(&memory).expect("it is whole").tokens().0 as u64
        } else {
            0
        };
        let (written, counted) = (size("killed.mem"), outline + tokens / PAGE * page);
        assert!(
            written <= counted + page,
            "of {written} bytes {tokens} tokens count: more than a page is lost"
        );
        kept.push(tokens);
    });
    println!("tokens kept after each kill: {kept:?}");
    assert!(kept.is_sorted() && kept[19] > kept[0], "{kept:?}");
    let output = line("killed.mem").arg("--json").output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let last: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(last["kept"], kept[19], "it goes on where the last one was ended");
    let held = |name: &str| {
        let bytes = fs::read(folder.0.join(name)).expect("it reads");
        // Between header and log stands how often it was committed.
        (bytes[..4096].to_vec(), bytes[12288..].to_vec())
    };
    assert!(held("whole.mem") == held("killed.mem"), "byte for byte");
    let ask = |memory: &str| {
        let line =
            ["ask", "--memory", memory, "--checkpoint", "m.safetensors", "--json", "What?", "And then?"];
        let output = run(&line, &folder.0);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<Value> = stdout.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        lines.iter().map(|l| (l["answer"].clone(), l["sources"].clone())).collect::<Vec<_>>()
    };
    let answers = ask("whole.mem");
    assert_eq!((answers.len(), &ask("killed.mem")), (2, &answers));
}

/// Ended by force at random moments, training goes on each time from no earlier than its last checkpoint, and leaves
/// the losses and the bytes that an undisturbed run does.
#[test]
fn training_survives_being_killed_at_any_moment() {
    const EVERY: u64 = 3;
    let folder = Folder::new("killed-training");
    let plan = PLAN
        .replace("[plan.optimizer]", SHARED_PHASE)
        .replace("log_steps = 10", "log_steps = 1")
        .replace("checkpoint_steps = 4", &format!("checkpoint_steps = {EVERY}"));
    folder.write("plan.toml", plan);
    let kept = |out: &str| folder.0.join(out).join("checkpoint.safetensors");
    let line = |out: &str| {
        let mut line = vec!["train", "plan.toml", "--out", out];
        // Where it was ended before its first checkpoint it begins again.
        line.extend(kept(out).exists().then_some("--resume"));
        rambutan(&line, &folder.0)
    };
    let finish = |out: &str| {
        let output = line(out).output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    program();
    let begin = Instant::now();
    finish("whole");
    // Within a step, or as a checkpoint is written behind it.
    let late = begin.elapsed().as_micros() as usize / 90;
    // (step, losses), of whole lines.
    let log = |out: &str| -> Vec<Value> {
        let text = fs::read_to_string(folder.0.join(out).join("log.jsonl")).unwrap_or_default();
        let lines = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        lines.map(|l| json!([l["step"], l["loss"], l["text"], l["norm"], l["lr"], l["tokens"]])).collect()
    };
    let logged = || log("killed").last().and_then(|l| l[0].as_u64()).unwrap_or(0);
    let (mut steps, mut again) = (Vec::new(), 0);
    let (start, rng) = (|| line("killed"), &mut Rng::new(6));
    end_by_force(rng, [400_000, late], 6, start, logged, || {
        let step = if kept("killed").exists() {
            let checkpoint = Checkpoint::open(kept("killed")).expect("it is whole");
            train::progress(&checkpoint).expect("it is whole").expect("it is a run's").step
        } else {
            0
        };
        let logged = logged();
        assert!(step + EVERY >= logged, "after step {logged} only {step} were kept");
        again += logged.saturating_sub(step);
        steps.push(step);
    });
    println!("steps kept after each kill: {steps:?}, {again} done again");
    assert!(steps.is_sorted() && steps[19] > steps[0] && again > 0, "{steps:?}");
    finish("killed");
    assert_eq!(log("killed"), log("whole"), "losses, each step once");
    for name in ["checkpoint.safetensors", "weights.safetensors"] {
        let [whole, killed] =
            ["whole", "killed"].map(|out| fs::read(folder.0.join(out).join(name)).expect("it reads"));
        assert!(whole == killed, "{name}: byte for byte");
    }
    let names = |out: &str| {
        let entries = fs::read_dir(folder.0.join(out)).expect("it lists");
        let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("killed"), names("whole"), "nothing half-written is left");
}

/// Sequences that share their memory, after those that do not.
const SHARED_PHASE: &str =
    "[[plan.phases]]\nsteps = 60\nlength = 64\nsequences = 2\ngroup = 2\n[plan.optimizer]";

#[test]
fn help_of_every_command_has_examples() {
    let folder = Folder::new("help");
    let commands = [
        "demo",
        "ask",
        "read",
        "eval",
        "eval passkey",
        "eval ruler",
        "eval perplexity",
        "eval memory",
        "train",
        "jobs",
        "info",
        "selfcheck",
        "bench",
        "inspect",
        "shaders",
    ];
    for command in [""].iter().chain(&commands) {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let output = run(&arguments, &folder.0);
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && output.stderr.is_empty(), "{command}");
        assert!(help.contains("Examples:\n  rambutan ") && help.contains("Usage:"), "{command}: {help}");
    }
    // Every command there is stands in the list above.
    let help = String::from_utf8_lossy(&run(&["--help"], &folder.0).stdout).into_owned();
    let listed = help.split("Commands:\n").nth(1).expect("a list").split("\n\n").next().expect("its end");
    for name in listed.lines().filter_map(|l| l.split_whitespace().next()).filter(|n| *n != "help") {
        let output = run(&[name, "--help"], &folder.0);
        assert!(String::from_utf8_lossy(&output.stdout).contains("Examples:"), "{name}");
    }
}

#[test]
fn pipelines_go_to_the_users_cache_unless_told_otherwise() {
    let folder = Folder::new("cache");
    let home = if cfg!(windows) { "LOCALAPPDATA" } else { "XDG_CACHE_HOME" };
    let kept = |name: &str| fs::read_dir(folder.0.join(name)).map_or(0, Iterator::count);
    let command = |variable: Option<&str>| {
        let mut command = rambutan(&["selfcheck", "rope", "--quick"], &folder.0);
        command.env(home, folder.0.join("home")).env_remove("RAMBUTAN_CACHE");
        variable.map(|v| command.env("RAMBUTAN_CACHE", v));
        let output = command.output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    command(Some(""));
    // The driver may keep something of its own beside.
    assert!(!folder.0.join("home/rambutan").exists(), "an empty name keeps nothing");
    command(Some("own"));
    assert!(!folder.0.join("home/rambutan").exists());
    command(None);
    // Both or none: not every backend hands pipelines out.
    assert_eq!(kept("own"), kept("home/rambutan"));
}

#[test]
fn a_crossover_is_drawn_from_what_was_printed() {
    let folder = Folder::new("crossover");
    let line = |op: &str, sizes: &str| {
        format!(r#"{{"op":"{op}","sizes":"{sizes}","forward_ms":2.0,"backward_ms":3.0,"device":"Abacus"}}"#)
            + "\n"
    };
    let attention = line("window_attention.f16", "batches=1 tokens=1024 window=1024 share=16 heads=1 d=64");
    let hsa = line(
        "hsa.random",
        "batches=1 tokens=1024 share=16 heads=1 d=64 chunks=16 chunk=64 slots=8 shared=1 off_by_one=0",
    );
    let select = line("select.weights.f16", "batches=1 tokens=1024 chunks=16 r=1024 k=8 chunk=64 first=0");
    folder.write("ours.jsonl", [attention, hsa, select].concat());
    let output = run(&["bench", "crossover", "--results", "ours.jsonl", "--out", "pictures"], &folder.0);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1024         2.000         4.000    0.50"), "{text}");
    let picture = std::fs::read(folder.0.join("pictures/crossover.png")).expect("it is drawn");
    assert!(picture.starts_with(b"\x89PNG"));
}

/// What `rambutan bench anchors --json` prints: rows of an abacus, 23:40 on a day in November.
const OURS: &str = r#"{"row":"add.64M","ms":0.25,"goal_ms":0.195,"floor_ms":0.2,"share":0.8,"host_ms":0.03,"checked":"spot 12 of 67108864","peers":{"torch":"","burn":"add|67108864|f32"},"device":"Abacus (12 beads)","backend":"wood","driver":"hand","clock":"GPU timestamps","time":1795563600}
{"op":"add","sizes":"rows=1","forward_ms":1.0,"device":"Abacus (12 beads)"}
{"row":"matmul.f16.4096","ms":0.3,"goal_ms":0.34,"peers":{"torch":"matmul|4096x4096x4096|f16","burn":"matmul|4096x4096x4096|f16"},"device":"Abacus (12 beads)","time":1795563600}
{"row":"rms_norm.f16","wrong":"rms_norm [rows=1]: output 0 | of 1","goal_ms":0.1,"peers":{"torch":"","burn":""},"time":1795563600}
{"row":"model.370m.train","skipped":"out of device memory","goal_ms":451,"peers":{"torch":"","burn":""},"time":1795563600}
{"row":"crossover.hsa","ms":2.0,"goal_ms":null,"peers":{"torch":"","burn":""},"time":1795563600}
"#;

/// As peers.py writes it.
const PEERS: &str = r#"{
    "device": "NVIDIA H200", "driver": "580", "torch": "2.11", "triton": "3.6", "failed": [],
    "results": [
        {"name": "matmul", "shape": "4096x4096x4096", "dtype": "f16", "ms_median": 0.15, "ms_min": 0.1, "runs": 9},
        {"name": "matmul", "shape": "4096x4096x4096", "dtype": "f32", "ms_median": 2.67, "ms_min": 2.6, "runs": 9}
    ]
}"#;

#[test]
fn times_of_others_stand_beside_ours() {
    let folder = Folder::new("compare");
    folder.write("ours.jsonl", OURS);
    folder.write("peers.json", PEERS);
    // The better of two compilers counts, and the device's time before the host's.
    folder.write(
        "burn.json",
        r#"[{"name": "add", "backend": "burn-0.22.1/spirv", "shape": "67108864", "dtype": "f32", "median_ms": 0.1, "device_ms": 0.2},
            {"name": "add", "backend": "burn-0.22.1/wgsl", "shape": "67108864", "dtype": "f32", "median_ms": 0.22},
            {"name": "matmul", "backend": "burn-0.22.1/wgsl", "shape": "4096x4096x4096", "dtype": "f16", "median_ms": 1.2}]"#,
    );
    let line = "bench --results ours.jsonl --compare peers.json --compare burn.json --record kept";
    let arguments: Vec<&str> = line.split(' ').collect();
    for _ in 0..2 {
        let output = run(&arguments, &folder.0);
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{stderr}");
        for said in [
            "Ours: Abacus (12 beads), wood, hand, GPU timestamps, timed 2026-11-24 23:40 UTC.",
            "Torch: torch 2.11, Triton 3.6, from peers.json, written ",
            "another card (NVIDIA H200)",
            "Burn: burn-0.22.1, from burn.json, written ",
            "it does not say on which card",
            "| add.64M | 0.2500 | | | 0.2000 | 1.25 | 0.195 | no | 0.2000 | 80 % | 0.0300 | spot 12 of 67108864 |",
            "| matmul.f16.4096 | 0.3000 | 0.1500 | 2.00 | 1.20 | 0.25 | 0.34 | yes |  |  |  | no |",
            "| rms_norm.f16 | wrong: rms_norm [rows=1]: output 0 / of 1 |",
            "| model.370m.train | skipped: out of device memory |",
            "| crossover.hsa | 2.00 | | | | |  |  |",
            "1 of 2 rows at goal; slower than burn: 1 of 2; slower than 1.5 × torch: 1 of 1; wrong: 1.",
        ] {
            assert!(stdout.contains(said), "{said}\nin\n{stdout}");
        }
    }
    // A second comparison of the day is added to the first.
    let kept = fs::read_to_string(folder.0.join("kept/abacus/2026-11-24-anchors.md")).expect("a record");
    assert_eq!(
        (kept.matches("# Anchors, 2026-11-24\n").count(), kept.matches("## 23:40 UTC").count()),
        (1, 2)
    );
    assert_eq!(kept.matches("| add.64M |").count(), 2);
}

#[test]
fn a_report_holds_what_others_need() {
    let folder = Folder::new("report");
    // What was there before is replaced.
    folder.write("report.md", "stale");
    let output = run(&["selfcheck", "rope", "--quick", "--report", "report.md"], &folder.0);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(folder.path("report.md")).expect("a report");
    for said in [
        "# rambutan selfcheck: ",
        "| driver | ",
        "| rambutan | 0.",
        "limits    binding ",
        "variants; f16 ",
        " held, 0 failed, ",
        "| rope | ",
        "## Kernels that ran\n\n```text\n",
        "\nrope elem=f32\n",
    ] {
        assert!(text.contains(said), "{said}\nin\n{text}");
    }
    assert!(!text.contains("stale"));
    assert_eq!(folder.list().len(), 1, "nothing half-written");
}

#[test]
fn json_parses_and_says_what_it_should() {
    let folder = Folder::new("json");
    weights().save(folder.path("m.safetensors"), Precision::F32).expect("it saves");
    // Any bytes may be asked about; what is not text is shown as such.
    folder.write("t.bin", (0..2000u32).map(|i| (i * 7 % 256) as u8).collect::<Vec<_>>());
    let lines = |line: &str| -> Vec<Value> {
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = run(&arguments, &folder.0);
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{line}: {stderr}");
        assert!(!stdout.trim().is_empty(), "{line}");
        stdout
            .lines()
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{line}: {e}: {l}")))
            .collect()
    };
    for line in
        lines("bench cumulative_sum.4096x1024 --runs 1 --json").iter().filter(|l| l["row"].is_string())
    {
        assert_eq!(line["row"], "cumulative_sum.4096x1024");
        assert!(line["ms"].as_f64().is_some_and(|ms| ms > 0.0) && line["goal_ms"].as_f64() == Some(0.012));
        assert!(line["checked"].as_str().is_some_and(|c| c.starts_with("spot 12288 of 4194304")), "{line}");
        assert!(line["copies"].as_u64().is_some_and(|n| n > 1) && line["wrong"].is_null(), "{line}");
    }
    let info = lines("info --json");
    assert!(info[0].as_array().is_some_and(|a| !a.is_empty()));
    let inspect = lines("inspect m.safetensors --json");
    assert_eq!((inspect.len(), &inspect[0]["model"]), (1, &Value::from(true)));

    let ask = &lines("ask --checkpoint m.safetensors --file t.bin --json What?")[0];
    assert_eq!((ask["tokens"].as_u64(), ask["prompt"].as_str()), (Some(2000), Some("|What? It is:")));
    let sources = ask["sources"].as_array().expect("a list");
    assert!(!sources.is_empty() && sources.len() <= 4, "at most K places");
    for source in sources {
        assert!(source["offset"].as_u64().is_some_and(|o| o < 2000 && o.is_multiple_of(16)));
        assert!(source["excerpt"].is_string() && source["weight"].as_f64().is_some_and(|w| w > 0.0));
    }

    let eval =
        lines("eval passkey --checkpoint m.safetensors --lengths 256,1000 --trials 2 --kind both --json");
    let heads: Vec<_> = eval.iter().map(|l| (l["length"].as_u64(), l["kind"].as_str())).collect();
    let expected =
        [(256, "plain"), (256, "named"), (1000, "plain"), (1000, "named")].map(|(l, k)| (Some(l), Some(k)));
    assert_eq!(heads, expected);
    for line in &eval {
        assert_eq!(line["exact"].as_f64(), Some(0.0), "random weights know nothing");
        assert!(line["selected"].as_f64().is_some_and(|s| (0.0..=1.0).contains(&s)));
        for key in ["trials", "tokens_per_s", "peak_device_bytes"] {
            assert!(line[key].as_f64().is_some_and(|n| n > 0.0), "{key}");
        }
        assert!(line["peak_host_bytes"].is_u64() == Path::new("/proc/self/status").exists());
        assert!(line["device"].is_string());
    }

    let ruler = lines("eval ruler --checkpoint m.safetensors --lengths 600 --trials 2 --formats --json");
    let tasks: Vec<_> = ruler.iter().filter_map(|l| l["task"].as_str()).collect();
    assert_eq!(tasks, ["passkey", "named", "similar", "reworded", "multi-query", "variables", "one-hop"]);
    for line in &ruler {
        assert_eq!((line["exact"].as_f64(), line["length"].as_u64()), (Some(0.0), Some(600)));
        assert!(line["selected"].as_f64().is_some_and(|s| (0.0..=1.0).contains(&s)));
    }

    let foretold =
        lines("eval perplexity --checkpoint m.safetensors --lengths 256,700 --last 100 --trials 2 --json");
    assert_eq!(foretold.iter().map(|l| l["length"].as_u64()).collect::<Vec<_>>(), [Some(256), Some(700)]);
    for line in &foretold {
        // Random weights know next to nothing of 256 bytes.
        assert!(line["nats"].as_f64().is_some_and(|n| (4.5..7.0).contains(&n)), "{line}");
    }

    let memory = lines(
        "eval memory --checkpoint m.safetensors --lengths 1024 --computed 2048 --places device,text --facts 1 --json",
    );
    assert_eq!(memory.len(), 8);
    let number = |line: &Value, key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key}: {line}"));
    for (measured, computed) in memory[..4].iter().zip(&memory[4..]) {
        assert_eq!(
            (&measured["memory_in"], &measured["landmarks"]),
            (&computed["memory_in"], &computed["landmarks"])
        );
        assert_eq!((&measured["measured"], &computed["measured"]), (&true.into(), &false.into()));
        // Buffers come in classes.
        let [measured_bytes, computed_bytes] =
            [measured, computed].map(|line| number(line, "text_device_bytes"));
        let least = computed_bytes / 2;
        assert!((least..=least + least / 8 + 1024).contains(&measured_bytes), "{measured} {computed}");
        assert_eq!(2 * number(measured, "text_host_bytes"), number(computed, "text_host_bytes"));
        assert!(number(measured, "reading_peak_device_bytes") > measured_bytes);
    }
    // Of the chunks selected: nothing to compare with, the same, and the same but where eight bits make a difference.
    assert!(memory[0]["selected_as_floats"].is_null(), "{}", memory[0]);
    assert_eq!(number(&memory[1], "selected_as_floats"), number(&memory[1], "selected"));
    for line in &memory[2..4] {
        assert!((1..=number(line, "selected")).contains(&number(line, "selected_as_floats")), "{line}");
    }
    let demo = lines("demo --checkpoint m.safetensors --tokens 1024 --facts 3 --out pictures --json");
    let last = demo.last().expect("a last line");
    assert_eq!(demo.len(), 4);
    assert_eq!((last["asked"].as_u64(), last["tokens"].as_u64()), (Some(3), Some(1024)));
    assert!(last["found"].is_u64() && demo[0]["expected"].is_string());
    let picture = fs::read(folder.0.join("pictures/heatmap.png")).expect("a picture");
    assert!(picture.starts_with(b"\x89PNG"));
    let files = fs::read_dir(folder.0.join("pictures")).expect("it lists").count();
    assert_eq!(files, 1, "and nothing else");
}

/// Where the device has no room for keys and values, the text is its own memory, and the answer the same.
#[test]
fn memory_goes_where_it_fits_and_says_so() {
    let folder = Folder::new("place");
    weights().save(folder.path("m.safetensors"), Precision::F32).expect("it saves");
    let mut rng = Rng::new(5);
    folder.write("t.txt", (0..300_000).map(|_| b' ' + rng.below(95) as u8).collect::<Vec<u8>>());
    let ask = |more: &str| {
        let line = format!("ask --checkpoint m.safetensors --file t.txt What? {more}");
        let output = run(&line.split_whitespace().collect::<Vec<_>>(), &folder.0);
        assert!(output.status.success(), "{more}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let json = |more: &str| -> Value { serde_json::from_str(&ask(&format!("{more} --json"))).expect("JSON") };
    let device = json("");
    assert_eq!((&device["memory_in"], &device["landmarks"]), (&"device".into(), &"f32".into()));
    const CAP: u64 = 32 << 20;
    assert!(device["peak_device_bytes"].as_u64().is_some_and(|most| most > CAP), "{device}");
    for (more, place) in
        [("--max-memory 32MiB", "text"), ("--memory-in host", "host"), ("--memory-in text", "text")]
    {
        let other = json(more);
        assert_eq!(other["memory_in"], place);
        assert_eq!((&other["answer"], &other["sources"]), (&device["answer"], &device["sources"]), "{more}");
        let most = other["peak_device_bytes"].as_u64().expect("bytes");
        assert!(!more.contains("32MiB") || most <= CAP, "{most} bytes under a cap of {CAP}");
    }
    let said = ask("--max-memory 32MiB");
    assert!(
        said.contains("keys and values in: text, since the device has no room; landmarks in f32;"),
        "{said}"
    );
    let said = ask("--memory-in int8 --landmarks int8");
    assert!(said.contains("keys and values in: int8, as asked; landmarks in int8, as asked;"), "{said}");
}
