//! Operations on files, with all that a hostile user can put in their way.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use backendai_rpc::runner::files::{
    FileEntry, FilesCodec, FilesError, FilesErrorKind, FilesMessage, FilesRequest, MAX_DATA,
};
use backendai_rpc::runner::{StreamError, StreamTarget};
use bytes::{Bytes, BytesMut};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio_util::codec::{Decoder, Encoder};

use crate::support::{Agent, Setup, wait_until};

const MEGABYTE: u64 = 1 << 20;

/// The asking end of one operation.
struct Operation {
    stream: UnixStream,
    received: BytesMut,
}

impl Operation {
    fn begin(agent: &mut Agent, request: FilesRequest) -> Self {
        let stream = agent.open(StreamTarget::Files);
        let mut operation = Self { stream, received: BytesMut::new() };
        operation.send(FilesMessage::Request(request));
        operation
    }

    fn send(&mut self, message: FilesMessage) {
        let mut frame = BytesMut::new();
        FilesCodec.encode(message, &mut frame).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    fn receive(&mut self) -> FilesMessage {
        loop {
            if let Some(message) = FilesCodec.decode(&mut self.received).unwrap() {
                return message;
            }
            let mut piece = [0; 1 << 14];
            let length = self.stream.read(&mut piece).unwrap();
            assert_ne!(length, 0, "the operation broke off");
            self.received.extend_from_slice(&piece[..length]);
        }
    }

    /// The bytes that come, and how many were promised.
    fn data(&mut self) -> Result<(u64, Vec<u8>), FilesError> {
        let promised = match self.receive() {
            FilesMessage::Begin(length) => length,
            FilesMessage::Failed(error) => return Err(error),
            other => panic!("{other:?}"),
        };
        let mut all = Vec::new();
        loop {
            match self.receive() {
                FilesMessage::Data(bytes) => all.extend_from_slice(&bytes),
                FilesMessage::End => return Ok((promised, all)),
                FilesMessage::Failed(error) => return Err(error),
                other => panic!("{other:?}"),
            }
        }
    }
}

pub fn upload(agent: &mut Agent, path: &[u8], content: &[u8]) -> Result<(), FilesError> {
    let request = FilesRequest::Upload { path: path.into(), mode: 0o644 };
    let mut operation = Operation::begin(agent, request);
    for piece in content.chunks(MAX_DATA) {
        operation.send(FilesMessage::Data(Bytes::copy_from_slice(piece)));
    }
    operation.send(FilesMessage::End);
    match operation.receive() {
        FilesMessage::End => Ok(()),
        FilesMessage::Failed(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

pub fn read(agent: &mut Agent, path: &[u8], max_bytes: u64) -> Result<Vec<u8>, FilesError> {
    let request = FilesRequest::Read { path: path.into(), max_bytes };
    let (promised, bytes) = Operation::begin(agent, request).data()?;
    assert_eq!(promised, bytes.len() as u64);
    Ok(bytes)
}

pub fn download(agent: &mut Agent, path: &[u8], max_bytes: u64) -> Result<Vec<u8>, FilesError> {
    let request = FilesRequest::Download { path: path.into(), max_bytes };
    let (promised, bytes) = Operation::begin(agent, request).data()?;
    assert_eq!(promised, bytes.len() as u64);
    Ok(bytes)
}

/// What an archive holds: type and content by name, of links the target.
fn unpack(archive: &[u8]) -> BTreeMap<Vec<u8>, (char, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path_bytes().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let kind = match entry.header().entry_type() {
            tar::EntryType::Regular => '-',
            tar::EntryType::Directory => 'd',
            tar::EntryType::Symlink => 'l',
            other => panic!("{other:?}"),
        };
        if kind == 'l' {
            content = entry.link_name_bytes().unwrap().into_owned();
        }
        assert!(found.insert(name, (kind, content)).is_none());
    }
    found
}

pub fn list(agent: &mut Agent, path: &[u8]) -> Result<Vec<FileEntry>, (usize, FilesError)> {
    let mut operation = Operation::begin(agent, FilesRequest::List { path: path.into() });
    let mut all = Vec::new();
    loop {
        match operation.receive() {
            FilesMessage::Entries(entries) => all.extend(entries),
            FilesMessage::End => {
                all.sort_by(|a: &FileEntry, b| a.name.cmp(&b.name));
                return Ok(all);
            }
            FilesMessage::Failed(error) => return Err((all.len(), error)),
            other => panic!("{other:?}"),
        }
    }
}

/// Why each operation fails with a path: upload, download, read, list.
fn failures(agent: &mut Agent, path: &[u8]) -> [Option<FilesErrorKind>; 4] {
    [
        upload(agent, path, b"x").err(),
        download(agent, path, MEGABYTE).err(),
        read(agent, path, MEGABYTE).err(),
        list(agent, path).err().map(|(_, error)| error),
    ]
    .map(|error| error.map(|error| error.kind))
}

#[test]
fn files_go_in_and_come_out() {
    let mut agent = Setup::new("app").start();
    let work = agent.work();
    let content: Vec<u8> = (0..3 * MEGABYTE).map(|i| (i / 7) as u8).collect();
    upload(&mut agent, b"new/folder//of/data.bin", &content).unwrap();
    upload(&mut agent, b"/home/work/empty", b"").unwrap();
    assert!(fs::read(work.join("new/folder/of/data.bin")).unwrap() == content);
    assert_eq!(fs::metadata(work.join("empty")).unwrap().mode(), 0o100_644);
    assert!(read(&mut agent, b"./new/../new/folder/of/data.bin", u64::MAX).unwrap() == content);
    assert_eq!(read(&mut agent, b"empty", 0).unwrap(), b"");

    let archive = unpack(&download(&mut agent, b"/home/work/new/", u64::MAX).unwrap());
    let names: Vec<_> = archive.keys().map(|name| String::from_utf8_lossy(name)).collect();
    assert_eq!(names, ["new/", "new/folder/", "new/folder/of/", "new/folder/of/data.bin"]);
    assert!(archive[&b"new/folder/of/data.bin"[..]].1 == content);
    let archive = unpack(&download(&mut agent, b"empty", MEGABYTE).unwrap());
    assert_eq!(archive, [(b"empty".to_vec(), ('-', Vec::new()))].into());
    let archive = unpack(&download(&mut agent, b".", u64::MAX).unwrap());
    assert!(archive.contains_key(&b"work/new/folder/"[..]), "{:?}", archive.keys());

    let entries = list(&mut agent, b"").unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry.name.as_slice()).collect();
    assert_eq!(names, [&b"empty"[..], b"new"]);
    let real = fs::metadata(work.join("new")).unwrap();
    assert_eq!((entries[1].mode, entries[1].size), (real.mode(), real.size()));
    assert!((entries[1].mtime - real.mtime() as f64).abs() < 1.0);
    assert!((entries[1].ctime - real.ctime() as f64).abs() < 1.0);
    assert_eq!(
        list(&mut agent, b"/home/work/new/folder/of").unwrap()[0].size,
        content.len() as u64
    );
}

#[test]
fn an_upload_appears_whole_or_not_at_all() {
    let mut agent = Setup::new("app").start();
    let work = agent.work();
    let names = |work: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(work).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    fs::write(work.join("target"), "old").unwrap();
    let request = FilesRequest::Upload { path: b"target".into(), mode: 0o644 };
    let mut operation = Operation::begin(&mut agent, request);
    operation.send(FilesMessage::Data(Bytes::from_static(b"half")));
    wait_until("it is being written", || {
        names(&work).iter().any(|name| {
            name != "target" && fs::read(work.join(name)).is_ok_and(|half| half == b"half")
        })
    });
    assert_eq!(fs::read(work.join("target")).unwrap(), b"old");
    drop(operation);
    wait_until("what was begun is removed", || names(&work) == ["target"]);
    assert_eq!(fs::read(work.join("target")).unwrap(), b"old");
    upload(&mut agent, b"target", b"new").unwrap();
    assert_eq!(names(&work), ["target"]);
    assert_eq!(fs::read(work.join("target")).unwrap(), b"new");
}

#[test]
fn an_upload_replaces_what_is_no_folder() {
    let mut agent = Setup::new("app").start();
    let work = agent.work();
    fs::write(work.join("program"), "old").unwrap();
    fs::set_permissions(work.join("program"), PermissionsExt::from_mode(0o777)).unwrap();
    fs::hard_link(work.join("program"), work.join("other")).unwrap();
    upload(&mut agent, b"program", b"new").unwrap();
    assert_eq!(fs::metadata(work.join("program")).unwrap().mode() & 0o7777, 0o777);
    assert_eq!(fs::read(work.join("other")).unwrap(), b"old");

    // A link is replaced, and what it leads to stays, wherever that is.
    let outside = agent.setup.folder.path().join("outside");
    fs::write(&outside, "precious").unwrap();
    symlink(&outside, work.join("link")).unwrap();
    upload(&mut agent, b"link", b"new").unwrap();
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
    assert!(fs::symlink_metadata(work.join("link")).unwrap().is_file());

    mknodat(CWD, work.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    upload(&mut agent, b"fifo", b"new").unwrap();
    assert_eq!(fs::read(work.join("fifo")).unwrap(), b"new");

    fs::create_dir(work.join("folder")).unwrap();
    let error = upload(&mut agent, b"folder", &vec![0; 3 << 20]).unwrap_err();
    assert_eq!(error.to_string(), "folder: not a file");
    assert_eq!(upload(&mut agent, b"program/x", b"").unwrap_err().kind, FilesErrorKind::NotAFolder);
}

#[test]
fn no_path_leads_out_of_the_work_folder() {
    let mut agent = Setup::new("app").start();
    let work = agent.work();
    let outside = agent.setup.folder.path().join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::create_dir(work.join("inside")).unwrap();
    symlink("../../outside", work.join("inside/relative")).unwrap();
    symlink(&outside, work.join("absolute")).unwrap();
    symlink("absolute", work.join("chain")).unwrap();
    symlink("/proc/self/root", work.join("magic")).unwrap();
    let outside_text = outside.to_str().unwrap();
    for path in [
        "../outside/secret",
        "inside/../../outside/secret",
        "./../outside/deep/../secret",
        "/home/work/../outside/secret",
        "inside/relative/secret",
        "absolute/secret",
        "chain/secret",
        "magic/etc/passwd",
        "/etc/passwd",
        "/home/worker/x",
        &format!("{outside_text}/secret"),
    ] {
        let all = [const { Some(FilesErrorKind::Outside) }; 4];
        assert_eq!(failures(&mut agent, path.as_bytes()), all, "{path}");
    }
    for path in ["..", "/", "absolute", "inside/relative", "/home/work/.."] {
        let listed = list(&mut agent, path.as_bytes()).unwrap_err().1;
        assert_eq!(listed.kind, FilesErrorKind::Outside, "{path}");
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 2);

    // What only looks like a way out is a name, or stays inside.
    symlink("inside/../inside", work.join("within")).unwrap();
    upload(&mut agent, b"within/..%2f..%2fetc", b"a name").unwrap();
    assert_eq!(fs::read(work.join("inside/..%2f..%2fetc")).unwrap(), b"a name");
    assert_eq!(read(&mut agent, b"within/..%2f..%2fetc", MEGABYTE).unwrap(), b"a name");
    // Links in a downloaded folder are carried, not followed.
    let archive = unpack(&download(&mut agent, b"inside", MEGABYTE).unwrap());
    assert_eq!(archive[&b"inside/relative"[..]], ('l', b"../../outside".to_vec()));
    assert_eq!(archive.len(), 3, "{archive:?}");
}

#[test]
fn a_link_swapped_at_the_wrong_moment_leads_nowhere() {
    let mut agent = Setup::new("app").start();
    let work = agent.work();
    let outside = agent.setup.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "secret").unwrap();
    fs::create_dir(work.join("folder")).unwrap();
    fs::write(work.join("folder/file"), "open").unwrap();
    symlink(&outside, work.join("link")).unwrap();
    let done = AtomicBool::new(false);
    let swap = || {
        while !done.load(Ordering::Relaxed) {
            let (a, b) = (work.join("folder"), work.join("link"));
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(CWD, &a, CWD, &b, exchange).unwrap();
        }
    };
    let refused = |kind: &FilesErrorKind| {
        use FilesErrorKind::{NotAFolder, NotFound, Outside};
        matches!(kind, Outside | NotAFolder | NotFound | FilesErrorKind::InvalidPath(_))
            // The system gave up telling whether it was led out.
            || *kind == FilesErrorKind::Failed(rustix::io::Errno::AGAIN.to_string())
    };
    std::thread::scope(|scope| {
        let swapping = scope.spawn(swap);
        for round in 0..40 {
            match read(&mut agent, b"folder/../folder/file", MEGABYTE) {
                Ok(content) => assert_eq!(content, b"open"),
                Err(error) => assert!(refused(&error.kind), "{error}"),
            }
            match download(&mut agent, b"folder", MEGABYTE) {
                Ok(archive) => {
                    let content = unpack(&archive).remove(&b"folder/file"[..]).unwrap().1;
                    assert_eq!(content, b"open");
                }
                Err(error) => assert!(refused(&error.kind), "{error}"),
            }
            let new = format!("folder/new{round}/file");
            if let Err(error) = upload(&mut agent, new.as_bytes(), b"x") {
                assert!(refused(&error.kind), "{error}");
            }
        }
        done.store(true, Ordering::Relaxed);
        swapping.join().unwrap();
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn what_is_no_path_is_said() {
    let mut agent = Setup::new("app").start();
    let invalid = |text: &str| Some(FilesErrorKind::InvalidPath(text.to_owned()));
    let all = |kind: Option<FilesErrorKind>| [kind.clone(), kind.clone(), kind.clone(), kind];
    let nul = all(invalid("a NUL byte cannot be in a path"));
    assert_eq!(failures(&mut agent, b"a\0b"), nul);
    let long = all(invalid("too long a name"));
    assert_eq!(failures(&mut agent, &[b'a'; 256]), long);
    assert_eq!(failures(&mut agent, &b"abc/".repeat(1100)[..4399]), long);
    fs::write(agent.work().join("file"), "").unwrap();
    symlink("loop", agent.work().join("loop")).unwrap();
    assert_eq!(failures(&mut agent, b"loop/x"), all(invalid("too many links")));
    let under_file = all(Some(FilesErrorKind::NotAFolder));
    assert_eq!(failures(&mut agent, b"file/x"), under_file);
    let [_, absent @ ..] = failures(&mut agent, b"absent/");
    assert_eq!(absent, [const { Some(FilesErrorKind::NotFound) }; 3]);
    for path in [&b""[..], b".", b"..", b"a/", b"a/..", b"/home/work", b"/home/work/"] {
        let error = upload(&mut agent, path, b"").unwrap_err();
        assert_eq!(Some(error.kind), invalid("not the name of a file"), "{path:?}");
    }
    let error = download(&mut agent, b"a/..", MEGABYTE).unwrap_err();
    assert_eq!(error.to_string(), "a/..: ends in `..`, which is no name");
    assert_eq!(
        read(&mut agent, b"no \xff%", 1).unwrap_err().to_string(),
        "no %FF%25: no such file or folder"
    );
}

#[test]
fn what_is_no_file_is_refused_and_never_waited_for() {
    let mut agent = Setup::new("app").start();
    let folder = agent.work().join("folder");
    fs::create_dir(&folder).unwrap();
    mknodat(CWD, folder.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    let _socket = UnixListener::bind(folder.join("socket")).unwrap();
    let mut special = vec!["fifo", "socket"];
    // A device needs a capability that some machines do not give.
    let zero = rustix::fs::makedev(1, 5);
    if mknodat(CWD, folder.join("zero"), FileType::CharacterDevice, Mode::RUSR, zero).is_ok() {
        special.push("zero");
    }
    fs::write(folder.join("file"), "content").unwrap();
    for name in special {
        let path = format!("folder/{name}");
        let kind = Some(FilesErrorKind::NotAFile);
        let error = download(&mut agent, path.as_bytes(), MEGABYTE).unwrap_err();
        assert_eq!(Some(error.kind), kind, "{name}");
        let error = read(&mut agent, path.as_bytes(), MEGABYTE).unwrap_err();
        assert_eq!(Some(error.kind), kind, "{name}");
    }
    assert_eq!(read(&mut agent, b"folder", 1).unwrap_err().kind, FilesErrorKind::NotAFile);
    assert_eq!(list(&mut agent, b"folder/file").unwrap_err().1.kind, FilesErrorKind::NotAFolder);
    let names: Vec<_> = unpack(&download(&mut agent, b"folder", MEGABYTE).unwrap())
        .into_keys()
        .map(|name| String::from_utf8(name).unwrap())
        .collect();
    assert_eq!(names, ["folder/", "folder/file"]);
    assert!(list(&mut agent, b"folder").unwrap().len() >= 3);
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let mut agent = Setup::new("app").start();
    let work = agent.work();
    fs::create_dir(work.join("folder")).unwrap();
    File::create(work.join("folder/sparse")).unwrap().set_len(1 << 40).unwrap();
    let too_large = FilesErrorKind::TooLarge { limit: MEGABYTE };
    assert_eq!(read(&mut agent, b"folder/sparse", MEGABYTE).unwrap_err().kind, too_large);
    assert_eq!(download(&mut agent, b"folder/sparse", MEGABYTE).unwrap_err().kind, too_large);
    let error = download(&mut agent, b"folder", MEGABYTE).unwrap_err();
    assert_eq!(error.to_string(), "folder: larger than 1048576");

    // To the byte, with all that an archive has besides content.
    fs::remove_file(work.join("folder/sparse")).unwrap();
    fs::write(work.join("folder").join("n".repeat(200)), [1; 513]).unwrap();
    symlink("t".repeat(1000), work.join("folder/link")).unwrap();
    let length = download(&mut agent, b"folder", u64::MAX).unwrap().len() as u64;
    assert_eq!(length, 512 * (1 + (2 + 1 + 2) + (3 + 1) + 2));
    download(&mut agent, b"folder", length).unwrap();
    let error = download(&mut agent, b"folder", length - 1).unwrap_err();
    assert_eq!(error.kind, FilesErrorKind::TooLarge { limit: length - 1 });

    // A crowd of files is not even looked at to its end.
    fs::create_dir(work.join("crowd")).unwrap();
    for number in 0..2100 {
        symlink("x", work.join("crowd").join(number.to_string())).unwrap();
    }
    let error = download(&mut agent, b"crowd", MEGABYTE).unwrap_err();
    assert_eq!(error.kind, too_large);
    assert_eq!(list(&mut agent, b"crowd").unwrap().len(), 2100);
}

#[test]
fn names_are_bytes() {
    let mut agent = Setup::new("app").start();
    let work = agent.work();
    let long = [b'\xff'; 150];
    let names: [&[u8]; 6] =
        [b"new\nline", b"\xff\xfe", b"a\\b\"c'", "글".as_bytes(), &long, b"-rf *"];
    for name in names {
        let path = [b"folder/", name].concat();
        upload(&mut agent, &path, name).unwrap();
        assert_eq!(fs::read(work.join("folder").join(OsStr::from_bytes(name))).unwrap(), name);
        assert_eq!(read(&mut agent, &path, MEGABYTE).unwrap(), name);
        let archive = unpack(&download(&mut agent, &path, MEGABYTE).unwrap());
        assert_eq!(archive, [(name.to_vec(), ('-', name.to_vec()))].into());
    }
    fs::hard_link(work.join("folder/글"), work.join("folder/twin")).unwrap();
    symlink(OsStr::from_bytes(&long), work.join("folder/link")).unwrap();
    let listed = list(&mut agent, b"folder").unwrap();
    let archive = unpack(&download(&mut agent, b"folder", MEGABYTE).unwrap());
    for name in names {
        assert!(listed.iter().any(|entry| entry.name == name), "{listed:?}");
        assert_eq!(archive[&[b"folder/", name].concat()], ('-', name.to_vec()));
    }
    assert_eq!(archive[&b"folder/twin"[..]], ('-', "글".into()));
    assert_eq!(archive[&b"folder/link"[..]], ('l', long.to_vec()));
    assert_eq!(listed.len(), names.len() + 2);
}

#[test]
fn a_file_that_changes_meanwhile_has_the_length_it_had() {
    let mut agent = Setup::new("app").start();
    let path = agent.work().join("file");
    let whole = 8 * MEGABYTE;
    for request in [
        FilesRequest::Read { path: b"file".into(), max_bytes: u64::MAX },
        FilesRequest::Download { path: b"file".into(), max_bytes: u64::MAX },
    ] {
        fs::write(&path, vec![1; whole as usize]).unwrap();
        let mut operation = Operation::begin(&mut agent, request);
        let FilesMessage::Begin(promised) = operation.receive() else { panic!() };
        // It waits for us, with most of it unread.
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        let mut count = 0;
        loop {
            match operation.receive() {
                FilesMessage::Data(bytes) => count += bytes.len() as u64,
                FilesMessage::End => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(count, promised);
        assert!(count >= whole);
    }
}

#[test]
fn strangers_and_crowds_do_no_harm() {
    let mut agent = Setup::new("app").start();
    // Nonsense ends the operation and nothing else.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x04\0\0\0\0"] {
        let mut stream = agent.open(StreamTarget::Files);
        stream.write_all(bytes).unwrap();
        match stream.read(&mut [0; 1]) {
            Ok(length) => assert_eq!(length, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    drop(agent.open(StreamTarget::Files));
    let mut idle = Vec::new();
    let refusal = loop {
        match agent.try_open(StreamTarget::Files) {
            Ok(stream) => idle.push(stream),
            Err(error) => break error,
        }
    };
    assert!(idle.len() <= 64);
    assert_eq!(refusal, StreamError::Failed("too many operations on files at once".into()));
    drop(idle);
    {
        let agent = std::cell::RefCell::new(&mut agent);
        let opens = || agent.borrow_mut().try_open(StreamTarget::Files).is_ok();
        wait_until("there is room again", opens);
    }
    assert_eq!(agent.shutdown(5000), 0);
}
