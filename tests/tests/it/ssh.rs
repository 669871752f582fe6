//! Logging into sessions: the stock client's `ssh`, `scp` and `app`, and OpenSSH between the
//! kernels of a cluster.

use anyhow::{Context, Result};
use serde_json::json;

use backendai_tests::ports::Ports;
use backendai_tests::wait::wait_until;
use backendai_tests::{Layout, TestCluster};

use crate::support::{LIMIT, create_body, execute, local_proxy, wait_nothing_left, wait_status};

#[tokio::test]
async fn a_person_logs_in_and_copies_files_with_the_stock_client() -> Result<()> {
    let mut cluster = TestCluster::builder().start().await?;
    let signed = cluster.signed(&cluster.identities.user1);
    let client = cluster.client(&cluster.identities.user1)?;
    signed.post("/session", create_body("inside", "python", json!({}))).await?.ok();

    // The client keeps the session's key there while it is connected.
    std::fs::create_dir(client.home().join(".ssh"))?;
    // One for each command: the client does not wait for the proxy of the one before.
    let (mut ports, cache) = (Ports::default(), Layout::discover()?.cache);
    let mut port = || anyhow::Ok(ports.choose(&cache)?.to_string());
    let mut login = client.pty(&["ssh", "-p", &port()?, "inside"])?;
    login.expect("work@main1[inside]", LIMIT).await?;
    login.type_line("(exec -a survivor sleep 1000) & echo begun $((6 * 7))")?;
    login.expect("begun 42", LIMIT).await?;
    login.type_line("id -un; pwd; tty; exit 3")?;
    login.expect("/home/work", LIMIT).await?;
    login.expect("/dev/pts/", LIMIT).await?;
    login.end(LIMIT).await?;

    // Files and folders go in and come back.
    let folder = client.home().join("sent");
    std::fs::create_dir(&folder)?;
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(folder.join("data.bin"), &content)?;
    let copy = client.pty(&["scp", "-p", &port()?, "-r", "inside", "sent", "work@localhost:."])?;
    let digest = "import hashlib, pathlib; file = pathlib.Path('sent/data.bin'); \
        print(hashlib.sha256(file.read_bytes() if file.exists() else b'').hexdigest())";
    let wanted = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&content));
    let arrived = async || Ok(execute(&signed, "inside", digest).await?.trim() == wanted);
    wait_until(LIMIT, "the folder to arrive", arrived).await.with_context(|| copy.screen())?;
    copy.end(LIMIT).await?;
    let from = "work@localhost:sent/data.bin";
    let copy = client.pty(&["scp", "-p", &port()?, "inside", from, "back.bin"])?;
    let file = client.home().join("back.bin");
    let arrived = async || Ok(file.exists() && std::fs::read(&file)? == content);
    wait_until(LIMIT, "the file to come back", arrived).await.with_context(|| copy.screen())?;
    copy.end(LIMIT).await?;

    // A login after the agent's death finds the processes of the one before it.
    cluster.agents[0].process.kill().await?;
    cluster.agents[0].start().await?;
    wait_status(&cluster, "inside", &["RUNNING"]).await?;
    let mut again = client.pty(&["ssh", "-p", &port()?, "inside"])?;
    again.expect("work@main1[inside]", LIMIT).await?;
    again.type_line("grep -l ^survivor /proc/[0-9]*/cmdline | wc -l | sed s/^/alive=/")?;
    again.expect("alive=1", LIMIT).await?;
    again.type_line("exit")?;
    again.end(LIMIT).await?;

    signed.delete("/session/inside").await?.ok();
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn openssh_reaches_the_session_through_the_local_proxy() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let signed = cluster.signed(&cluster.identities.user1);
    let client = cluster.client(&cluster.identities.user1)?;
    signed.post("/session", create_body("proxied", "python", json!({}))).await?.ok();
    client.run(&["session", "download", "proxied", "id_container"]).await?.success();
    let key = client.home().join("id_container");

    let (proxy, port) = local_proxy(&client, "proxied", "sshd").await?;
    let options = |command: &mut tokio::process::Command| {
        command.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        command.args(["-o", "BatchMode=yes", "-i"]).arg(&key);
    };
    let mut ssh = tokio::process::Command::new("ssh");
    options(&mut ssh);
    ssh.args(["-p", &port, "work@127.0.0.1", "echo from $(hostname); exit 7"]);
    let output = ssh.output().await?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "from main1\n", "{output:?}");
    assert_eq!(output.status.code(), Some(7));

    let mut sftp = tokio::process::Command::new("sftp");
    options(&mut sftp);
    std::fs::write(
        client.home().join("batch"),
        "mkdir made\nput id_container made/copy\nls -1 made\n",
    )?;
    sftp.arg("-P").arg(&port).args(["-b", "batch", "work@127.0.0.1"]).current_dir(client.home());
    let output = sftp.output().await?;
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("made/copy"), "{output:?}");

    proxy.stop(LIMIT).await?;
    cluster.stop().await
}

#[tokio::test]
async fn kernels_of_a_cluster_log_into_each_other_by_name() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    let config = json!({ "resources": { "cpu": "1", "mem": "384m" } });
    let extra = json!({ "clusterSize": 2, "config": config });
    client.post("/session", create_body("pair", "python", extra)).await?.ok();
    let run = "import subprocess; print(subprocess.run(['ssh', 'sub1', 'hostname; whoami'], \
        capture_output=True, text=True))";
    let printed = execute(&client, "pair", run).await?;
    assert!(printed.contains("returncode=0"), "{printed}");
    assert!(printed.contains("stdout='sub1\\nwork\\n'"), "{printed}");
    cluster.stop().await
}
