//! Languages, and what programs do besides printing.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use backendai_tests::{SignedClient, TestCluster};

use crate::support::{
    LIMIT, Outcome, carry_on, create_body, execute, new_run_id, step, wait_nothing_left,
};

/// Makes a session of an image and returns its name.
async fn create(client: &SignedClient, image: &str) -> Result<String> {
    let name = format!("with-{image}");
    let created = client.post("/session", create_body(&name, image, json!({}))).await?;
    anyhow::ensure!(created.body["status"] == "RUNNING", "{created:?}");
    Ok(name)
}

async fn query(
    client: &SignedClient,
    session: &str,
    code: &str,
    answers: &[&str],
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let body = step(&new_run_id(), "query", code);
    carry_on(client, session, body, answers, &mut outcome).await?;
    Ok(outcome)
}

/// Runs commands; empty ones are skipped.
async fn batch(
    client: &SignedClient,
    session: &str,
    [clean, build, exec]: [&str; 3],
    answers: &[&str],
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut body = step(&new_run_id(), "batch", "");
    body["options"] = json!({"clean": clean, "build": build, "exec": exec});
    carry_on(client, session, body, answers, &mut outcome).await?;
    Ok(outcome)
}

async fn write(client: &SignedClient, session: &str, name: &str, text: &str) -> Result<()> {
    let command = format!("cat > '{name}' <<'END OF FILE'\n{text}\nEND OF FILE");
    let outcome = batch(client, session, ["", "", &command], &[]).await?;
    anyhow::ensure!(outcome.exit_code() == Some(0), "{outcome:?}");
    Ok(())
}

/// The exit codes of the three steps.
fn codes(outcome: &Outcome) -> Vec<Option<i64>> {
    let names: Vec<&str> = outcome.statuses.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["clean-finished", "build-finished", "finished"], "{outcome:?}");
    outcome.statuses.iter().map(|(_, code)| *code).collect()
}

#[tokio::test]
async fn compilers_build_and_run_what_they_are_given() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    for (image, main, helper, broken) in [
        (
            "c",
            "#include <stdio.h>\nint twice(int n);\nint main(void) { printf(\"%d\\n\", twice(21)); return 3; }",
            "int twice(int n) { return 2 * n; }",
            "int main(void) { return 1 +; }",
        ),
        (
            "cpp",
            "#include <iostream>\nint twice(int n);\nint main() { std::cout << twice(21) << std::endl; return 3; }",
            "int twice(int n) { auto twice = [](auto n) { return 2 * n; }; return twice(n); }",
            "int main() { return 1 +; }",
        ),
    ] {
        let session = create(&client, image).await?;
        let session = session.as_str();
        // In query mode one file is all there is.
        let whole = main.replace("int twice(int n);", helper);
        let outcome = query(&client, session, &whole, &[]).await?;
        assert_eq!(
            (outcome.stdout.as_str(), outcome.exit_code()),
            ("42\n", Some(3)),
            "{outcome:?}"
        );
        let outcome = query(&client, session, broken, &[]).await?;
        assert!(outcome.stderr.contains("error: expected"), "{outcome:?}");
        assert_eq!(outcome.exit_code(), Some(1), "{outcome:?}");
        execute(&client, session, "int main() { return 0; }").await?;

        write(&client, session, &format!("main.{image}"), main).await?;
        write(&client, session, &format!("its helper.{image}"), helper).await?;
        let outcome = batch(&client, session, ["*", "*", "*"], &[]).await?;
        assert_eq!(codes(&outcome), [Some(0), Some(0), Some(3)], "{outcome:?}");
        assert_eq!(outcome.stdout, "42\n");
        // What cannot be built is not run.
        write(&client, session, &format!("main.{image}"), broken).await?;
        let outcome = batch(&client, session, ["", "*", "*"], &[]).await?;
        assert_eq!(codes(&outcome), [Some(0), Some(1), Some(127)], "{outcome:?}");
        write(&client, session, "Makefile", "all:\n\t@echo made\nclean:\n\t@echo cleaned").await?;
        let outcome = batch(&client, session, ["*", "*", "echo run"], &[]).await?;
        assert_eq!(outcome.stdout, "cleaned\nmade\nrun\n");
        client.delete(&format!("/session/{session}")).await?.ok();
    }
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn interpreters_run_code_and_files() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    for (image, code, broken, failure, file) in [
        ("lua", "print(6 * 7) os.exit(3)", "print(", 1, "print(6 * 7) os.exit(3)"),
        (
            "php",
            "echo 6 * 7, PHP_EOL; exit(3);",
            "echo 1 +;",
            255,
            "<?php echo 6 * 7, PHP_EOL; exit(3);",
        ),
    ] {
        let session = create(&client, image).await?;
        let session = session.as_str();
        let outcome = query(&client, session, code, &[]).await?;
        assert_eq!(
            (outcome.stdout.as_str(), outcome.exit_code()),
            ("42\n", Some(3)),
            "{outcome:?}"
        );
        let outcome = query(&client, session, broken, &[]).await?;
        assert_eq!(outcome.exit_code(), Some(failure), "{outcome:?}");
        let outcome = batch(&client, session, ["*", "*", "*"], &[]).await?;
        assert_eq!(codes(&outcome), [Some(0), Some(0), Some(127)], "{outcome:?}");
        assert!(outcome.stderr.contains(&format!("needs one of: main.{image}")), "{outcome:?}");
        write(&client, session, &format!("main.{image}"), file).await?;
        let outcome = batch(&client, session, ["*", "*", "*"], &[]).await?;
        assert_eq!(codes(&outcome), [Some(0), Some(0), Some(3)], "{outcome:?}");
        assert_eq!(outcome.stdout, "42\n");
    }
    cluster.stop().await
}

#[tokio::test]
async fn scripts_ask_for_lines_and_passwords() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    let script = "import getpass\nname = input('name: ')\nprint(name, getpass.getpass('secret: '))";
    for image in ["python", "python-ipykernel"] {
        let session = &create(&client, image).await?;
        write(&client, session, "main.py", script).await?;
        let outcome = batch(&client, session, ["", "", "*"], &["Ada", "s3cret"]).await?;
        assert_eq!(outcome.stdout, "name: secret: Ada s3cret\n", "{outcome:?}");
        assert_eq!(outcome.passwords, [false, true]);
        let outcome = query(&client, session, script, &["Ada", "s3cret"]).await?;
        assert_eq!(outcome.stdout, "name: secret: Ada s3cret\n", "{outcome:?}");
        assert_eq!(outcome.passwords, [false, true]);
    }
    cluster.stop().await
}

#[tokio::test]
async fn code_is_completed_and_a_dead_interpreter_ends_its_run() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    for image in ["python", "python-ipykernel"] {
        let session = &create(&client, image).await?;
        execute(&client, session, "some_long_name = 1").await?;
        let options = json!({"row": 1, "col": 7, "line": "some_lo", "post": ""});
        let body = json!({"code": "x = 1\nsome_lo", "options": options});
        let answer = client.post(&format!("/session/{session}/complete"), body).await?.ok();
        assert_eq!(answer["result"]["status"], "finished", "{answer}");
        let found = answer["result"]["completions"].as_array().context("a list")?;
        assert!(found.contains(&Value::from("some_long_name")), "{answer}");

        let outcome =
            query(&client, session, "print('last words', flush=True)\nimport os; os._exit(3)", &[])
                .await?;
        assert_eq!((outcome.stdout.as_str(), outcome.exit_code()), ("last words\n", Some(3)));
        let outcome = query(&client, session, "print('back')", &[]).await?;
        assert_eq!((outcome.stdout.as_str(), outcome.exit_code()), ("back\n", Some(0)));
        assert!(outcome.stderr.contains("its state is lost"), "{outcome:?}");
    }
    cluster.stop().await
}

#[tokio::test]
async fn pictures_and_html_are_items_of_the_console() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    let image = "python-ipykernel";
    let session = &create(&client, image).await?;
    let code = "from IPython.display import HTML, SVG, display\n\
        import matplotlib.pyplot as plt\n\
        display(HTML('<b>bold</b>'))\n\
        display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))\n\
        plt.plot([1, 2, 3])\nplt.show()";
    let outcome = query(&client, session, code, &[]).await?;
    let [html, svg, png] = &outcome.items[..] else { panic!("{outcome:?}") };
    assert_eq!(*html, ("html".to_owned(), Value::from("<b>bold</b>")));
    assert_eq!((svg.0.as_str(), &svg.1[0]), ("media", &Value::from("image/svg+xml")));
    assert!(svg.1[1].as_str().is_some_and(|text| text.starts_with("<svg")), "{svg:?}");
    assert_eq!((png.0.as_str(), &png.1[0]), ("media", &Value::from("image/png")));
    let data = png.1[1].as_str().unwrap_or_default();
    assert!(data.starts_with("data:image/png;base64,iVBORw0KGgo"), "{data:.60}");
    cluster.stop().await
}

#[tokio::test]
async fn used_up_memory_is_told() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    let session = &create(&client, "python").await?;
    let outcome = query(&client, session, "x = b'x' * (2 << 30)", &[]).await?;
    assert_eq!(outcome.exit_code(), Some(137), "{outcome:?}");
    assert!(outcome.stderr.contains("the interpreter ended: signal 9"), "{outcome:?}");
    assert!(outcome.stderr.contains("was used up: 1 process killed"), "{outcome:?}");
    assert_eq!(execute(&client, session, "print(1)").await?, "1\n");
    cluster.stop().await
}

#[tokio::test]
async fn a_client_that_leaves_interrupts_its_run_and_the_next_one_works() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    for image in ["python", "python-ipykernel"] {
        let session = &create(&client, image).await?;
        let mut socket = client.socket(&format!("/stream/session/{session}/execute")).await?;
        let code = "try:\n    print('begun')\n    while True: pass\n\
            except KeyboardInterrupt:\n    interrupted = True";
        socket.send(json!({"mode": "query", "code": code, "options": {}}).to_string()).await?;
        let mut outcome = Outcome::default();
        while outcome.stdout != "begun\n" {
            outcome.add(&socket.next().await?.context("the socket is open")?);
        }
        drop(socket);
        // It waits until the loop has ended.
        assert_eq!(execute(&client, session, "print(interrupted)").await?, "True\n");
    }
    cluster.stop().await
}

/// Lines of 64 bytes.
const LINES: usize = 1 << 20;
/// By then the windows and buffers of the run have been filled.
const WARM: usize = LINES * 64 / 4;
/// What the agent's allocator may take after that: half of the output that follows.
const ROOM_KIB: u64 = 24 << 10;

#[tokio::test]
async fn no_byte_is_lost_and_the_agent_does_not_grow() -> Result<()> {
    let mut cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    let session = &create(&client, "python").await?;
    let agent = cluster.agents[0].process.pid().context("the agent runs")?;
    let mut socket = client.socket(&format!("/stream/session/{session}/execute")).await?;
    let code = format!(
        "for block in range(0, {LINES}, 4096):\n    \
         print(''.join(f'{{line:07}}{{\"x\" * 56}}\\n' for line in range(block, block + 4096)), end='')"
    );
    socket.send(json!({"mode": "query", "code": code, "options": {}}).to_string()).await?;
    let (mut received, mut bytes, mut warm) = (Sha256::new(), 0, None);
    while let Some(frame) = tokio::time::timeout(LIMIT, socket.next()).await?? {
        let mut outcome = Outcome::default();
        outcome.add(&frame);
        received.update(&outcome.stdout);
        bytes += outcome.stdout.len();
        if warm.is_none() && bytes >= WARM {
            warm = Some(peak_memory_kib(agent)?);
        }
    }
    let mut expected = Sha256::new();
    for line in 0..LINES {
        expected.update(format!("{line:07}{}\n", "x".repeat(56)));
    }
    assert_eq!(bytes, LINES * 64);
    assert_eq!(hex::encode(received.finalize()), hex::encode(expected.finalize()));
    // The kernel's count is rough, and may even fall a little.
    let grown = peak_memory_kib(agent)?.saturating_sub(warm.context("enough output")?);
    assert!(grown < ROOM_KIB, "the agent's memory grew by {grown} KiB");
    cluster.stop().await
}

/// The most memory a process ever had.
fn peak_memory_kib(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a peak")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
