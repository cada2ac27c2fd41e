//! `weft run` with vhost-user sockets: the user engine alone, as anybody starts it.

#![allow(
    clippy::unwrap_used,
    reason = "a test: helpers outside of its functions may panic too"
)]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

fn snapshot() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf-lab/snapshots/two-ports-policy.json")
}

fn run(sockets: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.arg("run").arg("--snapshot").arg(snapshot());
    for socket in sockets {
        command.args(["--socket", socket]);
    }
    command.kill_on_drop(true);
    command
}

fn both(folder: &Path) -> (Vec<PathBuf>, Vec<String>) {
    let paths: Vec<_> = [0, 1].map(|n| folder.join(format!("{n}.sock"))).into();
    let sockets = (0..).zip(&paths);
    let sockets = sockets.map(|(n, path)| format!("vm{n}={}", path.display()));
    (paths.clone(), sockets.collect())
}

#[tokio::test]
async fn sockets_come_and_go_with_the_switch() {
    let folder = tempfile::tempdir().unwrap();
    let (paths, sockets) = both(folder.path());
    let (mut child, _) = started(&mut run(&sockets)).await;
    for path in &paths {
        UnixStream::connect(path).unwrap();
    }
    let pid = child.id().unwrap();
    let tasks = format!("/proc/{pid}/task");
    let named = |wanted: &str| {
        let mut tasks = std::fs::read_dir(&tasks).unwrap().flatten();
        tasks.any(|task| {
            let name = std::fs::read_to_string(task.path().join("comm"));
            name.is_ok_and(|name| name.trim() == wanted)
        })
    };
    for wanted in ["weft-poll-0", "weft-vhost-user"] {
        // A thread names itself when it begins.
        let there = async {
            while !named(wanted) {
                tokio::task::yield_now().await;
            }
        };
        let there = tokio::time::timeout(Duration::from_secs(20), there).await;
        assert!(there.is_ok(), "there is a thread {wanted}");
    }
    let kill = Command::new("kill").arg(pid.to_string()).status().await;
    assert!(kill.unwrap().success());
    assert!(
        child.wait().await.unwrap().success(),
        "SIGTERM is a clean end"
    );
    assert!(
        paths.iter().all(|path| !path.exists()),
        "sockets are removed"
    );
}

/// What it says until it runs, or ends.
async fn started(command: &mut Command) -> (tokio::process::Child, Vec<String>) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        let runs = line.contains("the switch runs");
        said.push(line);
        if runs {
            break;
        }
    }
    (child, said)
}

#[tokio::test]
async fn the_folder_of_a_socket_is_made_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("run/weft");
    let (paths, sockets) = both(&inner);
    let (mut child, said) = started(&mut run(&sockets)).await;
    for path in &paths {
        assert!(UnixStream::connect(path).is_ok(), "{said:?}");
    }
    let mode = std::fs::metadata(&inner).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    child.kill().await.unwrap();
}

#[tokio::test]
async fn a_cpu_of_the_configuration_is_refused_at_the_start_by_its_name() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, b"[agent.vhost_user]\ncpus = [1000]\n").unwrap();
    let mut command = run(&[]);
    let output = command.arg("--config").arg(file.path()).output().await;
    let Output { status, stderr, .. } = output.unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert!(!status.success());
    assert!(text.contains("agent.vhost_user.cpus: CPU 1000"), "{text}");
    assert!(!text.contains("--cpu"), "{text}");
}

#[tokio::test]
async fn mistakes_are_named_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (paths, mut sockets) = both(folder.path());
    let said = async |command: &mut Command| {
        let Output { status, stderr, .. } = command.output().await.unwrap();
        assert!(!status.success());
        String::from_utf8(stderr).unwrap()
    };
    let stranger = format!("vm9={}", paths[0].display());
    let text = said(&mut run(&[stranger])).await;
    assert!(text.contains("vm9") && text.contains("no port"), "{text}");
    let text = said(run(&sockets).args(["--cpu", "1000"])).await;
    assert!(
        text.contains("--cpu: CPU 1000") && text.contains("expected"),
        "{text}"
    );
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let nowhere = format!("vm1={}/no.sock", file.display());
    let text = said(&mut run(&[sockets[0].clone(), nowhere])).await;
    assert!(text.contains("file/no.sock"), "{text}");
    let taken = format!("vm1={}", file.display());
    let control_socket = file.to_str().unwrap();
    for mut command in [
        run(&[sockets[0].clone(), taken]),
        run(&[&sockets[..], &[control_socket.to_owned()]].concat()),
    ] {
        let text = said(&mut command).await;
        let named = text.contains(control_socket);
        assert!(
            named && text.contains("an ordinary file is there"),
            "{text}"
        );
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let again = format!("vm0={}", paths[1].display());
    let text = said(&mut run(&[sockets[0].clone(), again])).await;
    assert!(
        text.contains("--socket vm0=") && text.contains("already"),
        "{text}"
    );
    sockets[1] = sockets[0].replace("vm0=", "vm1=");
    let text = said(&mut run(&sockets)).await;
    assert!(
        text.contains("0.sock") && text.contains("two ports"),
        "{text}"
    );
    assert!(paths.iter().all(|path| !path.exists()));
}
