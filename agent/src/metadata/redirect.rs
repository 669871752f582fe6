//! The firewall's rules that bring containers to the metadata service.
//!
//! A chain of the agent's own, named after it, has one rule for each container's address and
//! is replaced as a whole when they change. So several agents can share a host, other
//! people's containers are left alone, and whatever an agent that was killed has left is
//! found and removed by the next one.

use std::net::Ipv4Addr;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Where programs expect metadata, and how the kernel of the host is told.
const MATCH: [&str; 6] = ["-d", "169.254.169.254/32", "-p", "tcp", "--dport", "80"];
const CHAIN_PREFIX: &str = "BAI-META-";
/// The firewall's limit for names of chains.
const MAX_CHAIN: usize = 28;
/// Somebody else may be changing the rules: wait so many seconds.
const WAIT: [&str; 2] = ["-w", "5"];

/// Why the firewall was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// The program is missing.
    #[error("start {program}: {source}")]
    Start {
        /// The program.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It refused.
    #[error("{program}: {message}")]
    Refused {
        /// The program.
        program: &'static str,
        /// What it said.
        message: String,
    },
}

/// The rules of one agent.
pub struct Redirect {
    chain: String,
    port: u16,
}

impl Redirect {
    /// The rules that lead to a port of this host. Nothing is changed so far.
    pub fn new(agent_id: &str, port: u16) -> Self {
        Self { chain: chain(agent_id), port }
    }

    /// Makes an empty chain, in place of whatever an earlier process has left.
    ///
    /// # Errors
    /// The firewall cannot be changed.
    pub async fn set_up(&self) -> Result<(), RedirectError> {
        self.remove_jumps().await?;
        self.replace(&[]).await?;
        // First: rules of the engine might take such packets for theirs.
        iptables(&[&["-I", "PREROUTING", "1"], &MATCH[..], &["-j", &self.chain]].concat()).await
    }

    /// Redirects these containers and no others.
    ///
    /// # Errors
    /// The firewall cannot be changed.
    pub async fn replace(&self, containers: &[Ipv4Addr]) -> Result<(), RedirectError> {
        run("iptables-restore", &[&WAIT[..], &["--noflush"]].concat(), &self.rules(containers))
            .await
    }

    /// Removes every trace.
    ///
    /// # Errors
    /// The firewall cannot be changed.
    pub async fn remove(&self) -> Result<(), RedirectError> {
        self.remove_jumps().await?;
        iptables(&["-F", &self.chain]).await?;
        iptables(&["-X", &self.chain]).await
    }

    async fn remove_jumps(&self) -> Result<(), RedirectError> {
        let jump = [&MATCH[..], &["-j", &self.chain]].concat();
        // Refused when there is none (any more).
        while iptables(&[&["-C", "PREROUTING"], &jump[..]].concat()).await.is_ok() {
            iptables(&[&["-D", "PREROUTING"], &jump[..]].concat()).await?;
        }
        Ok(())
    }

    /// Declaring a chain empties it; all is done at once or not at all.
    fn rules(&self, containers: &[Ipv4Addr]) -> String {
        let Self { chain, port } = self;
        let rule = |address: &Ipv4Addr| {
            format!("-A {chain} -s {address}/32 -p tcp -j REDIRECT --to-ports {port}\n")
        };
        let rules: String = containers.iter().map(rule).collect();
        format!("*nat\n:{chain} - [0:0]\n{rules}COMMIT\n")
    }
}

/// A name by which people see whose chain it is; ids that do not fit are told apart by what
/// is left of a hash.
fn chain(agent_id: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let room = MAX_CHAIN - CHAIN_PREFIX.len();
    if agent_id.len() <= room && agent_id.chars().all(is_plain) {
        return format!("{CHAIN_PREFIX}{agent_id}");
    }
    let hash = fnv1a(agent_id.as_bytes());
    let kept: String = agent_id.chars().filter(|c| is_plain(*c)).take(room - 9).collect();
    format!("{CHAIN_PREFIX}{kept}-{hash:08x}")
}

/// FNV-1a of 32 bits: the same in every build, which the standard library's need not be.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

async fn iptables(args: &[&str]) -> Result<(), RedirectError> {
    run("iptables", &[&WAIT[..], &["-t", "nat"], args].concat(), "").await
}

async fn run(program: &'static str, args: &[&str], input: &str) -> Result<(), RedirectError> {
    let start = |source| RedirectError::Start { program, source };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.map_err(start)?;
    }
    let output = child.wait_with_output().await.map_err(start)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(RedirectError::Refused { program, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_named_after_their_agents_within_the_limit() {
        assert_eq!(chain("i-gpu01.example"), "BAI-META-i-gpu01.example");
        let long = ["i-a-very-long-host-name-of-a-site-1", "i-a-very-long-host-name-of-a-site-2"];
        let names = long.map(chain);
        assert!(names.iter().all(|name| name.len() == MAX_CHAIN), "{names:?}");
        assert_ne!(names[0], names[1]);
        assert!(chain("a b\n-j").starts_with("BAI-META-ab-j-"));
    }

    #[test]
    fn only_the_containers_named_are_redirected() {
        let rules = Redirect::new("i-a", 40128).rules(&[Ipv4Addr::new(172, 17, 0, 2)]);
        let expected = "*nat\n:BAI-META-i-a - [0:0]\n\
            -A BAI-META-i-a -s 172.17.0.2/32 -p tcp -j REDIRECT --to-ports 40128\nCOMMIT\n";
        assert_eq!(rules, expected);
    }
}
