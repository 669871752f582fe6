//! Paths as callers name them.

use crate::error::{Result, StorageError};

/// The longest path the system takes, in bytes.
const MAX: usize = 4095;

/// A path within a folder: relative, without `..` and without NUL. What it leads to is found
/// out beneath the folder, whatever links say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderPath(String);

impl FolderPath {
    /// Takes a path. Empty, `.` and `/` are the folder itself.
    ///
    /// # Errors
    /// It is absolute, too long, or has `..` or NUL in it.
    pub fn new(text: &str) -> Result<Self> {
        let wrong = |why| Err(StorageError::Path { path: shorten(text), why });
        if text.contains('\0') {
            return wrong("has a NUL character in it");
        }
        if text.len() > MAX {
            return wrong("is too long");
        }
        if text.starts_with('/') && text != "/" {
            return wrong("is not relative to the folder");
        }
        let mut parts = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => return wrong("must not have .. in it"),
                part => parts.push(part),
            }
        }
        Ok(Self(parts.join("/")))
    }

    /// This path within another.
    pub fn within(&self, directory: &Self) -> Self {
        match (directory.is_root(), self.is_root()) {
            (true, _) => self.clone(),
            (_, true) => directory.clone(),
            _ => Self(format!("{}/{}", directory.0, self.0)),
        }
    }

    /// A path beside this one, with another name.
    ///
    /// # Errors
    /// That is no name.
    pub fn with_name(&self, name: &str) -> Result<Self> {
        let new = Self::new(name)?;
        if new.is_root() || new.0.contains('/') {
            return Err(StorageError::Path { path: shorten(name), why: "is not a name" });
        }
        Ok(match self.split() {
            Some((parent, _)) => new.within(&Self(parent.to_owned())),
            None => new,
        })
    }

    /// True for the folder itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path; `.` is the folder itself.
    pub fn as_str(&self) -> &str {
        if self.0.is_empty() { "." } else { &self.0 }
    }

    /// The last component; `None` for the folder itself.
    pub fn name(&self) -> Option<&str> {
        self.split().map(|(_, name)| name)
    }

    /// What is above, and the last component; `None` for the folder itself.
    pub(crate) fn split(&self) -> Option<(&str, &str)> {
        match self.0.rsplit_once('/') {
            _ if self.0.is_empty() => None,
            Some((parent, name)) => Some((parent, name)),
            None => Some(("", &self.0)),
        }
    }

    pub(crate) fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }
}

impl std::fmt::Display for FolderPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Enough of a wrong path to recognise it by.
fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_within_a_folder_are_taken() {
        for (text, path) in [
            ("", "."),
            (".", "."),
            ("/", "."),
            ("a", "a"),
            ("a//b/./c/", "a/b/c"),
            ("..a", "..a"),
            ("한글/x y", "한글/x y"),
            ("a\\..\\b", "a\\..\\b"),
            ("%2e%2e/x", "%2e%2e/x"),
        ] {
            assert_eq!(FolderPath::new(text).unwrap().as_str(), path, "{text}");
        }
        for text in ["..", "../x", "a/../b", "a/..", "/etc/passwd", "//x", "a\0b"] {
            assert!(FolderPath::new(text).is_err(), "{text}");
        }
        assert!(FolderPath::new(&"x/".repeat(3000)).is_err());
    }

    #[test]
    fn paths_are_put_together() {
        let path = |text| FolderPath::new(text).unwrap();
        assert_eq!(path("a/b").within(&path("c")).as_str(), "c/a/b");
        assert_eq!(path("a").within(&path("")).as_str(), "a");
        assert_eq!(path("a/b").with_name("c").unwrap().as_str(), "a/c");
        assert_eq!(path("a").with_name("c").unwrap().as_str(), "c");
        for bad in ["", ".", "..", "x/y", "/x"] {
            assert!(path("a").with_name(bad).is_err(), "{bad}");
        }
        assert_eq!(path("a/b").name(), Some("b"));
        assert_eq!(path(".").name(), None);
    }
}
