//! What was used: records of a period for accounting, and the last month in small steps.

use std::collections::{HashMap, HashSet};

use backendai_datastore::usage_view::{KernelSpan, KernelUsage};
use backendai_types::{KernelId, ResourceSlots, SlotName};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use rust_decimal::prelude::ToPrimitive;
use serde_json::Value;
use uuid::Uuid;

use super::{Error, Result, SharedApp, statistics};
use crate::context::RequestContext;

/// Key below `config/` of the time zone in which days begin and end.
const TIME_ZONE: &str = "system/timezone";
/// Most days of a period.
const MAX_DAYS: i64 = 100;
/// Steps of the month's statistics, and how long one is.
const BINS: usize = 2880;
const BIN: TimeDelta = TimeDelta::minutes(15);

/// Which kernels to account for.
#[derive(Clone, Debug)]
pub struct Period {
    /// The first day.
    pub first: NaiveDate,
    /// The day after the last.
    pub end: NaiveDate,
    /// Only of these groups; all if `None`.
    pub groups: Option<Vec<Uuid>>,
}

impl Period {
    /// A month, `yyyymm`; `None` if it is none.
    pub fn month(text: &str) -> Option<(NaiveDate, NaiveDate)> {
        let first = parse(&format!("{text}01"))?;
        Some((first, first.checked_add_months(chrono::Months::new(1))?))
    }

    /// Days `yyyymmdd`, both included.
    ///
    /// # Errors
    /// They are no days, in the wrong order, or too far apart.
    pub fn days(first: &str, last: &str) -> Result<(NaiveDate, NaiveDate)> {
        let day = |text: &str| {
            parse(text).ok_or_else(|| Error::invalid(format!("{text:?} is not a day (YYYYMMDD)")))
        };
        let (first, last) = (day(first)?, day(last)?);
        if last < first {
            return Err(Error::invalid("end_date must be later than start_date."));
        }
        if (last - first).num_days() >= MAX_DAYS {
            return Err(Error::invalid(format!("Cannot query more than {MAX_DAYS} days")));
        }
        let end = last.succ_opt().ok_or_else(|| Error::invalid("end_date is out of range"))?;
        Ok((first, end))
    }
}

/// `yyyymmdd`: eight digits and nothing else.
fn parse(text: &str) -> Option<NaiveDate> {
    let digits = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| NaiveDate::parse_from_str(text, "%Y%m%d").ok()).flatten()
}

/// A kernel's record: its row and what its figures and devices say.
#[derive(Clone, Debug)]
pub struct KernelRecord {
    /// The row.
    pub row: KernelUsage,
    /// Figures by name, as numbers; live ones while it lives.
    pub figures: Figures,
    /// Its accelerators.
    pub devices: Devices,
}

/// Sums over accelerators.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Devices {
    /// Names of their models.
    pub models: Vec<String>,
    /// Multiprocessors.
    pub smp: f64,
    /// Bytes of device memory.
    pub memory: f64,
    /// Accelerators, or shares of them.
    pub count: f64,
}

/// What was measured of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Milliseconds of processor time.
    pub cpu_used: f64,
    /// Most bytes of memory at once.
    pub mem_used: f64,
    /// Bytes read from disks.
    pub io_read: f64,
    /// Bytes written to disks.
    pub io_write: f64,
    /// Most bytes in the scratch folder at once.
    pub disk_used: f64,
}

impl Figures {
    fn of(stat: Option<&Value>) -> Self {
        let number = |name: &str, field: &str| -> Option<f64> {
            stat?.get(name)?.get(field)?.as_str()?.parse().ok()
        };
        let current = |name| number(name, "current").unwrap_or_default();
        let most = |name| number(name, "stats.max").unwrap_or_else(|| current(name));
        Self {
            cpu_used: current("cpu_used"),
            mem_used: most("mem"),
            io_read: current("io_read"),
            io_write: current("io_write"),
            disk_used: most("io_scratch_size"),
        }
    }
}

/// Records of the kernels that lived in a period, by group.
///
/// # Errors
/// PostgreSQL or etcd is not available.
pub async fn records(app: &SharedApp, period: &Period) -> Result<Vec<KernelRecord>> {
    let zone = app.shared.config_value(TIME_ZONE).await?;
    let zone = zone.as_deref().filter(|zone| !zone.is_empty()).unwrap_or("UTC");
    let rows: Vec<KernelUsage> = app
        .datastore
        .run_tx("usage_records", |tx| async move {
            if !tx.use_time_zone(zone).await? {
                tracing::warn!(zone, "config/{TIME_ZONE} is no time zone, UTC is used");
                tx.use_time_zone("UTC").await?;
            }
            let groups = period.groups.as_deref();
            Ok::<_, Error>(tx.kernel_usage(period.first, period.end, groups).await?)
        })
        .await?;
    let alive: Vec<KernelId> =
        rows.iter().filter(|row| row.last_stat.is_none()).map(|row| row.id).collect();
    let live: HashMap<_, _> = statistics::kernels(&app.redis, &alive).await;
    let record = |row: KernelUsage| {
        let stat = row.last_stat.clone();
        let stat = stat.or_else(|| live.get(&row.id).map(statistics::kernel_view));
        let devices = devices(&row.attached_devices, &row.slots);
        KernelRecord { figures: Figures::of(stat.as_ref()), devices, row }
    };
    Ok(rows.into_iter().map(record).collect())
}

fn devices(attached: &Value, slots: &ResourceSlots) -> Devices {
    let mut sums = Devices { count: accelerators(slots), ..Devices::default() };
    let kinds = attached.as_object().into_iter().flatten();
    for (_, list) in kinds.filter(|(kind, _)| !matches!(kind.as_str(), "cpu" | "mem")) {
        for device in list.as_array().into_iter().flatten() {
            if let Some(model) = device.get("model_name").and_then(Value::as_str)
                && !sums.models.iter().any(|known| known == model)
            {
                sums.models.push(model.to_owned());
            }
            let number = |name: &str| device.get("data")?.get(name)?.as_f64();
            sums.smp += number("smp").unwrap_or_default();
            sums.memory += number("mem").unwrap_or_default();
        }
    }
    sums
}

/// Every slot that is neither cores nor memory counts as accelerators.
fn accelerators(slots: &ResourceSlots) -> f64 {
    let others = slots.iter().filter(|(slot, _)| !matches!(slot.0.as_str(), "cpu" | "mem"));
    others.filter_map(|(_, amount)| amount.to_f64()).sum()
}

/// One step of the month's statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// When it begins.
    pub begin: DateTime<Utc>,
    /// Sessions that lived in it.
    pub sessions: f64,
    /// Cores they had.
    pub cpu: f64,
    /// Bytes of memory they had.
    pub mem: f64,
    /// Accelerators they had.
    pub gpu: f64,
    /// Bytes read: a kernel's bytes spread evenly over its life.
    pub io_read: f64,
    /// Bytes written, likewise.
    pub io_write: f64,
    /// Bytes in scratch folders.
    pub disk: f64,
}

/// The last thirty days in steps of a quarter of an hour, of the caller or of everybody.
///
/// # Errors
/// PostgreSQL is not available.
pub async fn month(app: &SharedApp, context: &RequestContext, everybody: bool) -> Result<Vec<Bin>> {
    let now = Utc::now();
    let since = now - BIN * i32::try_from(BINS).unwrap_or(i32::MAX);
    let user = (!everybody).then_some(context.user_id);
    let spans = app.datastore.autocommit().await?.kernel_spans(since, user).await?;
    Ok(bins(&spans, since, now))
}

fn bins(spans: &[KernelSpan], since: DateTime<Utc>, now: DateTime<Utc>) -> Vec<Bin> {
    let step = BIN.num_seconds();
    let begin = |index: usize| since + TimeDelta::seconds(step * index as i64);
    let mut bins: Vec<Bin> =
        (0..BINS).map(|index| Bin { begin: begin(index), ..Bin::default() }).collect();
    let mut counted: HashSet<(Uuid, usize)> = HashSet::new();
    let index = |at: DateTime<Utc>| (at - since).num_seconds() / step;
    for span in spans {
        let life = (index(span.begin), index(span.end.unwrap_or(now)));
        let shares = (life.1 - life.0 + 1).max(1) as f64;
        let figures = Figures::of(span.last_stat.as_ref());
        let amount = |slot: SlotName| span.slots.get(&slot).to_f64().unwrap_or_default();
        let (first, last) = (life.0.max(0) as usize, life.1.min(BINS as i64 - 1));
        let last = usize::try_from(last).unwrap_or_default();
        for (index, bin) in bins.iter_mut().enumerate().take(last + 1).skip(first) {
            if counted.insert((span.session_id, index)) {
                bin.sessions += 1.0;
            }
            bin.cpu += amount(SlotName::cpu());
            bin.mem += amount(SlotName::mem());
            bin.gpu += accelerators(&span.slots);
            bin.io_read += figures.io_read / shares;
            bin.io_write += figures.io_write / shares;
            bin.disk += figures.disk_used;
        }
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn periods_are_days_in_order() {
        let date = |text: &str| NaiveDate::parse_from_str(text, "%Y-%m-%d").unwrap();
        assert_eq!(Period::month("202612"), Some((date("2026-12-01"), date("2027-01-01"))));
        for wrong in ["202613", "20261", "2026-1", "99999999"] {
            assert_eq!(Period::month(wrong), None, "{wrong}");
        }
        assert_eq!(
            Period::days("20240228", "20240229").unwrap(),
            (date("2024-02-28"), date("2024-03-01"))
        );
        for (first, last) in
            [("20240230", "20240301"), ("20240302", "20240301"), ("20240101", "20240410")]
        {
            assert!(Period::days(first, last).is_err(), "{first} {last}");
        }
    }

    #[test]
    fn a_session_counts_once_in_a_step_and_its_kernels_each() {
        let now = Utc::now();
        let since = now - BIN * BINS as i32;
        let kernel = |session: u128, begin: i32, end: Option<i32>| KernelSpan {
            session_id: Uuid::from_u128(session),
            begin: since + BIN * begin,
            end: end.map(|end| since + BIN * end),
            slots: serde_json::from_value(json!({"cpu": "2", "mem": "5", "cuda.shares": "0.5"}))
                .unwrap(),
            last_stat: Some(json!({"io_read": {"current": "40"}})),
        };
        let spans = [
            kernel(1, 10, Some(11)),
            kernel(1, 10, Some(10)),
            kernel(2, -7, Some(0)),
            kernel(3, 2879, None),
        ];
        let bins = bins(&spans, since, now);
        assert_eq!(bins.len(), BINS);
        assert_eq!((bins[10].sessions, bins[10].cpu, bins[10].gpu), (1.0, 4.0, 1.0));
        assert_eq!((bins[11].sessions, bins[11].cpu, bins[11].io_read), (1.0, 2.0, 20.0));
        assert_eq!((bins[0].sessions, bins[0].io_read), (1.0, 5.0));
        assert_eq!(bins[1].sessions, 0.0);
        assert_eq!(bins[BINS - 1].sessions, 1.0);
    }

    #[test]
    fn devices_are_summed_without_cores_and_memory() {
        let attached = json!({
            "cpu": [{"model_name": "x"}],
            "cuda": [{"model_name": "H200", "data": {"smp": 132, "mem": 1.5}}, {"model_name": "H200"}],
        });
        let slots = serde_json::from_value(json!({"cpu": "1", "cuda.device": "2"})).unwrap();
        let expected = Devices { models: vec!["H200".into()], smp: 132.0, memory: 1.5, count: 2.0 };
        assert_eq!(devices(&attached, &slots), expected);
    }
}
