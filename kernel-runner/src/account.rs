//! Gives the user's numeric ids a name in the image, in `passwd` and `group`.
//!
//! The files are read by hand: the lookup functions of libc would load the image's name
//! service modules, which a static program cannot.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What the user is called, unless somebody else has that name.
const NAME: &str = "work";

/// Makes sure that `uid` and `gid` have names in the files under `etc`. The user is called
/// [`NAME`], with `home` as the home, even if the image has a name for that id. A group keeps the
/// name it has, and so does root.
///
/// # Errors
/// If the image's files cannot be read or written; the container works without the names.
pub fn ensure(etc: &Path, uid: u32, gid: u32, home: &Path, shell: &str) -> io::Result<()> {
    std::fs::create_dir_all(etc)?;
    let groups = Entries::read(etc.join("group"))?;
    if groups.find_id(gid).is_none() {
        groups.append(&format!("{}:x:{gid}:", groups.free_name(gid)))?;
    }
    let users = Entries::read(etc.join("passwd"))?;
    let found = users.find_id(uid);
    let is_named = |line: &str| uid == 0 || line.split(':').next() == Some(NAME);
    if found.is_some_and(is_named) {
        return Ok(());
    }
    let line = format!("{}:x:{uid}:{gid}::{}:{shell}", users.free_name(uid), home.display());
    match found {
        Some(found) => users.replace(found, &line),
        None => users.append(&line),
    }
}

/// One of the two files: each line has the name first and the id third.
struct Entries {
    path: PathBuf,
    text: String,
}

impl Entries {
    /// A file that does not exist has no lines.
    fn read(path: PathBuf) -> io::Result<Self> {
        let text = match std::fs::read(&path) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, text })
    }

    fn find_id(&self, id: u32) -> Option<&str> {
        let has_id = |line: &&str| line.split(':').nth(2).is_some_and(|it| it.parse() == Ok(id));
        self.text.lines().find(has_id)
    }

    fn free_name(&self, id: u32) -> String {
        let name = if id == 0 { "root" } else { NAME };
        let is_taken = self.text.lines().any(|line| line.split(':').next() == Some(name));
        if is_taken { format!("{NAME}{id}") } else { name.to_owned() }
    }

    fn append(&self, line: &str) -> io::Result<()> {
        let newline = if self.text.is_empty() || self.text.ends_with('\n') { "" } else { "\n" };
        let mut options = OpenOptions::new();
        let mut file = options.append(true).create(true).mode(0o644).open(&self.path)?;
        file.write_all(format!("{newline}{line}\n").as_bytes())
    }

    fn replace(&self, old: &str, new: &str) -> io::Result<()> {
        let lines = self.text.lines().map(|line| if line == old { new } else { line });
        std::fs::write(&self.path, lines.flat_map(|line| [line, "\n"]).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(passwd: Option<&str>, uid: u32) -> String {
        let etc = tempfile::tempdir().unwrap();
        if let Some(text) = passwd {
            std::fs::write(etc.path().join("passwd"), text).unwrap();
        }
        for _ in 0..2 {
            ensure(etc.path(), uid, uid, Path::new("/home/work"), "/bin/sh").unwrap();
        }
        std::fs::read_to_string(etc.path().join("passwd")).unwrap()
    }

    #[test]
    fn a_missing_user_is_appended_once() {
        let line = "work:x:1000:1000::/home/work:/bin/sh\n";
        assert_eq!(run(None, 1000), line);
        assert_eq!(
            run(Some("root:x:0:0::/:/bin/sh"), 1000),
            format!("root:x:0:0::/:/bin/sh\n{line}")
        );
        let before = "root:x:0:0::/:/bin/sh\nme:x:1000:1000:Me:/home/me:/bin/zsh\nyou:x:7:7::/:";
        let after = format!("root:x:0:0::/:/bin/sh\n{line}you:x:7:7::/:\n");
        assert_eq!(run(Some(before), 1000), after, "the image's own user gets our name");
        assert!(
            run(Some("work:x:7:7::/:/bin/sh\n"), 1000)
                .ends_with("\nwork1000:x:1000:1000::/home/work:/bin/sh\n")
        );
        assert!(run(None, 0).starts_with("root:x:0:0:"));
    }
}
