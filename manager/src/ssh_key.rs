//! SSH key pairs in OpenSSH's own forms: fresh ones (ed25519), and a look at others.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};

const ALGORITHM: &[u8] = b"ssh-ed25519";
/// Of keys that belong to kernels rather than to a person.
const KERNEL_COMMENT: &str = "work@cluster.backend.ai.local";
/// Characters of base64 in a line of a PEM file.
const PEM_LINE: usize = 70;

/// A new pair for kernels.
pub fn generate_for_kernels() -> (String, String) {
    generate(KERNEL_COMMENT)
}

/// A new pair: the public key as one line that ends with `comment`, the private key as PEM.
pub fn generate(comment: &str) -> (String, String) {
    let seed: [u8; 32] = rand::random();
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("every 32 bytes are a seed");
    let public = pair.public_key().as_ref();

    let mut public_blob = Vec::new();
    put(&mut public_blob, ALGORITHM);
    put(&mut public_blob, public);

    // The format is in OpenSSH's PROTOCOL.key. Equal check numbers tell a reader that it
    // has decrypted the rest rightly.
    let check = rand::random::<u32>().to_be_bytes();
    let mut secret = Vec::new();
    secret.extend(check);
    secret.extend(check);
    put(&mut secret, ALGORITHM);
    put(&mut secret, public);
    put(&mut secret, &[seed.as_slice(), public].concat());
    put(&mut secret, comment.as_bytes());
    for pad in 1u8.. {
        if secret.len().is_multiple_of(8) {
            break;
        }
        secret.push(pad);
    }

    let mut file = b"openssh-key-v1\0".to_vec();
    put(&mut file, b"none");
    put(&mut file, b"none");
    put(&mut file, b"");
    file.extend(1u32.to_be_bytes());
    put(&mut file, &public_blob);
    put(&mut file, &secret);

    let text = STANDARD.encode(file);
    let mut pem = String::from("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(PEM_LINE) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    (format!("ssh-ed25519 {} {comment}", STANDARD.encode(public_blob)), pem)
}

/// True for one line of OpenSSH's form, without options: kind, key and perhaps a comment.
pub fn is_public_key(line: &str) -> bool {
    let mut words = line.split(' ');
    let (Some(kind), Some(text)) = (words.next(), words.next()) else { return false };
    let Ok(blob) = STANDARD.decode(text) else { return false };
    let mut beginning = Vec::new();
    put(&mut beginning, kind.as_bytes());
    // The kind is repeated within, before the numbers of the key.
    !kind.is_empty()
        && blob.len() > beginning.len()
        && blob.starts_with(&beginning)
        && !line.contains(char::is_control)
}

/// A string of the SSH protocol: its length in four bytes, then itself.
fn put(buffer: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("keys are short");
    buffer.extend(length.to_be_bytes());
    buffer.extend(bytes);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;
    use std::process::Command;

    #[test]
    fn a_public_key_is_one_line_without_options() {
        let (public, private) = super::generate("somebody's");
        assert!(super::is_public_key(&public));
        assert!(super::is_public_key(public.strip_suffix(" somebody's").unwrap()));
        let (kind, rest) = public.split_once(' ').unwrap();
        for bad in [
            "",
            kind,
            "ssh-ed25519 !",
            &format!("ssh-rsa {rest}"),
            &format!("command=\"x\" {public}"),
            &format!("{public}\n{public}"),
            &private,
        ] {
            assert!(!super::is_public_key(bad), "{bad:?}");
        }
    }

    #[test]
    fn openssh_reads_the_private_key_and_finds_the_same_public_key() {
        let (public, private) = super::generate("a comment");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .unwrap();
        std::io::Write::write_all(&mut file, private.as_bytes()).unwrap();
        let output = match Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output() {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => panic!("{error}"),
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), public);
    }
}
