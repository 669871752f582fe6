//! What callback URLs of sessions have still to be told.

use backendai_types::SessionId;
use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::tx::Transaction;

/// Transitions after which the position is written down although none of them was for a
/// callback: what is looked through again after a restart costs less than a write each time.
const POSITION_STEP: i64 = 1000;

/// A transition to tell a callback URL of.
#[derive(Clone, Debug)]
pub struct DueCallback {
    /// The transition.
    pub seq: i64,
    /// Its session.
    pub session_id: SessionId,
    /// Name of the event.
    pub event: String,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// Where to tell it.
    pub url: String,
    /// How often that was tried.
    pub attempts: i32,
}

impl Transaction {
    /// Notes which of the transitions in `(from, upto]` are for callbacks, and the position.
    /// What lies before the noted position is never noted again.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_callbacks_note(
        &self,
        from: i64,
        upto: i64,
        events: &[&str],
    ) -> Result<u64> {
        self.execute(
            "-- session_callbacks_note
            WITH position AS (SELECT seq FROM session_callback_position FOR UPDATE),
            noted AS (
                INSERT INTO session_callbacks (seq, session_id)
                SELECT t.seq, t.session_id
                FROM position p, transitions t JOIN sessions s ON s.id = t.session_id
                WHERE t.seq > greatest(p.seq, $1) AND t.seq <= $2
                  AND t.event = ANY($3 /* events */) AND s.callback_url IS NOT NULL
                RETURNING seq)
            UPDATE session_callback_position c SET seq = $2 FROM position p
            WHERE p.seq < $2 AND (EXISTS (SELECT FROM noted) OR $2 - p.seq > $4 /* step */)",
            &[&from, &upto, &events, &POSITION_STEP],
        )
        .await
    }

    /// The oldest transition of each session that its callback URL has to be told now, but
    /// for those of `busy` sessions; the longest due first.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_callbacks_due(
        &self,
        busy: &[SessionId],
        limit: i64,
    ) -> Result<Vec<DueCallback>> {
        let busy: Vec<uuid::Uuid> = busy.iter().map(|id| id.0).collect();
        let rows = self
            .query(
                "-- session_callbacks_due
                SELECT c.seq, c.session_id, c.attempts, t.event, t.at, s.callback_url
                FROM (SELECT DISTINCT ON (session_id) seq, session_id, attempts, due_at
                      FROM session_callbacks ORDER BY session_id, seq) c
                JOIN transitions t ON t.seq = c.seq
                JOIN sessions s ON s.id = c.session_id
                WHERE c.due_at <= now() AND c.session_id <> ALL($1 /* busy */)
                ORDER BY c.due_at LIMIT $2",
                &[&busy, &limit],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(DueCallback {
                    seq: row.try_get("seq")?,
                    session_id: SessionId(row.try_get("session_id")?),
                    event: row.try_get("event")?,
                    at: row.try_get("at")?,
                    url: row.try_get("callback_url")?,
                    attempts: row.try_get("attempts")?,
                })
            })
            .collect()
    }

    /// The callback has been told, or is given up.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_callback_close(&self, seq: i64) -> Result<()> {
        self.execute(
            "-- session_callback_close
            DELETE FROM session_callbacks WHERE seq = $1",
            &[&seq],
        )
        .await?;
        Ok(())
    }

    /// The callback could not be told and is tried again after `pause_s` seconds.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_callback_postpone(&self, seq: i64, pause_s: f64) -> Result<()> {
        self.execute(
            "-- session_callback_postpone
            UPDATE session_callbacks
            SET attempts = attempts + 1, due_at = now() + make_interval(secs => $2)
            WHERE seq = $1",
            &[&seq, &pause_s],
        )
        .await?;
        Ok(())
    }
}
