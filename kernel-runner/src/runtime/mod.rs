//! What the runner knows about languages: one table, [`table::RUNTIMES`].

mod table;

use std::path::Path;

/// One language.
pub struct Runtime {
    /// Values of the image's label `ai.backend.runtime-type`.
    names: &'static [&'static str],
    /// Its program, unless the image names one. `{}` in the commands below.
    program: &'static str,
    /// What `*` means for each batch step: the first rule that applies.
    clean: &'static [Rule],
    build: &'static [Rule],
    exec: &'static [Rule],
    /// How a piece of code is run.
    pub query: Query,
    /// A program that images may have for every start of a container.
    pub preparation: Option<&'static str>,
}

/// A command, if a file is in the working directory.
struct Rule(&'static str, &'static str);

/// How a piece of code is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// By our driver in the image's interpreter, which keeps its state.
    Python,
    /// The code is written to a file, and a command runs it; `{file}` stands for it.
    File {
        /// Of the file.
        extension: &'static str,
        /// Comes before the code.
        preamble: &'static str,
        /// For the shell.
        command: &'static str,
    },
    /// Not at all.
    Unsupported,
}

/// A step of a batch run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Removes what was built.
    Clean,
    /// Builds.
    Build,
    /// Runs.
    Exec,
}

/// The runtime of this name. One that is not in the table can run commands only.
pub fn find(name: &str) -> &'static Runtime {
    let named = table::RUNTIMES.iter().find(|runtime| runtime.names.contains(&name));
    named.unwrap_or(&table::COMMANDS_ONLY)
}

impl Runtime {
    /// The command that `*` stands for, `None` if there is none. `path` is the image's
    /// program for this runtime.
    pub fn default_command(&self, phase: Phase, work: &Path, path: Option<&str>) -> Option<String> {
        let (rules, make) = match phase {
            Phase::Clean => (self.clean, None),
            Phase::Build => (self.build, Some("make")),
            Phase::Exec => (self.exec, None),
        };
        if let Some(make) = make.filter(|_| work.join("Makefile").is_file()) {
            return Some(make.to_owned());
        }
        let rule = rules.iter().find(|Rule(file, _)| work.join(file).exists())?;
        Some(self.fill(rule.1, path))
    }

    /// Names of the files of which `*` in the exec step needs one.
    pub fn main_files(&self) -> Vec<&'static str> {
        self.exec.iter().map(|Rule(file, _)| *file).collect()
    }

    /// A command with the program in its place.
    pub fn fill(&self, command: &str, path: Option<&str>) -> String {
        command.replace("{}", &quote(&self.program(path)))
    }

    /// The program; some images name the folder of its installation.
    fn program(&self, path: Option<&str>) -> String {
        let Some(path) = path else { return self.program.to_owned() };
        if !Path::new(path).is_dir() {
            return path.to_owned();
        }
        let inside = Path::new(path).join("bin").join(self.program);
        let found = inside.exists().then(|| inside.to_string_lossy().into_owned());
        found.unwrap_or_else(|| self.program.to_owned())
    }
}

/// A word that the shell takes as it is.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_command_depends_on_the_files() {
        let work = tempfile::tempdir().unwrap();
        let python = find("python");
        let default = |phase| python.default_command(phase, work.path(), Some("/opt/my python"));
        assert_eq!(default(Phase::Exec), None);
        std::fs::write(work.path().join("main.py"), "").unwrap();
        std::fs::write(work.path().join("setup.py"), "").unwrap();
        assert_eq!(default(Phase::Exec).unwrap(), "'/opt/my python' main.py");
        assert!(default(Phase::Build).unwrap().contains("pip install"));
        std::fs::write(work.path().join("Makefile"), "").unwrap();
        assert_eq!(default(Phase::Build).unwrap(), "make");
        assert_eq!(default(Phase::Clean), None);
        assert_eq!(
            find("c").default_command(Phase::Clean, work.path(), None).unwrap(),
            "make clean"
        );
    }

    #[test]
    fn an_unknown_runtime_runs_commands_only() {
        assert_eq!(find("vendor.x").query, Query::Unsupported);
        assert_eq!(find("app").query, Query::Unsupported);
        assert_eq!(find("vendor.x").default_command(Phase::Exec, Path::new("/"), None), None);
    }
}
