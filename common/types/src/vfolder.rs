//! Virtual folders: what may be done with them, and where they are in their life.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::session::{UnknownName, named_enum};

named_enum!(
    /// What somebody may do with a folder; the later includes the earlier.
    VfolderPermission {
        /// Read.
        ReadOnly = "ro",
        /// Read and write.
        ReadWrite = "rw",
        /// Read, write and delete: what an owner may.
        Delete = "wd",
    }
);

named_enum!(
    /// What a folder is for.
    UsageMode {
        /// Anything.
        General = "general",
        /// Models that services use.
        Model = "model",
        /// Data that others are given.
        Data = "data",
    }
);

named_enum!(
    /// Where a folder is in its life.
    VfolderStatus {
        /// It can be used.
        Ready = "ready",
        /// It is being made from another.
        Performing = "performing",
        /// Another is being made from it.
        Cloning = "cloning",
        /// It was deleted and can be had back.
        Trashed = "trashed",
        /// It is being removed for good.
        Deleting = "deleting",
    }
);

named_enum!(
    /// What a policy lets people do on a host of folders.
    HostPermission {
        /// Make folders.
        Create = "create-vfolder",
        /// Rename them and change their options.
        Modify = "modify-vfolder",
        /// Delete them.
        Delete = "delete-vfolder",
        /// Use them in sessions.
        Mount = "mount-in-session",
        /// Bring files in.
        Upload = "upload-file",
        /// Take files out.
        Download = "download-file",
        /// Invite others to one's folders.
        Invite = "invite-others",
        /// Say what a member may do with a project's folder.
        SetUserPermission = "set-user-specific-permission",
    }
);

named_enum!(
    /// What became of an invitation.
    InvitationState {
        /// Not answered yet.
        Pending = "pending",
        /// Taken back by the inviter.
        Canceled = "canceled",
        /// Taken up.
        Accepted = "accepted",
        /// Turned down.
        Rejected = "rejected",
    }
);

/// Names that the platform uses itself in home folders, and places of the system.
const RESERVED: &[&str] = &[
    ".terminfo",
    ".jupyter",
    ".tmux.conf",
    ".ssh",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/home",
];

/// True for names and paths that no folder may be mounted over.
pub fn is_reserved(name: &str) -> bool {
    let stem = name.strip_prefix('.');
    let word = stem
        .and_then(|stem| stem.strip_suffix("rc").or_else(|| stem.strip_suffix("_profile")))
        .is_some_and(|word| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        });
    word || RESERVED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_include_the_lesser_ones() {
        use VfolderPermission::{Delete, ReadOnly, ReadWrite};
        assert!(ReadOnly < ReadWrite && ReadWrite < Delete);
        assert_eq!("wd".parse(), Ok(Delete));
    }

    #[test]
    fn names_of_the_platform_are_reserved() {
        for name in [".ssh", ".bashrc", ".bash_profile", "/etc", ".terminfo", ".a1rc"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["data", ".local", ".rc", "bashrc", ".Bashrc", "etc", ".config"] {
            assert!(!is_reserved(name), "{name}");
        }
    }
}
