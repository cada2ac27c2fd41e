//! Programs from PyPI, at pinned versions, each set in a virtual environment of its own that is made once.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python of an environment that has all of `requirements`, made under `folder` unless it is there.
pub fn install(
    folder: &Path,
    name: &str,
    requirements: &str,
    constraints: &str,
) -> Result<PathBuf> {
    let venv = folder.join(format!("venv-{name}"));
    let python = venv.join("bin/python");
    let done = venv.join("installed");
    let wanted = format!("{requirements}{constraints}");
    if std::fs::read_to_string(&done).is_ok_and(|have| have == wanted) {
        return Ok(python);
    }
    println!("installing {name} from PyPI");
    let file = |kind: &str, text: &str| -> Result<PathBuf> {
        let path = folder.join(format!("{name}.{kind}.txt"));
        std::fs::write(&path, text)?;
        Ok(path)
    };
    let (requirements, constraints) = (
        file("requirements", requirements)?,
        file("constraints", constraints)?,
    );
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&venv))
    .context("apt install python3-venv")?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
        .arg("-c")
        .arg(constraints)
        .arg("-r")
        .arg(requirements))?;
    std::fs::write(&done, wanted)?;
    Ok(python)
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
