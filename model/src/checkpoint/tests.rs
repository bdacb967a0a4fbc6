use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use safetensors::SafeTensors;

use super::*;

/// Remembers each thread's largest request, so that tests can tell a reader that trusts a file's sizes.
struct Watched;

thread_local!(static LARGEST: Cell<usize> = const { Cell::new(0) });

fn watch(size: usize) {
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        watch(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        watch(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        watch(size);
        unsafe { System.realloc(old, layout, size) }
    }
    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static WATCHED: Watched = Watched;

/// Reads, and fails if any single request for memory was out of proportion to the file.
fn read_frugally(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    LARGEST.set(0);
    let result = Checkpoint::from_bytes(bytes);
    let largest = LARGEST.get();
    assert!(largest <= (1 << 20) + 8 * bytes.len(), "{largest} bytes at once for a file of {}", bytes.len());
    result
}

fn tiny_config() -> Config {
    Config::from_json(
        r#"{"hidden_size": 4, "vocab_size": 5, "num_heads": 2, "head_dim": 4, "state_size": 2, "num_lower_layers": 1,
        "num_upper_layers": 1, "num_attention_heads": 2, "num_kv_heads": 1, "chunk_size": 4, "chunk_topk": 2,
        "encoder_layers": 1, "encoder_intermediate_size": 3}"#,
    )
    .unwrap()
}

fn tiny() -> Checkpoint {
    Checkpoint::initial(tiny_config(), 1).unwrap()
}

/// The tiny model with moments, an extra tensor and a training state.
fn in_training() -> Checkpoint {
    let mut checkpoint = tiny();
    for (name, tensor) in &checkpoint.tensors {
        for (prefix, factor) in MOMENTS.iter().zip([0.1, 0.01]) {
            let data = tensor.data.iter().map(|x| x * factor).collect();
            checkpoint.extras.insert(format!("{prefix}{name}"), HostTensor::new(tensor.shape.clone(), data));
        }
    }
    checkpoint.extras.insert("extra.curve".into(), HostTensor::new([3], vec![1.0, 1e30, -1e-30]));
    checkpoint.metadata.training =
        Some(json!({"step": 17, "random": u64::MAX, "lr_bits": 0.002f64.to_bits()}));
    checkpoint.metadata.extra.insert("note".into(), "a \"note\"\n".into());
    checkpoint
}

/// A file of this header, with so many bytes behind it.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// The header's JSON of a valid file, and its data.
fn parts(bytes: &[u8]) -> (Value, Vec<u8>) {
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + size]).unwrap(), bytes[8 + size..].to_vec())
}

/// The tiny model's file with a changed header.
fn with_header(change: impl FnOnce(&mut Map<String, Value>)) -> Vec<u8> {
    let (mut header, data) = parts(&tiny().to_bytes(Precision::F32).unwrap());
    change(header.as_object_mut().unwrap());
    let mut bytes = file(&header.to_string(), 0);
    bytes.extend(data);
    bytes
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rambutan-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.0.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn round_trips() {
    let checkpoint = in_training();
    let bytes = checkpoint.to_bytes(Precision::F32).unwrap();
    let back = read_frugally(&bytes).unwrap();
    let expected = Checkpoint {
        metadata: Metadata { format_version: FORMAT_VERSION, ..checkpoint.metadata.clone() },
        ..checkpoint.clone()
    };
    assert_eq!(back, expected);
    assert_eq!(back.to_bytes(Precision::F32).unwrap(), bytes, "the same checkpoint, the same bytes");
    assert!(back.has_moments() && !tiny().has_moments());

    let half = Checkpoint::from_bytes(&checkpoint.to_bytes(Precision::F16).unwrap()).unwrap();
    assert_eq!(half.extras, checkpoint.extras, "moments and extras stay f32");
    for (name, tensor) in &checkpoint.tensors {
        let rounded: Vec<f32> = tensor.data.iter().map(|&x| f16::from_f32(x).to_f32()).collect();
        assert_eq!(half.tensors[name].data, rounded, "{name}");
    }
    assert_eq!(half.to_bytes(Precision::F16).unwrap(), checkpoint.to_bytes(Precision::F16).unwrap());
}

#[test]
fn the_safetensors_crate_agrees() {
    let checkpoint = in_training();
    for precision in [Precision::F32, Precision::F16] {
        let bytes = checkpoint.to_bytes(precision).unwrap();
        let theirs = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(theirs.len(), checkpoint.tensors.len() + checkpoint.extras.len());
        for (name, view) in theirs.tensors() {
            let ours = checkpoint.tensors.get(&name).or(checkpoint.extras.get(&name)).unwrap();
            assert_eq!(view.shape(), ours.shape);
            let offset = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
            assert!(offset.is_multiple_of(view.dtype().bitsize() / 8), "{name} is not aligned");
            if view.dtype() == Dtype::F32 {
                let data: Vec<u8> = ours.data.iter().flat_map(|x| x.to_le_bytes()).collect();
                assert_eq!(view.data(), data);
            }
        }
    }
}

#[test]
fn reads_bf16_and_foreign_files() {
    let checkpoint = tiny();
    let data: BTreeMap<_, Vec<u8>> = checkpoint
        .tensors
        .iter()
        .map(|(name, t)| (name, t.data.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect()))
        .collect();
    let view = |(name, t): (&String, &HostTensor)| {
        (
            name.clone(),
            safetensors::tensor::TensorView::new(Dtype::BF16, t.shape.clone(), &data[name]).unwrap(),
        )
    };
    let views: Vec<_> = checkpoint.tensors.iter().map(view).collect();
    let bytes = safetensors::serialize(views, None).unwrap();
    assert!(matches!(Checkpoint::from_bytes(&bytes), Err(CheckpointError::NoConfig)));
    let back = Checkpoint::from_bytes_with(&bytes, tiny_config()).unwrap();
    assert_eq!(back.metadata, Metadata::default());
    for (name, tensor) in &checkpoint.tensors {
        let rounded: Vec<f32> = tensor.data.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
        assert_eq!(back.tensors[name].data, rounded);
    }

    let folder = Folder::new("foreign");
    let path = folder.0.join("weights.safetensors");
    std::fs::write(&path, &bytes).unwrap();
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains("weights.safetensors") && error.contains("config.json"), "{error}");
    std::fs::write(folder.0.join("config.json"), tiny_config().to_json()).unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap(), back);
    std::fs::write(folder.0.join("config.json"), "{\"hidden_size\": -1}").unwrap();
    assert!(Checkpoint::open(&path).unwrap_err().to_string().contains("hidden_size"));
    assert_eq!(Checkpoint::open_with(&path, tiny_config()).unwrap(), back);
}

#[test]
fn the_recipes_weights_load() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/recipe/weights.safetensors");
    if !path.exists() {
        println!("skipped: {} is absent", path.display());
        return;
    }
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(Config { extra: BTreeMap::new(), ..checkpoint.config.clone() }, Config::small());
    assert_eq!(checkpoint.tensors["lm_head.weight"].shape, [256, 256]);
    let again = Checkpoint::from_bytes(&checkpoint.to_bytes(Precision::F16).unwrap()).unwrap();
    assert_eq!(again.tensors, checkpoint.tensors);
}

#[test]
fn hostile_files_get_one_clear_error() {
    let valid = tiny().to_bytes(Precision::F32).unwrap();
    let with_size = |size: u64| [&size.to_le_bytes()[..], &valid[8..]].concat();
    let tensor = |dtype: &str, shape: &str, offsets: &str, data| {
        file(&format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#), data)
    };
    let two = |a: &str, b: &str, data| {
        let entry = |offsets: &str| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}"#);
        file(&format!(r#"{{"a":{},"b":{}}}"#, entry(a), entry(b)), data)
    };
    let metadata = |key: &str, value: &str| with_header(|header| header["__metadata__"][key] = json!(value));
    let number = |value: f32| {
        let mut bytes = valid.clone();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let huge_name = "n".repeat(1 << 20);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "truncated"),
        ("seven bytes", vec![0; 7], "truncated"),
        ("length only", 0u64.to_le_bytes().to_vec(), "header"),
        ("not safetensors", b"PK\x03\x04 this is a zip archive".to_vec(), "not a safetensors file"),
        ("length of 2^64 - 1", with_size(u64::MAX), "claims 18446744073709551615 bytes"),
        ("length of 2^63", with_size(1 << 63), "claims"),
        ("length beyond the file", with_size(valid.len() as u64), "truncated"),
        ("length too short", with_size(10), "not a safetensors header"),
        ("header of zeros", file("\0\0\0\0\0\0\0\0", 0), "not a safetensors header"),
        ("header not UTF-8", [&4u64.to_le_bytes()[..], b"{\"\xff\"}"].concat(), "not a safetensors header"),
        ("header an array", file("[]", 0), "an object of tensors"),
        ("header ends early", file("{\"a\":", 0), "EOF"),
        ("deep arrays", file(&"[".repeat(1 << 20), 0), "header"),
        ("deep objects", file(&"{\"a\":".repeat(1 << 18), 0), "header"),
        ("deep metadata", file(&format!("{{\"__metadata__\":{}", "{\"a\":".repeat(1 << 18)), 0), "header"),
        ("entry is a number", file(r#"{"a":3}"#, 0), "\"a\""),
        ("metadata of numbers", file(r#"{"__metadata__":{"a":3}}"#, 0), "__metadata__"),
        ("metadata twice", file(r#"{"__metadata__":{},"__metadata__":{}}"#, 0), "stands twice"),
        ("metadata key twice", file(r#"{"__metadata__":{"a":"","a":""}}"#, 0), "stands twice"),
        (
            "name twice",
            file(
                &two("[0,8]", "[8,16]", 0)[8..]
                    .iter()
                    .map(|&b| if b == b'b' { 'a' } else { b as char })
                    .collect::<String>(),
                16,
            ),
            "stands twice",
        ),
        ("unknown type", tensor("F128", "[1]", "[0,16]", 16), "F128"),
        (
            "a type of a megabyte",
            tensor(&format!("\\u001b[2J{huge_name}"), "[1]", "[0,4]", 4),
            "unknown variant",
        ),
        ("negative size", tensor("F32", "[-1]", "[0,4]", 4), "-1"),
        ("fractional size", tensor("F32", "[1.5]", "[0,6]", 6), "1.5"),
        ("size of 2^65", tensor("F32", "[36893488147419103232]", "[0,4]", 4), "header"),
        ("product overflows", tensor("F32", "[4294967296,4294967296]", "[0,4]", 4), "overflows"),
        ("bytes overflow", tensor("F32", "[4611686018427387904]", "[0,4]", 4), "overflows"),
        ("overflow to the right size", tensor("F32", "[4611686018427387905]", "[0,4]", 4), "overflows"),
        ("nine dimensions", tensor("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]", 4), "9 dimensions"),
        ("shape against bytes", tensor("F32", "[2]", "[0,4]", 4), "does not take 4 bytes"),
        ("ends before it begins", tensor("F32", "[1]", "[4,0]", 4), "before it begins"),
        (
            "far offsets",
            tensor("F32", "[1]", "[18446744073709551608,18446744073709551612]", 4),
            "after the last",
        ),
        ("data beyond the file", tensor("F32", "[1000000000000]", "[0,4000000000000]", 4), "truncated"),
        ("begins late", tensor("F32", "[1]", "[4,8]", 8), "4 bytes after the last"),
        ("overlap", two("[0,8]", "[4,12]", 12), "inside another"),
        ("gap", two("[0,8]", "[12,20]", 20), "4 bytes after the last"),
        ("same bytes", two("[0,8]", "[0,8]", 8), "inside another"),
        ("bytes at the end", [&valid[..], &[0]].concat(), "1 bytes follow the last tensor"),
        ("one byte short", valid[..valid.len() - 1].to_vec(), "truncated"),
        (
            "no tensors",
            with_header(|header| header.retain(|key, _| key == "__metadata__")),
            "follow the last tensor",
        ),
        ("NaN", number(f32::NAN), "NaN"),
        ("infinity", number(f32::INFINITY), "inf"),
        ("minus infinity", number(f32::NEG_INFINITY), "-inf"),
        ("version from the future", metadata("rambutan.format_version", "2"), "newer"),
        ("version zero", metadata("rambutan.format_version", "0"), "no version"),
        ("version of words", metadata("rambutan.format_version", "latest"), "no version"),
        ("training not JSON", metadata("rambutan.training", "{"), "rambutan.training"),
        ("training too deep", metadata("rambutan.training", &"[".repeat(1 << 16)), "recursion"),
        ("configuration not JSON", metadata("rambutan.config", "hello"), "configuration"),
        (
            "configuration hostile",
            metadata("rambutan.config", r#"{"hidden_size":18446744073709551615}"#),
            "missing",
        ),
        ("no configuration", with_header(|header| _ = header.remove("__metadata__")), "no configuration"),
        ("other configuration", metadata("rambutan.config", &json!(Config::small()).to_string()), "missing"),
        (
            "renamed",
            with_header(|header| {
                let entry = header.remove("backbone.layers.0.mixer.A_log").unwrap();
                header.insert("backbone.layers.0.mixer.a_log".into(), entry);
            }),
            "\"backbone.layers.0.mixer.a_log\" (near backbone.layers.0.mixer.A_log)",
        ),
        (
            "terminal escapes and a long name",
            with_header(|header| {
                let entry = header.remove("lm_head.weight").unwrap();
                header.insert(format!("\u{1b}[2J{huge_name}"), entry);
            }),
            "\\u{1b}[2Jnnn",
        ),
        (
            "transposed",
            with_header(|header| header["lm_head.weight"]["shape"] = json!([4, 5])),
            "shape [4, 5], the configuration asks for [5, 4]",
        ),
        (
            "integers",
            with_header(|header| header["lm_head.weight"]["dtype"] = json!("I32")),
            "type I32, expected F32, F16 or BF16",
        ),
        (
            "a moment without its parameter",
            with_header(|header| {
                let entry = header.remove("lm_head.weight").unwrap();
                header.insert("optimizer.m.lm_head.weight".into(), entry);
            }),
            "missing",
        ),
    ];
    for (name, bytes, expected) in cases {
        let error = read_frugally(&bytes).expect_err(name).to_string();
        println!("{name}: {error}");
        assert!(error.contains(expected), "{name}: {error}");
        assert!(error.len() < 2000 && !error.contains('\u{1b}'), "{name}: {error}");
    }
}

#[test]
fn truncated_anywhere_is_an_error() {
    let bytes = in_training().to_bytes(Precision::F16).unwrap();
    for length in 0..bytes.len() {
        assert!(read_frugally(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
}

#[test]
fn a_reader_that_ends_early_is_an_error() {
    let bytes = tiny().to_bytes(Precision::F32).unwrap();
    let shrunk = &mut &bytes[..bytes.len() / 2];
    let result = Checkpoint::read(shrunk, bytes.len() as u64, None, || Ok(None));
    assert!(matches!(result, Err(CheckpointError::Io { action: "read", .. })), "{result:?}");
}

#[test]
fn what_could_not_be_read_is_not_written() {
    let refused = |change: &dyn Fn(&mut Checkpoint), expected: &str| {
        let mut checkpoint = in_training();
        change(&mut checkpoint);
        let error = checkpoint.to_bytes(Precision::F16).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&|c| c.tensors.get_mut("lm_head.weight").unwrap().data[3] = f32::NAN, "element 3 is NaN");
    refused(&|c| c.tensors.get_mut("lm_head.weight").unwrap().data[3] = 65520.0, "beyond f16");
    refused(&|c| c.tensors.get_mut("lm_head.weight").unwrap().shape = vec![4, 5], "shape");
    refused(&|c| _ = c.tensors.get_mut("lm_head.weight").unwrap().data.pop(), "numbers");
    refused(&|c| _ = c.tensors.remove("lm_head.weight"), "missing: lm_head.weight");
    refused(&|c| _ = c.extras.remove("optimizer.v.lm_head.weight"), "missing: optimizer.v.lm_head.weight");
    refused(&|c| _ = c.extras.insert("loose".into(), HostTensor::default()), "unexpected: \"loose\"");
    refused(&|c| _ = c.tensors.insert("extra.x".into(), HostTensor::new([1], vec![0.0])), "wrong map");
    refused(&|c| _ = c.metadata.extra.insert("rambutan.config".into(), String::new()), "format's own");
    refused(&|c| c.config.hidden_size = 0, "hidden_size");
    let mut large = tiny();
    large.tensors.get_mut("lm_head.weight").unwrap().data[3] = 65519.0;
    assert!(large.to_bytes(Precision::F16).is_ok(), "rounds to 65504");
}

#[test]
fn saves_in_one_step() {
    let folder = Folder::new("atomic");
    let path = folder.0.join("model.safetensors");
    tiny().save(&path, Precision::F32).unwrap();
    let first = Checkpoint::open(&path).unwrap();
    in_training().save(&path, Precision::F32).unwrap();
    assert_ne!(Checkpoint::open(&path).unwrap(), first);
    assert_eq!(folder.files(), ["model.safetensors"]);
    let kept = std::fs::read(&path).unwrap();

    // What cannot be read back is refused before the disk is touched.
    let mut broken = tiny();
    broken.tensors.get_mut("lm_head.weight").unwrap().data[0] = f32::NAN;
    assert!(broken.save(&path, Precision::F32).unwrap_err().to_string().contains("model.safetensors"));

    // A disk that fills up half way.
    let full = write_atomically(&path, |writer| {
        writer.write_all(&[7; 3 << 20])?;
        Err(io::Error::from(io::ErrorKind::StorageFull))
    });
    let error = full.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("old file is untouched"), "{error}");

    // A writer that panics.
    let panicked = std::panic::catch_unwind(|| {
        write_atomically(&path, |writer| {
            writer.write_all(b"half")?;
            panic!("in the middle")
        })
    });
    assert!(panicked.is_err());

    assert_eq!(folder.files(), ["model.safetensors"], "no temporary files stay");
    assert_eq!(std::fs::read(&path).unwrap(), kept);
    assert!(Header::open(&path).unwrap().tensors.len() > 60);
}

#[test]
fn unwritable_places() {
    let folder = Folder::new("unwritable");
    let plain = folder.0.join("file");
    std::fs::write(&plain, "x").unwrap();
    for path in [
        folder.0.join("absent/model"),
        plain.join("model"),
        folder.0.clone(),
        PathBuf::from("/"),
        PathBuf::new(),
    ] {
        let error = tiny().save(&path, Precision::F32).unwrap_err().to_string();
        assert!(error.contains("cannot save"), "{error}");
        assert!(Checkpoint::open(&path).is_err());
    }
    assert_eq!(folder.files(), ["file"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        // The administrator may write anywhere: then there is nothing to see.
        std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o555)).unwrap();
        let probe = std::fs::write(folder.0.join("probe"), "");
        if probe.is_err() {
            assert!(tiny().save(&plain, Precision::F32).is_err());
            assert_eq!(std::fs::read(&plain).unwrap(), b"x");
        } else {
            println!("skipped: permissions do not bind this user");
            std::fs::remove_file(folder.0.join("probe")).unwrap();
        }
        std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o755)).unwrap();

        // A link is followed, not replaced.
        let link = folder.0.join("link");
        symlink(&plain, &link).unwrap();
        tiny().save(&link, Precision::F32).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(Checkpoint::open(&plain).is_ok());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn full_devices() {
    let Ok(mut full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        println!("skipped: no /dev/full");
        return;
    };
    let error = tiny().write_to(&mut full, Precision::F32).unwrap_err();
    assert!(matches!(error, CheckpointError::Io { action: "write", .. }), "{error}");
    assert!(error.to_string().contains("No space left"), "{error}");
    // Renaming over a device would destroy it.
    assert!(tiny().save("/dev/full", Precision::F32).unwrap_err().to_string().contains("not a regular file"));
    assert!(Checkpoint::open("/dev/zero").unwrap_err().to_string().contains("not a regular file"));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read_frugally(&bytes).is_err());
    }

    #[test]
    fn random_headers_never_panic(text in "[\\[\\]{}\",:a-bdtypeshaofF1-4 _]{0,80}", data in 0usize..40) {
        prop_assert!(read_frugally(&file(&text, data)).is_err());
    }

    /// Random numbers where numbers stand, in a header that is otherwise right.
    #[test]
    fn random_layouts_never_panic(
        shape in prop::collection::vec(any::<u64>().prop_map(|n| n >> (n % 64)), 0..6),
        begin in any::<u64>().prop_map(|n| n >> (n % 64)),
        end in any::<u64>().prop_map(|n| n >> (n % 64)),
        dtype in prop::sample::select(vec!["F32", "F16", "F4", "F6_E2M3", "U64", "BOOL"]),
    ) {
        let bytes = with_header(|header| {
            header["lm_head.weight"] = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]});
        });
        let _ = read_frugally(&bytes);
    }

    /// A valid file with bytes changed, cut out or put in: refused, or whole and sound; and whatever is accepted, the
    /// safetensors crate accepts too.
    #[test]
    fn mutated_files_are_refused_or_sound(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
        in_header in any::<bool>(),
    ) {
        let mut bytes = in_training().to_bytes(Precision::F32).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for (place, value, how) in changes {
            let at = place.index(if in_header { header } else { bytes.len() }).min(bytes.len() - 1);
            match how {
                0 => bytes[at] = value,
                1 => bytes[at] ^= 1 << (value % 8),
                2 => drop(bytes.drain(at..(at + value as usize).min(bytes.len() - 1))),
                _ => bytes.insert(at, value),
            }
        }
        if let Ok(checkpoint) = read_frugally(&bytes) {
            prop_assert!(SafeTensors::deserialize(&bytes).is_ok());
            prop_assert!(checkpoint.to_bytes(Precision::F32).is_ok());
        }
    }
}
