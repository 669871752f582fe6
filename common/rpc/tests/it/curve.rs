//! Keys and certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use backendai_rpc::transport::{CertificateError, CurveKeypair, has_curve};

#[test]
fn the_libzmq_at_hand_encrypts() {
    assert_eq!(zmq::has("curve"), Some(true));
    assert!(has_curve());
}

#[test]
fn certificates_are_written_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let pair = CurveKeypair::generate();
    assert_eq!((pair.public_key.len(), pair.secret_key().len()), (40, 40));
    let (public, secret) = pair.write_certificates(dir.path(), "manager").unwrap();
    assert_eq!(public, dir.path().join("manager.key"));
    assert_eq!(secret, dir.path().join("manager.key_secret"));
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&public), mode(&secret)), (0o644, 0o600));

    assert_eq!(CurveKeypair::load_certificate(&secret).unwrap(), pair);
    assert_eq!(CurveKeypair::load_public_key(&public).unwrap(), pair.public_key);
    assert_eq!(CurveKeypair::load_public_key(&secret).unwrap(), pair.public_key);
    assert!(!fs::read_to_string(&public).unwrap().contains(pair.secret_key()));
    assert!(matches!(
        CurveKeypair::load_certificate(&public),
        Err(CertificateError::Missing { key: "secret-key", .. })
    ));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no draft stays behind");

    let other = CurveKeypair::generate();
    other.write_certificates(dir.path(), "manager").unwrap();
    assert_eq!(CurveKeypair::load_certificate(&secret).unwrap(), other);
}

#[test]
fn certificates_of_other_tools_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.key_secret");
    // As pyzmq writes it, with keys that contain the characters of ZPL's own syntax.
    let text = "#   ****  Generated on 2023-09-26 11:40:07.135163 by pyzmq  ****\n\
        #   ZeroMQ CURVE **Secret** Certificate\n\
        #   DO NOT PROVIDE THIS FILE TO OTHER USERS nor change its permissions.\n\n\
        metadata\n    public-key = \"not this one\"\ncurve\n\
        \x20   public-key = \"Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID\"\n\
        \x20   secret-key = \"D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR=#s\"\n";
    fs::write(&path, text).unwrap();
    let pair = CurveKeypair::load_certificate(&path).unwrap();
    assert_eq!(pair.public_key, "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID");
    assert_eq!(pair.secret_key(), "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR=#s");
}

#[test]
fn what_is_no_key_is_refused() {
    let good = CurveKeypair::generate();
    let short = &good.public_key[1..];
    let outside = format!("{short}~");
    for wrong in ["", short, &*outside] {
        assert!(matches!(
            CurveKeypair::from_parts(wrong, good.secret_key()),
            Err(CertificateError::InvalidKey { what: "public-key" })
        ));
    }
    let missing = CurveKeypair::load_certificate("/nonexistent/x.key_secret").unwrap_err();
    assert_eq!(missing.to_string(), "read /nonexistent/x.key_secret");
}

#[test]
fn the_secret_is_not_in_debug_output() {
    let pair = CurveKeypair::generate();
    let text = format!("{pair:?}");
    assert!(text.contains(&pair.public_key.replace('"', "\\\"")));
    assert!(!text.contains(pair.secret_key()));
}

#[test]
fn a_pair_is_generated_once_even_by_many_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.key_secret");
    let pairs: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| CurveKeypair::load_or_generate(&path).unwrap()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let stored = CurveKeypair::load_or_generate(&path).unwrap();
    assert!(pairs.iter().all(|pair| *pair == stored));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        CurveKeypair::load_public_key(dir.path().join("agent.key")).unwrap(),
        stored.public_key
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no draft stays behind");

    // A file that cannot be read must not be overwritten by a new pair.
    fs::write(&path, "scrambled").unwrap();
    assert!(CurveKeypair::load_or_generate(&path).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "scrambled");
}
