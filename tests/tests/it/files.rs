//! Files of sessions, with the stock client.

use std::fs;

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use backendai_tests::{StockClient, TestCluster};

/// A session named `files` that runs.
async fn session(cluster: &TestCluster, image: &str) -> Result<StockClient> {
    let client = cluster.client(&cluster.identities.user1)?;
    client.run(&["session", "create", "-t", "files", image]).await?.success();
    Ok(client)
}

#[tokio::test]
async fn files_and_folders_go_in_and_come_out() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = session(&cluster, "scratch").await?;
    let home = client.home();
    fs::create_dir_all(home.join("folder/deep"))?;
    let binary: Vec<u8> = (0..600_000_u32).map(|i| (i % 251) as u8).collect();
    let files: [(&str, &[u8]); 4] = [
        ("plain.txt", b"hi\n"),
        ("folder/with space %41.txt", b"in a folder"),
        ("folder/deep/\u{d55c}\u{ae00}.bin", &binary),
        ("empty", b""),
    ];
    let mut upload = vec!["session", "upload", "files"];
    for (name, content) in files {
        fs::write(home.join(name), content)?;
        upload.push(name);
    }
    client.run(&upload).await?.success();

    let listed = client.run(&["session", "ls", "files"]).await?.success();
    for name in ["plain.txt", "folder", "empty", "drwxr-xr-x", "-rw-r--r--"] {
        assert!(listed.stdout.contains(name), "{listed}");
    }
    let listed = client.run(&["session", "ls", "files", "folder/deep"]).await?.success();
    assert!(listed.stdout.contains("\u{d55c}\u{ae00}.bin"), "{listed}");

    let download =
        ["session", "download", "files", "plain.txt", "folder", "empty", "--dest", "out"];
    fs::create_dir(home.join("out"))?;
    client.run(&download).await?.success();
    for (name, content) in files {
        assert!(fs::read(home.join("out").join(name))? == content, "{name}");
    }
    // `backend.ai ssh` begins with this one.
    client.run(&["session", "download", "files", "id_container"]).await?.success();
    let key = fs::read_to_string(home.join("id_container"))?;
    assert!(key.contains("PRIVATE KEY"), "{key}");
    cluster.stop().await
}

#[tokio::test]
async fn programs_run_on_uploaded_files() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    let home = client.home();
    fs::create_dir(home.join("lib"))?;
    fs::write(home.join("lib/words.py"), "word = 'from a module'")?;
    fs::write(
        home.join("main.py"),
        "from lib.words import word\nprint(word, 6 * 7)\nopen('made', 'w').write(word)",
    )?;
    let exec = "python3 main.py";
    let run = ["run", "-t", "program", "--exec", exec, "python", "main.py", "lib/words.py"];
    let output = client.run(&run).await?.success();
    assert!(output.stdout.contains("from a module 42"), "{output}");
    client.run(&["session", "download", "program", "made"]).await?.success();
    assert_eq!(fs::read_to_string(home.join("made"))?, "from a module");
    cluster.stop().await
}

#[tokio::test]
async fn limits_and_ways_out_are_refused() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = session(&cluster, "busybox").await?;
    let home = client.home();
    let names: Vec<String> = (0..21).map(|number| format!("file{number}")).collect();
    for name in &names {
        fs::write(home.join(name), name)?;
    }
    fs::write(home.join("large"), vec![7; 1 << 20])?;
    let many: Vec<&str> = ["session", "upload", "files"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let output = client.run(&many).await?.failure();
    assert!(output.all().contains("Too many files"), "{output}");
    client.run(&many[..23]).await?.success();
    let output = client.run(&["session", "upload", "files", "large"]).await?.failure();
    assert!(output.all().contains("Too large file"), "{output}");

    // The program leaves traps for whoever fetches files.
    let traps = "ln -s /etc out; ln -s file0 in; mkfifo pipe; \
                 dd if=/dev/zero of=heavy bs=1 count=0 seek=1099511627776 2>/dev/null; \
                 mkdir locked; chmod 0 locked; echo set";
    let batch = ["run", "-q", "-t", "files", "--exec", traps, "busybox", "file0"];
    let output = client.run(&batch).await?.success();
    assert!(output.stdout.contains("set"), "{output}");
    for (path, message) in [
        ("absent", "The file is not found: absent"),
        ("../../etc/passwd", "outside of /home/work"),
        ("/etc/passwd", "outside of /home/work"),
        ("/home/work/../config/environ.txt", "outside of /home/work"),
        ("out/passwd", "outside of /home/work"),
        ("pipe", "not a file"),
        ("heavy", "Too large"),
        ("locked", "permission denied"),
    ] {
        let output = client.run(&["session", "download", "files", path]).await?.failure();
        assert!(output.all().contains(message), "{path}: {output}");
    }
    for (path, message) in [
        ("absent", "not found"),
        ("/home/work/..", "outside of /home/work"),
        ("file0", "not a folder"),
    ] {
        let output = client.run(&["session", "ls", "files", path]).await?.failure();
        assert!(output.all().contains(message), "{path}: {output}");
    }
    let names = ["file1", "file2", "file3", "file4", "file5", "file6"];
    let many: Vec<&str> = ["session", "download", "files"].into_iter().chain(names).collect();
    let output = client.run(&many).await?.failure();
    assert!(output.all().contains("Too many files"), "{output}");

    let signed = cluster.signed(&cluster.identities.user1);
    let single = async |path: &str| {
        let target = format!("/session/files/download_single?file={path}");
        signed.send(Method::GET, &target, Value::Null).await
    };
    assert_eq!(single("in").await?.ok(), json!("file0"));
    assert_eq!(single("out").await?.problem(), Some("invalid-api-params"));
    let stranger = cluster.signed(&cluster.identities.superadmin);
    let reply = stranger.get("/session/files/download_single?file=file0").await?;
    assert_eq!(reply.problem(), Some("object-not-found"));
    cluster.stop().await
}
