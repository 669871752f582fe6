//! What a person does with the stock client.

use anyhow::Result;

use backendai_tests::TestCluster;
use backendai_tests::images::Image;

use crate::support::{LIMIT, wait_nothing_left, wait_status};

#[tokio::test]
async fn config_shows_the_server() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    let shown = client.run(&["config"]).await?.success().stdout;
    assert!(shown.contains("Server version: 23.09"), "{shown}");
    assert!(shown.contains("Negotiated API version: (7, '20230615')"), "{shown}");
    cluster.stop().await
}

#[tokio::test]
async fn run_prints_what_the_program_prints() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    for image in ["python", "python-ipykernel", &cluster.image(Image::Python)] {
        let code = "print('hello', 1 + 1)";
        let output = client.run(&["run", "--rm", "-c", code, image]).await?.success();
        assert!(output.stdout.contains("hello 2\n"), "{output}");
        assert!(output.all().contains("Execution finished. (exit code = 0)"), "{output}");
    }
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn variables_outlive_a_run_and_streams_stay_apart() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    for (image, session) in [("python", "plain"), ("python-ipykernel", "rich")] {
        let run = async |code| client.run(&["run", "-q", "-t", session, "-c", code, image]).await;
        let first = run("x = 41").await?.success();
        assert_eq!(first.all().trim(), "", "{first}");
        let output = run("import sys; print(x + 1); print('aside', file=sys.stderr)").await?;
        let output = output.success();
        assert!(output.stdout.contains("42"), "{output}");
        assert!(output.stderr.contains("aside"), "{output}");
        assert!(!output.stdout.contains("aside"), "{output}");
    }
    cluster.stop().await
}

#[tokio::test]
async fn input_is_asked_on_the_terminal() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    for image in ["python", "python-ipykernel"] {
        let code = "name = input('who are you? '); print('good day,', name)";
        let mut terminal = client.pty(&["run", "--rm", "-c", code, image])?;
        terminal.expect("who are you? ", LIMIT).await?;
        terminal.type_line("Ada")?;
        terminal.expect("good day, Ada", LIMIT).await?;
        assert_eq!(terminal.wait(LIMIT).await?, Some(0), "{}", terminal.screen());
    }
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn ten_megabytes_of_output_arrive_complete() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    for image in ["python", "python-ipykernel"] {
        let code = "for i in range(160_000): print(f'{i:06}' + 'x' * 57)";
        let output = client.run(&["run", "--rm", "-q", "-c", code, image]).await?.success();
        let lines: Vec<&str> = output.stdout.lines().filter(|line| line.ends_with("xxx")).collect();
        assert_eq!(lines.len(), 160_000, "lines of {image}");
        for (index, line) in lines.iter().enumerate() {
            assert!(line.starts_with(&format!("{index:06}x")) && line.len() == 63, "{line}");
        }
    }
    cluster.stop().await
}

#[tokio::test]
async fn an_exception_shows_its_traceback() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    for image in ["python", "python-ipykernel"] {
        let code = "def f():\n    raise ValueError('boom')\nf()";
        let output = client.run(&["run", "--rm", "-c", code, image]).await?;
        assert!(output.all().contains("ValueError"), "{output}");
        assert!(output.all().contains("boom"), "{output}");
        assert!(output.all().contains("Execution finished."), "{output}");
    }
    cluster.stop().await
}

#[tokio::test]
async fn ctrl_c_interrupts_an_endless_loop() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    for (image, session) in [("python", "plain"), ("python-ipykernel", "rich")] {
        let code = "print('begun', flush=True)\nwhile True: pass";
        let mut terminal = client.pty(&["run", "-t", session, "-c", code, image])?;
        terminal.expect("begun", LIMIT).await?;
        terminal.interrupt()?;
        terminal.wait(LIMIT).await?;
        // The loop has ended, and the session is as good as before.
        let again = ["run", "-t", session, "-c", "print('still', 'here')", image];
        let output = client.run(&again).await?.success();
        assert!(output.stdout.contains("still here"), "{output}");
    }
    cluster.stop().await
}

#[tokio::test]
async fn a_session_is_created_shown_and_removed() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    let create = ["session", "create", "-t", "first", "-r", "cpu=2", "-r", "mem=512m", "python"];
    let output = client.run(&create).await?.success();
    assert!(output.all().contains("is created and ready"), "{output}");

    let output = client.run(&["ps"]).await?.success();
    assert!(output.stdout.contains("first") && output.stdout.contains("RUNNING"), "{output}");
    let listed = client.run(&["ps", "--plain", "-f", "session_id"]).await?.success().stdout;
    let id = listed.split_whitespace().next().unwrap_or_default().to_owned();

    let info = client.run(&["session", "info", &id]).await?.success();
    for shown in
        ["first", "RUNNING", &cluster.image(Image::Python), "main1", cluster.agents[0].id()]
    {
        assert!(info.stdout.contains(shown), "{shown} in {info}");
    }

    let code = "import os; os.write(1, b'to the log\\n'); print('shown')";
    client.run(&["run", "-t", "first", "-c", code, "python"]).await?.success();
    let logs = client.run(&["session", "logs", "first"]).await?.success();
    assert!(logs.all().contains("End of logs"), "{logs}");

    client.run(&["session", "rm", "first"]).await?.success();
    wait_nothing_left(&cluster).await?;
    // The client takes an empty list for an error.
    let output = client.run(&["ps"]).await?.failure();
    assert!(output.stderr.contains("NoItems"), "{output}");
    let output = client.run(&["ps", "--dead"]).await?.success();
    assert!(output.stdout.contains("first"), "{output}");
    let output = client.run(&["session", "rm", "first"]).await?.failure();
    assert!(output.all().contains("No such session"), "{output}");
    cluster.stop().await
}

#[tokio::test]
async fn a_batch_session_reports_its_output_and_exit_code() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    for (image, name, command, printed, code) in [
        ("python", "py-ok", "python3 -c 'print(6 * 7)'", "42", 0),
        ("python", "py-bad", "echo three; exit 3", "three", 3),
        ("busybox", "box-ok", "echo from $(hostname)", "from main1", 0),
        ("busybox", "box-bad", "echo seven; exit 7", "seven", 7),
        ("scratch", "scratch-ok", "/bin/hello from nothing", "hello from nothing", 0),
        ("scratch", "scratch-bad", "/bin/hello four --exit 4", "hello four", 4),
    ] {
        let create = ["session", "create", "--type", "batch", "-c", command, "-t", name, image];
        client.run(&create).await?.success();
        let row = wait_status(&cluster, name, &["TERMINATED"]).await?;
        assert_eq!(row.exit_code, Some(code), "{row:?}");
        assert_eq!(row.result, if code == 0 { "SUCCESS" } else { "FAILURE" }, "{row:?}");
        let logs = client.run(&["session", "logs", name]).await?.success();
        assert!(logs.stdout.contains(printed), "{printed} in {logs}");

        let filter = format!("name == \"{name}\"");
        let list = ["session", "list", "--dead", "-f", "name,result", "--filter", &filter];
        let listed = client.run(&list).await?.success();
        assert!(listed.stdout.contains(&row.result), "{listed}");
    }
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn administrators_see_agents_and_images() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.superadmin)?;
    let agents = client.run(&["admin", "agent", "list"]).await?.success();
    assert!(agents.stdout.contains(cluster.agents[0].id()), "{agents}");
    assert!(agents.stdout.contains("ALIVE"), "{agents}");
    let images = client.run(&["admin", "image", "list"]).await?.success();
    for image in Image::ALL {
        assert!(images.stdout.contains(image.name()), "{images}");
    }
    let stranger = cluster.client(&cluster.identities.user1)?;
    stranger.run(&["admin", "agent", "list"]).await?.failure();
    cluster.stop().await
}
