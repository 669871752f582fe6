//! Operations on the files beneath [`WORK_DIR`](super::WORK_DIR), one on each stream to
//! [`StreamTarget::Files`](super::StreamTarget::Files).
//!
//! ```text
//!              to the kernel               from the kernel
//!   Upload     Request, Data…, End         End
//!   Download   Request                     Begin, Data…, End
//!   Read       Request                     Begin, Data…, End
//!   List       Request                     Entries…, End
//! ```
//!
//! In place of anything from the kernel may come `Failed`, which is the last; an upload's
//! failure waits until all of it was sent. A stream that breaks off without `End` carried
//! nothing: an upload is dropped, and what was received is not whole.
//!
//! A frame is one byte that says what, a `u32` length in big endian, and that many bytes.
//! Whoever reads must not trust the other side: the kernel's end is a process of the user.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio_util::codec::{Decoder, Encoder};

use super::FrameError;

/// Longest frame.
pub const MAX_PAYLOAD: usize = 256 << 10;
/// Bytes of a file in one frame, at most.
pub const MAX_DATA: usize = 64 << 10;
/// Entries of a folder in one frame, at most; a name has at most 255 bytes.
pub const MAX_BATCH: usize = 256;
/// A listing ends with [`FilesErrorKind::TooLarge`] after as many entries.
pub const MAX_ENTRIES: u64 = 100_000;

const REQUEST: u8 = 0;
const BEGIN: u8 = 1;
const DATA: u8 = 2;
const ENTRIES: u8 = 3;
const END: u8 = 4;
const FAILED: u8 = 5;
const HEADER: usize = 5;

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub enum FilesMessage {
    /// What is wanted; the first frame to the kernel.
    Request(FilesRequest),
    /// It will be done; the length of all data in bytes, which is kept.
    Begin(u64),
    /// The next bytes; at most [`MAX_DATA`].
    Data(Bytes),
    /// The next entries of a folder, in no order; at most [`MAX_BATCH`].
    Entries(Vec<FileEntry>),
    /// Complete.
    End,
    /// Not done.
    Failed(FilesError),
}

/// What is wanted. Paths are bytes, relative to the work folder or absolute beneath it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilesRequest {
    /// Writes a file, which appears under its name once it is whole. Folders on the way
    /// are made. Anything but a folder is replaced.
    Upload {
        /// The file.
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
        /// Permission bits of a new file; one that is replaced hands its own on.
        mode: u32,
    },
    /// A file, or a folder with all in it, as a tar archive in GNU's format. Its entries
    /// begin with the path's last name. Links inside a folder stay links; sockets, pipes
    /// and devices are left out.
    Download {
        /// The file or folder.
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
        /// Refuse a longer archive.
        max_bytes: u64,
    },
    /// The content of one file.
    Read {
        /// The file.
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
        /// Refuse a longer file.
        max_bytes: u64,
    },
    /// What is in a folder.
    List {
        /// The folder.
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
    },
}

/// Something in a folder; links are not followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// Type and permission bits (`st_mode`).
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Last access, in seconds since 1970.
    pub atime: f64,
    /// Last change of the content.
    pub mtime: f64,
    /// Last change of anything.
    pub ctime: f64,
}

/// Why an operation was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{path}: {kind}")]
pub struct FilesError {
    /// What it failed at, as [`display_name`] shows it: the asked path, or one in it.
    pub path: String,
    /// Why.
    pub kind: FilesErrorKind,
}

/// Why an operation was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum FilesErrorKind {
    /// Nothing has this name.
    #[error("no such file or folder")]
    NotFound,
    /// Something on the way, or what should be listed, is no folder.
    #[error("not a folder")]
    NotAFolder,
    /// A folder, pipe, socket or device where a file is needed.
    #[error("not a file")]
    NotAFile,
    /// The path leads out of the work folder, by itself or through a link.
    #[error("outside of /home/work")]
    Outside,
    /// Longer than allowed: bytes, or entries of a folder.
    #[error("larger than {limit}")]
    TooLarge {
        /// What is allowed.
        limit: u64,
    },
    /// The kernel's user may not do this.
    #[error("permission denied")]
    Permission,
    /// No file can have this name; why.
    #[error("{0}")]
    InvalidPath(String),
    /// The system refuses; in words.
    #[error("{0}")]
    Failed(String),
}

/// A name for people and JSON: itself, if it is UTF-8. Of another, each byte that is not is
/// shown as `%XX`, and each percent sign as `%25`.
pub fn display_name(name: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(name) {
        return text.to_owned();
    }
    let mut shown = String::new();
    for chunk in name.utf8_chunks() {
        shown.push_str(&chunk.valid().replace('%', "%25"));
        shown.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    shown
}

/// Type and permission bits as `ls -l` shows them: `drwxr-xr-x`.
pub fn mode_text(mode: u32) -> String {
    let mut text = String::with_capacity(10);
    text.push(match mode & 0o170_000 {
        0o100_000 => '-',
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o010_000 => 'p',
        0o140_000 => 's',
        0o020_000 => 'c',
        0o060_000 => 'b',
        _ => '?',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Encodes and decodes frames of both directions.
#[derive(Debug, Default)]
pub struct FilesCodec;

impl Decoder for FilesCodec {
    type Item = FilesMessage;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<FilesMessage>, FrameError> {
        let Some(&[kind, a, b, c, d]) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLarge(length));
        }
        if buffer.len() < HEADER + length {
            buffer.reserve(HEADER + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(HEADER);
        let payload = buffer.split_to(length).freeze();
        Ok(Some(match (kind, length) {
            (REQUEST, _) => FilesMessage::Request(read(&payload)?),
            (BEGIN, _) => FilesMessage::Begin(read(&payload)?),
            (DATA, 0..=MAX_DATA) => FilesMessage::Data(payload),
            (ENTRIES, _) => FilesMessage::Entries(read(&payload)?),
            (END, 0) => FilesMessage::End,
            (FAILED, _) => FilesMessage::Failed(read(&payload)?),
            _ => return Err(FrameError::Malformed(format!("{length} bytes of kind {kind}"))),
        }))
    }
}

impl Encoder<FilesMessage> for FilesCodec {
    type Error = FrameError;

    fn encode(&mut self, message: FilesMessage, buffer: &mut BytesMut) -> Result<(), FrameError> {
        let (kind, payload) = match message {
            FilesMessage::Request(request) => (REQUEST, write(&request)?),
            FilesMessage::Begin(length) => (BEGIN, write(&length)?),
            FilesMessage::Data(bytes) if bytes.len() > MAX_DATA => {
                return Err(FrameError::TooLarge(bytes.len()));
            }
            FilesMessage::Data(bytes) => (DATA, bytes),
            FilesMessage::Entries(entries) => (ENTRIES, write(&entries)?),
            FilesMessage::End => (END, Bytes::new()),
            FilesMessage::Failed(error) => (FAILED, write(&error)?),
        };
        if payload.len() > MAX_PAYLOAD {
            return Err(FrameError::TooLarge(payload.len()));
        }
        buffer.reserve(HEADER + payload.len());
        buffer.put_u8(kind);
        buffer.put_u32(payload.len() as u32);
        buffer.extend_from_slice(&payload);
        Ok(())
    }
}

fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, FrameError> {
    rmp_serde::from_slice(payload).map_err(|error| FrameError::Malformed(error.to_string()))
}

fn write(value: &impl Serialize) -> Result<Bytes, FrameError> {
    let bytes = rmp_serde::to_vec_named(value);
    bytes.map(Bytes::from).map_err(|error| FrameError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let sent = vec![
            FilesMessage::Request(FilesRequest::Upload { path: b"a/\xff".into(), mode: 0o644 }),
            FilesMessage::Data(Bytes::from_static(b"content")),
            FilesMessage::Data(Bytes::new()),
            FilesMessage::Begin(u64::MAX),
            FilesMessage::Entries(vec![FileEntry {
                name: b"\xff\n".into(),
                mode: 0o100_644,
                size: 7,
                atime: 0.0,
                mtime: 1.5,
                ctime: -1.0,
            }]),
            FilesMessage::Failed(FilesError {
                path: "x".into(),
                kind: FilesErrorKind::TooLarge { limit: 1 },
            }),
            FilesMessage::End,
        ];
        let mut whole = BytesMut::new();
        for message in sent.clone() {
            FilesCodec.encode(message, &mut whole).expect("encode");
        }
        for cut in 0..whole.len() {
            let mut buffer = BytesMut::from(&whole[..cut]);
            let mut got = Vec::new();
            while let Some(message) = FilesCodec.decode(&mut buffer).expect("decode") {
                got.push(message);
            }
            buffer.extend_from_slice(&whole[cut..]);
            while let Some(message) = FilesCodec.decode(&mut buffer).expect("decode") {
                got.push(message);
            }
            assert_eq!(got, sent, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_before_it_is_read() {
        for bytes in [&b"\x02\xff\xff\xff\xff"[..], b"\x04\0\0\0\x01x", b"\x09\0\0\0\0"] {
            assert!(FilesCodec.decode(&mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
        }
        let long = FilesMessage::Data(Bytes::from(vec![0; MAX_DATA + 1]));
        assert!(FilesCodec.encode(long, &mut BytesMut::new()).is_err());
    }

    #[test]
    fn the_largest_batch_fits_a_frame() {
        let entry = FileEntry {
            name: vec![0xff; 255],
            mode: u32::MAX,
            size: u64::MAX,
            atime: 1.0,
            mtime: 1.0,
            ctime: 1.0,
        };
        let batch = FilesMessage::Entries(vec![entry; MAX_BATCH]);
        FilesCodec.encode(batch, &mut BytesMut::new()).expect("encode");
    }

    #[test]
    fn modes_are_written_as_ls_does() {
        assert_eq!(mode_text(0o100_644), "-rw-r--r--");
        assert_eq!(mode_text(0o041_777), "drwxrwxrwt");
        assert_eq!(mode_text(0o106_711), "-rws--s--x");
        assert_eq!(mode_text(0o104_644), "-rwSr--r--");
        assert_eq!(mode_text(0o120_777), "lrwxrwxrwx");
    }

    #[test]
    fn names_are_shown_without_loss() {
        assert_eq!(display_name("글 100%\n".as_bytes()), "글 100%\n");
        assert_eq!(display_name(b"a%\xff\xc3("), "a%25%FF%C3(");
    }
}
