//! `start-server` as a process: it starts, answers, and stops when told to.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use super::support::{Site, free_port, redis};

/// A server that runs, and the lines of its log.
struct Running {
    child: Child,
    log: tokio::io::Lines<BufReader<tokio::process::ChildStderr>>,
    pid_file: PathBuf,
}

impl Running {
    fn start(site: &Site) -> Self {
        let pid_file = site.dir.path().join("manager.pid");
        let state = site.dir.path().join("state");
        site.configure(&format!(
            "[manager]\nid = \"i-test\"\nservice-addr = \"127.0.0.1:0\"\n\
             event-listen-addr = \"127.0.0.1:0\"\npid-file = {pid_file:?}\nstate-dir = {state:?}\n"
        ));
        let mut child = site.command(&["start-server"]).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, log, pid_file }
    }

    /// The first line of the log that contains a text.
    async fn line(&mut self, text: &str) -> String {
        let mut seen = String::new();
        let find = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                if line.contains(text) {
                    return Some(line);
                }
                seen.push_str(&line);
                seen.push('\n');
            }
            None
        };
        match tokio::time::timeout(Duration::from_secs(60), find).await {
            Ok(Some(line)) => line,
            _ => panic!("no {text:?} in the log:\n{seen}"),
        }
    }

    /// Ends it as a supervisor does; it must go in peace and leave no pid file.
    async fn stop(mut self) {
        let pid = std::fs::read_to_string(&self.pid_file).unwrap();
        assert_eq!(pid.trim(), self.child.id().unwrap().to_string());
        let kill = tokio::process::Command::new("kill").args(["-TERM", pid.trim()]).status();
        assert!(kill.await.unwrap().success());
        // Whoever reads the log must go on reading, or the server waits for it.
        let drain = async { while let Ok(Some(_)) = self.log.next_line().await {} };
        let (status, ()) = tokio::join!(self.child.wait(), drain);
        assert!(status.unwrap().success());
        assert!(!self.pid_file.exists());
    }
}

#[tokio::test]
async fn the_server_answers_and_stops_when_told_to() {
    let site = Site::start(true).await;
    site.ok(&["etcd", "put", "config/redis/addr", redis().await]).await;
    let mut running = Running::start(&site);
    let ready = running.line("the manager is ready").await;
    let addr = ready.split("api=").nth(1).unwrap().split_whitespace().next().unwrap();
    backendai_manager::tls::install_provider();
    let reply = reqwest::get(format!("http://{addr}/")).await.unwrap();
    assert!(reply.status().is_success());
    let body: serde_json::Value = reply.json().await.unwrap();
    assert_eq!(body["version"], "v7.20230615");
    running.stop().await;
}

#[tokio::test]
async fn a_server_that_waits_for_another_can_be_stopped() {
    let site = Site::start(true).await;
    let config = format!("[etcd]\naddr = \"127.0.0.1:{}\"\n", free_port());
    std::fs::write(site.dir.path().join("manager.toml"), config).unwrap();
    let mut running = Running::start(&site);
    running.line("waiting for etcd").await;
    running.stop().await;
}

#[tokio::test]
async fn what_only_a_person_can_mend_ends_the_start() {
    let site = Site::start(false).await;
    let mut running = Running::start(&site);
    running.line("schema oneshot").await;
    assert_eq!(running.child.wait().await.unwrap().code(), Some(1));
    assert!(!running.pid_file.exists());
}
