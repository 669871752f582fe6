//! Figures for Prometheus.
//!
//! Parts of a daemon count with the `metrics` crate's macros wherever they are, which cost
//! next to nothing while nobody listens; [`start`] makes them visible on an address of their
//! own. Gauges that are cheap to read and pointless to keep up are set when somebody asks.
//!
//! There is no authentication, so other hosts see nothing unless that is asked for.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::Lifecycle;
use crate::config::{ConfigError, HostPort};
use crate::http::{self, Page, StatusCode};

/// Upper bounds of durations in seconds: from a query to the pull of an image.
const SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];
/// What every histogram's name ends with.
const HISTOGRAM_SUFFIX: &str = "_seconds";
/// The format's own name.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `[metrics]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct MetricsSection {
    /// Where Prometheus finds `/metrics`; nowhere if absent. Port 0 lets the system choose.
    pub listen_addr: Option<HostPort>,
    /// Allows addresses that other hosts can reach: whoever reaches them sees the figures.
    pub allow_remote: bool,
}

impl MetricsSection {
    /// Checks that nobody is let in by mistake.
    ///
    /// # Errors
    /// The address is not a loopback one, and that was not asked for.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Some(addr) = &self.listen_addr else { return Ok(()) };
        let is_loopback = addr.host == "localhost"
            || addr.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if is_loopback || self.allow_remote {
            return Ok(());
        }
        Err(ConfigError::Contradiction(
            "metrics.listen-addr can be reached by other hosts, and there is no authentication: \
             take a loopback address, or set metrics.allow-remote"
                .to_owned(),
        ))
    }
}

/// Sets gauges when somebody asks for them.
#[async_trait]
pub trait Gauges: Send + Sync + 'static {
    /// Sets them to what is now. What cannot be found out is left as it was.
    async fn refresh(&self);
}

/// Why metrics cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address is taken or not this host's.
    #[error("listen on {addr} (metrics.listen-addr)")]
    Listen {
        /// The address.
        addr: HostPort,
        /// Why.
        source: std::io::Error,
    },
    /// Something else in this process collects already.
    #[error("collect metrics: {0}")]
    Install(String),
}

/// Shows the figures at the configured address, if there is one.
///
/// # Errors
/// See [`MetricsError`].
pub async fn start(
    section: &MetricsSection,
    gauges: Arc<dyn Gauges>,
    lifecycle: &Lifecycle,
) -> Result<(), MetricsError> {
    let Some(addr) = &section.listen_addr else { return Ok(()) };
    let listen = |source| MetricsError::Listen { addr: addr.clone(), source };
    let listener = TcpListener::bind((addr.host.as_str(), addr.port)).await.map_err(listen)?;
    let handle = install()?;
    tracing::info!(addr = %listener.local_addr().map_err(listen)?, "metrics are shown");
    lifecycle.spawn(
        "metrics",
        http::serve(listener, lifecycle.clone(), move |get| {
            let (gauges, handle) = (Arc::clone(&gauges), handle.clone());
            async move {
                if get.path != "/metrics" {
                    return Page::status(StatusCode::NOT_FOUND);
                }
                gauges.refresh().await;
                Page { content_type: CONTENT_TYPE, ..Page::text(handle.render()) }
            }
        }),
    );
    Ok(())
}

fn install() -> Result<PrometheusHandle, MetricsError> {
    let failed = |error: &dyn std::fmt::Display| MetricsError::Install(error.to_string());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix(HISTOGRAM_SUFFIX.to_owned()), &SECONDS)
        .map_err(|error| failed(&error))?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| failed(&error))?;
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_hosts_see_figures_only_when_asked_for() {
        let section = |host: &str, allow_remote| MetricsSection {
            listen_addr: Some(HostPort::new(host, 9100)),
            allow_remote,
        };
        for host in ["127.0.0.1", "::1", "localhost"] {
            section(host, false).check().unwrap();
        }
        for host in ["0.0.0.0", "10.0.0.1", "", "metrics.example.com"] {
            let error = section(host, false).check().unwrap_err();
            assert!(error.to_string().contains("metrics.allow-remote"), "{error}");
            section(host, true).check().unwrap();
        }
        MetricsSection::default().check().unwrap();
    }
}
