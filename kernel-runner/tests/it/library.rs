//! The package for the user's code.

use crate::support::Setup;

/// Plays pip: notes what it is asked, and installs a module of one line.
const PIP: &str = "\
import json, os, site, sys
with open('asked', 'w') as file:
    json.dump([sys.argv[1:], os.environ.get('PIP_BREAK_SYSTEM_PACKAGES')], file)
if 'broken' in sys.argv:
    sys.exit(4)
";

#[test]
fn install_asks_pip_and_says_when_it_fails() {
    let mut agent = Setup::python().start();
    let pip = agent.work().join("pip");
    std::fs::create_dir(&pip).unwrap();
    std::fs::write(pip.join("__init__.py"), "").unwrap();
    std::fs::write(pip.join("__main__.py"), PIP).unwrap();
    let asked = agent.work().join("asked");
    for (call, arguments) in [
        ("'one'", r#"[["install", "one"], "1"]"#),
        ("'one', force_install=True", r#"[["install", "--force-reinstall", "one"], "1"]"#),
        ("['one', 'two']", r#"[["install", "one", "two"], "1"]"#),
    ] {
        let outcome =
            agent.run(&format!("from ai.backend.helpers import install\ninstall({call})"));
        assert_eq!(outcome.stderr, "");
        assert_eq!(std::fs::read_to_string(&asked).unwrap(), arguments);
    }
    let outcome = agent.run("install('broken')");
    assert!(outcome.stderr.ends_with("RuntimeError: pip could not install broken: exit code 4\n"));
}

#[test]
fn the_package_hides_nothing() {
    let mut setup = Setup::python();
    let own = setup.folder.path().join("own");
    std::fs::create_dir_all(own.join("ai/backend/client")).unwrap();
    std::fs::write(own.join("ai/backend/client/__init__.py"), "").unwrap();
    setup.config.environ.insert("PYTHONPATH".into(), own.to_str().unwrap().into());
    let mut agent = setup.start();
    let outcome =
        agent.run("import ai.backend.client, ai.backend.helpers, os\nos.environ['PYTHONPATH']");
    let library = agent.setup.folder.path().join("library/python");
    assert_eq!(outcome.stdout, format!("'{}:{}'", own.display(), library.display()), "{outcome:?}");
    // A module of the same name in the working directory is the user's choice.
    std::fs::write(agent.work().join("ai.py"), "mine = 1").unwrap();
    let python = agent.setup.config.runtime_path.clone().unwrap();
    let outcome = agent.run_batch("", "", &format!("{python} -c 'import ai; print(ai.mine)'"));
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("1\n", ""));
}
