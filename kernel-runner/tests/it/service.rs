//! Services of the image.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use backendai_rpc::runner::{
    AppInfo, FromRunner, ServiceStart, StreamError, StreamTarget, ToRunner,
};
use backendai_types::image::ServicePort;
use rustix::process::{Pid, test_kill_process};

use crate::support::{Agent, Setup, wait_until};

/// Listens on its first argument, or on what `$PORT` names; writes what it was started with.
const SERVER: &str = r#"
import http.server, json, os, sys
port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ['PORT'])
json.dump({'argv': sys.argv[1:], 'env': dict(os.environ), 'pid': os.getpid()}, open('started', 'w'))
http.server.HTTPServer(('127.0.0.1', port), http.server.SimpleHTTPRequestHandler).serve_forever()
"#;

/// A kernel with these definitions and, for each, as many free ports as wanted.
fn kernel(definitions: &[(&str, &str, usize)]) -> Setup {
    let mut setup = Setup::new("app");
    setup.config.runtime_path = Some("python3".into());
    let folder = setup.folder.path().join("etc/backend.ai/service-defs");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(setup.work().join("server.py"), SERVER).unwrap();
    for (name, text, ports) in definitions {
        if !text.is_empty() {
            std::fs::write(folder.join(format!("{name}.json")), text).unwrap();
        }
        setup.config.service_ports.push(ServicePort {
            name: name.to_string(),
            protocol: "http".into(),
            container_ports: free_ports(*ports),
            ..ServicePort::default()
        });
    }
    setup
}

/// Ports that nothing listens on, and that the system gives to nobody who asks for any: those
/// of another test are others, because it is another process.
fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = 10_000 + u16::try_from(std::process::id() % 1_000).unwrap() * 20;
    let next = || own + NEXT.fetch_add(1, Ordering::Relaxed);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(next).filter(free).take(count).collect()
}

fn start(agent: &mut Agent, name: &str) -> ServiceStart {
    start_with(agent, name, &[], &[])
}

fn start_with(
    agent: &mut Agent,
    name: &str,
    arguments: &[(&str, &[&str])],
    envs: &[(&str, &str)],
) -> ServiceStart {
    let arguments = arguments
        .iter()
        .map(|(flag, values)| (flag.to_string(), values.iter().map(|v| v.to_string()).collect()))
        .collect();
    let envs = envs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    agent.send(ToRunner::StartService { id: 9, name: name.into(), arguments, envs });
    match agent.receive() {
        FromRunner::ServiceStarted { id: 9, result } => result,
        other => panic!("{other:?}"),
    }
}

fn failure(text: &str) -> ServiceStart {
    ServiceStart::Failed(text.to_owned())
}

/// What the server was started with.
fn started(agent: &Agent) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(agent.work().join("started")).unwrap()).unwrap()
}

fn has_ended(pid: i64) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    test_kill_process(pid).is_err()
}

#[test]
fn a_defined_service_is_prepared_started_reached_and_stopped() {
    let definition = r#"{
        "command": ["{runtime_path}", "server.py", "{ports[0]}", "--second={ports[1]}", "{id[out]}"],
        "prestart": [
            {"action": "mkdir", "args": {"path": "made/below"}},
            {"action": "write_file", "args": {"filename": "made/file", "body": ["port {ports[0]}", "{{}}"]}},
            {"action": "write_file", "args": {"filename": "made/file", "body": ["more"], "append": true, "mode": "600"}},
            {"action": "write_tempfile", "args": {"body": ["print(", "1)"]}, "ref": "file"},
            {"action": "run_command", "args": {"command": ["python3", "{file}"], "echo": true}, "ref": "id"},
            {"action": "log", "args": {"message": "prepared {file}", "debug": true}}
        ],
        "env": {"FILE": "{file}"},
        "allowed_envs": ["EXTRA"],
        "allowed_arguments": ["--quiet", "--root"],
        "default_arguments": {"--bind": ["a", "b"], "--root": "/", "-v": null}
    }"#;
    let mut agent = kernel(&[("web", definition, 2)]).start();
    let ports = agent.setup.config.service_ports[0].container_ports.clone();
    let arguments: &[(&str, &[&str])] = &[("--quiet", &[]), ("--root", &["/x"])];
    let result = start_with(&mut agent, "web", arguments, &[("EXTRA", "of the user")]);
    assert_eq!(result, ServiceStart::Started);

    // It listens already.
    let mut stream = agent.open(StreamTarget::Port(ports[0]));
    stream.write_all(b"GET /made/file HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(&format!("\r\n\r\nport {}\n{{}}\nmore\n", ports[0])), "{answer}");

    let started_with = started(&agent);
    let second = format!("--second={}", ports[1]);
    let port = ports[0].to_string();
    let expected = [&*port, &*second, "1\n", "--bind", "a", "b", "--root", "/x", "-v", "--quiet"];
    assert_eq!(started_with["argv"], serde_json::json!(expected));
    assert_eq!(started_with["env"]["EXTRA"], "of the user");
    let file = started_with["env"]["FILE"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(file).unwrap(), "print(1)");
    std::fs::remove_file(file).unwrap();
    wait_until("the log", || agent.console().1.contains(&format!("prepared {file}")));

    assert_eq!(start(&mut agent, "web"), ServiceStart::Running);
    agent.send(ToRunner::StopService { name: "web".into() });
    let pid = started_with["pid"].as_i64().unwrap();
    wait_until("the service ends", || has_ended(pid));
    let refused = agent.try_open(StreamTarget::Port(ports[0])).unwrap_err();
    assert_eq!(refused, StreamError::Refused(ports[0]));
    // What has ended is forgotten.
    assert_eq!(start(&mut agent, "web"), ServiceStart::Started);
    assert_ne!(started(&agent)["pid"].as_i64(), Some(pid));
}

#[test]
fn what_users_may_say_is_limited_by_the_definition() {
    let definition = r#"{"command": ["python3", "server.py", "{ports[0]}"],
        "env": {"FIXED": "1"}, "allowed_envs": ["FIXED", "FROM_CONFIG"]}"#;
    let mut agent = kernel(&[("web", definition, 1)]).start();
    assert_eq!(
        start_with(&mut agent, "web", &[("--root", &["/"])], &[]),
        failure("the argument --root is not allowed")
    );
    assert_eq!(
        start_with(&mut agent, "web", &[], &[("LD_PRELOAD", "x")]),
        failure("the environment variable LD_PRELOAD is not allowed")
    );
    for name in ["FIXED", "FROM_CONFIG"] {
        assert_eq!(
            start_with(&mut agent, "web", &[], &[(name, "2")]),
            failure(&format!("the environment variable {name} can't be overwritten"))
        );
    }
    assert!(!agent.work().join("started").exists());
}

#[test]
fn services_that_do_not_start_say_why() {
    let silent = r#"{"command": ["python3", "-c",
        "import os, time; open('silent', 'w').write(str(os.getpid())); time.sleep(1000)"]}"#;
    let mut agent = kernel(&[
        ("silent", silent, 1),
        ("missing", r#"{"command": ["no-such-program"]}"#, 1),
        ("data", r#"{"command": ["./server.py"]}"#, 1),
        ("broken", r#"{"command": ["sh", "-c", "echo bad luck >&2; exit 3"]}"#, 1),
        ("lost", r#"{"command": ["sh", "{nothing}"]}"#, 1),
        (
            "unprepared",
            r#"{"command": ["sh"], "prestart":
            [{"action": "mkdir", "args": {"path": "server.py/x"}}]}"#,
            1,
        ),
    ])
    .start();
    let cases = [
        ("nothing", "unsupported service: nothing".to_owned()),
        ("missing", "the executable file is not found: no-such-program".to_owned()),
        ("data", "the target file is not executable: ./server.py".to_owned()),
        ("broken", "the process did not start properly: broken exited with code 3".to_owned()),
        ("lost", "the process did not start properly: there is no value nothing".to_owned()),
        (
            "unprepared",
            format!(
                "the process did not start properly: make the folder {}: \
                 Not a directory (os error 20)",
                agent.work().join("server.py/x").display()
            ),
        ),
        ("silent", "opening the service port timed out: silent".to_owned()),
    ];
    for (name, text) in cases {
        assert_eq!(start(&mut agent, name), failure(&text), "{name}");
    }
    wait_until("its last words", || agent.console().1.contains("bad luck"));
    // The silent one may yet listen, so it goes on until it is stopped.
    let silent = agent.work().join("silent");
    let pid = std::fs::read_to_string(silent).unwrap().parse().unwrap();
    assert!(!has_ended(pid));
    agent.send(ToRunner::StopService { name: "silent".into() });
    agent.send(ToRunner::StopService { name: "nothing".into() });
    wait_until("the service ends", || has_ended(pid));
}

#[test]
fn a_service_that_ignores_its_end_is_killed() {
    let stubborn = r#"{"command": ["python3", "-c",
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); exec(open('server.py').read())"],
        "env": {"PORT": "{ports[0]}"}}"#;
    let mut agent = kernel(&[("stubborn", stubborn, 1)]).start();
    assert_eq!(start(&mut agent, "stubborn"), ServiceStart::Started);
    let pid = started(&agent)["pid"].as_i64().unwrap();
    agent.send(ToRunner::StopService { name: "stubborn".into() });
    wait_until("the service ends", || has_ended(pid));
}

#[test]
fn a_definition_that_is_not_understood_is_left_out() {
    let good = r#"{"command": ["python3", "server.py", "{ports[0]}"], "url_template": "{protocol}://x",
        "allowed_envs": ["A"], "allowed_arguments": ["-a", "-b"], "default_arguments": {"-a": "1"}}"#;
    let mut setup = kernel(&[
        ("good", good, 1),
        ("bad", r#"{"command": ["python3"], "comand": []}"#, 1),
        ("worse", "{", 1),
        ("idle", r#"{"noop": true}"#, 1),
        ("own-server", "", 1),
        ("8080", "", 1),
    ]);
    setup.config.service_ports[5].protocol = "preopen".into();
    let mut agent = setup.start_unheard();
    agent.accept_unready();
    let FromRunner::Ready { apps } = agent.receive() else { panic!() };
    let app = |name: &str| AppInfo { name: name.into(), ..AppInfo::default() };
    let arguments = BTreeMap::from([("-a".into(), vec!["1".into()]), ("-b".into(), vec![])]);
    let good = AppInfo {
        url_template: Some("{protocol}://x".into()),
        allowed_envs: Some(vec!["A".into()]),
        allowed_arguments: Some(arguments),
        ..app("good")
    };
    let named = ["bad", "worse", "idle", "own-server", "8080"].map(app);
    let expected: Vec<_> = [app("sshd"), app("ttyd"), good].into_iter().chain(named).collect();
    assert_eq!(apps, expected);
    let (_, log) = agent.console();
    assert!(log.contains("the service bad is left out: ") && log.contains("comand"), "{log}");
    assert!(log.contains("the service worse is left out: "), "{log}");

    // Without a definition the port is for whatever the user runs there.
    for name in ["idle", "own-server", "8080", "bad"] {
        assert_eq!(start(&mut agent, name), ServiceStart::Started, "{name}");
    }
    for name in ["sshd", "ttyd"] {
        assert_eq!(start(&mut agent, name), ServiceStart::Running, "{name}");
    }
    assert_eq!(start(&mut agent, "good"), ServiceStart::Started);
}

#[test]
fn common_services_of_python_are_known() {
    let mut setup = Setup::python();
    for name in ["jupyter", "jupyterlab", "tensorboard"] {
        setup.config.service_ports.push(ServicePort {
            name: name.into(),
            protocol: "http".into(),
            container_ports: free_ports(1),
            ..ServicePort::default()
        });
    }
    // A module of that name, beside the interpreter's own.
    std::fs::create_dir(setup.work().join("notebook")).unwrap();
    let main = format!(
        "import sys\nsys.argv[1:] = [a[7:] for a in sys.argv if a.startswith('--port=')]\n{SERVER}"
    );
    std::fs::write(setup.work().join("notebook/__main__.py"), main).unwrap();
    let mut agent = setup.start();
    assert_eq!(start(&mut agent, "jupyter"), ServiceStart::Started);
    let exited = "exited with code 1";
    let failed = start(&mut agent, "jupyterlab");
    assert_eq!(
        failed,
        failure(&format!("the process did not start properly: jupyterlab {exited}"))
    );
    start(&mut agent, "tensorboard");
    assert!(agent.work().join("logs").is_dir());
}
