//! What somebody tries who wants out of a folder.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backendai_storage::{Archive, FolderPath, StorageVolume};

use crate::use_it::{World, path};

const SECRET: &[u8] = b"what nobody may see";

/// A folder with a secret beside it, and what a user could put into it to get there.
async fn trapped() -> World {
    let world = World::new().await;
    let outside = world.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), SECRET).unwrap();
    let folder = world.on_disk();
    symlink(&outside, folder.join("absolute")).unwrap();
    symlink("../../outside", folder.join("relative")).unwrap();
    symlink("../../outside/secret", folder.join("file")).unwrap();
    symlink("/proc/self/root", folder.join("magic")).unwrap();
    symlink("loop", folder.join("loop")).unwrap();
    symlink("..", folder.join("up")).unwrap();
    world
}

#[tokio::test]
async fn links_lead_nobody_out() {
    let world = trapped().await;
    let (volume, folder) = (&world.volume, world.folder);
    for at in [
        "absolute/secret",
        "relative/secret",
        "file",
        "magic/etc/passwd",
        "loop",
        "up/up/outside/secret",
        "absolute",
    ] {
        assert!(world.get(at).await.is_err(), "{at}");
        assert!(volume.stat(folder, &path(at)).await.is_err(), "{at}");
    }
    for at in ["absolute", "relative", "magic", "up", "loop"] {
        let inner = format!("{at}/new");
        assert!(volume.list(folder, &path(at)).await.is_err(), "{at}");
        assert!(volume.make_directory(folder, &path(&inner), true, true).await.is_err(), "{at}");
        assert!(world.put(&inner, b"x").await.is_err(), "{at}");
        assert!(volume.remove(folder, &[path(&inner)], true).await.is_err(), "{at}");
        assert!(volume.archive(folder, &path(at), Archive::Zip).await.is_err(), "{at}");
        let secret = path(&format!("{at}/secret"));
        assert!(volume.rename(folder, &secret, &path("got")).await.is_err(), "{at}");
    }
    // A link itself can be replaced and removed; what it leads to stays.
    world.put("file", b"mine").await.unwrap();
    volume.remove(folder, &[path("absolute"), path("relative"), path("up")], true).await.unwrap();
    let secret = world.dir.path().join("outside/secret");
    assert_eq!(std::fs::read(secret).unwrap(), SECRET);
}

#[tokio::test]
async fn names_and_things_that_are_odd_are_refused_or_harmless() {
    let world = World::new().await;
    for bad in ["../x", "a/../../x", "/etc/passwd", "..", "a\0b"] {
        assert!(FolderPath::new(bad).is_err(), "{bad:?}");
    }
    let long = "x".repeat(256);
    assert!(world.put(&long, b"x").await.is_err());
    assert!(FolderPath::new(&"d/".repeat(2100)).is_err());
    for odd in ["%2e%2e%2fx", "..\\..\\x", "a\nb", "한글", "-rf", "..."] {
        world.put(odd, b"x").await.unwrap();
        assert!(world.on_disk().join(odd).is_file(), "{odd:?}");
    }
    let pipe = world.on_disk().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if made.is_ok_and(|status| status.success()) {
        assert!(world.get("pipe").await.is_err());
    }
    let _socket = std::os::unix::net::UnixListener::bind(world.on_disk().join("s")).unwrap();
    assert!(world.get("s").await.is_err());
    // Writing gives a new file: one that is also elsewhere stays as it is there.
    let elsewhere = world.dir.path().join("elsewhere");
    std::fs::write(&elsewhere, SECRET).unwrap();
    std::fs::hard_link(&elsewhere, world.on_disk().join("hard")).unwrap();
    world.put("hard", b"mine").await.unwrap();
    assert_eq!(std::fs::read(&elsewhere).unwrap(), SECRET);
}

#[tokio::test]
async fn directories_nested_without_end_can_be_removed() {
    let world = World::new().await;
    let (volume, folder) = (&world.volume, world.folder);
    // Deeper than a path can say: each level is made from the one above.
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY;
    let none = rustix::fs::Mode::empty();
    let mut at = rustix::fs::open(world.on_disk(), flags, none).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::from_raw_mode(0o777)).unwrap();
        at = rustix::fs::openat(&at, "d", flags, none).unwrap();
    }
    assert!(volume.usage(folder).await.is_err(), "too deep to be counted");
    volume.remove(folder, &[path("d")], true).await.unwrap();
    assert!(world.names("").await.is_empty());
    assert_eq!(std::fs::read_dir(world.dir.path().join("removed")).unwrap().count(), 0);
}

/// Somebody swaps a directory for a link out of the folder, again and again, while files
/// are read, listed, written, moved and removed through it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_swapped_in_is_never_followed_out() {
    const ROUNDS: usize = 100_000;
    const TASKS: usize = 4;
    let world = Arc::new(trapped().await);
    let folder = world.on_disk();
    std::fs::create_dir(folder.join("real")).unwrap();
    std::fs::write(folder.join("real/secret"), "inside").unwrap();
    symlink("../../outside", folder.join("bait")).unwrap();
    let (stop, swapped) = (Arc::new(AtomicBool::new(false)), folder.clone());
    let stopped = Arc::clone(&stop);
    let swapper = std::thread::spawn(move || {
        let (real, bait) = (swapped.join("real"), swapped.join("bait"));
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        let mut swaps = 0usize;
        while !stopped.load(Ordering::Relaxed) {
            let cwd = rustix::fs::CWD;
            rustix::fs::renameat_with(cwd, &real, cwd, &bait, flags).unwrap();
            swaps += 1;
        }
        swaps
    });
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let world = Arc::clone(&world);
        tasks.spawn(async move {
            let mut seen = 0;
            for round in (task..ROUNDS).step_by(TASKS) {
                seen += usize::from(try_to_get_out(&world, round).await);
            }
            seen
        });
    }
    let seen: usize = tasks.join_all().await.into_iter().sum();
    stop.store(true, Ordering::Relaxed);
    let swaps = swapper.join().unwrap();
    let outside = std::fs::read_dir(world.dir.path().join("outside")).unwrap();
    assert_eq!(outside.count(), 1, "something was written outside");
    let secret = world.dir.path().join("outside/secret");
    assert_eq!(std::fs::read(secret).unwrap(), SECRET);
    assert!((1..ROUNDS).contains(&seen), "no race: {seen} of {ROUNDS} rounds came through");
    assert!(swaps > ROUNDS, "no race: {swaps} swaps");
}

/// One attempt, cheap enough for many; true if it came through.
async fn try_to_get_out(world: &World, round: usize) -> bool {
    let (volume, folder) = (&world.volume, world.folder);
    // What waits for the disk comes seldom.
    match round % 256 {
        0 => world.put("real/new", b"x").await.is_ok(),
        1 => volume.make_directory(folder, &path("real/a/b"), true, true).await.is_ok(),
        2 => volume.rename(folder, &path("real/new"), &path("real/a/newer")).await.is_ok(),
        3 => volume.remove(folder, &[path("real/a")], true).await.is_ok(),
        4 => {
            let listed = volume.list(folder, &path("real")).await;
            let sizes = listed.iter().flatten().find(|entry| entry.name == "secret");
            assert!(sizes.is_none_or(|entry| entry.size == 6), "an escape in round {round}");
            listed.is_ok()
        }
        5 => {
            let content = world.get("real/secret").await;
            assert!(content.is_err() || content == Ok(b"inside".to_vec()), "round {round}");
            content.is_ok()
        }
        6..=64 => {
            let stat = volume.stat(folder, &path("real/secret")).await;
            assert!(stat.is_err() || stat.as_ref().unwrap().size == 6, "round {round}");
            stat.is_ok()
        }
        _ => {
            let file = volume.read(folder, &path("real/secret")).await;
            assert!(file.is_err() || file.as_ref().ok().unwrap().entry.size == 6, "round {round}");
            file.is_ok()
        }
    }
}

#[tokio::test]
async fn devices_and_holes_are_harmless() {
    let world = World::new().await;
    let (volume, folder, disk) = (&world.volume, world.folder, world.on_disk());
    // Only root can make one; folders of users' containers do not get there either.
    let zero = disk.join("zero");
    let made = std::process::Command::new("mknod").arg(&zero).args(["c", "1", "5"]).status();
    if made.is_ok_and(|status| status.success()) {
        assert!(world.get("zero").await.is_err(), "an endless file");
    }
    std::fs::File::create(disk.join("sparse")).unwrap().set_len(1 << 40).unwrap();
    let usage = volume.usage(folder).await.unwrap();
    assert!(usage.bytes < 1 << 20, "{usage:?}");
    let file = volume.read(folder, &path("sparse")).await.unwrap();
    assert_eq!(file.entry.size, 1 << 40);
    let mut end = file.chunks((1 << 40) - 5, 5);
    assert_eq!(end.recv().await.unwrap().unwrap().as_ref(), [0; 5]);
    // Nobody who leaves early has it packed to its end.
    let mut packed = volume.archive(folder, &path(""), Archive::Tar).await.unwrap();
    assert!(packed.recv().await.unwrap().is_ok());
    drop(packed);
}

#[tokio::test]
async fn files_that_are_also_elsewhere_stay_as_they_are_there() {
    let world = World::new().await;
    let (volume, folder) = (&world.volume, world.folder);
    let elsewhere = world.dir.path().join("elsewhere");
    std::fs::write(&elsewhere, SECRET).unwrap();
    for name in ["replaced", "removed", "moved"] {
        std::fs::hard_link(&elsewhere, world.on_disk().join(name)).unwrap();
    }
    let copy = uuid::Uuid::new_v4();
    volume.copy_folder(folder, copy, Arc::new(|_| {})).await.unwrap();
    let copied = World { folder: copy, dir: tempfile::tempdir().unwrap(), volume: volume.clone() };
    copied.put("moved", b"mine").await.unwrap();
    world.put("replaced", b"mine").await.unwrap();
    volume.remove(folder, &[path("removed")], false).await.unwrap();
    volume.rename(folder, &path("moved"), &path("sub")).await.unwrap();
    volume.remove_folder(folder).await.unwrap();
    volume.sweep().await.unwrap();
    assert_eq!(std::fs::read(&elsewhere).unwrap(), SECRET);
    assert_eq!(std::fs::metadata(&elsewhere).unwrap().mode() & 0o777, 0o644);
    assert_eq!(std::fs::metadata(&elsewhere).unwrap().nlink(), 1);
}

/// What somebody names a file, hoping that whoever unpacks it takes the name for a path.
#[tokio::test]
async fn archives_stay_where_they_are_unpacked() {
    let world = World::new().await;
    let disk = world.on_disk();
    let odd: [&[u8]; 10] = [
        b"..\\..\\up",
        b"C:\\windows",
        b"C:x",
        b"...",
        b"-rf",
        b"a\nb\rc",
        b"\x7f\x1b[2J",
        b"\xff\xfe",
        b"~",
        b"\xe2\x80\xae.txt",
    ];
    for name in odd {
        std::fs::write(disk.join(OsStr::from_bytes(name)), "x").unwrap();
    }
    let deep = format!("{}/", "n".repeat(200)).repeat(15);
    std::fs::create_dir_all(disk.join(&deep)).unwrap();
    std::fs::write(disk.join(&deep).join("file"), "x").unwrap();
    symlink("/etc", disk.join("link")).unwrap();
    symlink("../../../..", disk.join("above")).unwrap();
    let files = odd.len() + 1;
    for (format, unpack) in [
        (Archive::Zip, "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])"),
        (Archive::Tar, "import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])"),
    ] {
        let mut chunks = world.volume.archive(world.folder, &path(""), format).await.unwrap();
        let mut packed = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            packed.extend_from_slice(&chunk.unwrap());
        }
        let unpacked = tempfile::tempdir().unwrap();
        let (file, target) = (unpacked.path().join("packed"), unpacked.path().join("a/b/c"));
        std::fs::create_dir_all(&target).unwrap();
        std::fs::write(&file, &packed).unwrap();
        let mut python = std::process::Command::new("python3");
        let Ok(python) = python.args(["-c", unpack]).arg(&file).arg(&target).output() else {
            eprintln!("no python3 here: skipped");
            return;
        };
        assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
        let mut found = 0;
        let mut left = vec![unpacked.path().to_owned()];
        while let Some(directory) = left.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                assert!(!entry.file_type().unwrap().is_symlink(), "{entry:?}");
                match entry.file_type().unwrap().is_dir() {
                    true => left.push(entry.path()),
                    false if entry.path() == file => {}
                    false => {
                        assert!(entry.path().starts_with(&target), "{entry:?}");
                        found += 1;
                    }
                }
            }
        }
        assert_eq!(found, files, "{format:?}");
        if format == Archive::Zip {
            let names = packed.windows(2).filter(|pair| *pair == b"\\.").count();
            assert_eq!(names, 0, "a path on another system");
        }
    }
}
