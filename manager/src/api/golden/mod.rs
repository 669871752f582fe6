//! Contracts as files. `BACKENDAI_ACCEPT_GOLDEN=1 cargo test -p backendai-manager --lib api`
//! accepts what the tests find.

/// Compares text with a file of this folder.
///
/// # Panics
/// They differ.
pub fn compare(file: &str, found: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/golden").join(file);
    let found = format!("{}\n", found.trim_end());
    if std::env::var_os("BACKENDAI_ACCEPT_GOLDEN").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == found,
        "{} differs; look at what changes with \
         BACKENDAI_ACCEPT_GOLDEN=1 cargo test -p backendai-manager --lib api && git diff",
        path.display()
    );
}
