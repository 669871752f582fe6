//! The language between an agent and the kernel runner in a container.
//!
//! The agent listens on a unix socket, one per kernel, in a folder mounted into the
//! container as `/opt/backend.ai/ipc`; only root may open it, so the user's code cannot.
//! The runner (PID 1) connects, says [`FromRunner::Hello`], and reconnects whenever the
//! agent restarts. Frames are a big-endian `u32` length and a MessagePack message.
//!
//! Output records are numbered. The runner keeps each until the agent acknowledged it and
//! sends the unacknowledged ones again after a reconnection, so that an agent's restart
//! loses no output. At most [`OUTPUT_WINDOW`] bytes wait unacknowledged: then the runner
//! stops reading the program's output, and the program blocks as on a full pipe.
//!
//! Runs are carried out one after the other, in order of arrival.
//!
//! Traffic of apps, terminals and files does not pass through that connection. For each
//! [`ToRunner::OpenStream`] the runner connects once more and sends [`FromRunner::StreamOpened`]
//! alone; with a successful one comes the descriptor of a stream socket (`SCM_RIGHTS`),
//! which the agent reads and writes from then on without the runner's help: the runner's
//! own TCP connection to the app, or the far end of a socket pair it serves itself. So
//! each stream has its own back-pressure, and an app's bytes are copied once less.

pub mod files;
pub mod handover;
pub mod terminal;

use std::collections::BTreeMap;

use backendai_types::image::ServicePort;
use bytes::{Buf, BufMut, BytesMut};
use serde::{Deserialize, Serialize};
use tokio_util::codec::{Decoder, Encoder};

/// Changes when a message changes in a way the other side must know.
pub const PROTOCOL_VERSION: u32 = 1;
/// Name of the agent's socket inside the mounted folder.
pub const SOCKET_NAME: &str = "agent.sock";
/// Where the folder with the socket is mounted in the container.
pub const IPC_DIR: &str = "/opt/backend.ai/ipc";
/// Where the runner finds its [`RunnerConfig`] as JSON.
pub const CONFIG_PATH: &str = "/home/config/runner.json";
/// Where the runner binary is mounted.
pub const RUNNER_PATH: &str = "/opt/backend.ai/bin/kernel-runner";
/// The working directory of everything in the container.
pub const WORK_DIR: &str = "/home/work";
/// Bytes of output that may wait for acknowledgement: several full pipes, and little
/// enough that a thousand busy kernels fit an agent.
pub const OUTPUT_WINDOW: usize = 1 << 20;
/// No frame is larger; pieces of output are cut well below.
pub const MAX_FRAME: usize = 16 << 20;
/// Text records are cut at this many bytes.
pub const MAX_TEXT_RECORD: usize = 256 << 10;

/// What the runner is told at start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunnerConfig {
    /// The kernel's id.
    pub kernel_id: String,
    /// Numeric user the user's code runs as; 0 keeps root.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Language runtime: `python`, `app`, …
    pub runtime_type: String,
    /// The interpreter, if the image names one.
    pub runtime_path: Option<String>,
    /// Environment of everything that is started.
    pub environ: BTreeMap<String, String>,
    /// Script run before the first run.
    pub bootstrap_script: Option<String>,
    /// Command of a batch session; the runner starts it by itself, once.
    pub startup_command: Option<String>,
    /// Services of the image and the ports they shall listen on.
    #[serde(default)]
    pub service_ports: Vec<ServicePort>,
    /// Host names of all kernels of the session, the main one first; several make a
    /// cluster, whose key pair is `ssh/id_cluster` beside this file.
    #[serde(default)]
    pub cluster_hosts: Vec<String>,
}

/// Agent to runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToRunner {
    /// Queues a run.
    Run {
        /// Names it.
        run_id: String,
        /// What to run.
        job: Job,
    },
    /// Answers [`RunRecord::WaitingInput`].
    Input {
        /// The run that waits.
        run_id: String,
        /// The line, without a newline.
        text: String,
    },
    /// SIGINT to what runs now.
    Interrupt,
    /// Forgets a run: ends it if it runs, drops it if it is queued, discards its output.
    Cancel {
        /// The run.
        run_id: String,
    },
    /// All records up to this number have been taken.
    Ack {
        /// Number of the last record.
        seq: u64,
    },
    /// Asks for completions; answered by [`FromRunner::Completions`].
    Complete {
        /// Names the question.
        id: u64,
        /// All of the code.
        code: String,
        /// Row and column of the cursor, from 0.
        cursor: Option<(u32, u32)>,
    },
    /// Asks for a stream; answered by [`FromRunner::StreamOpened`] on a connection of its own.
    OpenStream {
        /// Names it.
        id: u64,
        /// Where it shall lead.
        target: StreamTarget,
    },
    /// Starts a service; answered by [`FromRunner::ServiceStarted`].
    StartService {
        /// Names the question.
        id: u64,
        /// The service's name, as in [`AppInfo`].
        name: String,
        /// Command-line arguments by flag: none, one or several values each.
        arguments: BTreeMap<String, Vec<String>>,
        /// Environment variables.
        envs: BTreeMap<String, String>,
    },
    /// Ends a service: SIGTERM, then SIGKILL after two seconds. Not answered.
    StopService {
        /// Its name.
        name: String,
    },
    /// Ends everything in the container: SIGTERM, then SIGKILL after the grace.
    Shutdown {
        /// How long processes may take, in milliseconds.
        grace_ms: u64,
    },
}

/// What a run does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Job {
    /// A piece of code in the language runtime.
    Query {
        /// Source text.
        code: String,
    },
    /// Three commands of the shell; `None` skips one, `*` is the runtime's default.
    Batch {
        /// Cleaning command.
        clean: Option<String>,
        /// Building command.
        build: Option<String>,
        /// Main command.
        exec: Option<String>,
    },
}

/// Runner to agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromRunner {
    /// First message of every connection.
    Hello {
        /// [`PROTOCOL_VERSION`].
        protocol: u32,
        /// The kernel's id, as configured.
        kernel_id: String,
        /// The run that is executing, if any.
        running: Option<String>,
        /// Runs waiting behind it.
        queued: Vec<String>,
        /// Whether the running one waits for input and the agent has taken the question: true
        /// for a password. An agent that restarted since could not know.
        #[serde(default)]
        waiting_input: Option<bool>,
        /// Exit code of the startup command, once it has ended.
        startup_exit_code: Option<i32>,
    },
    /// First and only message of a connection made for a stream. A success carries the
    /// descriptor.
    StreamOpened(StreamOpened),
    /// The bootstrap script is done and runs are accepted. Sent once per connection.
    Ready {
        /// The services there are, those of the image's definitions and the runner's own.
        apps: Vec<AppInfo>,
    },
    /// One piece of a run.
    Record {
        /// Counts up by one over all runs, from 1.
        seq: u64,
        /// The run.
        run_id: String,
        /// The piece.
        record: RunRecord,
    },
    /// Answers [`ToRunner::Complete`].
    Completions {
        /// The question.
        id: u64,
        /// Candidates, best first.
        matches: Vec<String>,
    },
    /// Answers [`ToRunner::StartService`].
    ServiceStarted {
        /// The question.
        id: u64,
        /// What came of it.
        result: ServiceStart,
    },
    /// The startup command of a batch session ended.
    StartupFinished {
        /// Its exit code; 128 + signal if a signal ended it.
        exit_code: i32,
    },
}

/// Where a stream leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamTarget {
    /// A TCP port inside the container; those of the runner's own services
    /// ([`SSHD_PORT`], [`TTYD_PORT`]) are served by the runner without a listening port.
    Port(u16),
    /// The kernel's terminal, in the framing of [`terminal`].
    Terminal {
        /// Number of the first byte of output wanted, to go on where a stream broke off:
        /// [`StreamError::Ended`] tells that there will be no more. `None` wants what is
        /// kept of the terminal, or a new one if it has ended.
        from: Option<u64>,
    },
    /// A file operation beneath [`WORK_DIR`], one request a stream.
    Files,
}

/// Container port of the ssh server.
pub const SSHD_PORT: u16 = 2200;
/// Container port of the web terminal.
pub const TTYD_PORT: u16 = 7681;

/// How the opening of a stream went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOpened {
    /// The stream, as the agent named it.
    pub id: u64,
    /// The kernel's id, as configured.
    pub kernel_id: String,
    /// Why there is none.
    pub result: Result<(), StreamError>,
}

/// Why a stream was not opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum StreamError {
    /// Nothing listens on the port (yet).
    #[error("nothing listens on port {0}")]
    Refused(u16),
    /// The terminal has ended, and all of its output up to the asked position was sent.
    #[error("the terminal has ended")]
    Ended,
    /// The system refuses; in words.
    #[error("{0}")]
    Failed(String),
}

/// One service of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppInfo {
    /// Its name.
    pub name: String,
    /// How clients make a URL of it; passed on untouched.
    pub url_template: Option<String>,
    /// Arguments that users may give, with the defaults: none, one or several values.
    pub allowed_arguments: Option<BTreeMap<String, Vec<String>>>,
    /// Environment variables that users may give.
    pub allowed_envs: Option<Vec<String>>,
}

/// What came of starting a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceStart {
    /// It was started and listens.
    Started,
    /// It ran already.
    Running,
    /// It did not start; why, in words for the user.
    Failed(String),
}

/// A piece of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RunRecord {
    /// Output.
    Console(ConsoleItem),
    /// The program waits for a line.
    WaitingInput {
        /// True if it must not be echoed.
        is_password: bool,
    },
    /// The clean step ended.
    CleanFinished {
        /// Exit code.
        exit_code: i32,
    },
    /// The build step ended.
    BuildFinished {
        /// Exit code.
        exit_code: i32,
    },
    /// The run ended; nothing follows.
    Finished {
        /// Exit code.
        exit_code: i32,
    },
}

/// A piece of output, as the public API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ConsoleItem {
    /// Standard output.
    Stdout(String),
    /// Standard error.
    Stderr(String),
    /// An HTML fragment.
    Html(String),
    /// Something to show.
    Media {
        /// MIME type.
        mime: String,
        /// Data URI for bitmaps, text for SVG.
        data: String,
    },
    /// A log line.
    Log(String),
}

impl ConsoleItem {
    /// Rough size in bytes, for windows and limits.
    pub fn size(&self) -> usize {
        match self {
            Self::Stdout(text) | Self::Stderr(text) | Self::Html(text) | Self::Log(text) => {
                text.len()
            }
            Self::Media { mime, data } => mime.len() + data.len(),
        }
    }
}

impl RunRecord {
    /// Rough size in bytes, for windows and limits.
    pub fn size(&self) -> usize {
        match self {
            Self::Console(item) => item.size(),
            _ => 16,
        }
    }
}

/// Encodes and decodes frames; `In` is what this side receives.
pub struct FrameCodec<In>(std::marker::PhantomData<fn() -> In>);

impl<In> Default for FrameCodec<In> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

/// A frame that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream failed.
    #[error("read or write frame")]
    Io(#[from] std::io::Error),
    /// Larger than [`MAX_FRAME`].
    #[error("frame of {0} bytes is larger than allowed")]
    TooLarge(usize),
    /// Not a message.
    #[error("malformed frame: {0}")]
    Malformed(String),
}

impl<In: serde::de::DeserializeOwned> Decoder for FrameCodec<In> {
    type Item = In;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<In>, FrameError> {
        let Some(prefix) = buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLarge(length));
        }
        if buffer.len() < 4 + length {
            buffer.reserve(4 + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(4);
        let frame = buffer.split_to(length);
        rmp_serde::from_slice(&frame).map(Some).map_err(|e| FrameError::Malformed(e.to_string()))
    }
}

impl<In, Out: Serialize> Encoder<Out> for FrameCodec<In> {
    type Error = FrameError;

    fn encode(&mut self, message: Out, buffer: &mut BytesMut) -> Result<(), FrameError> {
        let body =
            rmp_serde::to_vec_named(&message).map_err(|e| FrameError::Malformed(e.to_string()))?;
        if body.len() > MAX_FRAME {
            return Err(FrameError::TooLarge(body.len()));
        }
        buffer.reserve(4 + body.len());
        buffer.put_u32(body.len() as u32);
        buffer.extend_from_slice(&body);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let messages = vec![
            ToRunner::Run { run_id: "a".into(), job: Job::Query { code: "print(1)".into() } },
            ToRunner::Interrupt,
            ToRunner::Ack { seq: 7 },
        ];
        let mut whole = BytesMut::new();
        for message in &messages {
            FrameCodec::<FromRunner>::default().encode(message, &mut whole).expect("encode");
        }
        for cut in 0..whole.len() {
            let mut codec = FrameCodec::<ToRunner>::default();
            let mut got = Vec::new();
            let mut buffer = BytesMut::from(&whole[..cut]);
            while let Some(message) = codec.decode(&mut buffer).expect("decode") {
                got.push(message);
            }
            buffer.extend_from_slice(&whole[cut..]);
            while let Some(message) = codec.decode(&mut buffer).expect("decode") {
                got.push(message);
            }
            assert_eq!(got, messages, "cut at {cut}");
        }
    }

    #[test]
    fn an_oversized_frame_is_refused_before_it_is_read() {
        let mut buffer = BytesMut::from(&(u32::MAX.to_be_bytes())[..]);
        let result = FrameCodec::<ToRunner>::default().decode(&mut buffer);
        assert!(matches!(result, Err(FrameError::TooLarge(_))));
    }
}
