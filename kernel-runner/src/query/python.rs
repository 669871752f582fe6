//! Query runs in Python: which interpreter, and one driver after the other.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::Driver;
use crate::command::{Commands, NOT_STARTED};
use crate::environ::ProgramError;
use crate::log::log;
use crate::outbox::{Outbox, RunOutput};

/// Where images have their interpreter, unless they say.
const INTERPRETERS: [&str; 4] =
    ["/usr/bin/python3", "/usr/local/bin/python3", "/usr/bin/python", "/usr/local/bin/python"];

/// The interpreter of this container.
pub struct Python {
    configured: Option<String>,
    commands: Rc<Commands>,
    outbox: Rc<Outbox>,
    /// The last one that was started.
    driver: RefCell<Option<Rc<Driver>>>,
}

impl Python {
    /// `configured` is the image's interpreter.
    pub fn new(configured: Option<String>, commands: Rc<Commands>, outbox: Rc<Outbox>) -> Self {
        Self { configured, commands, outbox, driver: RefCell::default() }
    }

    /// Starts the interpreter ahead of the first run. What goes wrong shows there.
    pub fn prepare(&self) {
        if let Err(message) = self.start() {
            log!("{message}");
        }
    }

    /// The interpreter that lives.
    pub fn driver(&self) -> Option<Rc<Driver>> {
        self.driver.borrow().clone().filter(|driver| !driver.has_ended())
    }

    /// Runs a piece of code, in a new interpreter if the last one has ended. `started` is
    /// told which.
    pub async fn run(
        &self,
        code: String,
        output: RunOutput,
        started: impl FnOnce(Rc<Driver>),
    ) -> i32 {
        let driver = match self.driver() {
            Some(driver) => driver,
            None => {
                if self.driver.borrow().as_ref().is_some_and(|driver| driver.was_ready()) {
                    let message = "the interpreter was restarted: its state is lost";
                    output.stderr(format!("kernel-runner: {message}\n"));
                }
                match self.start() {
                    Ok(driver) => driver,
                    Err(message) => {
                        output.stderr(format!("kernel-runner: {message}\n"));
                        return NOT_STARTED;
                    }
                }
            }
        };
        started(Rc::clone(&driver));
        driver.run(code, output).await
    }

    fn start(&self) -> Result<Rc<Driver>, String> {
        let interpreter = self.interpreter().map_err(|error| error.to_string())?;
        let driver = Driver::start(&interpreter, &self.commands, Rc::clone(&self.outbox))
            .map_err(|error| format!("start {}: {error}", interpreter.display()))?;
        let driver = Rc::new(driver);
        self.driver.replace(Some(Rc::clone(&driver)));
        Ok(driver)
    }

    /// The configured interpreter, or the first that is there.
    ///
    /// # Errors
    /// If there is none.
    pub fn interpreter(&self) -> Result<PathBuf, ProgramError> {
        let spawner = &self.commands.spawner;
        let find = |name: &str| spawner.environ().find_program(name, spawner.work());
        if let Some(configured) = &self.configured {
            match find(configured) {
                Ok(path) => return Ok(path),
                Err(error) => log!("{error}; looking for another interpreter"),
            }
        }
        let known = INTERPRETERS.iter().map(Path::new).find(|path| path.exists());
        known.map_or_else(|| find("python3"), |path| Ok(path.to_owned()))
    }
}
