//! Configuration and token, as operators meet them.

use std::process::{Command, Output};

use crate::world::World;

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_backendai-watcher")).args(args).output().unwrap()
}

#[test]
fn the_agents_file_is_checked_and_shown() {
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config/agent.toml");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    let text = std::fs::read_to_string(reference).unwrap();
    let text = text.replace("namespace = \"\"", "namespace = \"site\"");
    std::fs::write(&file, &text).unwrap();
    let path = file.to_str().unwrap();
    let checked = run(&["config", "check", path]);
    assert!(checked.status.success(), "{checked:?}");
    let shown = String::from_utf8(run(&["--config", path, "config", "show"]).stdout).unwrap();
    assert!(shown.contains("watcher.target-service"), "{shown}");

    std::fs::write(&file, text.replace("target-service", "target-servce")).unwrap();
    let wrong = run(&["config", "check", path]);
    assert_eq!(wrong.status.code(), Some(78));
    let words = String::from_utf8(wrong.stderr).unwrap();
    assert!(words.contains("agent.toml:") && words.contains("watcher.target-servce"), "{words}");
    assert!(words.contains("did you mean `target-service`?"), "{words}");
}

#[tokio::test]
async fn a_token_that_can_be_guessed_or_is_missing_stops_the_start() {
    for (token, expected) in [(None, "generate-token"), (Some("insecure"), "at least 128")] {
        let mut world = World::prepare(token).await;
        let output = world.run_to_end().await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(words.contains(expected), "{words}");
    }
}

#[test]
fn generated_tokens_differ() {
    let token = || String::from_utf8(run(&["generate-token"]).stdout).unwrap();
    assert_ne!(token(), token());
    assert_eq!(token().trim().len(), 64);
}
