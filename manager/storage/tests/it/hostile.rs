//! What somebody tries who wants out of a folder.

use std::os::unix::fs::symlink;
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
/// are read and written through it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_swapped_in_is_never_followed_out() {
    const ROUNDS: usize = 20_000;
    let world = trapped().await;
    let folder = world.on_disk();
    std::fs::create_dir(folder.join("real")).unwrap();
    std::fs::write(folder.join("real/secret"), "inside").unwrap();
    symlink("../../outside", folder.join("bait")).unwrap();
    let (stop, swapped) = (Arc::new(AtomicBool::new(false)), folder.clone());
    let stopped = Arc::clone(&stop);
    let swapper = std::thread::spawn(move || {
        let (real, bait) = (swapped.join("real"), swapped.join("bait"));
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        while !stopped.load(Ordering::Relaxed) {
            let cwd = rustix::fs::CWD;
            rustix::fs::renameat_with(cwd, &real, cwd, &bait, flags).unwrap();
        }
    });
    for round in 0..ROUNDS {
        if let Ok(content) = world.get("real/secret").await {
            assert_eq!(content, b"inside", "an escape in round {round}");
        }
        if round % 20 == 0 {
            // Refused, or written inside.
            let _ = world.put("real/new", b"x").await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    let outside = std::fs::read_dir(world.dir.path().join("outside")).unwrap();
    assert_eq!(outside.count(), 1, "something was written outside");
}
