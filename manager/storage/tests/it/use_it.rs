//! Folders as they are meant to be used.

use std::sync::Arc;

use backendai_storage::{
    Archive, FolderPath, Kind, LocalVolume, StorageError, StorageVolume, Usage,
};
use bytes::Bytes;
use tempfile::TempDir;
use uuid::Uuid;

pub struct World {
    pub dir: TempDir,
    pub volume: LocalVolume,
    pub folder: Uuid,
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let volume = LocalVolume::open(dir.path()).unwrap();
        let folder = Uuid::new_v4();
        volume.create_folder(folder).await.unwrap();
        Self { dir, volume, folder }
    }

    /// Where the folder is on the disk.
    pub fn on_disk(&self) -> std::path::PathBuf {
        self.dir.path().join(LocalVolume::relative_path(self.folder))
    }

    pub async fn put(&self, at: &str, content: &[u8]) -> Result<(), StorageError> {
        let upload = Uuid::new_v4();
        self.volume.begin_upload(upload).await?;
        let mut writer = self.volume.append(upload, 0, content.len() as u64).await?;
        assert!(writer.write(Bytes::copy_from_slice(content)).await);
        assert_eq!(writer.finish().await?, content.len() as u64);
        self.volume.finish_upload(upload, self.folder, &path(at)).await
    }

    pub async fn get(&self, at: &str) -> Result<Vec<u8>, StorageError> {
        let file = self.volume.read(self.folder, &path(at)).await?;
        let size = file.entry.size;
        let mut chunks = file.chunks(0, size);
        let mut content = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            content.extend_from_slice(&chunk?);
        }
        Ok(content)
    }

    pub async fn names(&self, at: &str) -> Vec<String> {
        let entries = self.volume.list(self.folder, &path(at)).await.unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }
}

pub fn path(text: &str) -> FolderPath {
    FolderPath::new(text).unwrap()
}

#[tokio::test]
async fn files_come_and_go() {
    let world = World::new().await;
    let (volume, folder) = (&world.volume, world.folder);
    world.put("a/b/c.txt", b"one").await.unwrap();
    world.put("a/b/c.txt", b"another").await.unwrap();
    assert_eq!(world.get("a/b/c.txt").await.unwrap(), b"another");
    volume.make_directory(folder, &path("d"), false, false).await.unwrap();
    assert!(volume.make_directory(folder, &path("d"), true, false).await.is_err());
    volume.make_directory(folder, &path("d"), true, true).await.unwrap();
    assert!(volume.make_directory(folder, &path("x/y"), false, false).await.is_err());
    volume.rename(folder, &path("a/b/c.txt"), &path("d")).await.unwrap();
    volume.rename(folder, &path("d/c.txt"), &path("d/e.txt")).await.unwrap();
    world.put("other", b"").await.unwrap();
    let onto = volume.rename(folder, &path("other"), &path("d/e.txt")).await;
    assert!(onto.is_err(), "nothing is replaced");
    assert_eq!(volume.usage(folder).await.unwrap(), Usage { files: 2, bytes: 7 });
    assert!(volume.remove(folder, &[path("d")], false).await.is_err());
    volume.remove(folder, &[path("d"), path("other")], true).await.unwrap();
    assert_eq!(world.names("").await, ["a"]);
    volume.remove_folder(folder).await.unwrap();
    // As a manager leaves it that dies over a removal.
    let left = world.dir.path().join("removed/left/over");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("file"), "x").unwrap();
    volume.sweep().await.unwrap();
    assert_eq!(std::fs::read_dir(world.dir.path().join("removed")).unwrap().count(), 0);
    assert!(volume.list(folder, &path("")).await.is_err());
    assert!(volume.folders().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_upload_is_seen_when_it_is_complete_and_goes_on_where_it_is() {
    let world = World::new().await;
    let (volume, upload) = (&world.volume, Uuid::new_v4());
    volume.begin_upload(upload).await.unwrap();
    let mut writer = volume.append(upload, 0, 10).await.unwrap();
    assert!(writer.write(Bytes::from_static(b"01234")).await);
    assert!(matches!(volume.append(upload, 0, 10).await, Err(StorageError::Busy)));
    assert_eq!(writer.finish().await, Ok(5));
    assert!(world.names("").await.is_empty());
    let elsewhere = volume.append(upload, 3, 10).await;
    assert!(matches!(elsewhere, Err(StorageError::Offset { actual: 5 })));
    let mut writer = volume.append(upload, 5, 10).await.unwrap();
    writer.write(Bytes::from_static(b"56789more")).await;
    assert_eq!(writer.finish().await, Err(StorageError::TooLong { limit: 10 }));
    assert_eq!(volume.upload_size(upload).await, Ok(10));
    assert_eq!(volume.uploads().await.unwrap()[0].0, upload);
    volume.finish_upload(upload, world.folder, &path("f")).await.unwrap();
    assert_eq!(world.get("f").await.unwrap(), b"0123456789");
    assert_eq!(volume.upload_size(upload).await, Err(StorageError::NoUpload));
}

#[tokio::test]
async fn a_copy_has_everything_and_holes_stay_holes() {
    let world = World::new().await;
    world.put("a/b", b"content").await.unwrap();
    std::os::unix::fs::symlink("b", world.on_disk().join("a/link")).unwrap();
    let sparse = std::fs::File::create(world.on_disk().join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let copy = Uuid::new_v4();
    let usage = world.volume.copy_folder(world.folder, copy, Arc::new(|_| {})).await.unwrap();
    assert_eq!(usage.files, 3);
    assert!(usage.bytes < 1 << 20, "{usage:?}");
    // Once more: whoever asked died before it heard the answer.
    world.volume.copy_folder(world.folder, copy, Arc::new(|_| {})).await.unwrap();
    let copied = World { folder: copy, ..world };
    assert_eq!(copied.get("a/b").await.unwrap(), b"content");
    let entries = copied.volume.list(copy, &path("")).await.unwrap();
    assert_eq!(entries[1].size, 1 << 40);
    assert_eq!(copied.volume.list(copy, &path("a")).await.unwrap()[1].kind, Kind::Link);
}

#[tokio::test]
async fn a_copy_can_lie_on_another_volume() {
    let world = World::new().await;
    world.put("a/b", &vec![3; 3_000_000]).await.unwrap();
    let sparse = std::fs::File::create(world.on_disk().join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let source: backendai_storage::Volume = Arc::new(world.volume.clone());
    // Another file system, where there is one: the system may not copy to it by itself.
    let memory = tempfile::tempdir_in("/dev/shm");
    let other = memory.or_else(|_| tempfile::tempdir()).unwrap();
    let volume = LocalVolume::open(other.path()).unwrap();
    let copy = Uuid::new_v4();
    let copied = volume.copy_folder_from(&source, world.folder, copy, Arc::new(|_| {})).await;
    assert_eq!(copied.unwrap().files, 2);
    let copied = World { dir: other, volume, folder: copy };
    assert_eq!(copied.get("a/b").await.unwrap(), vec![3; 3_000_000]);
    assert_eq!(copied.volume.list(copy, &path("")).await.unwrap()[1].size, 1 << 40);
    assert!(copied.volume.usage(copy).await.unwrap().bytes < 4_000_000);
    assert!(matches!(
        copied.volume.performance().await,
        Err(StorageError::Unsupported { kind: "vfs", .. })
    ));
}

#[tokio::test]
async fn archives_are_those_that_others_read() {
    let world = World::new().await;
    world.put("top/one.txt", b"first").await.unwrap();
    world.put("top/sub/two", &vec![7; 1_000_000]).await.unwrap();
    std::os::unix::fs::symlink("/etc", world.on_disk().join("top/out")).unwrap();
    std::fs::write(world.on_disk().join("top/a\\..\\b:c"), "odd").unwrap();
    let pack = async |format| {
        let chunks = world.volume.archive(world.folder, &path("top"), format).await;
        let (mut chunks, mut packed) = (chunks.unwrap(), Vec::new());
        while let Some(chunk) = chunks.recv().await {
            packed.extend_from_slice(&chunk.unwrap());
        }
        packed
    };
    let mut tar = tar::Archive::new(std::io::Cursor::new(pack(Archive::Tar).await));
    let names: Vec<String> = tar
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["a_.._b_c", "one.txt", "sub/", "sub/two"]);

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("packed.zip");
    std::fs::write(&file, pack(Archive::Zip).await).unwrap();
    let script = "import sys, zipfile\n\
        z = zipfile.ZipFile(sys.argv[1])\n\
        assert z.testzip() is None\n\
        print(sorted(z.namelist()), z.read('one.txt'), len(z.read('sub/two')))";
    let read = std::process::Command::new("python3").args(["-c", script]).arg(&file).output();
    let Ok(read) = read else {
        eprintln!("no python3 here: skipped");
        return;
    };
    let printed = String::from_utf8_lossy(&read.stdout).into_owned();
    let expected = "['a_.._b_c', 'one.txt', 'sub/', 'sub/two'] b'first' 1000000\n";
    assert_eq!(printed, expected, "{}", String::from_utf8_lossy(&read.stderr));
}
