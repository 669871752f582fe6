//! Gives the user's numeric ids a name in the image, by appending to `passwd` and `group`.
//!
//! The files are read by hand: the lookup functions of libc would load the image's name
//! service modules, which a static program cannot.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What the user is called where nothing else has that name.
const NAME: &str = "work";

/// Makes sure that `uid` and `gid` have names in the files under `etc`, with `home` as the
/// home. An id that has a name keeps it.
///
/// # Errors
/// If the image's files cannot be read or written; the container works without the names.
pub fn ensure(etc: &Path, uid: u32, gid: u32, home: &Path, shell: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(etc)?;
    append_if_missing(&etc.join("group"), gid, |name| format!("{name}:x:{gid}:"))?;
    append_if_missing(&etc.join("passwd"), uid, |name| {
        format!("{name}:x:{uid}:{gid}::{}:{shell}", home.display())
    })
}

/// Both files have the name first and the id third.
fn append_if_missing(
    path: &Path,
    id: u32,
    line: impl FnOnce(&str) -> String,
) -> std::io::Result<()> {
    let text = match std::fs::read(path) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let entries = || text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    if entries().any(|fields| fields.get(2).is_some_and(|field| field.parse() == Ok(id))) {
        return Ok(());
    }
    let taken = |name: &str| entries().any(|fields| fields.first() == Some(&name));
    let mut name = if id == 0 { "root".to_owned() } else { NAME.to_owned() };
    if taken(&name) {
        name = format!("{NAME}{id}");
    }
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let mut file = OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
    file.write_all(format!("{newline}{}\n", line(&name)).as_bytes())
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
        assert_eq!(run(Some("me:x:1000:1000::/:/bin/sh\n"), 1000), "me:x:1000:1000::/:/bin/sh\n");
        assert!(
            run(Some("work:x:7:7::/:/bin/sh\n"), 1000)
                .ends_with("\nwork1000:x:1000:1000::/home/work:/bin/sh\n")
        );
        assert!(run(None, 0).starts_with("root:x:0:0:"));
    }
}
