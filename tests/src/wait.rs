//! Waiting for a condition, never for time.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

/// Pause between two looks at a condition: short against everything waited for here.
pub const POLL: Duration = Duration::from_millis(20);

/// Looks at a condition until it holds. An error counts as "not yet" and is reported if the
/// limit passes.
///
/// # Errors
/// The condition does not hold within `limit`.
pub async fn wait_until(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    wait_for(limit, what, async || Ok(condition().await?.then_some(()))).await
}

/// Looks until something is there and returns it. An error counts as "not yet" and is
/// reported if the limit passes.
///
/// # Errors
/// Nothing is there within `limit`.
pub async fn wait_for<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        let last_error = match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= end {
            let waited = format!("waited {limit:?} for {what}");
            return Err(match last_error {
                Some(error) => error.context(waited),
                None => anyhow::anyhow!(waited),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}
