//! The part of systemd's D-Bus interface that the watcher uses, played on a private bus.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use zbus::object_server::SignalEmitter;
use zbus::{Connection, ObjectPath, OwnedObjectPath, connection, interface};

const UNIT_PATH: &str = "/org/freedesktop/systemd1/unit/agent";

#[derive(Default)]
struct State {
    active: bool,
    jobs: Vec<String>,
    next_result: Option<String>,
}

type Shared = Arc<Mutex<State>>;

/// A bus with a systemd on it.
pub struct FakeSystemd {
    bus: Child,
    state: Shared,
    _connection: Option<Connection>,
}

impl FakeSystemd {
    /// Starts a bus at `socket`, and systemd on it if wanted.
    pub async fn start(socket: &Path, with_systemd: bool) -> Self {
        let config = socket.with_extension("conf");
        let address = format!("unix:path={}", socket.display());
        let text = format!(
            "<busconfig><listen>{address}</listen><policy context='default'><allow user='*'/>\
             <allow own='*'/><allow send_destination='*' eavesdrop='true'/>\
             <allow eavesdrop='true'/></policy></busconfig>"
        );
        std::fs::write(&config, text).unwrap();
        let bus = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .arg("--nofork")
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon (Debian: apt install dbus)");
        let state = Shared::default();
        let mut fake = Self { bus, state, _connection: None };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        fake._connection = loop {
            if !with_systemd && socket.exists() {
                break None;
            }
            let manager = Manager(Arc::clone(&fake.state));
            let unit = Unit(Arc::clone(&fake.state));
            let built = connection::Builder::address(address.as_str())
                .serve_at("/org/freedesktop/systemd1", manager)
                .serve_at(UNIT_PATH, unit)
                .serve_at(UNIT_PATH, Service)
                .name("org.freedesktop.systemd1")
                .build()
                .await;
            match built {
                Ok(connection) => break Some(connection),
                Err(error) => {
                    assert!(std::time::Instant::now() < deadline, "no bus: {error:?}");
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
        };
        fake
    }

    /// What was asked, in order.
    pub fn jobs(&self) -> Vec<String> {
        self.state.lock().unwrap().jobs.clone()
    }

    /// How the next job ends.
    pub fn fail_next(&self, result: &str) {
        self.state.lock().unwrap().next_result = Some(result.to_owned());
    }
}

impl Drop for FakeSystemd {
    fn drop(&mut self) {
        let _ = self.bus.kill();
        let _ = self.bus.wait();
    }
}

struct Manager(Shared);

impl Manager {
    async fn job(
        &self,
        emitter: &SignalEmitter<'_>,
        word: &str,
        unit: &str,
        active: bool,
    ) -> OwnedObjectPath {
        let (number, result) = {
            let mut state = self.0.lock().unwrap();
            state.jobs.push(format!("{word} {unit}"));
            state.active = active;
            (state.jobs.len(), state.next_result.take().unwrap_or("done".into()))
        };
        let path = ObjectPath::try_from(format!("/org/freedesktop/systemd1/job/{number}")).unwrap();
        let number = u32::try_from(number).unwrap();
        Self::job_removed(emitter, number, path.clone(), unit, &result).await.unwrap();
        path.into()
    }
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {}

    fn load_unit(&self, _name: &str) -> OwnedObjectPath {
        ObjectPath::try_from(UNIT_PATH).unwrap().into()
    }

    async fn start_unit(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        unit: &str,
        _mode: &str,
    ) -> OwnedObjectPath {
        self.job(&emitter, "start", unit, true).await
    }

    async fn stop_unit(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        unit: &str,
        _mode: &str,
    ) -> OwnedObjectPath {
        self.job(&emitter, "stop", unit, false).await
    }

    async fn restart_unit(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        unit: &str,
        _mode: &str,
    ) -> OwnedObjectPath {
        self.job(&emitter, "restart", unit, true).await
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

struct Unit(Shared);

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit {
    #[zbus(property)]
    fn active_state(&self) -> &str {
        if self.0.lock().unwrap().active { "active" } else { "inactive" }
    }

    #[zbus(property)]
    fn sub_state(&self) -> &str {
        if self.0.lock().unwrap().active { "running" } else { "dead" }
    }

    #[zbus(property)]
    fn load_state(&self) -> &str {
        "loaded"
    }
}

struct Service;

#[interface(name = "org.freedesktop.systemd1.Service")]
impl Service {
    #[zbus(property)]
    fn status_text(&self) -> &str {
        ""
    }

    #[zbus(property)]
    fn result(&self) -> &str {
        "success"
    }

    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        0
    }

    #[zbus(property, name = "NRestarts")]
    fn n_restarts(&self) -> u32 {
        0
    }
}
