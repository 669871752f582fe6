//! How batch sessions ended: an event and a column, but no change of status.

use std::collections::BTreeMap;
use std::sync::Arc;

use backendai_types::{SessionId, SessionResult};
use uuid::Uuid;

use super::plan::Entry;
use crate::error::Result;
use crate::tx::Transaction;

/// How a batch command ended, and who says so.
#[derive(Clone, Debug)]
pub struct BatchEnd {
    /// Its exit code; negative when it had none.
    pub exit_code: i32,
    /// Who says so.
    pub actor: Arc<str>,
}

impl Transaction {
    /// Notes the exit codes of batch commands. Returns the sessions whose result was not
    /// known before; for the others (and for sessions that are not batch sessions) nothing
    /// changes.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_results(
        &self,
        finished: &BTreeMap<SessionId, BatchEnd>,
    ) -> Result<Vec<SessionId>> {
        if finished.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = finished.keys().map(|id| id.0).collect();
        let results: Vec<&str> =
            finished.values().map(|end| result_of(end.exit_code).as_str()).collect();
        let rows = self
            .query(
                "-- session_results
                WITH locked AS (
                    SELECT id FROM sessions WHERE id = ANY($1 /* sessions */)
                    ORDER BY id FOR NO KEY UPDATE)
                UPDATE sessions s SET result = u.result
                FROM locked, unnest($1::uuid[], $2::text[]) AS u(id, result)
                WHERE s.id = locked.id AND s.id = u.id
                  AND s.session_type = 'BATCH' AND s.result = 'UNDEFINED'
                RETURNING s.id",
                &[&ids, &results],
            )
            .await?;
        let mut noted = Vec::with_capacity(rows.len());
        let mut entries = Vec::with_capacity(rows.len());
        for row in &rows {
            let session = SessionId(row.try_get("id")?);
            let Some(end) = finished.get(&session) else { continue };
            let (event, reason) = match result_of(end.exit_code) {
                SessionResult::Success => ("session_success", "task-done"),
                _ => ("session_failure", "task-failed"),
            };
            entries.push(Entry {
                session,
                kernel: None,
                event,
                from: None,
                to: None,
                reason: reason.into(),
                exit_code: Some(end.exit_code),
                actor: Some(Arc::clone(&end.actor)),
            });
            noted.push(session);
        }
        self.append_transitions(&entries, "").await?;
        Ok(noted)
    }
}

fn result_of(exit_code: i32) -> SessionResult {
    if exit_code == 0 { SessionResult::Success } else { SessionResult::Failure }
}
