//! Locking the sessions of a plan, and writing it.

use std::collections::BTreeMap;

use backendai_types::{KernelId, KernelStatus, SessionId, SessionStatus};
use futures::try_join;
use serde_json::Value;
use uuid::Uuid;

use super::plan::{Entry, KernelWrite, Locked, LockedKernel, Plan, SessionWrite};
use super::{By, Change, Deadlines};
use crate::error::Result;
use crate::row;
use crate::tx::Transaction;

impl Transaction {
    /// Locks the sessions of the changes, in the order of their ids so that two doors never
    /// wait for each other, and reads their kernels.
    pub(super) async fn lock_for_transition(
        &self,
        changes: &[Change],
    ) -> Result<BTreeMap<SessionId, Locked>> {
        let mut ids: Vec<Uuid> = changes.iter().map(|change| change.session.0).collect();
        ids.sort_unstable();
        ids.dedup();
        let rows = self
            .query(
                "-- transition_lock
                SELECT id, status, status_info, session_type, result FROM sessions
                WHERE id = ANY($1 /* sessions */) ORDER BY id FOR NO KEY UPDATE",
                &[&ids],
            )
            .await?;
        let mut sessions = BTreeMap::new();
        for row in &rows {
            let id = SessionId(row.try_get("id")?);
            let locked = Locked {
                id,
                status: row::parsed(row, "status")?,
                status_info: row.try_get("status_info")?,
                session_type: row::parsed(row, "session_type")?,
                result: row::parsed(row, "result")?,
                kernels: Vec::new(),
            };
            sessions.insert(id, locked);
        }
        // After the lock: whoever held it before may have changed them.
        let rows = self
            .query(
                "-- transition_kernels
                SELECT id, session_id, cluster_role, status, status_info, status_changed, agent
                FROM kernels
                WHERE session_id = ANY($1 /* sessions */) ORDER BY session_id, local_rank",
                &[&ids],
            )
            .await?;
        for row in &rows {
            let session = SessionId(row.try_get("session_id")?);
            if let Some(session) = sessions.get_mut(&session) {
                let role: &str = row.try_get("cluster_role")?;
                session.kernels.push(LockedKernel {
                    id: KernelId(row.try_get("id")?),
                    is_main: role == "main",
                    status: row::parsed(row, "status")?,
                    status_info: row.try_get("status_info")?,
                    status_changed: Some(row.try_get("status_changed")?),
                    agent: row.try_get::<_, Option<String>>("agent")?.map(Into::into),
                });
            }
        }
        Ok(sessions)
    }

    pub(super) async fn write_plan(&self, plan: &Plan, by: By<'_>) -> Result<()> {
        // On the wire at once, carried out in this order.
        try_join!(
            self.write_kernels(&plan.kernels),
            self.write_sessions(&plan.sessions, by.deadlines),
            self.free_allocations(&plan.kernels),
            self.append_transitions(&plan.entries, by.actor),
        )?;
        Ok(())
    }

    async fn write_kernels(&self, kernels: &BTreeMap<KernelId, KernelWrite>) -> Result<()> {
        if kernels.is_empty() {
            return Ok(());
        }
        let mut columns = KernelColumns::default();
        for (id, write) in kernels {
            columns.push(*id, write);
        }
        self.execute(
            "-- transition_write_kernels
            UPDATE kernels k SET
                status = u.status,
                status_changed = now(),
                status_info = u.info,
                status_data = CASE WHEN u.status = 'SCHEDULED' THEN u.data ELSE k.status_data || u.data END,
                agent = u.agent,
                exit_code = coalesce(u.exit_code, k.exit_code),
                last_stat = coalesce(u.last_stat, k.last_stat),
                started_at = CASE WHEN u.status = 'RUNNING' THEN coalesce(k.started_at, now()) ELSE k.started_at END,
                terminated_at = CASE WHEN u.status IN ('TERMINATED', 'CANCELLED') THEN now() END,
                container_id = coalesce(u.container_id, k.container_id),
                kernel_host = coalesce(u.kernel_host, k.kernel_host),
                service_ports = coalesce(u.service_ports, k.service_ports),
                attached_devices = coalesce(u.attached_devices, k.attached_devices)
            FROM unnest($1::uuid[], $2::text[], $3::text[], $4::jsonb[], $5::text[], $6::int[],
                        $7::text[], $8::text[], $9::jsonb[], $10::jsonb[],
                        $11::jsonb[])
                AS u(id, status, info, data, agent, exit_code,
                     container_id, kernel_host, service_ports, attached_devices, last_stat)
            WHERE k.id = u.id",
            &[
                &columns.id,
                &columns.status,
                &columns.info,
                &columns.data,
                &columns.agent,
                &columns.exit_code,
                &columns.container_id,
                &columns.kernel_host,
                &columns.service_ports,
                &columns.attached_devices,
                &columns.last_stat,
            ],
        )
        .await?;
        Ok(())
    }

    async fn write_sessions(
        &self,
        sessions: &BTreeMap<SessionId, SessionWrite>,
        deadlines: Deadlines,
    ) -> Result<()> {
        if sessions.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = sessions.keys().map(|id| id.0).collect();
        let statuses: Vec<&str> = sessions.values().map(|w| w.status.as_str()).collect();
        let infos: Vec<&str> = sessions.values().map(|w| w.info.as_str()).collect();
        let data: Vec<Value> = sessions.values().map(|w| w.data.clone().into()).collect();
        let results: Vec<&str> = sessions.values().map(|w| w.result.as_str()).collect();
        let limits: Vec<Option<f64>> =
            sessions.values().map(|w| limit_s(w.status, deadlines)).collect();
        self.execute(
            "-- transition_write_sessions
            UPDATE sessions s SET
                status = u.status,
                status_changed = CASE WHEN s.status = u.status THEN s.status_changed ELSE now() END,
                status_info = u.info,
                status_data = CASE WHEN u.status = 'SCHEDULED' THEN u.data ELSE s.status_data || u.data END,
                result = u.result,
                deadline = CASE WHEN s.status = u.status THEN s.deadline
                                ELSE now() + make_interval(secs => u.limit_s) END,
                terminated_at = CASE WHEN u.status IN ('TERMINATED', 'CANCELLED')
                                     THEN coalesce(s.terminated_at, now()) END
            FROM unnest($1::uuid[], $2::text[], $3::text[], $4::jsonb[], $5::text[], $6::float8[])
                AS u(id, status, info, data, result, limit_s)
            WHERE s.id = u.id",
            &[&ids, &statuses, &infos, &data, &results, &limits],
        )
        .await?;
        Ok(())
    }

    async fn free_allocations(&self, kernels: &BTreeMap<KernelId, KernelWrite>) -> Result<()> {
        let freed: Vec<Uuid> = kernels
            .iter()
            .filter(|(_, write)| !KernelStatus::OCCUPYING.contains(&write.status))
            .map(|(id, _)| id.0)
            .collect();
        if freed.is_empty() {
            return Ok(());
        }
        self.execute(
            "-- transition_free_allocations
            DELETE FROM allocations WHERE kernel_id = ANY($1 /* kernels that ended */)",
            &[&freed],
        )
        .await?;
        Ok(())
    }

    pub(super) async fn append_transitions(&self, entries: &[Entry], actor: &str) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let sessions: Vec<Uuid> = entries.iter().map(|e| e.session.0).collect();
        let kernels: Vec<Option<Uuid>> = entries.iter().map(|e| e.kernel.map(|id| id.0)).collect();
        let events: Vec<&str> = entries.iter().map(|e| e.event).collect();
        let from: Vec<Option<&str>> = entries.iter().map(|e| e.from).collect();
        let to: Vec<Option<&str>> = entries.iter().map(|e| e.to).collect();
        let reasons: Vec<&str> = entries.iter().map(|e| e.reason.as_str()).collect();
        let exit_codes: Vec<Option<i32>> = entries.iter().map(|e| e.exit_code).collect();
        let actors: Vec<&str> =
            entries.iter().map(|e| e.actor.as_deref().unwrap_or(actor)).collect();
        self.execute(
            "-- transition_append
            INSERT INTO transitions
                (session_id, kernel_id, event, from_status, to_status, reason, exit_code, actor)
            SELECT u.session_id, u.kernel_id, u.event, u.from_status, u.to_status, u.reason,
                   u.exit_code, u.actor
            FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[],
                        $7::int[], $8::text[]) WITH ORDINALITY
                AS u(session_id, kernel_id, event, from_status, to_status, reason, exit_code,
                     actor, n)
            ORDER BY u.n",
            &[&sessions, &kernels, &events, &from, &to, &reasons, &exit_codes, &actors],
        )
        .await?;
        Ok(())
    }
}

fn limit_s(status: SessionStatus, deadlines: Deadlines) -> Option<f64> {
    let limit = match status {
        SessionStatus::Scheduled => deadlines.scheduled,
        SessionStatus::Pulling | SessionStatus::Preparing | SessionStatus::Restarting => {
            deadlines.preparing
        }
        SessionStatus::Terminating => deadlines.terminating,
        SessionStatus::Pending
        | SessionStatus::Running
        | SessionStatus::RunningDegraded
        | SessionStatus::Terminated
        | SessionStatus::Error
        | SessionStatus::Cancelled => return None,
    };
    Some(limit.as_secs_f64())
}

/// Values of many kernels, by column.
#[derive(Default)]
struct KernelColumns<'a> {
    id: Vec<Uuid>,
    status: Vec<&'a str>,
    info: Vec<&'a str>,
    data: Vec<Value>,
    agent: Vec<Option<&'a str>>,
    exit_code: Vec<Option<i32>>,
    container_id: Vec<Option<&'a str>>,
    kernel_host: Vec<Option<&'a str>>,
    service_ports: Vec<Option<Value>>,
    attached_devices: Vec<Option<Value>>,
    last_stat: Vec<Option<Value>>,
}

impl<'a> KernelColumns<'a> {
    fn push(&mut self, id: KernelId, write: &'a KernelWrite) {
        let started = write.started.as_ref();
        self.id.push(id.0);
        self.status.push(write.status.as_str());
        self.info.push(&write.info);
        self.data.push(write.data.clone().into());
        self.agent.push(write.agent.as_ref().map(|agent| agent.as_str()));
        self.exit_code.push(write.exit_code);
        self.container_id.push(started.map(|s| s.container_id.as_str()));
        self.kernel_host.push(started.map(|s| s.kernel_host.as_str()));
        self.service_ports.push(
            started.map(|s| {
                serde_json::to_value(&s.service_ports).expect("plain data is always JSON")
            }),
        );
        self.last_stat.push(write.last_stat.clone());
        self.attached_devices.push(started.map(|s| s.attached_devices.clone()));
    }
}
