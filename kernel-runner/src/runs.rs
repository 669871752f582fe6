//! The queue of runs, and the one that runs now.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use backendai_rpc::runner::{Job, RunRecord};
use rustix::process::{Pid, Signal};
use tokio::sync::Notify;

use crate::batch::{self, Batch};
use crate::command::{Commands, NOT_STARTED};
use crate::log::log;
use crate::memory::Memory;
use crate::outbox::{Outbox, RunOutput};
use crate::process::Reaper;
use crate::query::{Driver, Python, run_file};
use crate::runtime::{Query, Runtime};

/// How long a cancelled run may take to end by itself.
const CANCEL_GRACE: Duration = Duration::from_secs(2);

/// The run that is carried out.
pub struct Current {
    /// Its name.
    pub run_id: String,
    /// Where its records go.
    pub output: RunOutput,
    target: RefCell<Target>,
    interrupted: Cell<bool>,
}

/// What to interrupt.
enum Target {
    /// Nothing was started yet.
    Nothing,
    /// A process group.
    Group(Pid),
    /// Python.
    Driver(Rc<Driver>),
}

impl Current {
    /// From now on a process group carries out the run.
    pub fn set_group(&self, pid: Pid) {
        self.target.replace(Target::Group(pid));
    }

    /// True after an interrupt: what follows is not begun.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.get() || self.output.is_cancelled()
    }

    fn interrupt(&self, reaper: &Reaper) {
        self.interrupted.set(true);
        match &*self.target.borrow() {
            Target::Nothing => {}
            Target::Group(pid) => reaper.signal_group(*pid, Signal::INT),
            Target::Driver(driver) => driver.interrupt(reaper),
        }
    }

    fn kill(&self, reaper: &Reaper) {
        match &*self.target.borrow() {
            Target::Nothing => {}
            Target::Group(pid) => reaper.signal_group(*pid, Signal::KILL),
            Target::Driver(driver) => driver.kill(reaper),
        }
    }
}

/// All runs of this container.
pub struct Runs {
    /// Started with the first run, or ahead of it.
    pub python: Python,
    runtime: &'static Runtime,
    runtime_path: Option<String>,
    commands: Rc<Commands>,
    memory: Rc<Memory>,
    outbox: Rc<Outbox>,
    reaper: Rc<Reaper>,
    queue: RefCell<VecDeque<(String, Job)>>,
    current: RefCell<Option<Rc<Current>>>,
    arrived: Notify,
    /// An interrupt came when a run had arrived and not begun.
    interrupt_next: Cell<bool>,
    stopped: Cell<bool>,
}

impl Runs {
    /// Nothing runs yet.
    pub fn new(
        runtime: &'static Runtime,
        runtime_path: Option<String>,
        commands: Rc<Commands>,
        memory: Rc<Memory>,
        outbox: Rc<Outbox>,
        reaper: Rc<Reaper>,
    ) -> Self {
        Self {
            python: Python::new(runtime_path.clone(), Rc::clone(&commands), Rc::clone(&outbox)),
            runtime,
            runtime_path,
            commands,
            memory,
            outbox,
            reaper,
            queue: RefCell::default(),
            current: RefCell::default(),
            arrived: Notify::new(),
            interrupt_next: Cell::new(false),
            stopped: Cell::new(false),
        }
    }

    /// Queues a run. One that is here already is the agent asking again after a
    /// reconnection, because it cannot know that the first message arrived.
    pub fn enqueue(&self, run_id: String, job: Job) {
        let running = self.current().is_some_and(|current| current.run_id == run_id);
        let queued = self.queue.borrow().iter().any(|(queued, _)| *queued == run_id);
        if running || queued || self.outbox.has_records_of(&run_id) {
            return;
        }
        self.queue.borrow_mut().push_back((run_id, job));
        self.arrived.notify_one();
    }

    /// The run that is carried out.
    pub fn current(&self) -> Option<Rc<Current>> {
        self.current.borrow().clone()
    }

    /// Names of the runs that wait.
    pub fn queued(&self) -> Vec<String> {
        self.queue.borrow().iter().map(|(run_id, _)| run_id.clone()).collect()
    }

    /// Begins nothing more.
    pub fn stop(&self) {
        self.stopped.set(true);
        if let Some(current) = self.current() {
            current.interrupted.set(true);
        }
    }

    /// Answers the question of a run.
    pub fn input(&self, run_id: &str, text: String) {
        let current = self.current().filter(|current| current.run_id == run_id);
        let answered = current.is_some_and(|current| match &*current.target.borrow() {
            Target::Driver(driver) if driver.input(&text) => true,
            _ => self.commands.input.answer(&text),
        });
        if !answered {
            log!("input for a run that does not wait: {run_id}");
        }
    }

    /// Whether the run that is carried out waits for input, and if so, for a password. Only
    /// once the agent has taken the question: before, it hears it as a record.
    pub fn waiting_input(&self) -> Option<bool> {
        let current = self.current()?;
        let asking = match &*current.target.borrow() {
            Target::Driver(driver) => driver.asking(),
            _ => None,
        };
        asking
            .or_else(|| self.commands.input.asking())
            .filter(|_| !self.outbox.has_question_of(&current.run_id))
    }

    /// Interrupts what runs, or would in a moment; false if nothing does.
    pub fn interrupt(&self) -> bool {
        if let Some(current) = self.current() {
            current.interrupt(&self.reaper);
            return true;
        }
        let waiting = !self.queue.borrow().is_empty();
        self.interrupt_next.set(waiting);
        waiting
    }

    /// Forgets a run and ends it. No more of its records are sent.
    pub fn cancel(self: &Rc<Self>, run_id: &str) {
        self.queue.borrow_mut().retain(|(queued, _)| queued != run_id);
        RunOutput::new(Rc::clone(&self.outbox), run_id).cancel();
        let Some(current) = self.current().filter(|current| current.run_id == run_id) else {
            return;
        };
        current.output.cancel();
        current.interrupt(&self.reaper);
        let (runs, reaper) = (Rc::clone(self), Rc::clone(&self.reaper));
        self.commands.tasks.spawn_local(async move {
            tokio::time::sleep(CANCEL_GRACE).await;
            if runs.current().is_some_and(|now| Rc::ptr_eq(&now, &current)) {
                current.kill(&reaper);
            }
        });
    }

    /// Asks for completions; `false` if nobody can answer now.
    pub fn complete(&self, id: u64, code: String, cursor: Option<(u32, u32)>) -> bool {
        self.python.driver().is_some_and(|driver| driver.complete(id, code, cursor))
    }

    /// Carries out runs in order, for ever.
    pub async fn run(&self) {
        loop {
            let next = if self.stopped.get() { None } else { self.queue.borrow_mut().pop_front() };
            let Some((run_id, job)) = next else {
                self.arrived.notified().await;
                continue;
            };
            let current = Rc::new(Current {
                output: RunOutput::new(Rc::clone(&self.outbox), &run_id),
                run_id,
                target: RefCell::new(Target::Nothing),
                interrupted: Cell::new(self.interrupt_next.take()),
            });
            self.current.replace(Some(Rc::clone(&current)));
            self.commands.input.open();
            let kills = self.memory.kills();
            let exit_code = self.carry_out(job, &current).await;
            self.commands.input.close();
            if let Some(complaint) = self.memory.complaint(&kills) {
                current.output.stderr(format!("kernel-runner: {complaint}\n"));
            }
            // Both at once: a new connection sees the run as running or its end as a record.
            self.current.replace(None);
            current.output.push(RunRecord::Finished { exit_code });
        }
    }

    async fn carry_out(&self, job: Job, current: &Rc<Current>) -> i32 {
        let path = self.runtime_path.as_deref();
        let code = match job {
            Job::Batch { clean, build, exec } => {
                let batch = Batch { clean, build, exec };
                return batch::run(batch, &self.commands, self.runtime, path, current).await;
            }
            Job::Query { code } => code,
        };
        match self.runtime.query {
            Query::Python => {
                let started = |driver: Rc<Driver>| {
                    if current.is_interrupted() {
                        driver.interrupt(&self.reaper);
                    }
                    current.target.replace(Target::Driver(driver));
                };
                self.python.run(code, current.output.clone(), started).await
            }
            Query::File { extension, preamble, command } => {
                let code = format!("{preamble}{code}");
                let command = self.runtime.fill(command, path);
                run_file(&code, extension, &command, &self.commands, current).await
            }
            Query::Unsupported => {
                let message = "this image's runtime takes no code, only batch commands";
                current.output.stderr(format!("kernel-runner: {message}\n"));
                NOT_STARTED
            }
        }
    }
}
