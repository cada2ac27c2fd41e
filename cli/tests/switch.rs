//! `weft run` with vhost-user sockets: the user engine alone, as anybody starts it.

#![allow(
    clippy::unwrap_used,
    reason = "a test: helpers outside of its functions may panic too"
)]

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
    let mut child = run(&sockets).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("the switch runs") {
            break;
        }
    }
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
        text.contains("--cpu 1000") && text.contains("expected"),
        "{text}"
    );
    let nowhere = format!("vm1={}/no/folder.sock", folder.path().display());
    let text = said(&mut run(&[sockets[0].clone(), nowhere])).await;
    assert!(text.contains("no/folder.sock"), "{text}");
    sockets[1] = sockets[0].replace("vm0=", "vm1=");
    let text = said(&mut run(&sockets)).await;
    assert!(
        text.contains("0.sock") && text.contains("two ports"),
        "{text}"
    );
    assert!(paths.iter().all(|path| !path.exists()));
}
