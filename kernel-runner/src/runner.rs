//! The whole: what the runner has, and the order in which it lives.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use backendai_rpc::runner::{FromRunner, PROTOCOL_VERSION, RunnerConfig, ToRunner};
use rustix::fs::{Gid, Mode, Uid};
use rustix::process::{Pid, Signal};
use tokio::runtime::Runtime as Tokio;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio_util::task::TaskTracker;

use crate::account;
use crate::command::Commands;
use crate::connection::{self, Handler};
use crate::environ::Environ;
use crate::files::Files;
use crate::hook;
use crate::input::{self, UserInput};
use crate::library;
use crate::log::log;
use crate::memory::Memory;
use crate::outbox::Outbox;
use crate::process::{Console, Exit, Reaper, Spawner};
use crate::runs::Runs;
use crate::runtime::{self, Query};
use crate::service::{Request, Services};
use crate::setup::{self, Paths};
use crate::shutdown;
use crate::ssh::Sshd;
use crate::startup;
use crate::stream::Streams;
use crate::terminal::Terminal;

/// What processes get when the engine stops the container: half of what the engine gives.
const SIGNAL_GRACE: Duration = Duration::from_secs(5);
/// Where the image defines its services, in `/etc`.
const SERVICE_DEFINITIONS: &str = "backend.ai/service-defs";
/// How long the last messages may take to leave.
const FAREWELL_TIME: Duration = Duration::from_millis(200);

struct Runner {
    config: RunnerConfig,
    outbox: Rc<Outbox>,
    reaper: Rc<Reaper>,
    commands: Rc<Commands>,
    runs: Rc<Runs>,
    streams: Rc<Streams>,
    memory: Rc<Memory>,
    services: Rc<Services>,
    /// Bootstrapping is done.
    ready: Cell<bool>,
    startup: RefCell<Startup>,
    startup_ended: Notify,
    /// The agent wants the end.
    shutdown: Cell<Option<Duration>>,
    shutdown_wanted: Notify,
}

/// The command of a batch session.
#[derive(Clone, Copy)]
enum Startup {
    /// There is none, or it has not begun.
    Idle,
    Running(Pid),
    Ended(i32),
}

/// Lives until the agent or a signal ends it, and returns the exit code.
///
/// # Errors
/// If the system refuses what the runner cannot do without.
pub fn run(tokio: &Tokio, config: RunnerConfig, paths: Paths) -> io::Result<i32> {
    // Orphans come to us even if we are not PID 1, which is how tests run.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let environ = Environ::new(std::env::vars_os(), &config.environ, &paths.work);
    prepare_image(&config, &paths, &environ);
    tokio.block_on(LocalSet::new().run_until(live(config, paths, environ)))
}

/// Gives the user a name and a home. Where the image does not let us, things go on without.
fn prepare_image(config: &RunnerConfig, paths: &Paths, environ: &Environ) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let shell = environ.get("SHELL").unwrap_or_default().to_string_lossy();
    if let Err(error) = account::ensure(&paths.etc, config.uid, config.gid, &paths.work, &shell) {
        log!("name the user: {error}");
    }
    if !paths.work.exists() {
        let owner = (Uid::from_raw(config.uid), Gid::from_raw(config.gid));
        let made = std::fs::create_dir_all(&paths.work)
            .and_then(|()| Ok(rustix::fs::chown(&paths.work, Some(owner.0), Some(owner.1))?));
        if let Err(error) = made {
            log!("make {}: {error}", paths.work.display());
        }
    }
    if setup::is_init() {
        hook::run(environ, config.uid, config.gid);
    }
}

async fn live(config: RunnerConfig, paths: Paths, mut environ: Environ) -> io::Result<i32> {
    let reaper = Rc::new(Reaper::default());
    let outbox = Rc::new(Outbox::default());
    let ids = (config.uid, config.gid);
    let switch = rustix::process::geteuid().is_root() && ids != (0, 0);
    if let Some(folder) = config.runtime_path.as_ref().and_then(|path| path.rsplit_once('/')) {
        environ.promote(std::path::Path::new(folder.0));
    }
    if let Err(error) = library::install(&paths.library, &mut environ) {
        log!("write {}: {error}", paths.library.display());
    }
    let input_variables = vec![
        (input::VARIABLE, paths.input.to_string_lossy().into_owned()),
        (library::PYTHONPATH, library::batch_path(&paths.library, &environ)),
    ];
    let spawner =
        Spawner::new(Rc::clone(&reaper), switch.then_some(ids), environ, paths.work.clone());
    let commands = Rc::new(Commands {
        spawner: Rc::new(spawner),
        console: Rc::new(Console::new()?),
        tasks: TaskTracker::new(),
        kernel_id: config.kernel_id.clone(),
        input: Rc::default(),
        input_variables,
    });
    commands.tasks.spawn_local(UserInput::serve(Rc::clone(&commands.input), paths.input.clone()));
    let memory = Rc::new(Memory::new(paths.cgroup.clone()));
    let runs = Rc::new(Runs::new(
        runtime::find(&config.runtime_type),
        config.runtime_path.clone(),
        Rc::clone(&commands),
        Rc::clone(&memory),
        Rc::clone(&outbox),
        Rc::clone(&reaper),
    ));
    let sshd = Rc::new(Sshd::new(Rc::clone(&commands.spawner), paths.keys.clone())?);
    if sshd.has_peers() {
        let sshd = Rc::clone(&sshd);
        commands.tasks.spawn_local(async move {
            if let Err(error) = sshd.listen().await {
                log!("listen for ssh: {error}");
            }
        });
    }
    let streams = Rc::new(Streams {
        socket: paths.socket.clone(),
        kernel_id: config.kernel_id.clone(),
        tasks: commands.tasks.clone(),
        terminal: Rc::new(Terminal::new(Rc::clone(&commands.spawner))),
        sshd: Rc::clone(&sshd),
        files: Files::new(Rc::clone(&commands.spawner)),
    });
    let services = Rc::new(services(&config, &paths, &runs, &commands));
    let runner = Runner {
        config,
        outbox,
        reaper,
        commands,
        runs,
        streams,
        memory,
        services,
        ready: Cell::new(false),
        startup: RefCell::new(Startup::Idle),
        startup_ended: Notify::new(),
        shutdown: Cell::new(None),
        shutdown_wanted: Notify::new(),
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stopped = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let work = async {
        let connection = connection::run(&paths.socket, Rc::clone(&runner.outbox), &runner);
        let reaping = Rc::clone(&runner.reaper).run();
        tokio::select! {
            () = runner.work() => Ok(()),
            () = connection => Ok(()),
            // The first error of the system, if any.
            result = reaping => result,
        }
    };
    tokio::pin!(work);
    let grace = tokio::select! {
        result = &mut work => return result.map(|()| 0),
        () = stopped() => SIGNAL_GRACE,
        grace = runner.shutdown_wanted() => grace,
    };
    runner.runs.stop();
    runner.streams.terminal.hang_up();
    // The work goes on meanwhile, so that what the programs say at their end is heard.
    tokio::select! {
        _ = &mut work => {}
        () = shutdown::end_all(&runner.reaper, grace, stopped()) => {}
    }
    let farewell = async {
        while matches!(*runner.startup.borrow(), Startup::Running(_)) {
            runner.startup_ended.notified().await;
        }
        runner.outbox.flushed().await;
    };
    tokio::select! {
        biased;
        _ = &mut work => {}
        _ = tokio::time::timeout(FAREWELL_TIME, farewell) => {}
    }
    Ok(match *runner.startup.borrow() {
        Startup::Ended(code) => code,
        // Whatever is left is killed with us.
        Startup::Running(_) => Exit::Signal(Signal::KILL.as_raw()).code(),
        Startup::Idle => 0,
    })
}

/// The services of the image.
fn services(
    config: &RunnerConfig,
    paths: &Paths,
    runs: &Runs,
    commands: &Rc<Commands>,
) -> Services {
    let is_python = runtime::find(&config.runtime_type).query == Query::Python;
    let runtime_path = if is_python {
        runs.python.interpreter().ok().map(|path| path.display().to_string())
    } else {
        config.runtime_path.clone()
    };
    Services::load(
        &paths.etc.join(SERVICE_DEFINITIONS),
        config.service_ports.clone(),
        runtime_path,
        is_python,
        Rc::clone(commands),
    )
}

impl Runner {
    /// The life of a kernel: bootstrap, then the startup command beside the runs.
    async fn work(&self) {
        let runtime = runtime::find(&self.config.runtime_type);
        startup::prepare(runtime, &self.commands).await;
        if let Some(script) = &self.config.bootstrap_script {
            startup::bootstrap(script, &self.commands).await;
        }
        self.ready.set(true);
        self.outbox.send(FromRunner::Ready { apps: self.services.apps() });
        let batch_session = self.config.startup_command.is_some();
        if runtime.query == Query::Python && !batch_session {
            self.runs.python.prepare();
        }
        let startup = async {
            if let Some(command) = &self.config.startup_command {
                let started = |pid| *self.startup.borrow_mut() = Startup::Running(pid);
                let kills = self.memory.kills();
                let exit_code = startup::startup(command, &self.commands, started).await;
                if let Some(complaint) = self.memory.complaint(&kills) {
                    log!("{complaint}");
                }
                *self.startup.borrow_mut() = Startup::Ended(exit_code);
                self.startup_ended.notify_one();
                self.outbox.send(FromRunner::StartupFinished { exit_code });
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = startup => {}
            () = self.runs.run() => {}
        }
    }

    async fn shutdown_wanted(&self) -> Duration {
        loop {
            if let Some(grace) = self.shutdown.get() {
                return grace;
            }
            self.shutdown_wanted.notified().await;
        }
    }

    fn interrupt(&self) {
        if !self.runs.interrupt()
            && let Startup::Running(pid) = *self.startup.borrow()
        {
            self.reaper.signal_group(pid, Signal::INT);
        }
    }
}

impl Handler for Runner {
    fn greeting(&self) -> Vec<FromRunner> {
        let startup_exit_code = match *self.startup.borrow() {
            Startup::Ended(code) => Some(code),
            _ => None,
        };
        let hello = FromRunner::Hello {
            protocol: PROTOCOL_VERSION,
            kernel_id: self.config.kernel_id.clone(),
            running: self.runs.current().map(|current| current.run_id.clone()),
            queued: self.runs.queued(),
            waiting_input: self.runs.waiting_input(),
            startup_exit_code,
        };
        let ready = self.ready.get().then(|| FromRunner::Ready { apps: self.services.apps() });
        std::iter::once(hello).chain(ready).collect()
    }

    fn handle(&self, message: ToRunner) {
        match message {
            ToRunner::Run { run_id, job } => self.runs.enqueue(run_id, job),
            ToRunner::Input { run_id, text } => self.runs.input(&run_id, text),
            ToRunner::Interrupt => self.interrupt(),
            ToRunner::Cancel { run_id } => self.runs.cancel(&run_id),
            ToRunner::Ack { seq } => self.outbox.acknowledge(seq),
            ToRunner::Complete { id, code, cursor } => {
                if !self.runs.complete(id, code, cursor) {
                    let matches = Vec::new();
                    self.outbox.send(FromRunner::Completions { id, matches });
                }
            }
            ToRunner::OpenStream { id, target } => self.streams.open(id, target),
            ToRunner::StartService { id, name, arguments, envs } => {
                let (services, outbox) = (Rc::clone(&self.services), Rc::clone(&self.outbox));
                self.commands.tasks.spawn_local(async move {
                    let result = services.start(&Request { name, arguments, envs }).await;
                    outbox.send(FromRunner::ServiceStarted { id, result });
                });
            }
            ToRunner::StopService { name } => self.services.stop(&name),
            ToRunner::Shutdown { grace_ms } => {
                self.shutdown.set(Some(Duration::from_millis(grace_ms)));
                self.shutdown_wanted.notify_one();
            }
        }
    }
}
