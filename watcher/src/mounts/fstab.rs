//! The mount table: lines are added for what was mounted here and removed for what ended here;
//! every other line stays as it is.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{MountError, MountRequest, invalid};

/// The text of the table.
///
/// # Errors
/// It cannot be read.
pub fn read(table: &Path) -> Result<String, MountError> {
    std::fs::read_to_string(table).map_err(MountError::io("read", table))
}

/// Checks that the table can be changed.
///
/// # Errors
/// It is made by something else: a symbolic link, as on NixOS.
pub fn check_editable(table: &Path) -> Result<(), MountError> {
    let found = std::fs::symlink_metadata(table).map_err(MountError::io("look at", table))?;
    if found.is_symlink() {
        return invalid(format!(
            "{} is a symbolic link made by this host's configuration: declare the mount there \
             (on NixOS: fileSystems) and call with edit_fstab false",
            table.display()
        ));
    }
    Ok(())
}

/// Adds a mount, unless its device is listed.
///
/// # Errors
/// The table cannot be changed.
pub fn add(table: &Path, request: &MountRequest, folder: &Path) -> Result<(), MountError> {
    check_editable(table)?;
    let text = read(table)?;
    let device = escape(&request.fs_location);
    if entries(&text).any(|entry| entry.device == device) {
        return Ok(());
    }
    let options = request.options.as_deref().filter(|o| !o.is_empty()).unwrap_or("defaults");
    let folder = escape(&folder.to_string_lossy());
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let line = format!("{device} {folder} {} {options} 0 0\n", request.fs_type);
    replace(table, &format!("{text}{newline}{line}"))
}

/// Removes a mount by its folder.
///
/// # Errors
/// The table cannot be changed.
pub fn remove(table: &Path, folder: &Path) -> Result<(), MountError> {
    check_editable(table)?;
    let text = read(table)?;
    let folder = escape(&folder.to_string_lossy());
    let is_it = |line: &str| entries(line).any(|entry| entry.folder == folder);
    if !text.lines().any(is_it) {
        return Ok(());
    }
    let kept: String = text.split_inclusive('\n').filter(|line| !is_it(line)).collect();
    replace(table, &kept)
}

struct Entry<'a> {
    device: &'a str,
    folder: &'a str,
}

fn entries(text: &str) -> impl Iterator<Item = Entry<'_>> {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        Some(Entry { device: fields.next()?, folder: fields.next()? })
    })
}

/// Puts a new table in the place of the old one at once, so that a crash leaves one of them.
fn replace(table: &Path, text: &str) -> Result<(), MountError> {
    let mode = std::fs::metadata(table).map_err(MountError::io("look at", table))?.permissions();
    let new = table.with_extension("backendai-new");
    let write = || {
        let mut file = std::fs::File::create(&new)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode.mode()))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, table)
    };
    write().map_err(MountError::io("write", table))
}

/// Blanks in a field, as the table wants them.
fn escape(field: &str) -> String {
    field.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011")
}

/// The reverse, also for the kernel's own list of mounts.
pub(super) fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let code = after.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) => {
                text.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                text.push('\\');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# made by hand\n/dev/sda1 / ext4 defaults 0 1\n\n#/dev/sdb /mnt/b xfs\n";

    fn request(location: &str) -> MountRequest {
        MountRequest {
            name: "data".into(),
            fs_type: "nfs".into(),
            fs_location: location.into(),
            options: None,
        }
    }

    #[test]
    fn a_line_is_added_once_and_removed_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("fstab");
        std::fs::write(&table, BEFORE).unwrap();
        let folder = Path::new("/mnt/data");
        for _ in 0..2 {
            add(&table, &request("srv:/a b"), folder).unwrap();
        }
        let expected = format!("{BEFORE}srv:/a\\040b /mnt/data nfs defaults 0 0\n");
        assert_eq!(read(&table).unwrap(), expected);
        remove(&table, Path::new("/mnt/b")).unwrap();
        remove(&table, folder).unwrap();
        assert_eq!(read(&table).unwrap(), BEFORE);
    }

    #[test]
    fn a_table_made_by_the_hosts_configuration_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("fstab");
        std::fs::write(dir.path().join("store"), BEFORE).unwrap();
        std::os::unix::fs::symlink(dir.path().join("store"), &table).unwrap();
        let error = add(&table, &request("srv:/a"), Path::new("/mnt/data")).unwrap_err();
        assert!(error.to_string().contains("fileSystems"), "{error}");
    }

    #[test]
    fn fields_are_escaped_and_back() {
        assert_eq!(unescape(&escape("a b\t\\040")), "a b\t\\040");
        assert_eq!(unescape("x\\"), "x\\");
    }
}
