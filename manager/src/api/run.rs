//! Steps of a run, as the API shows them: shared by the polling route and the websocket.

use backendai_rpc::agent_api::{ConsoleItem, ExecuteMode, ExecuteReply};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A `[type, data]` pair of a console.
struct Item<'a>(&'a ConsoleItem);

impl Serialize for Item<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            ConsoleItem::Stdout(text) => ("stdout", text).serialize(serializer),
            ConsoleItem::Stderr(text) => ("stderr", text).serialize(serializer),
            ConsoleItem::Html(text) => ("html", text).serialize(serializer),
            ConsoleItem::Log(text) => ("log", text).serialize(serializer),
            ConsoleItem::Media { mime, data } => ("media", (mime, data)).serialize(serializer),
        }
    }
}

/// Facts about the awaited input; null unless the run waits for one.
fn options(reply: &ExecuteReply) -> Value {
    reply.is_password.map_or(Value::Null, |is_password| json!({ "is_password": is_password }))
}

/// A step as the polling route shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolledStep<'a> {
    status: &'a str,
    run_id: &'a str,
    exit_code: Option<i32>,
    options: Value,
    files: [(); 0],
    console: Vec<Item<'a>>,
}

impl<'a> PolledStep<'a> {
    /// Shows a step.
    pub fn new(reply: &'a ExecuteReply) -> Self {
        Self {
            status: reply.status.as_str(),
            run_id: &reply.run_id,
            exit_code: reply.exit_code,
            options: options(reply),
            files: [],
            console: reply.console.iter().map(Item).collect(),
        }
    }
}

/// A step as a websocket frame.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Frame<'a> {
    status: &'a str,
    console: Vec<Item<'a>>,
    exit_code: Option<i32>,
    options: Value,
    files: [(); 0],
}

/// Text per frame. Clients refuse frames of 4 MiB, and JSON may need six bytes for one.
const MAX_FRAME_TEXT: usize = 512 << 10;

/// A step as one frame, or as several where its output is large: all but the last say that
/// more will come.
pub fn frames(reply: ExecuteReply) -> Vec<String> {
    let console: Vec<ConsoleItem> = reply.console.iter().flat_map(split).collect();
    let mut frames = Vec::new();
    let mut rest = console.as_slice();
    loop {
        let mut size = 0;
        let take = rest
            .iter()
            .take_while(|item| {
                let fits = size == 0 || size + item.size() <= MAX_FRAME_TEXT;
                size += item.size();
                fits
            })
            .count();
        let (now, later) = rest.split_at(take);
        let last = later.is_empty();
        let frame = Frame {
            status: if last { reply.status.as_str() } else { "continued" },
            console: now.iter().map(Item).collect(),
            exit_code: reply.exit_code.filter(|_| last),
            options: if last { options(&reply) } else { Value::Null },
            files: [],
        };
        frames.push(serde_json::to_string(&frame).expect("a frame is plain data"));
        if last {
            return frames;
        }
        rest = later;
    }
}

/// Cuts text that is too large for one frame. Media cannot be cut: the runner bounds it.
fn split(item: &ConsoleItem) -> Vec<ConsoleItem> {
    let (text, make): (&str, fn(String) -> ConsoleItem) = match item {
        ConsoleItem::Stdout(text) => (text, ConsoleItem::Stdout),
        ConsoleItem::Stderr(text) => (text, ConsoleItem::Stderr),
        ConsoleItem::Log(text) => (text, ConsoleItem::Log),
        ConsoleItem::Html(_) | ConsoleItem::Media { .. } => return vec![item.clone()],
    };
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > MAX_FRAME_TEXT {
        let (piece, tail) = rest.split_at(rest.floor_char_boundary(MAX_FRAME_TEXT));
        pieces.push(make(piece.to_owned()));
        rest = tail;
    }
    pieces.push(make(rest.to_owned()));
    pieces
}

/// Commands of a batch run: null and empty ones are skipped.
pub fn batch_mode(options: &Map<String, Value>) -> ExecuteMode {
    let command = |name: &str| {
        options.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    ExecuteMode::Batch { clean: command("clean"), build: command("build"), exec: command("exec") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backendai_rpc::agent_api::RunStatus;

    fn reply(console: Vec<ConsoleItem>) -> ExecuteReply {
        ExecuteReply {
            run_id: "r".into(),
            status: RunStatus::Finished,
            exit_code: Some(0),
            is_password: None,
            console,
            last_record: 0,
        }
    }

    /// As captured from the product.
    #[test]
    fn a_step_is_shown_as_the_contract_says() {
        let step = reply(vec![ConsoleItem::Stdout("hello 2\n".into())]);
        assert_eq!(
            frames(step.clone()),
            [
                r#"{"status":"finished","console":[["stdout","hello 2\n"]],"exitCode":0,"options":null,"files":[]}"#
            ]
        );
        assert_eq!(
            serde_json::to_string(&PolledStep::new(&step)).unwrap(),
            r#"{"status":"finished","runId":"r","exitCode":0,"options":null,"files":[],"console":[["stdout","hello 2\n"]]}"#
        );
        let waiting = ExecuteReply {
            status: RunStatus::WaitingInput,
            exit_code: None,
            is_password: Some(true),
            ..reply(vec![])
        };
        assert_eq!(
            frames(waiting),
            [
                r#"{"status":"waiting-input","console":[],"exitCode":null,"options":{"is_password":true},"files":[]}"#
            ]
        );
    }

    #[test]
    fn large_output_is_spread_over_frames_that_clients_accept() {
        let text = "\u{1}한".repeat(500 << 10);
        let frames = frames(reply(vec![ConsoleItem::Stdout(text.clone())]));
        assert!(frames.len() > 1);
        let mut joined = String::new();
        for (index, frame) in frames.iter().enumerate() {
            assert!(frame.len() < 4 << 20);
            let frame: Value = serde_json::from_str(frame).unwrap();
            let expected = if index + 1 == frames.len() { "finished" } else { "continued" };
            assert_eq!(frame["status"], expected);
            joined.extend(
                frame["console"].as_array().unwrap().iter().map(|i| i[1].as_str().unwrap()),
            );
        }
        assert_eq!(joined, text);
    }
}
