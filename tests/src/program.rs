//! The command, built and started.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

/// Builds the whole workspace, with `more` arguments, and says where the program lies: with the features of the tests
/// themselves nothing is built anew.
pub fn program(more: &[&str]) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--workspace", "--message-format=json"])
        .args(more)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "the program builds");
    let program = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "rambutan")
            .then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    String::from_utf8_lossy(&output.stdout).lines().find_map(program).expect("cargo names the program")
}

/// Nothing of whoever runs the tests reaches the program: no input, no choices, no pipelines kept before.
pub fn by_itself(command: &mut Command) {
    command.stdin(Stdio::null()).env("XDG_RUNTIME_DIR", std::env::temp_dir()).env("RAMBUTAN_CACHE", "");
    for name in ["RAMBUTAN_WEIGHTS", "RAMBUTAN_ADAPTER", "RAMBUTAN_BACKEND"] {
        command.env_remove(name);
    }
}
