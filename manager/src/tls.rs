//! The TLS provider of the process.

/// Installs the provider that every TLS client of this process uses. One that is installed
/// already stays: the process must not hold two.
pub fn install_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none()
        && rustls::crypto::ring::default_provider().install_default().is_err()
    {
        tracing::debug!("another thread installed the TLS provider first");
    }
}
