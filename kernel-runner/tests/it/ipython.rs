//! Code in Python with IPython and matplotlib.

use std::path::Path;
use std::process::Command;

use backendai_rpc::runner::{ConsoleItem, RunRecord, ToRunner};

use crate::support::{Agent, Outcome, Setup};

/// Where the packages are installed once, for all test runs.
const VENV: &str = "/var/tmp/backendai/venv-ipython";

fn ipython() -> Agent {
    let marker = Path::new(VENV).join("installed");
    if !marker.exists() {
        install(&marker);
    }
    let mut setup = Setup::new("python");
    setup.config.runtime_path = Some(format!("{VENV}/bin/python"));
    setup.start()
}

/// Tests run in several processes, and one of them installs.
fn install(marker: &Path) {
    std::fs::create_dir_all(Path::new(VENV).parent().unwrap()).unwrap();
    let lock = std::fs::File::create(format!("{VENV}.lock")).unwrap();
    lock.lock().unwrap();
    if marker.exists() {
        return;
    }
    let run = |program: &str, args: &[&str]| {
        assert!(Command::new(program).args(args).status().unwrap().success(), "{program} {args:?}");
    };
    run("python3", &["-m", "venv", "--without-pip", VENV]);
    let python = format!("{VENV}/bin/python");
    let packages = ["install", "--quiet", "ipython", "ipykernel", "matplotlib"];
    run("python3", &[&["-m", "pip", "--python", &python][..], &packages].concat());
    std::fs::write(marker, "").unwrap();
}

#[test]
fn values_and_output_keep_their_order() {
    let mut agent = ipython();
    let outcome = agent.run("x = 6\nprint('a')\nx * 7");
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code()), ("a\n42", 0), "{outcome:?}");
    assert_eq!(agent.run("_ + 1, Out[1], __name__").stdout, "(43, 42, '__main__')");
    assert_eq!(agent.run("1;").stdout, "");
    assert_eq!(agent.run("%env FROM_CONFIG").stdout, "'yes'");
    assert!(agent.run("!echo from the shell").stdout.starts_with("from the shell"));
    assert_eq!(agent.run("import asyncio\nawait asyncio.sleep(0, 'awaited')").stdout, "'awaited'");
    assert_eq!(agent.run("exit()").exit_code(), 0);
    assert_eq!(agent.run("x").stdout, "6");
    assert_eq!(agent.run("import threading; threading.active_count()").stdout, "1");
}

#[test]
fn pictures_and_html_are_shown_between_the_output() {
    let mut agent = ipython();
    let outcome = agent.run(
        "from IPython.display import display, HTML, SVG\n\
         class Both:\n    def _repr_html_(self): return '<i>both</i>'\n\
         print('before')\ndisplay(HTML('<b>bold</b>'))\nprint('after')\n\
         display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))\n\
         class Latex:\n    def _repr_latex_(self): return '$x$'\n    def __repr__(self): return 'plain'\n\
         display(Latex())\nBoth()",
    );
    let console = outcome.console();
    let stdout = |text: &str| ConsoleItem::Stdout(text.into());
    let html = |text: &str| ConsoleItem::Html(text.into());
    let ConsoleItem::Media { mime, data } = &console[3] else { panic!("{console:?}") };
    assert_eq!(mime, "image/svg+xml");
    assert!(data.starts_with("<svg"), "{data}");
    assert_eq!(console[..3], [stdout("before\n"), html("<b>bold</b>"), stdout("after\n")]);
    assert_eq!(console[4..], [stdout("plain"), html("<i>both</i>")]);
}

#[test]
fn figures_are_shown_at_the_end_of_a_run() {
    let mut agent = ipython();
    for code in [
        "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nprint('plotted')",
        "plt.plot([3, 2, 1])\nplt.show()\nprint('shown')",
    ] {
        let outcome = agent.run(code);
        assert_eq!(outcome.items.len(), 1, "{:?}", (outcome.stdout, outcome.stderr));
        let ConsoleItem::Media { mime, data } = &outcome.items[0] else { panic!() };
        assert_eq!(mime, "image/png");
        assert!(data.starts_with("data:image/png;base64,iVBORw0KGgo"), "{}", &data[..60]);
        assert!(!data.contains('\n'));
    }
    assert!(agent.run("1").items.is_empty());
}

#[test]
fn tracebacks_are_coloured_text() {
    let mut agent = ipython();
    let outcome = agent.run("def f():\n    return 1 / 0\nf()");
    assert!(outcome.stderr.contains("ZeroDivisionError"), "{outcome:?}");
    assert!(outcome.stderr.contains("\u{1b}["), "{outcome:?}");
    assert!(!outcome.stderr.contains("kernel-runner"), "{outcome:?}");
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code()), ("", 0));
    assert!(agent.run("x = = 1").stderr.contains("SyntaxError"));
    assert_eq!(agent.run("import sys; sys.exit(3)").exit_code(), 0);
}

#[test]
fn input_and_interrupts_work_as_without() {
    let mut agent = ipython();
    let mut outcome = Outcome::default();
    agent.query(
        "r",
        "import getpass\nname = input('name: ')\nsecret = getpass.getpass()\nname + secret",
    );
    let asked = agent.until_event("r", &mut outcome);
    assert_eq!(asked, RunRecord::WaitingInput { is_password: false });
    agent.input("r", "a");
    let asked = agent.until_event("r", &mut outcome);
    assert_eq!(asked, RunRecord::WaitingInput { is_password: true });
    agent.input("r", "b");
    agent.until_end("r", &mut outcome);
    assert_eq!(outcome.stdout, "name: Password: 'ab'");
    for code in ["while True: pass", "import time; time.sleep(1000)", "input()"] {
        let mut outcome = Outcome::default();
        agent.query("r", &format!("print('begun')\n{code}"));
        agent.until_text("r", "begun", &mut outcome);
        if code == "input()" {
            agent.until_event("r", &mut outcome);
        }
        agent.send(ToRunner::Interrupt);
        agent.until_end("r", &mut outcome);
        assert!(outcome.stderr.contains("KeyboardInterrupt"), "{code}: {outcome:?}");
    }
    assert_eq!(agent.run("name").stdout, "'a'");
}

#[test]
fn completions_know_attributes_and_magics() {
    let mut agent = ipython();
    agent.run("import os\nsome_long_name = 1");
    assert!(agent.complete("some_lo", None).contains(&"some_long_name".to_owned()));
    let found = agent.complete("os.path.joi", None);
    assert!(found.iter().any(|name| name.ends_with("join")), "{found:?}");
}
