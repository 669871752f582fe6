//! Files, by OpenSSH's sftp and scp.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Output, Stdio};

use super::{Host, LOGIN};
use crate::support::wait_until;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn every_operation_of_sftp_works() {
    let host = Host::new();
    let (work, local) = (host.work(), host.key("local"));
    fs::write(&local, "text").unwrap();
    let local = local.display();
    let output = host.sftp(&format!(
        "pwd\nmkdir folder\ncd folder\nput -p {local} a\nrename a b\nput {local} c\nrename c b\n\
         ln b hard\nsymlink b soft\nchmod 640 b\nget soft {local}.back\nls -l\ndf -h\n\
         mkdir empty\nrmdir empty\nrm hard\n",
    ));
    assert!(output.status.success(), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains(&format!("Remote working directory: {}", work.display())), "{text}");
    assert!(text.contains("-rw-r-----    2 ") && text.contains("% / ") || text.contains("Avail"));
    let folder = work.join("folder");
    assert_eq!(fs::read_to_string(folder.join("b")).unwrap(), "text");
    assert_eq!(fs::metadata(folder.join("b")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read_link(folder.join("soft")).unwrap().to_str(), Some("b"));
    assert!(!folder.join("hard").exists() && !folder.join("empty").exists());
    assert_eq!(fs::read_to_string(host.key("local.back")).unwrap(), "text");
}

#[test]
fn what_does_not_work_is_said() {
    let host = Host::new();
    fs::create_dir(host.work().join("full")).unwrap();
    fs::write(host.work().join("full/file"), "").unwrap();
    for (line, expected) in [
        ("get nothing", "not found"),
        ("rmdir full", "Failure"),
        ("rm full", "Failure"),
        ("cd full/file", "Not a directory"),
        ("mkdir full", "Failure"),
        ("rename nothing x", "No such file"),
        ("get /proc/1/nothing", "not found"),
    ] {
        let output = host.sftp(line);
        assert!(!output.status.success(), "{line}");
        let text = said(&output);
        assert!(text.to_lowercase().contains(&expected.to_lowercase()), "{line}: {text}");
    }
}

#[test]
fn folders_travel_whole_with_names_that_are_no_text() {
    let host = Host::new();
    let tree = host.key("tree");
    fs::create_dir_all(tree.join("inner")).unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_ne_bytes).collect();
    fs::write(tree.join("inner/large"), &bytes).unwrap();
    fs::write(tree.join(OsStr::from_bytes(b"caf\xe9")), "latin").unwrap();
    fs::set_permissions(tree.join("inner/large"), PermissionsExt::from_mode(0o751)).unwrap();
    for number in 0..250 {
        fs::write(tree.join(format!("file-{number}")), number.to_string()).unwrap();
    }
    let copy = |from: &str, to: &str| {
        let mut scp = host.client("scp", "id");
        let output = scp.args(["-r", "-p", "-q", from, to]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    let back = host.key("back");
    copy(tree.to_str().unwrap(), &format!("{LOGIN}:there"));
    copy(&format!("{LOGIN}:there"), back.to_str().unwrap());
    for folder in [host.work().join("there"), back] {
        assert!(fs::read(folder.join("inner/large")).unwrap() == bytes);
        assert_eq!(fs::metadata(folder.join("inner/large")).unwrap().mode() & 0o777, 0o751);
        assert_eq!(fs::read(folder.join(OsStr::from_bytes(b"caf\xe9"))).unwrap(), b"latin");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 252);
    }
}

#[test]
fn a_connection_that_is_cut_in_a_transfer_leaves_nothing_running() {
    let host = Host::new();
    let (work, source) = (host.work(), host.key("endless"));
    File::create(&source).unwrap().set_len(1 << 40).unwrap();
    let batch = host.key("batch");
    fs::write(&batch, format!("put {}\n", source.display())).unwrap();
    let mut client = host
        .client("sftp", "id")
        .args(["-b", batch.to_str().unwrap(), LOGIN])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let copy = work.join("endless");
    wait_until("something arrived", || fs::metadata(&copy).is_ok_and(|m| m.len() > 0));
    host.cut();
    host.wait_until_idle();
    client.wait().unwrap();
}

#[test]
fn the_server_survives_requests_that_no_client_makes() {
    let host = Host::new();
    let mut client = host.client("ssh", "id");
    let mut client = client
        .args(["-o", "LogLevel=ERROR", "-s", LOGIN, "sftp"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = client.stdin.take().unwrap();
    // A request that is cut short, a handle that is none, and one that is far too long.
    stdin.write_all(b"\0\0\0\x05\x03\0\0\0\x01").unwrap();
    stdin.write_all(b"\0\0\0\x0a\x04\0\0\0\x02\0\0\0\x01x").unwrap();
    stdin.write_all(&[0x7f, 0xff, 0xff, 0xff, 0x03]).unwrap();
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let status = |id: u8, code: u8| [101, 0, 0, 0, id, 0, 0, 0, code];
    assert_eq!(output.stdout[4..13], status(1, 5));
    let second = 4 + usize::from(output.stdout[3]);
    assert_eq!(output.stdout[second + 4..second + 13], status(2, 4));
    drop(stdin);
    host.wait_until_idle();
}
