//! Fresh SSH key pairs (ed25519) in OpenSSH's own forms, for the kernels of a cluster.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};

const ALGORITHM: &[u8] = b"ssh-ed25519";
const COMMENT: &str = "work@cluster.backend.ai.local";
/// Characters of base64 in a line of a PEM file.
const PEM_LINE: usize = 70;

/// A new pair: the public key as one line, the private key as PEM.
pub fn generate() -> (String, String) {
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
    put(&mut secret, COMMENT.as_bytes());
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
    (format!("ssh-ed25519 {} {COMMENT}", STANDARD.encode(public_blob)), pem)
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
    fn openssh_reads_the_private_key_and_finds_the_same_public_key() {
        let (public, private) = super::generate();
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
