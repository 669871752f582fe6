//! `/resource/usage` and `/resource/stats`: accounting.

use serde_json::{Value, json};
use uuid::Uuid;
use warp::reply::Response;

use super::super::call::{Call, ok};
use super::super::params::{Checked, rules};
use super::super::problem::Problem;
use crate::app::usage::{self, Bin, KernelRecord, Period};

/// `GET /resource/usage/month`
pub async fn month(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let groups = params.required(&["group_ids"], rules::null_or(group_ids));
    let month = params.required(&["month"], |value| {
        let text = rules::text(value)?;
        Period::month(&text)
            .map(Some)
            .ok_or_else(|| Value::from("value does not match pattern YYYYMM"))
    });
    params.finish()?;
    let Some((first, end)) = month else { return Err(Problem::bad_request()) };
    // An empty list is how the client says "all".
    let groups = groups.filter(|groups: &Vec<Uuid>| !groups.is_empty());
    Ok(ok(&groups_of(&call, Period { first, end, groups }).await?))
}

/// `GET /resource/usage/period`. The usage of one group is answered as that group itself and
/// not in a list, in which the stock client finds nothing.
pub async fn period(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let group: Option<Uuid> = params.required(&["group_id"], rules::null_or(rules::uuid));
    let first: String = params.required(&["start_date"], rules::text);
    let last: String = params.required(&["end_date"], rules::text);
    params.finish()?;
    let (first, end) = Period::days(&first, &last)?;
    let groups = group.map(|group| vec![group]);
    let mut found = groups_of(&call, Period { first, end, groups }).await?;
    Ok(match group {
        None => ok(&found),
        Some(_) => ok(&found.pop().unwrap_or_else(|| json!({}))),
    })
}

/// A list of ids, or one text with commas between them.
fn group_ids(value: Value) -> Checked<Vec<Uuid>> {
    let list = match value {
        Value::String(text) => {
            text.split(',').filter(|part| !part.is_empty()).map(Value::from).collect()
        }
        other => other,
    };
    rules::list(rules::uuid)(list)
}

async fn groups_of(call: &Call, period: Period) -> Result<Vec<Value>, Problem> {
    let records = usage::records(&call.app, &period).await?;
    let groups = records.chunk_by(|a, b| a.row.group_id == b.row.group_id);
    Ok(groups.map(group_view).collect())
}

fn group_view(records: &[KernelRecord]) -> Value {
    let row = &records[0].row;
    let kernels: Vec<Value> = records.iter().map(kernel_view).collect();
    let sum = |name: &str| kernels.iter().filter_map(|kernel| kernel[name].as_f64()).sum::<f64>();
    let whole = |name: &str| sum(name) as i64;
    let mut models: Vec<&String> = records.iter().flat_map(|r| &r.devices.models).collect();
    models.sort();
    models.dedup();
    json!({
        "domain_name": row.domain_name,
        "g_id": row.group_id,
        "g_name": row.group_name,
        "g_cpu_allocated": sum("cpu_allocated"),
        "g_cpu_used": sum("cpu_used"),
        "g_mem_allocated": whole("mem_allocated"),
        "g_mem_used": whole("mem_used"),
        "g_shared_memory": whole("shared_memory"),
        "g_disk_allocated": whole("disk_allocated"),
        "g_disk_used": whole("disk_used"),
        "g_io_read": whole("io_read"),
        "g_io_write": whole("io_write"),
        "g_device_type": models,
        "g_smp": sum("smp"),
        "g_gpu_mem_allocated": sum("gpu_mem_allocated"),
        "g_gpu_allocated": sum("gpu_allocated"),
        "c_infos": kernels,
    })
}

fn kernel_view(record: &KernelRecord) -> Value {
    let (row, figures, devices) = (&record.row, &record.figures, &record.devices);
    let amount = |slot: &str| {
        let text = row.slots.get(&slot.into()).to_string();
        text.parse::<f64>().unwrap_or_default()
    };
    let lived = row.terminated_at.map(|end| end - row.created_at);
    json!({
        "id": row.id,
        "session_id": row.session_id,
        "container_id": row.container_id,
        "domain_name": row.domain_name,
        "group_id": row.group_id,
        "group_name": row.group_name,
        "name": row.session_name,
        "access_key": row.access_key,
        "email": row.email,
        "full_name": row.full_name,
        "agent": row.agent,
        "cpu_allocated": amount("cpu"),
        "cpu_used": figures.cpu_used,
        "mem_allocated": amount("mem") as i64,
        "mem_used": figures.mem_used as i64,
        "shared_memory": row.resource_opts.get("shmem").and_then(Value::as_i64).unwrap_or_default(),
        "disk_allocated": 0,
        "disk_used": figures.disk_used as i64,
        "io_read": figures.io_read as i64,
        "io_write": figures.io_write as i64,
        "used_time": lived.map(python_text),
        "used_days": lived.map(|lived| lived.num_days() + 1),
        "device_type": devices.models,
        "smp": devices.smp,
        "gpu_mem_allocated": devices.memory,
        "gpu_allocated": devices.count,
        "nfs": if row.mounts.is_empty() { Value::Null } else { json!(row.mounts) },
        "image_id": row.image,
        "image_name": row.image,
        "created_at": row.created_text,
        "terminated_at": row.terminated_text,
        "status": row.status,
        "status_info": row.status_info,
        "status_changed": row.status_changed_text,
        "status_history": row.status_history,
        "cluster_mode": row.cluster_mode,
    })
}

/// A length of time as clients know it: `2 days, 0:01:12.113859`.
fn python_text(time: chrono::TimeDelta) -> String {
    let seconds = time.num_seconds();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let mut text = match days {
        0 => String::new(),
        1 => "1 day, ".to_owned(),
        days => format!("{days} days, "),
    };
    text += &format!("{}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    let micros = time.subsec_nanos() / 1000;
    if micros != 0 {
        text += &format!(".{micros:06}");
    }
    text
}

/// `GET /resource/stats/user/month`
pub async fn user_month(call: Call) -> Result<Response, Problem> {
    stats(&call, false).await
}

/// `GET /resource/stats/admin/month`
pub async fn admin_month(call: Call) -> Result<Response, Problem> {
    stats(&call, true).await
}

async fn stats(call: &Call, everybody: bool) -> Result<Response, Problem> {
    let context = call.user()?;
    call.params()?.finish()?;
    let bins = usage::month(&call.app, &context, everybody).await?;
    Ok(ok(&bins.iter().map(bin_view).collect::<Vec<_>>()))
}

fn bin_view(bin: &Bin) -> Value {
    let of = |value: f64, unit: &str| json!({ "value": value, "unit_hint": unit });
    let whole =
        |value: f64, unit: &str| json!({ "value": value.round() as i64, "unit_hint": unit });
    json!({
        "date": bin.begin.timestamp_micros() as f64 / 1e6,
        "num_sessions": whole(bin.sessions, "count"),
        "cpu_allocated": of(bin.cpu, "count"),
        "mem_allocated": whole(bin.mem, "bytes"),
        "gpu_allocated": of(bin.gpu, "count"),
        "io_read_bytes": whole(bin.io_read, "bytes"),
        "io_write_bytes": whole(bin.io_write, "bytes"),
        "disk_used": whole(bin.disk, "bytes"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_written_as_clients_know_them() {
        let text = |seconds, nanos| python_text(chrono::TimeDelta::new(seconds, nanos).unwrap());
        assert_eq!(text(72, 113_859_000), "0:01:12.113859");
        assert_eq!(text(86_400 + 3_661, 0), "1 day, 1:01:01");
        assert_eq!(text(3 * 86_400, 0), "3 days, 0:00:00");
    }
}
