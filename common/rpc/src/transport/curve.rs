//! CURVE keys: pairs, their certificate files, and who may call a server.
//!
//! The files are the certificates of ZeroMQ's ZPL format (`NAME.key`, `NAME.key_secret`),
//! so that keys made by other tools of ZeroMQ can be used and ours by them.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Characters of a key in text form (Z85 of 32 bytes).
const KEY_CHARS: usize = 40;
/// Tells certificates from other files; also what pyzmq writes.
const SECRET_SUFFIX: &str = "key_secret";

/// True when the libzmq at hand can encrypt.
pub fn has_curve() -> bool {
    ::zmq::has("curve") == Some(true)
}

/// Who may call a server.
pub trait PeerDirectory: Send + Sync + 'static {
    /// The name of the peer with this public key (Z85), `None` to refuse it. Called on the
    /// server's own thread at every handshake and again at every call, so that removing a
    /// key takes effect at once: it must be quick and must not block. A name must contain
    /// no NUL character.
    fn peer_of(&self, public_key: &str) -> Option<String>;
}

/// Public keys with the names of their owners.
impl PeerDirectory for HashMap<String, String> {
    fn peer_of(&self, public_key: &str) -> Option<String> {
        self.get(public_key).cloned()
    }
}

/// A key pair for CURVE.
#[derive(Clone, PartialEq, Eq)]
pub struct CurveKeypair {
    /// What peers know this side by, in Z85 (40 characters).
    pub public_key: String,
    secret_key: String,
}

impl fmt::Debug for CurveKeypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CurveKeypair").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

/// Why a certificate could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file system refused.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is no certificate, or only half of one.
    #[error("{} has no {key} in a section `curve`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The entry that is missing.
        key: &'static str,
    },
    /// A key is not 40 characters of Z85.
    #[error("{what} is not a CURVE key: 40 characters of Z85 are expected")]
    InvalidKey {
        /// Which key: `public-key` or `secret-key`.
        what: &'static str,
    },
}

impl CurveKeypair {
    /// A new pair from the system's randomness.
    ///
    /// # Panics
    /// If the libzmq at hand has no CURVE; see [`has_curve`].
    pub fn generate() -> Self {
        let pair = ::zmq::CurveKeyPair::new().expect("daemons check has_curve() at start");
        let text = |key: &[u8; 32]| {
            ::zmq::z85_encode(key).expect("32 bytes are a multiple of 4, as Z85 wants")
        };
        Self { public_key: text(&pair.public_key), secret_key: text(&pair.secret_key) }
    }

    /// A pair from its two halves in Z85.
    ///
    /// # Errors
    /// One of them is not a key. Whether they belong together is not checked.
    pub fn from_parts(
        public_key: impl Into<String>,
        secret_key: impl Into<String>,
    ) -> Result<Self, CertificateError> {
        let (public_key, secret_key) = (public_key.into(), secret_key.into());
        check_key("public-key", &public_key)?;
        check_key("secret-key", &secret_key)?;
        Ok(Self { public_key, secret_key })
    }

    /// The secret half in Z85. Not to be logged.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// Reads a secret certificate (`NAME.key_secret`).
    ///
    /// # Errors
    /// The file cannot be read, lacks a half, or holds something that is not a key.
    pub fn load_certificate(path: impl AsRef<Path>) -> Result<Self, CertificateError> {
        let path = path.as_ref();
        let text = read(path)?;
        Self::from_parts(entry(&text, path, "public-key")?, entry(&text, path, "secret-key")?)
    }

    /// Reads the public key of a certificate (`NAME.key`; a secret one serves as well).
    ///
    /// # Errors
    /// As [`CurveKeypair::load_certificate`].
    pub fn load_public_key(path: impl AsRef<Path>) -> Result<String, CertificateError> {
        let path = path.as_ref();
        let key = entry(&read(path)?, path, "public-key")?;
        check_key("public-key", &key)?;
        Ok(key)
    }

    /// Writes `NAME.key` (mode 0644) and `NAME.key_secret` (mode 0600) into a folder that
    /// exists, replacing older ones, and returns their paths in this order.
    ///
    /// # Errors
    /// A file cannot be written; an older one is then still whole.
    pub fn write_certificates(
        &self,
        dir: impl AsRef<Path>,
        name: &str,
    ) -> Result<(PathBuf, PathBuf), CertificateError> {
        let public = dir.as_ref().join(format!("{name}.key"));
        let secret = dir.as_ref().join(format!("{name}.{SECRET_SUFFIX}"));
        self.replace(&public, false)?;
        self.replace(&secret, true)?;
        Ok((public, secret))
    }

    /// Reads a secret certificate, or makes a pair and writes it there if the file does
    /// not exist. If two processes do so at once, both get the same pair. The public
    /// certificate is written beside it (`X.key` for `X.key_secret`), for operators.
    ///
    /// # Errors
    /// As [`CurveKeypair::load_certificate`], or the file cannot be written.
    pub fn load_or_generate(path: impl AsRef<Path>) -> Result<Self, CertificateError> {
        let path = path.as_ref();
        match Self::load_certificate(path) {
            Err(CertificateError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let pair = Self::generate();
        let draft = pair.write_draft(path, true)?;
        // A link, unlike a rename, fails when somebody else was faster.
        let linked = fs::hard_link(&draft, path);
        remove_draft(&draft);
        match linked {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Self::load_certificate(path);
            }
            Err(source) => {
                return Err(CertificateError::Io { doing: "create", path: path.into(), source });
            }
        }
        sync_folder_of(path)?;
        if path.extension().is_some_and(|suffix| suffix == SECRET_SUFFIX) {
            pair.replace(&path.with_extension("key"), false)?;
        }
        Ok(pair)
    }

    fn replace(&self, path: &Path, secret: bool) -> Result<(), CertificateError> {
        let draft = self.write_draft(path, secret)?;
        fs::rename(&draft, path).map_err(|source| {
            remove_draft(&draft);
            CertificateError::Io { doing: "replace", path: path.into(), source }
        })?;
        sync_folder_of(path)
    }

    /// Writes the whole certificate beside `path`, under a name nobody else uses.
    fn write_draft(&self, path: &Path, secret: bool) -> Result<PathBuf, CertificateError> {
        let unique = uuid::Uuid::new_v4().simple();
        let draft = path.with_file_name(format!(".{unique}.tmp"));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(if secret { 0o600 } else { 0o644 })
            .open(&draft)
            .and_then(|mut file| {
                file.write_all(self.certificate(secret).as_bytes())?;
                file.sync_all()
            });
        match written {
            Ok(()) => Ok(draft),
            Err(source) => {
                remove_draft(&draft);
                Err(CertificateError::Io { doing: "write", path: path.into(), source })
            }
        }
    }

    fn certificate(&self, secret: bool) -> String {
        let mut text = String::from(if secret {
            "#   ZeroMQ CURVE **Secret** Certificate\n\
             #   DO NOT PROVIDE THIS FILE TO OTHER USERS nor change its permissions.\n"
        } else {
            "#   ZeroMQ CURVE Public Certificate\n\
             #   Exchange securely, or use a secure mechanism to verify the contents\n\
             #   of this file after exchange.\n"
        });
        text.push_str("\nmetadata\ncurve\n");
        text.push_str(&format!("    public-key = \"{}\"\n", self.public_key));
        if secret {
            text.push_str(&format!("    secret-key = \"{}\"\n", self.secret_key));
        }
        text
    }
}

fn read(path: &Path) -> Result<String, CertificateError> {
    fs::read_to_string(path).map_err(|source| CertificateError::Io {
        doing: "read",
        path: path.into(),
        source,
    })
}

/// A draft that stays behind is only litter, so failing to remove one fails nothing.
fn remove_draft(draft: &Path) {
    if let Err(error) = fs::remove_file(draft)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %draft.display(), %error, "a temporary file could not be removed");
    }
}

/// Makes a new name in a folder survive a power cut.
fn sync_folder_of(path: &Path) -> Result<(), CertificateError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| CertificateError::Io { doing: "sync", path: folder.into(), source })
}

/// Finds an entry of the section `curve`. ZPL: sections start in the first column, entries
/// are indented, and `#` starts a comment unless it stands in a quoted value (keys contain it).
fn entry(text: &str, path: &Path, key: &'static str) -> Result<String, CertificateError> {
    let mut in_curve = false;
    for line in text.lines() {
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if !line.starts_with([' ', '\t']) {
            in_curve = content == "curve";
            continue;
        }
        let Some((name, value)) = content.split_once('=') else { continue };
        if !in_curve || name.trim() != key {
            continue;
        }
        let value = value.trim();
        let quoted = ['"', '\''].into_iter().find_map(|quote| {
            value.strip_prefix(quote)?.split_once(quote).map(|(inside, _)| inside)
        });
        return Ok(quoted.unwrap_or(value).to_owned());
    }
    Err(CertificateError::Missing { path: path.into(), key })
}

fn check_key(what: &'static str, key: &str) -> Result<(), CertificateError> {
    let is_z85 = |c: u8| c.is_ascii_alphanumeric() || b".-:+=^!/*?&<>()[]{}@%$#".contains(&c);
    if key.len() == KEY_CHARS && key.bytes().all(is_z85) {
        Ok(())
    } else {
        Err(CertificateError::InvalidKey { what })
    }
}
