//! The static binary as PID 1 of real containers.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use backendai_rpc::runner::files::FilesErrorKind;
use backendai_rpc::runner::{CONFIG_PATH, IPC_DIR, RUNNER_PATH, RunRecord, ToRunner, WORK_DIR};

use crate::files;
use crate::support::{Agent, Image, Outcome, Setup, wait_until};
use crate::terminal::Viewer;

/// All that the runner needs: it starts programs as the user, signals them, and gives them
/// their pipes. See the crate's README.
const CAPABILITIES: [&str; 4] = ["SETUID", "SETGID", "KILL", "CHOWN"];
const LABEL: &str = "ai.backend.test=kernel-runner";
/// Of the user's code.
const UID: u32 = 1234;

/// The binary: `$HALFSTACK_KERNEL_RUNNER`, or built now as `build.sh` does for everybody.
fn static_binary() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Ok(path) = std::env::var("HALFSTACK_KERNEL_RUNNER") {
            return path;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.sh");
        let output = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    })
}

/// An image of the files that `fill` puts into a folder.
fn image(fill: impl FnOnce(&Path)) -> Image {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let name = folder.path().file_name().unwrap().to_str().unwrap().to_lowercase();
    let image = Image(format!("backendai-test/kernel-runner:{}", name.trim_start_matches('.')));
    let mut tar = Command::new("tar")
        .args(["-C", folder.path().to_str().unwrap(), "-c", "."])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let imported = Command::new("docker")
        .args(["import", "--change", &format!("LABEL {LABEL}"), "-", &image.0])
        .stdin(tar.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(tar.wait().unwrap().success() && imported.status.success(), "{imported:?}");
    image
}

fn scratch() -> Image {
    // An image without a single file cannot be made.
    image(|root| std::fs::create_dir(root.join("proc")).unwrap())
}

fn busybox() -> Image {
    busybox_with(|_| {})
}

/// Busybox and more files.
fn busybox_with(fill: impl FnOnce(&Path)) -> Image {
    image(|root| {
        fill(root);
        let bin = root.join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for applet in
            ["sh", "ls", "cat", "id", "sleep", "grep", "echo", "kill", "tr", "setsid", "tty"]
        {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
    })
}

/// The image's own preparation.
fn write_hook(root: &Path, text: &str) {
    let hook = root.join("bootstrap.sh");
    std::fs::write(&hook, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(hook, PermissionsExt::from_mode(0o755)).unwrap();
}

/// A kernel in a container, as the agent starts it.
fn kernel(runtime_type: &str, image: Image, mounts: &[&str]) -> Setup {
    let mut setup = Setup::new(runtime_type);
    setup.config.uid = UID;
    setup.config.gid = UID;
    chown(setup.work(), Some(UID), Some(UID)).unwrap();
    let folder = setup.folder.path().to_owned();
    // Only root may come near the socket.
    std::fs::set_permissions(folder.join("ipc"), PermissionsExt::from_mode(0o700)).unwrap();
    let mut docker = Command::new("docker");
    docker.args(["run", "--rm", "--network", "none", "--label", LABEL, "--cap-drop", "ALL"]);
    for capability in CAPABILITIES {
        docker.args(["--cap-add", capability]);
    }
    docker.args(["--security-opt", "no-new-privileges", "--env", "BACKENDAI_RUNNER_WORK=/nowhere"]);
    let own = |name: &str, at: &str| format!("{}:{at}", folder.join(name).display());
    let own_mounts = [
        own("runner.json", &format!("{CONFIG_PATH}:ro")),
        own("ipc", &format!("{IPC_DIR}:ro")),
        own("work", WORK_DIR),
        format!("{}:{RUNNER_PATH}:ro", static_binary()),
    ];
    for mount in own_mounts.iter().map(String::as_str).chain(mounts.iter().copied()) {
        docker.args(["--volume", mount]);
    }
    docker.args(["--entrypoint", RUNNER_PATH, &image.0]);
    setup.image = Some(image);
    setup.container = Some(docker);
    setup
}

fn stop(agent: Agent) {
    assert_eq!(agent.shutdown(5000), 0);
}

#[test]
fn an_image_with_a_shell_runs_commands_as_the_user() {
    let mut setup = kernel("app", busybox(), &[]);
    setup.config.bootstrap_script = Some("id -un > bootstrapped".into());
    let mut agent = setup.start();
    let outcome = agent.run_batch(
        "",
        "",
        "id; pwd; echo ~ $PATH; cat bootstrapped; grep work /etc/passwd; \
         grep -E 'NoNewPrivs|CapEff|Groups' /proc/self/status | tr -d '\\t'; echo named > /dev/stdout; \
         cat /home/config/runner.json; ls /opt/backend.ai/ipc; kill -9 1; exit 3",
    );
    assert_eq!(outcome.exit_code(), 3, "{outcome:?}");
    let expected = format!(
        "uid={UID}(work) gid={UID}(work)\n{WORK_DIR}\n\
         {WORK_DIR} {WORK_DIR}/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         work\nwork:x:{UID}:{UID}::{WORK_DIR}:/bin/sh\n\
         Groups: \nCapEff:0000000000000000\nNoNewPrivs:1\nnamed\n"
    );
    // The configuration is for everybody to read in this test; the agent decides that.
    assert!(outcome.stdout.starts_with(&expected), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("Permission denied"), "the socket: {}", outcome.stderr);
    stop(agent);
}

#[test]
fn the_images_own_preparation_runs_as_root_before_anything_else() {
    let image = busybox_with(|root| {
        let (etc, container) = (root.join("etc"), root.join("opt/container"));
        std::fs::create_dir(&etc).unwrap();
        std::fs::create_dir_all(&container).unwrap();
        let passwd = format!("root:x:0:0::/root:/bin/sh\nnode:x:{UID}:7::/home/node:/bin/sh\n");
        std::fs::write(etc.join("passwd"), passwd).unwrap();
        let hook = "echo $(id -u) $LOCAL_USER_ID:$LOCAL_GROUP_ID $(id -u work) > /prepared; exit 3";
        write_hook(&container, hook);
    });
    let mut setup = kernel("app", image, &[]);
    setup.config.bootstrap_script = Some("cat /prepared > seen".into());
    let mut agent = setup.start();
    let outcome = agent.run_batch("", "", "cat seen; grep work /etc/passwd; id");
    let expected = format!(
        "0 {UID}:{UID} {UID}\nwork:x:{UID}:{UID}::{WORK_DIR}:/bin/sh\n\
         uid={UID}(work) gid={UID}(work)\n"
    );
    assert_eq!(outcome.stdout, expected, "{outcome:?}");
    assert!(agent.console().1.contains("bootstrap.sh failed: exit status: 3"));
    stop(agent);
}

#[test]
fn what_is_mounted_in_its_place_does_not_run_as_root() {
    let folder = tempfile::tempdir().unwrap();
    write_hook(folder.path(), "touch /prepared");
    let mount = format!("{}:/opt/container", folder.path().display());
    let mut agent = kernel("app", busybox(), &[&mount]).start();
    assert_eq!(agent.run_batch("", "", "ls /opt/container; ls -d /prepared").exit_code(), 1);
    wait_until("the log says why", || agent.console().1.contains("is not the image's"));
    stop(agent);
}

#[test]
fn an_interrupt_and_the_end_reach_the_user_in_a_container() {
    let mut agent = kernel("app", busybox(), &[]).start();
    let mut outcome = Outcome::default();
    agent.batch("r", "", "", "(echo begun; exec sleep 1000)");
    agent.until_text("r", "begun", &mut outcome);
    agent.send(ToRunner::Interrupt);
    agent.until_end("r", &mut outcome);
    assert_eq!(outcome.exit_code(), 130);
    // A daemon in a session of its own, which outlives the run.
    let daemon = "trap 'echo ended > ended; exit' TERM; echo ready; while :; do sleep 0.05; done";
    agent.batch("r", "", "", &format!("setsid sh -c \"{daemon}\" > ready 2>&1 < /dev/null &"));
    agent.until_end("r", &mut Outcome::default());
    let ready = agent.work().join("ready");
    wait_until("the daemon runs", || std::fs::read(&ready).is_ok_and(|text| !text.is_empty()));
    let ended = agent.work().join("ended");
    agent.send(ToRunner::Shutdown { grace_ms: 60_000 });
    assert_eq!(agent.runner.wait().unwrap().code(), Some(0));
    assert!(ended.exists());
}

#[test]
fn a_signal_of_the_engine_ends_the_container() {
    let mut setup = kernel("app", busybox(), &[]);
    setup.config.startup_command = Some("echo begun; exec sleep 1000".into());
    let mut agent = setup.start();
    wait_until("it runs", || agent.console().0.contains("begun"));
    let docker = rustix::process::Pid::from_child(&agent.runner);
    rustix::process::kill_process(docker, rustix::process::Signal::TERM).unwrap();
    assert_eq!(agent.runner.wait().unwrap().code(), Some(143));
}

#[test]
fn a_terminal_belongs_to_the_user() {
    let mut agent = kernel("app", busybox(), &[]).start();
    let mut viewer = Viewer::new(&mut agent, None);
    viewer.type_in("id -u; echo $SHELL; echo by-na''me > $(tty); cat /dev/tty\n");
    viewer.until(&format!("{UID}\r\n/bin/sh\r\nby-name\r\n"));
    viewer.type_in("typed\n");
    viewer.until("typed\r\ntyped\r\n");
    drop(viewer);
    stop(agent);
}

#[test]
fn an_empty_image_runs_programs_without_a_shell() {
    let mut agent = kernel("app", scratch(), &["/bin/busybox:/opt/busybox:ro"]).start();
    let outcome = agent.run_batch("", "", "/opt/busybox echo 'a  b' \"c\" $HOME");
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code()), ("a  b c $HOME\n", 0));
    let outcome = agent.run_batch("", "", "/opt/busybox id");
    assert_eq!(outcome.stdout, format!("uid={UID}(work) gid={UID}(work)\n"));
    let outcome = agent.run_batch("", "", "no-such-program x");
    assert_eq!(outcome.exit_code(), 127);
    assert_eq!(outcome.stderr, "kernel-runner: no-such-program: not found\n");
    let outcome = agent.run_batch("", "", "/opt/busybox echo a && /opt/busybox echo b");
    assert_eq!(outcome.exit_code(), 127);
    assert!(outcome.stderr.contains("needs a shell"), "{outcome:?}");
    stop(agent);
}

#[test]
fn python_of_an_image_runs_code_as_the_user() {
    let system = ["/usr:/usr:ro", "/lib:/lib:ro", "/lib64:/lib64:ro", "/bin:/bin:ro"];
    let mut agent = kernel("python", scratch(), &system).start();
    let outcome = agent.run("import os, getpass\nos.getuid(), getpass.getuser(), os.getcwd()");
    assert_eq!(outcome.stdout, format!("({UID}, 'work', '{WORK_DIR}')"), "{outcome:?}");
    let mut outcome = Outcome::default();
    agent.query("r", "name = input('? ')\nprint(name)\nwhile True: pass");
    let asked = agent.until_event("r", &mut outcome);
    assert_eq!(asked, RunRecord::WaitingInput { is_password: false });
    agent.input("r", "answered");
    agent.until_text("r", "answered", &mut outcome);
    agent.send(ToRunner::Interrupt);
    agent.until_end("r", &mut outcome);
    assert!(outcome.stderr.ends_with("KeyboardInterrupt\n"), "{outcome:?}");
    // Programs that it starts may ask, and find what the runner brings.
    let program = "import ai.backend.helpers as h; print(input('again? '), h.__file__)";
    std::fs::write(agent.work().join("main.py"), program).unwrap();
    let mut outcome = Outcome::default();
    agent.batch("r", "", "", "*");
    while !matches!(agent.until_event("r", &mut outcome), RunRecord::WaitingInput { .. }) {}
    agent.input("r", "yes");
    agent.until_end("r", &mut outcome);
    let library = "/opt/backend.ai/lib/python/ai/backend/helpers/__init__.py";
    assert_eq!(outcome.stdout, format!("again? yes {library}\n"), "{outcome:?}");
    // The user's code cannot reach the agent, nor the runner's memory.
    let code = "import socket\n\
                try: socket.socket(socket.AF_UNIX).connect('/opt/backend.ai/ipc/agent.sock')\n\
                except OSError as error: print(type(error).__name__)\n\
                try: open('/proc/1/mem')\n\
                except OSError as error: print(type(error).__name__)";
    assert_eq!(agent.run(code).stdout, "PermissionError\nPermissionError\n");
    stop(agent);
}

#[test]
fn files_are_moved_with_the_users_rights_among_the_users_mounts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shared"), "by all").unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let shown = folder.path().display();
    let mounts = [format!("{shown}:{WORK_DIR}/folder"), format!("{shown}:{WORK_DIR}/fixed:ro")];
    let mut agent = kernel("app", scratch(), &mounts.each_ref().map(String::as_str)).start();
    std::fs::write(agent.work().join("roots"), "secret").unwrap();
    std::fs::set_permissions(agent.work().join("roots"), PermissionsExt::from_mode(0o600)).unwrap();

    files::upload(&mut agent, b"/home/work/a/mine", b"content").unwrap();
    files::upload(&mut agent, b"folder/new", b"in the mount").unwrap();
    for path in [agent.work().join("a"), agent.work().join("a/mine"), folder.path().join("new")] {
        let owner = std::fs::metadata(&path).unwrap();
        assert_eq!((owner.uid(), owner.gid()), (UID, UID), "{}", path.display());
    }
    assert_eq!(files::read(&mut agent, b"fixed/new", 100).unwrap(), b"in the mount");
    assert_eq!(files::read(&mut agent, b"folder/shared", 100).unwrap(), b"by all");
    assert!(files::download(&mut agent, b"folder", 1 << 20).is_ok());
    assert_eq!(files::list(&mut agent, b"/home/work").unwrap().len(), 4);

    let denied = FilesErrorKind::Permission;
    assert_eq!(files::read(&mut agent, b"roots", 100).unwrap_err().kind, denied);
    assert_eq!(files::upload(&mut agent, b"fixed/new", b"").unwrap_err().kind, denied);
    let error = files::download(&mut agent, b".", 1 << 20).unwrap_err();
    assert_eq!(error.to_string(), "./roots: permission denied");
    stop(agent);
}
