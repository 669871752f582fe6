//! Files of a session, with an agent and a kernel that are played.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backendai_rpc::agent_api::{STREAM_TOKEN_LEN, StreamTicket};
use backendai_rpc::call::{CallContext, CallError, Connection, encode};
use backendai_rpc::runner::files::{
    FileEntry, FilesCodec, FilesError, FilesErrorKind, FilesMessage, FilesRequest,
};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::Framed;

use super::world::{Key, Options, Reply, World};

const TOKEN: [u8; STREAM_TOKEN_LEN] = [7; STREAM_TOKEN_LEN];
const MEGABYTE: usize = 1 << 20;
const BOUNDARY: &str = "af22d99687144b7fb7a559171022d4af";

/// The kernel's side: what was uploaded, by path.
#[derive(Default)]
struct Kernel {
    port: u16,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

#[async_trait::async_trait]
impl Connection for Kernel {
    async fn call(
        &self,
        _: &CallContext,
        method: &'static str,
        _: Vec<u8>,
        _: Duration,
    ) -> Result<Vec<u8>, CallError> {
        assert_eq!(method, "open_stream");
        Ok(encode(&StreamTicket { port: self.port, token: TOKEN }))
    }
}

type Frames = Framed<TcpStream, FilesCodec>;

async fn serve(mut stream: TcpStream, files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>) {
    let mut token = [0; STREAM_TOKEN_LEN];
    stream.read_exact(&mut token).await.unwrap();
    assert_eq!(token, TOKEN);
    let mut frames = Framed::new(stream, FilesCodec);
    let Some(Ok(FilesMessage::Request(request))) = frames.next().await else { panic!() };
    let answers = match request {
        FilesRequest::Upload { path, mode: 0o644 } => {
            let path = String::from_utf8_lossy(&path).into_owned();
            let Some(content) = uploaded(&mut frames).await else { return };
            if path == "denied" {
                vec![failure(&path, FilesErrorKind::Permission)]
            } else {
                files.lock().insert(path, content);
                vec![FilesMessage::End]
            }
        }
        FilesRequest::Download { path, max_bytes } | FilesRequest::Read { path, max_bytes } => {
            assert_eq!(max_bytes, MEGABYTE as u64);
            content(&String::from_utf8(path).unwrap())
        }
        FilesRequest::List { path } => listing(&String::from_utf8(path).unwrap()),
        other => panic!("{other:?}"),
    };
    for answer in answers {
        // Who asked hangs up on nonsense.
        if frames.send(answer).await.is_err() {
            return;
        }
    }
}

async fn uploaded(frames: &mut Frames) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        match frames.next().await? {
            Ok(FilesMessage::Data(bytes)) => content.extend_from_slice(&bytes),
            Ok(FilesMessage::End) => return Some(content),
            Ok(other) => panic!("{other:?}"),
            Err(_) => return None,
        }
    }
}

fn failure(path: &str, kind: FilesErrorKind) -> FilesMessage {
    FilesMessage::Failed(FilesError { path: path.to_owned(), kind })
}

fn content(path: &str) -> Vec<FilesMessage> {
    let data = |text: &'static str| FilesMessage::Data(Bytes::from_static(text.as_bytes()));
    match path {
        "absent" => vec![failure(path, FilesErrorKind::NotFound)],
        "sparse" => vec![failure(path, FilesErrorKind::TooLarge { limit: MEGABYTE as u64 })],
        "../x" => vec![failure(path, FilesErrorKind::Outside)],
        "pipe" => vec![failure(path, FilesErrorKind::NotAFile)],
        "bad disk" => vec![failure(path, FilesErrorKind::Failed("bad sector".into()))],
        // A kernel is the user's: it may say anything.
        "endless" => vec![FilesMessage::Begin(u64::MAX)],
        "nonsense" => vec![FilesMessage::End],
        "silent" => vec![],
        "longer" => vec![FilesMessage::Begin(2), data("abc"), FilesMessage::End],
        "shorter" => vec![FilesMessage::Begin(2), data("a"), FilesMessage::End],
        "empty" => vec![FilesMessage::Begin(0), FilesMessage::End],
        _ => vec![FilesMessage::Begin(6), data("abc"), data("def"), FilesMessage::End],
    }
}

fn listing(path: &str) -> Vec<FilesMessage> {
    let entry = |name: &[u8]| FileEntry {
        name: name.into(),
        mode: 0o100_644,
        size: 3,
        atime: 1.0,
        mtime: 2.5,
        ctime: 3.0,
    };
    match path {
        "." => vec![
            FilesMessage::Entries(vec![entry(b"up.txt"), entry(b"a\n\"b")]),
            FilesMessage::Entries(vec![entry(b"\xff")]),
            FilesMessage::End,
        ],
        "empty" => vec![FilesMessage::End],
        "crowd" => vec![
            FilesMessage::Entries(vec![entry(b"first")]),
            failure(path, FilesErrorKind::TooLarge { limit: 1 }),
        ],
        "file" => vec![failure(path, FilesErrorKind::NotAFolder)],
        _ => vec![failure(path, FilesErrorKind::NotFound)],
    }
}

struct Stage {
    world: World,
    key: Key,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Stage {
    async fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kernel = Kernel { port: listener.local_addr().unwrap().port(), ..Kernel::default() };
        let files = Arc::clone(&kernel.files);
        let agents: Arc<dyn Connection> = Arc::new(kernel);
        let world = World::with(Options { agents: Some(agents), ..Options::default() }).await;
        super::graphql::insert_sessions(&world).await;
        let served = Arc::clone(&files);
        world.lifecycle.spawn("played kernel", async move {
            let mut streams = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                streams.spawn(serve(stream, Arc::clone(&served)));
            }
        });
        let key = world.key("admin").await;
        Self { world, key, files }
    }

    async fn upload_to(&self, session: &str, body: Vec<u8>, media_type: &str) -> Reply {
        let target = format!("/session/{session}/upload");
        self.world.request("POST", &target).body(body, media_type).signed(self.key).send().await
    }

    async fn upload(&self, parts: &[(&str, &[u8])]) -> Reply {
        let media_type = format!("multipart/form-data; boundary={BOUNDARY}");
        self.upload_to("capB", form(parts), &media_type).await
    }

    async fn get(&self, target: &str, body: Value) -> Reply {
        self.world.get(target).json(&body).signed(self.key).send().await
    }

    /// Status and message.
    async fn refused(&self, target: &str, body: Value) -> (u16, String) {
        let (status, _, message) = self.get(target, body).await.problem();
        (status, message)
    }
}

/// A body as the stock client sends it.
fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in parts {
        let length = content.len();
        let head = format!(
            "--{BOUNDARY}\r\nContent-Type: application/octet-stream\r\n\
             Content-Disposition: form-data; name=\"src\"; filename=\"{name}\"\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

#[tokio::test]
async fn uploads_reach_the_kernel_under_their_decoded_names() {
    let stage = Stage::set().await;
    let large = vec![b'\n'; MEGABYTE - 1];
    let parts: [(&str, &[u8]); 5] = [
        ("up.txt", b"hi\n"),
        ("d%2Fa%20b.txt", b"--af22d9968"),
        ("%ED%95%9C", b""),
        ("100%.txt", b"plain"),
        ("large", &large),
    ];
    let reply = stage.upload(&parts).await;
    assert_eq!((reply.status.as_u16(), reply.text.as_str()), (204, ""));
    let names = ["up.txt", "d/a b.txt", "한", "100%.txt", "large"];
    let expected: BTreeMap<_, _> = names
        .iter()
        .zip(parts)
        .map(|(name, (_, content))| ((*name).to_owned(), content.to_vec()))
        .collect();
    assert!(*stage.files.lock() == expected);
    assert_eq!(stage.upload(&[]).await.status.as_u16(), 204);
}

#[tokio::test]
async fn uploads_have_limits() {
    let stage = Stage::set().await;
    let content = vec![0; MEGABYTE - 1];
    let names: Vec<_> = (0..21).map(|number| format!("file{number}")).collect();
    let parts: Vec<_> = names.iter().map(|name| (name.as_str(), &content[..])).collect();
    let (status, kind, message) = stage.upload(&parts).await.problem();
    assert_eq!((status, kind.as_str()), (400, "invalid-api-params"));
    assert_eq!(message, "Too many files: at most 20 at once.");
    assert_eq!(stage.upload(&parts[..20]).await.status.as_u16(), 204);
    assert_eq!(stage.files.lock().len(), 20);

    let content = vec![0; 3 * MEGABYTE];
    for length in [MEGABYTE, content.len()] {
        let (status, _, message) =
            stage.upload(&[("large", &content[..length]), ("next", b"x")]).await.problem();
        let expected = "Too large file: large is not smaller than 1048576 bytes.";
        assert_eq!((status, message.as_str()), (400, expected));
    }
    let files = stage.files.lock();
    assert!(!files.contains_key("large") && !files.contains_key("next"));
}

#[tokio::test]
async fn what_is_no_upload_is_said() {
    let stage = Stage::set().await;
    let whole = form(&[("a", b"content")]);
    let media_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let nameless = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"src\"\r\n\r\nx\r\n--{BOUNDARY}--\r\n"
    );
    let endless = [format!("--{BOUNDARY}\r\nX: ").into_bytes(), vec![b'x'; 3 * MEGABYTE]].concat();
    for (session, body, media_type, status, message) in [
        ("capB", whole.clone(), "application/json", 400, "The body is not multipart/form-data."),
        ("capB", whole.clone(), "multipart/form-data", 400, "The body is not multipart/form-data."),
        ("capB", nameless.into_bytes(), &media_type, 400, "A part is no file: it has no name."),
        ("capB", whole[..whole.len() - 20].to_vec(), &media_type, 400, "The body cannot be read"),
        ("capB", b"nonsense".to_vec(), &media_type, 400, "The body cannot be read"),
        ("capB", endless, &media_type, 400, "The body cannot be read"),
        ("capB", form(&[("denied", b"")]), &media_type, 403, "denied: permission denied"),
        ("capC", whole.clone(), &media_type, 400, "The session capC is not running"),
        ("nobody", whole, &media_type, 404, "Session (id=nobody) does not exist."),
    ] {
        let (got, _, said) = stage.upload_to(session, body, media_type).await.problem();
        assert_eq!(got, status, "{said}");
        assert!(said.starts_with(message), "{said}");
    }
    assert!(stage.files.lock().is_empty());
}

#[tokio::test]
async fn downloads_are_parts_of_one_body() {
    let stage = Stage::set().await;
    let reply = stage.get("/session/capB/download", json!({"files": ["one", "empty"]})).await;
    let content_type = reply.header("content-type").unwrap();
    let boundary = content_type.strip_prefix("multipart/mixed; boundary=").unwrap();
    let head = "Content-Type: application/octet-stream\r\nContent-Encoding: identity\r\n";
    let expected = format!(
        "--{boundary}\r\n{head}Content-Length: 6\r\n\r\nabcdef\r\n\
         --{boundary}\r\n{head}Content-Length: 0\r\n\r\n\r\n--{boundary}--\r\n"
    );
    assert_eq!(reply.text, expected);
    assert_eq!(reply.header("content-length"), Some(expected.len().to_string().as_str()));

    let query = stage.world.get("/session/capB/download?files=one").signed(stage.key).send().await;
    assert!(query.text.contains("abcdef"), "{query:?}");
    let single = stage.world.get("/session/capB/download_single?file=a%2Fb").signed(stage.key);
    let single = single.send().await;
    assert_eq!(single.text, "abcdef");
    assert_eq!(single.header("content-type"), Some("application/octet-stream"));
    assert_eq!(single.header("content-length"), Some("6"));
}

#[tokio::test]
async fn downloads_that_cannot_be_are_said_before_they_begin() {
    let stage = Stage::set().await;
    for (path, status, message) in [
        ("absent", 400, "The file is not found: absent"),
        ("sparse", 400, "Too large: sparse has more than 1048576."),
        ("../x", 400, "../x: outside of /home/work"),
        ("pipe", 400, "pipe: not a file"),
        ("bad disk", 500, ""),
        ("endless", 500, ""),
        ("nonsense", 500, ""),
        ("silent", 500, ""),
    ] {
        let single = stage.refused("/session/capB/download_single", json!({"file": path})).await;
        assert_eq!(single, (status, message.to_owned()));
        let files = json!({"files": ["fine", path]});
        let several = stage.refused("/session/capB/download", files).await;
        assert_eq!(several, (status, message.to_owned()));
    }
    let reply = stage.get("/session/capB/download_single", json!({"file": "bad disk"})).await;
    let exception = &reply.json()["agent-details"]["exception"];
    assert!(exception.as_str().unwrap().contains("bad disk: bad sector"), "{exception}");
    for (body, message) in [
        (json!({"files": vec!["x"; 6]}), "Too many files: at most 5 at once."),
        (json!({"files": []}), "No file is named."),
        (json!({"files": 7}), "Input validation error"),
        (json!({}), "Input validation error"),
        (json!({"files": ["x"], "owner_access_key": "x"}), "Input validation error"),
    ] {
        let refused = stage.refused("/session/capB/download", body).await;
        assert_eq!(refused, (400, message.to_owned()));
    }
    // What goes wrong later cuts the answer: its length has been said.
    for path in ["longer", "shorter"] {
        let request = stage.world.get(&format!("/session/capB/download_single?file={path}"));
        let sent = stage
            .world
            .http
            .get(format!("http://{}{}", stage.world.addr, request.target))
            .header("date", &request.date)
            .header("x-backendai-version", "v7.20230615")
            .header("authorization", request.authorization(stage.key))
            .send()
            .await;
        let whole = match sent {
            Ok(reply) => reply.bytes().await,
            // Cut before its head had left.
            Err(error) => Err(error),
        };
        assert!(whole.is_err(), "{path}");
    }
}

#[tokio::test]
async fn a_folder_is_listed() {
    let stage = Stage::set().await;
    let target = "/session/capB/files";
    let list = async |body: Value| {
        let reply = stage.get(target, body).await.json();
        let files: Value = serde_json::from_str(reply["files"].as_str().unwrap()).unwrap();
        (files, reply["errors"].clone(), reply["abspath"].clone())
    };
    let (files, errors, path) = list(json!({})).await;
    assert_eq!((errors, path), (json!(""), json!(".")));
    let file = |name: &str| json!({"mode": "-rw-r--r--", "size": 3, "ctime": 3.0, "mtime": 2.5, "atime": 1.0, "filename": name});
    assert_eq!(files, json!([file("up.txt"), file("a\n\"b"), file("%FF")]));
    let (files, errors, path) = list(json!({"path": "empty"})).await;
    assert_eq!((files, errors, path), (json!([]), json!(""), json!("empty")));
    let (files, errors, _) = list(json!({"path": "crowd"})).await;
    assert_eq!(files, json!([file("first")]));
    assert!(errors.as_str().unwrap().contains("Too large: crowd has more than 1."), "{errors}");

    for (body, message) in [
        (json!({"path": "absent"}), "The file is not found: absent"),
        (json!({"path": "file"}), "file: not a folder"),
        (json!({"path": 7}), "Input validation error"),
        (json!({"path": "a\0b"}), "Malformed body"),
    ] {
        assert_eq!(stage.refused(target, body).await, (400, message.to_owned()));
    }
    let without_body = stage.world.get(target).signed(stage.key).send().await;
    assert_eq!(without_body.problem().2, "Malformed body");
}
