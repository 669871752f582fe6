//! Services: programs in the container that listen on ports which the image declares.
//!
//! An image says in files how its services are started ([`Definition`]); what is common is
//! known without. Ports that were opened by request, or that are declared and not defined,
//! belong to whatever the user runs there, and there is nothing to start. A service that has
//! ended is forgotten and may be started again.

mod action;
mod definition;
mod template;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use backendai_rpc::runner::{AppInfo, ServiceStart};
use backendai_types::image::ServicePort;
use rustix::process::{Pid, Signal};
use tokio::sync::{Mutex, Notify};

use self::action::ActionError;
use self::definition::Definition;
use self::template::{TemplateError, Value, Values};
use crate::command::Commands;
use crate::environ::ProgramError;
use crate::process::{Exit, Program, Started};
use crate::stream;

/// Services that the runner is itself; they always run.
const OWN: [&str; 2] = ["sshd", "ttyd"];
/// How long a service may take until it listens: a notebook server on a busy host needs most
/// of it, and less than the 30 s that a call may take.
const OPEN_TIME: Duration = Duration::from_secs(25);
/// Between looks at a port: the first, then doubling, up to the last.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LAST_LOOK: Duration = Duration::from_millis(160);
/// How long a service may take to end by itself.
const STOP_TIME: Duration = Duration::from_secs(2);
/// Protocol of ports that were opened by request.
const PREOPEN: &str = "preopen";

/// What a user asks for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The service's name.
    pub name: String,
    /// Command-line arguments by flag: none, one or several values each.
    pub arguments: BTreeMap<String, Vec<String>>,
    /// Environment variables.
    pub envs: BTreeMap<String, String>,
}

/// The kernel's services.
pub struct Services {
    commands: Rc<Commands>,
    ports: Vec<ServicePort>,
    definitions: BTreeMap<String, Definition>,
    /// The image's interpreter.
    runtime_path: Option<String>,
    processes: RefCell<BTreeMap<String, Rc<Process>>>,
}

/// The process of one service, one after the other.
#[derive(Default)]
struct Process {
    /// Of those who want to start it, one does at a time.
    turn: Mutex<()>,
    /// `None` while it does not run.
    pid: Cell<Option<Pid>>,
    /// How the last one ended.
    exit: Cell<Option<Exit>>,
    ended: Notify,
}

/// Why a service did not start; the texts are part of the public contract.
#[derive(Debug, thiserror::Error)]
enum ServiceError {
    #[error("unsupported service: {0}")]
    Unsupported(String),
    #[error("opening the service port timed out: {0}")]
    Timeout(String),
    #[error("the executable file is not found: {0}")]
    NotFound(String),
    #[error("the target file is not executable: {0}")]
    NotExecutable(String),
    #[error("the process did not start properly: {0}")]
    NotStarted(String),
    #[error("the argument {0} is not allowed")]
    Argument(String),
    #[error("the environment variable {0} is not allowed")]
    Variable(String),
    #[error("the environment variable {0} can't be overwritten")]
    Overwritten(String),
}

impl Services {
    /// Reads the definitions in `folder`. `ports` are those the image declares,
    /// `runtime_path` is its interpreter, and `common` says whether that is Python, which has
    /// the services that are known.
    pub fn load(
        folder: &Path,
        ports: Vec<ServicePort>,
        runtime_path: Option<String>,
        common: bool,
        commands: Rc<Commands>,
    ) -> Self {
        let ports: Vec<_> =
            ports.into_iter().filter(|port| !OWN.contains(&port.name.as_str())).collect();
        let mut definitions = definition::load(folder);
        for port in ports.iter().filter(|_| common) {
            if let Some(known) = definition::built_in(&port.name) {
                definitions.entry(port.name.clone()).or_insert(known);
            }
        }
        Self { commands, ports, definitions, runtime_path, processes: RefCell::default() }
    }

    /// All services and what users may say to them.
    pub fn apps(&self) -> Vec<AppInfo> {
        let own = OWN.iter().map(|name| AppInfo { name: name.to_string(), ..AppInfo::default() });
        own.chain(self.ports.iter().map(|port| self.app(&port.name))).collect()
    }

    fn app(&self, name: &str) -> AppInfo {
        let mut app = AppInfo { name: name.to_owned(), ..AppInfo::default() };
        if let Some(definition) = self.definitions.get(name) {
            let defaults: BTreeMap<_, _> = definition.default_arguments.0.iter().cloned().collect();
            let allowed = definition.allowed_arguments.iter();
            let arguments: BTreeMap<_, _> = allowed
                .map(|flag| (flag.clone(), defaults.get(flag).cloned().unwrap_or_default()))
                .collect();
            let envs = definition.allowed_envs.clone();
            app.url_template = definition.url_template.clone();
            app.allowed_arguments = (!arguments.is_empty()).then_some(arguments);
            app.allowed_envs = (!envs.is_empty()).then_some(envs);
        }
        app
    }

    /// Starts a service, and returns when it listens on the first of its ports.
    pub async fn start(&self, request: &Request) -> ServiceStart {
        self.try_start(request)
            .await
            .unwrap_or_else(|error| ServiceStart::Failed(error.to_string()))
    }

    async fn try_start(&self, request: &Request) -> Result<ServiceStart, ServiceError> {
        let name = &request.name;
        if OWN.contains(&name.as_str()) {
            return Ok(ServiceStart::Running);
        }
        let service = self.ports.iter().find(|port| port.name == *name);
        let service = service.ok_or_else(|| ServiceError::Unsupported(name.clone()))?;
        let definition = self.definitions.get(name).filter(|definition| !definition.noop);
        let (Some(definition), Some(port)) = (definition, service.container_ports.first()) else {
            return Ok(ServiceStart::Started);
        };
        if service.protocol == PREOPEN {
            return Ok(ServiceStart::Started);
        }
        let process = Rc::clone(self.processes.borrow_mut().entry(name.clone()).or_default());
        let _turn = process.turn.lock().await;
        let result = if process.pid.get().is_some() {
            ServiceStart::Running
        } else {
            let started = self.launch(definition, service, request).await?;
            self.watch(&process, started);
            ServiceStart::Started
        };
        tokio::select! {
            () = until_open(*port) => Ok(result),
            exit = process.failed() => {
                let how = match exit {
                    Exit::Code(code) => format!("{name} exited with code {code}"),
                    Exit::Signal(signal) => format!("{name} was ended by signal {signal}"),
                };
                Err(ServiceError::NotStarted(how))
            }
            // It goes on: what is slow today may listen when it is asked for again.
            () = tokio::time::sleep(OPEN_TIME) => Err(ServiceError::Timeout(name.clone())),
        }
    }

    /// Starts the program.
    async fn launch(
        &self,
        definition: &Definition,
        service: &ServicePort,
        request: &Request,
    ) -> Result<Started, ServiceError> {
        let environ = self.commands.spawner.environ();
        for name in request.arguments.keys() {
            if !definition.allowed_arguments.contains(name) {
                return Err(ServiceError::Argument(name.clone()));
            }
        }
        for name in request.envs.keys() {
            if !definition.allowed_envs.contains(name) {
                return Err(ServiceError::Variable(name.clone()));
            }
            if environ.get(name).is_some() || definition.env.contains_key(name) {
                return Err(ServiceError::Overwritten(name.clone()));
            }
        }
        let mut values = self.values(service);
        for step in &definition.prestart {
            step.run(&mut values, &self.commands).await?;
        }
        let command: Vec<String> =
            definition.command.iter().map(|word| word.fill(&values)).collect::<Result<_, _>>()?;
        let mut variables = request.envs.clone();
        for (name, value) in &definition.env {
            variables.insert(name.clone(), value.fill(&values)?);
        }
        let (program, words) =
            command.split_first().ok_or_else(|| ServiceError::NotFound(String::new()))?;
        let path = environ.find_program(program, self.commands.spawner.work())?;
        let args = words.iter().cloned().chain(arguments(definition, &request.arguments));
        let started = self.commands.spawner.start(&Program {
            path: &path,
            args: args.map(Into::into).collect(),
            variables: variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect(),
            inherit: Vec::new(),
        });
        started.map_err(|error| not_started(program, &error))
    }

    fn values(&self, service: &ServicePort) -> Values {
        let ports = service.container_ports.iter().map(u16::to_string).collect();
        let mut values = Values::from([("ports".to_owned(), Value::List(ports))]);
        if let Some(path) = &self.runtime_path {
            values.insert("runtime_path".to_owned(), Value::Text(path.clone()));
        }
        values
    }

    /// Remembers a process until it ends; what it prints goes to the container's log.
    fn watch(&self, process: &Rc<Process>, started: Started) {
        process.pid.set(Some(started.pid));
        process.exit.set(None);
        self.commands.adopt(started.stdout);
        self.commands.adopt(started.stderr);
        let process = Rc::clone(process);
        self.commands.tasks.spawn_local(async move {
            // The sender is dropped only with the whole runner.
            process.exit.set(started.exit.await.ok());
            process.pid.set(None);
            process.ended.notify_waiters();
        });
    }

    /// Ends a service.
    pub fn stop(&self, name: &str) {
        let process = self.processes.borrow().get(name).cloned();
        let Some((process, pid)) = process.and_then(|p| p.pid.get().map(|pid| (p, pid))) else {
            return;
        };
        let commands = Rc::clone(&self.commands);
        commands.spawner.reaper().signal_group(pid, Signal::TERM);
        self.commands.tasks.spawn_local(async move {
            let ended = process.ended.notified();
            if process.pid.get() == Some(pid)
                && tokio::time::timeout(STOP_TIME, ended).await.is_err()
            {
                commands.spawner.reaper().signal_group(pid, Signal::KILL);
            }
        });
    }
}

impl Process {
    /// Resolves when the process has ended in failure: one that succeeds has left the work
    /// to another.
    async fn failed(&self) -> Exit {
        loop {
            let ended = self.ended.notified();
            match self.exit.get() {
                Some(exit) if exit.code() != 0 => return exit,
                _ => ended.await,
            }
        }
    }
}

/// The default arguments with the user's in their place, then the user's others.
fn arguments(definition: &Definition, wanted: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let defaults = &definition.default_arguments.0;
    let own = defaults.iter().map(|(flag, values)| (flag, wanted.get(flag).unwrap_or(values)));
    let others = wanted.iter().filter(|(flag, _)| defaults.iter().all(|(known, _)| known != *flag));
    own.chain(others)
        .flat_map(|(flag, values)| std::iter::once(flag).chain(values))
        .cloned()
        .collect()
}

/// Waits until something listens on a port of this container. The system has no way to be
/// told, so this looks, and less and less often.
async fn until_open(port: u16) {
    let mut pause = FIRST_LOOK;
    while stream::connect(port).await.is_err() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_LOOK);
    }
}

fn not_started(program: &str, error: &io::Error) -> ServiceError {
    match error.kind() {
        io::ErrorKind::NotFound => ServiceError::NotFound(program.to_owned()),
        io::ErrorKind::PermissionDenied => ServiceError::NotExecutable(program.to_owned()),
        _ => ServiceError::NotStarted(format!("{program}: {error}")),
    }
}

impl From<ProgramError> for ServiceError {
    fn from(error: ProgramError) -> Self {
        match error {
            ProgramError::NotFound(name) => Self::NotFound(name),
            ProgramError::NotExecutable(name) => Self::NotExecutable(name),
        }
    }
}

impl From<ActionError> for ServiceError {
    fn from(error: ActionError) -> Self {
        Self::NotStarted(error.to_string())
    }
}

impl From<TemplateError> for ServiceError {
    fn from(error: TemplateError) -> Self {
        Self::NotStarted(error.to_string())
    }
}
