//! systemd over D-Bus.
//!
//! A connection is made for each request: they are rare, and one that was kept would not
//! survive a restart of the bus.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use zbus::proxy::CacheProperties;
use zbus::{Connection, ObjectPath, OwnedObjectPath, Proxy};

use super::{Job, UnitError, UnitManager, UnitState};

const SERVICE: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const UNIT_SERVICE: &str = "org.freedesktop.systemd1.Service";
/// How long a job may take: below the 20 s a manager waits for the answer.
const JOB_LIMIT: Duration = Duration::from_secs(15);
/// How long systemd may take to answer a question.
const CALL_LIMIT: Duration = Duration::from_secs(4);

/// The systemd of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Systemd;

fn absent(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> UnitError {
    UnitError::NoSystemd(error.into())
}

async fn manager(connection: &Connection) -> Result<Proxy<'static>, UnitError> {
    Proxy::new(connection, SERVICE, PATH, MANAGER).await.map_err(absent)
}

async fn connect() -> Result<Connection, UnitError> {
    match tokio::time::timeout(CALL_LIMIT, Connection::system()).await {
        Ok(connection) => connection.map_err(absent),
        Err(late) => Err(absent(late)),
    }
}

/// True for errors that mean that nobody is there to ask, rather than a refusal.
fn is_absence(error: &zbus::Error) -> bool {
    use zbus::fdo::Error;
    match error {
        zbus::Error::FDO(error) => matches!(
            **error,
            Error::ServiceUnknown(_) | Error::NameHasNoOwner(_) | Error::NoReply(_)
        ),
        zbus::Error::InputOutput(_) => true,
        _ => false,
    }
}

fn refused(action: &'static str, unit: &str, error: zbus::Error) -> UnitError {
    if is_absence(&error) {
        return absent(error);
    }
    UnitError::Refused { action, unit: unit.to_owned(), source: Box::new(error) }
}

#[async_trait]
impl UnitManager for Systemd {
    async fn state(&self, unit: &str) -> Result<UnitState, UnitError> {
        let asked = async {
            let connection = connect().await?;
            let ask = |error| refused("show", unit, error);
            // LoadUnit knows units that are not running, too; GetUnit does not.
            let path: OwnedObjectPath =
                manager(&connection).await?.call("LoadUnit", &(unit,)).await.map_err(ask)?;
            let own = Properties::of(&connection, path.as_ref(), UNIT).await.map_err(ask)?;
            let service =
                Properties::of(&connection, path.as_ref(), UNIT_SERVICE).await.map_err(ask)?;
            Ok(UnitState {
                active: own.text("ActiveState").await.map_err(ask)?,
                sub: own.text("SubState").await.map_err(ask)?,
                load: own.text("LoadState").await.map_err(ask)?,
                status: service.text("StatusText").await.map_err(ask)?,
                result: service.text("Result").await.map_err(ask)?,
                main_pid: service.number("MainPID").await.map_err(ask)?,
                restarts: service.number("NRestarts").await.map_err(ask)?,
            })
        };
        match tokio::time::timeout(CALL_LIMIT, asked).await {
            Ok(state) => state,
            Err(late) => Err(absent(late)),
        }
    }

    async fn run(&self, job: Job, unit: &str) -> Result<(), UnitError> {
        let (method, action) = match job {
            Job::Start => ("StartUnit", "start"),
            Job::Stop => ("StopUnit", "stop"),
            Job::Restart => ("RestartUnit", "restart"),
            Job::Reload => ("ReloadUnit", "reload"),
        };
        let connection = connect().await?;
        let manager = manager(&connection).await?;
        let done = async {
            let fail = |error| refused(action, unit, error);
            manager.call::<_, _, ()>("Subscribe", &()).await.map_err(fail)?;
            // Listened for before the job exists, or a quick one's end would be missed.
            let mut ends = manager.receive_signal("JobRemoved").await.map_err(fail)?;
            let job: OwnedObjectPath =
                manager.call(method, &(unit, "replace")).await.map_err(fail)?;
            tracing::info!(unit, action, "asked systemd");
            while let Some(signal) = ends.next().await {
                let body = signal.body();
                let (_, path, _, result): (u32, ObjectPath<'_>, String, String) =
                    body.deserialize().map_err(fail)?;
                if path != *job {
                    continue;
                }
                return match result.as_str() {
                    "done" | "skipped" => Ok(()),
                    _ => Err(UnitError::Failed { unit: unit.to_owned(), result }),
                };
            }
            Err(absent("the connection to systemd broke"))
        };
        match tokio::time::timeout(JOB_LIMIT, done).await {
            Ok(result) => result,
            Err(_) => Err(UnitError::Slow { unit: unit.to_owned() }),
        }
    }

    async fn power_off(&self) -> Result<(), UnitError> {
        let connection = connect().await?;
        // Not Manager.PowerOff, which would not stop the services first.
        manager(&connection)
            .await?
            .call::<_, _, OwnedObjectPath>(
                "StartUnit",
                &("poweroff.target", "replace-irreversibly"),
            )
            .await
            .map_err(|error| refused("start", "poweroff.target", error))?;
        Ok(())
    }
}

/// Properties of one interface of an object, always asked for anew.
struct Properties(Proxy<'static>);

impl Properties {
    async fn of(
        connection: &Connection,
        path: ObjectPath<'_>,
        interface: &'static str,
    ) -> zbus::Result<Self> {
        let proxy = zbus::proxy::Builder::new(connection)
            .destination(SERVICE)
            .path(path.into_owned())
            .interface(interface)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        Ok(Self(proxy))
    }

    async fn text(&self, name: &str) -> zbus::Result<String> {
        self.0.get_property(name).await
    }

    async fn number(&self, name: &str) -> zbus::Result<u32> {
        self.0.get_property(name).await
    }
}
