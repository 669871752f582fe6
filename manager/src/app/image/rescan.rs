//! Reading registries anew, in the background.

use backendai_types::BackgroundTaskId;

use super::scan::{self, ScanError, ScanReport, Target};
use crate::app::background_task::{self, Begin, End};
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// The task's name.
const TASK: &str = "rescan_images";

/// Begins to read a registry, an image (with or without a tag), or every registry.
///
/// # Errors
/// There is no such registry, the name makes no sense, or a server is away.
pub async fn rescan(
    app: &SharedApp,
    context: &RequestContext,
    registry_or_image: Option<&str>,
) -> Result<BackgroundTaskId> {
    let registries = app.shared.registries().await?;
    let target = Target::parse(registry_or_image, &registries)
        .map_err(|error| Error::invalid(error.to_string()))?;
    let datastore = app.datastore.clone();
    let work = |_, reporter: background_task::Reporter| async move {
        let report = scan::scan(&datastore, &registries, &target, |step| {
            reporter.report(step.done as u64, step.total as u64, step.message);
        });
        end(report.await)
    };
    Ok(background_task::start(app, context.user_id, Begin::new(TASK), work).await?.id())
}

fn end(report: Result<ScanReport, ScanError>) -> End {
    match report {
        Err(error) => End::failed(&error),
        Ok(report) if report.failed.is_empty() => End::Done(format!(
            "{} images: {} added, {} changed, {} as they were; {} skipped.",
            report.found(),
            report.added,
            report.changed,
            report.same,
            report.skipped.len()
        )),
        Ok(report) => {
            let failed = report.failed.iter().map(|(name, why)| format!("registry {name}: {why}"));
            End::Failed(failed.collect::<Vec<_>>().join("; "))
        }
    }
}
