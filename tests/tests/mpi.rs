//! Work over ranks, as `mpirun` starts them: the same numbers from any number of ranks, and what is left where one dies.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use rambutan_model::{Checkpoint, checkpoint::Precision};
use rambutan_tests::{Folder, by_itself, small::TINY};
use serde_json::Value;

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| rambutan_tests::program(&["--features", "mpi"]))
}

/// One job at a time: ranks that wait keep a core busy.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lines of a run's log, without what depends on time.
fn logged(folder: &Folder, out: &str) -> Vec<Value> {
    let text = String::from_utf8(folder.read(&format!("{out}/log.jsonl"))).expect("text");
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).expect("a line of JSON");
        let map = line.as_object_mut().expect("an object");
        map.retain(|key, _| !["tokens_per_s", "seconds", "device_bytes"].contains(&key.as_str()));
        line
    };
    text.lines().map(line).collect()
}

/// `mpirun -n ranks rambutan …`, as root and on fewer cores, too.
fn mpirun(ranks: usize, arguments: &[&str], folder: &Folder) -> Command {
    let mut command = Command::new("mpirun");
    command
        .args(["-n", &ranks.to_string()])
        .arg(program())
        .args(arguments)
        .current_dir(&folder.0)
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe");
    by_itself(&mut command);
    command
}

fn output(command: &mut Command) -> (Output, String) {
    let output = command.output().expect("mpirun starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, stderr)
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let (output, stderr) = output(command);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One error, told by one rank: its line.
#[track_caller]
fn refused(command: &mut Command) -> String {
    let (output, stderr) = output(command);
    assert_eq!(output.status.code(), Some(2), "{command:?}: {stderr}");
    let mut errors = stderr.lines().filter(|line| line.starts_with("error: "));
    let first = errors.next().unwrap_or_else(|| panic!("{command:?} says no error: {stderr}"));
    assert_eq!(errors.next(), None, "{command:?}: one error is enough");
    first.to_owned()
}

/// Facts and their answers, sequences by themselves and in groups that share their memory.
static PLAN: LazyLock<String> = LazyLock::new(|| TINY.to_owned() + REST);
const REST: &str = r#"chunk_topk = 2

[plan]
seed = 3
[[plan.phases]]
steps = 2
length = 256
sequences = 8
group = 1
at_once = 2
[[plan.phases]]
steps = 4
length = 256
sequences = 8
group = 2
at_once = 2
[plan.optimizer]
lr = 1e-3
warmup = 2

[tasks]
tail = 100

[run]
log_steps = 1
checkpoint_steps = 2
threads = 1
"#;

/// What one rank leaves of the plan: its folder, where the run is called `one`.
fn undisturbed() -> &'static Folder {
    static FOLDER: OnceLock<Folder> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Folder::new("one");
        folder.write("plan.toml", &*PLAN);
        succeeds(&mut mpirun(1, &["train", "plan.toml", "--out", "one"], &folder));
        assert_eq!(logged(&folder, "one").len(), 6);
        folder
    })
}

/// Parts are summed in their order whoever computed them: losses, parameters and moments are the same bits from any
/// number of ranks, begun or gone on with.
#[test]
fn ranks_train_to_the_same_bits() {
    let _turn = turn();
    let folder = Folder::new("train");
    folder.write("plan.toml", &*PLAN);
    let train = |ranks: usize, more: &[&str]| {
        succeeds(&mut mpirun(ranks, &[&["train", "plan.toml"], more].concat(), &folder))
    };
    let file = |folder: &Folder, out: &str| folder.read(&format!("{out}/checkpoint.safetensors"));
    let (log, one) = (logged(undisturbed(), "one"), file(undisturbed(), "one"));
    for (ranks, out) in [(2, "two"), (4, "four")] {
        let said = train(ranks, &["--out", out]);
        assert_eq!(said.lines().count(), 1, "{ranks} ranks, one that speaks: {said}");
        assert_eq!(logged(&folder, out), log, "{ranks} ranks");
        assert!(file(&folder, out) == one, "{ranks} ranks left other parameters or moments");
    }
    // A step by two ranks, the others by four.
    assert!(train(2, &["--out", "both", "--seconds", "0"]).contains("out of time at step 1 of 6"));
    train(4, &["--out", "both", "--resume"]);
    assert_eq!(logged(&folder, "both"), log);
    assert!(file(&folder, "both") == one, "resumed by other ranks");
}

/// Where the plan leaves the parts to the ranks, their number changes the order of sums alone.
#[test]
fn shares_of_a_batch_train_alike() {
    let _turn = turn();
    let folder = Folder::new("shares");
    let few = PLAN.replace("steps = 2\nl", "steps = 1\nl").replace("steps = 4\nl", "steps = 1\nl");
    folder.write("plan.toml", few.replace("at_once = 2", "at_once = 0"));
    for (ranks, out) in [(1, "one"), (2, "two")] {
        succeeds(&mut mpirun(ranks, &["train", "plan.toml", "--out", out], &folder));
    }
    for (one, two) in logged(&folder, "one").into_iter().zip(logged(&folder, "two")) {
        for key in ["loss", "answers", "norm"] {
            let [a, b] = [&one, &two].map(|line| line[key].as_f64().expect("a number"));
            assert!((a - b).abs() <= 1e-4 * a, "{key} at step {}: {a} and {b}", one["step"]);
        }
    }
}

/// A rank's process number.
fn process(ranks: &std::process::Child, rank: usize) -> Option<u32> {
    let children = format!("/proc/{0}/task/{0}/children", ranks.id());
    let wanted = format!("OMPI_COMM_WORLD_RANK={rank}");
    let is_it = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|entry| entry == wanted.as_bytes())
    };
    fs::read_to_string(children).ok()?.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_it)
}

/// Whichever rank is killed, the job ends, says how to go on, and what goes on leaves what an undisturbed run does.
#[test]
fn a_rank_that_dies_costs_an_interval() {
    let _turn = turn();
    let folder = Folder::new("killed");
    folder.write("plan.toml", &*PLAN);
    let whole = undisturbed().read("one/checkpoint.safetensors");
    for (rank, out) in [(0, "first"), (1, "second")] {
        let kept = folder.0.join(out).join("checkpoint.safetensors");
        let mut job = mpirun(2, &["train", "plan.toml", "--out", out], &folder)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mpirun starts");
        while !kept.exists() && job.try_wait().expect("a state").is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let Some(pid) = process(&job, rank) else {
            let ended = job.wait_with_output().expect("it ends");
            panic!("rank {rank} is not to be found: {}", String::from_utf8_lossy(&ended.stderr));
        };
        let sent = Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill runs");
        assert!(sent.success(), "rank {rank} was over before it could be killed");
        let ended = job.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success(), "rank {rank} died: {stderr}");
        let told: Vec<&str> =
            stderr.lines().filter(|line| line.contains("--resume goes on from step")).collect();
        assert_eq!(told.len(), 1, "rank {rank} died: {stderr}");
        assert!(told[0].contains(&format!("{out}/checkpoint.safetensors")), "{}", told[0]);
        succeeds(&mut mpirun(2, &["train", "plan.toml", "--out", out, "--resume"], &folder));
        let kept = folder.read(&format!("{out}/checkpoint.safetensors"));
        assert!(kept == whole, "after rank {rank} had died");
    }
}

/// Answers to two questions about a file, and where they came from, weights and all.
fn asked(ranks: usize, file: &str, place: &str, folder: &Folder) -> Vec<Value> {
    let questions = ["What is the passkey?", "|Then the"];
    let fixed = ["ask", "--checkpoint", "model.safetensors", "--json", "--file", file, "--memory-in", place];
    let said = succeeds(&mut mpirun(ranks, &[&fixed[..], &questions].concat(), folder));
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        Value::from_iter(
            ["question", "answer", "complete", "sources", "tokens"].map(|k| (k, line[k].clone())),
        )
    };
    let lines: Vec<Value> = said.lines().map(line).collect();
    assert_eq!(lines.len(), 2, "{ranks} ranks, one that speaks: {said}");
    lines
}

/// Whoever keeps which part of a text, and in which place, its answers are those of one rank.
#[test]
fn ranks_answer_as_one_does() {
    let _turn = turn();
    let folder = Folder::new("ask");
    // Two layers that retrieve, with several heads.
    let config = rambutan_tests::small::config(r#""num_upper_groups": 2"#);
    let model = Checkpoint::initial(config, 7).expect("a valid configuration");
    model.save(folder.0.join("model.safetensors"), Precision::F32).expect("it is written");
    // Segments of 64 bytes that differ, and a part of one.
    let text: String = (0..400).map(|i| format!("{} was said {i} times. ", i * i * 7 % 1009)).collect();
    folder.write("text", &text);
    let one = asked(1, "text", "device", &folder);
    let sources = one[0]["sources"].as_array().expect("sources");
    assert!(sources.len() > 4, "several heads look into several places: {sources:?}");
    for (ranks, place) in [(2, "device"), (2, "host"), (3, "text")] {
        assert_eq!(asked(ranks, "text", place, &folder), one, "{ranks} ranks, kept in {place}");
    }
    assert_eq!(asked(2, "text", "int8", &folder), asked(1, "text", "int8", &folder), "in eight bits");
    // Fewer chunks than are selected and fewer segments than ranks; no whole segment.
    for (ranks, length) in [(4, 130), (2, 50)] {
        let name = format!("text-{length}");
        folder.write(&name, &text[..length]);
        let few = asked(ranks, &name, "auto", &folder);
        assert_eq!(few, asked(1, &name, "auto", &folder), "{length} bytes by {ranks} ranks");
    }
}

/// Facts are laid into segments and taken out again wherever those are.
#[test]
fn ranks_examine_as_one_does() {
    let _turn = turn();
    let folder = Folder::new("eval");
    let model = Checkpoint::initial(rambutan_tests::small::config(r#""chunk_topk": 12"#), 7)
        .expect("a valid configuration");
    model.save(folder.0.join("model.safetensors"), Precision::F32).expect("it is written");
    let examined = |ranks: usize, place: &str| {
        let command = ["eval", "passkey", "--checkpoint", "model.safetensors", "--json", "--lengths", "700"];
        let more = ["--trials", "12", "--memory-in", place];
        let said = succeeds(&mut mpirun(ranks, &[&command[..], &more].concat(), &folder));
        let selected = |line: &str| {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            [&line["exact"], &line["selected"]].map(|share| share.as_f64().expect("a share"))
        };
        said.lines().map(selected).collect::<Vec<_>>()
    };
    let one = examined(1, "device");
    assert!(one.len() == 2 && one.iter().any(|[_, selected]| *selected > 0.0 && *selected < 1.0), "{one:?}");
    for place in ["device", "text"] {
        assert_eq!(examined(2, place), one, "kept in {place}");
    }
}

#[test]
fn one_rank_tells_what_none_can_do() {
    let _turn = turn();
    let folder = Folder::new("refused");
    folder.write("plan.toml", &*PLAN);
    let uneven = refused(&mut mpirun(3, &["train", "plan.toml", "--out", "uneven"], &folder));
    assert!(
        uneven.contains("plan.phases[0].sequences = 8: expected a multiple of 3, so that 3 ranks"),
        "{uneven}"
    );
    folder.write("pairs.toml", PLAN.replace("group = 2", "group = 4").replace("at_once = 2", "at_once = 4"));
    let cut = refused(&mut mpirun(4, &["train", "pairs.toml", "--out", "cut"], &folder));
    assert!(cut.contains("a multiple of 16") && cut.contains("no group of 4 is cut"), "{cut}");
    let absent = refused(&mut mpirun(2, &["train", "none.toml"], &folder));
    assert!(absent.contains("cannot read the plan none.toml"), "{absent}");
    let several = refused(&mut mpirun(2, &["info"], &folder));
    assert!(several.contains("this command works in one process"), "{several}");
    let empty = refused(&mut mpirun(2, &["ask", "--file", "none.txt", "What is the passkey?"], &folder));
    assert!(empty.contains("none.txt"), "{empty}");
    // Two machines whose files differ.
    folder.write("text.toml", PLAN.replace("tail = 100", "tail = 100\nprose = 0.0"));
    folder.write("a.txt", "Something was said here. ".repeat(40));
    folder.write("b.txt", "Anything was said there. ".repeat(40));
    let program = program().display().to_string();
    let with = |text| ["train", "text.toml", "--out", "differing", "--text", text];
    let both = [&with("a.txt")[..], &[":", "-n", "1", &program], &with("b.txt")].concat();
    let differing = refused(&mut mpirun(1, &both, &folder));
    assert!(differing.contains("rank 1 draws other training data than rank 0"), "{differing}");
    assert!(!folder.0.join("uneven").exists() && !folder.0.join("cut").exists(), "nothing is half-written");
}
