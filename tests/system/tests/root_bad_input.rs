//! Mistakes in what the binary is given: it refuses whole, and says which file, which field, what was expected.

use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;
use weft_kit::command::outcome;
use weft_kit::{Lab, Site, WeftOptions};

/// A program's end: its status and what it said on standard error.
struct End {
    status: Option<i32>,
    said: String,
}

fn run(command: &mut Command) -> Result<End> {
    let output = outcome(command)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(End {
        status: output.status.code(),
        said,
    })
}

/// It failed with a status that is an answer (no signal, no panic), and said all of `words`.
#[track_caller]
fn refused(end: &End, words: &[&str]) {
    let End { status, said } = end;
    assert!(matches!(status, Some(1..=2)), "status {status:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// A lab with a good configuration, to be spoilt.
fn site(name: &str) -> Result<(Lab, Site)> {
    let lab = Lab::new(name)?;
    let host = lab.namespace("host")?;
    let options = WeftOptions::new(None)?;
    host.run("ip link add uplink0 type veth peer name other0")?;
    let site = Site::new(&lab, &host, &options)?;
    Ok((lab, site))
}

/// Replaces a text in the configuration and starts with it.
fn start_spoilt(site: &Site, from: &str, to: &str) -> Result<End> {
    let good = std::fs::read_to_string(&site.config)?;
    assert!(good.contains(from), "{from:?} is not in {good}");
    std::fs::write(&site.config, good.replacen(from, to, 1))?;
    let end = run(site
        .command("all-in-one")?
        .arg("--config")
        .arg(&site.config));
    std::fs::write(&site.config, good)?;
    end
}

#[test]
fn a_configuration_with_a_mistake_is_refused_by_field() -> Result<()> {
    let (lab, site) = site("weft-config")?;
    let file = site.config.display().to_string();
    refused(
        &start_spoilt(&site, "listen = \"127", "lissten = \"127")?,
        &[&file, "lissten"],
    );
    refused(
        &start_spoilt(&site, "\"127.0.0.1:9696\"", "\"nowhere\"")?,
        &[&file, "listen"],
    );
    refused(
        &start_spoilt(&site, "remove_on_stop = true", "remove_on_stop = 7")?,
        &[&file, "remove_on_stop"],
    );
    refused(&start_spoilt(&site, "[api]", "[api")?, &[&file]);
    let missing = lab.directory().join("missing.toml");
    let end = run(site.command("all-in-one")?.arg("--config").arg(&missing))?;
    refused(&end, &["missing.toml"]);
    assert!(!site.pins().exists(), "nothing was loaded");
    lab.close()
}

fn snapshot_file(lab: &Lab, text: &str) -> Result<PathBuf> {
    let path = lab.directory().join("snapshot.json");
    std::fs::write(&path, text)?;
    Ok(path)
}

fn run_snapshot(site: &Site, snapshot: &Path) -> Result<End> {
    let mut command = site.command("run")?;
    command
        .arg("--snapshot")
        .arg(snapshot)
        .arg("--config")
        .arg(&site.config);
    run(&mut command)
}

#[test]
fn a_snapshot_with_a_mistake_is_refused_by_field() -> Result<()> {
    let (lab, site) = site("weft-snapshot")?;
    let epoch = "00000000-0000-4000-8000-000000000001";
    let network = "00000000-0000-4000-8000-000000000002";
    let good = format!(
        r#""format": 1, "host": "{}", "epoch": "{epoch}", "revision": 1"#,
        site.name
    );
    let spoilt = [
        (format!("{{{good}, \"netwroks\": {{}}}}"), "netwroks"),
        (
            format!("{{{good}, \"networks\": {{\"{network}\": {{\"mtu\": \"big\"}}}}}}"),
            network,
        ),
        (
            good.replace("\"format\": 1", "{\"format\": 77") + "}",
            "format",
        ),
        ("{".to_owned(), "snapshot.json"),
    ];
    for (text, word) in spoilt {
        let file = snapshot_file(&lab, &text)?;
        refused(&run_snapshot(&site, &file)?, &["snapshot.json", word]);
    }
    let end = run_snapshot(&site, &lab.directory().join("missing.json"))?;
    refused(&end, &["missing.json"]);
    assert!(!site.pins().exists(), "nothing was loaded");
    lab.close()
}

#[test]
fn without_root_it_says_so() -> Result<()> {
    let (lab, site) = site("weft-no-root")?;
    // Where nobody may read: the binary's own directory may be closed to others.
    let open = tempfile::Builder::new().prefix("weft-no-root").tempdir()?;
    run_ok(&format!("chmod 755 {}", open.path().display()))?;
    let program = open.path().join("weft");
    std::fs::copy(&WeftOptions::new(None)?.program, &program)?;
    let config = open.path().join("weft.toml");
    let text = std::fs::read_to_string(&site.config)?;
    let private = lab.directory().display().to_string();
    let state = open.path().join("state");
    std::fs::create_dir(&state)?;
    run_ok(&format!("chown 65534 {}", state.display()))?;
    std::fs::write(
        &config,
        text.replace(&private, &state.display().to_string()),
    )?;
    let mut command = site.host.command("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program);
    let end = run(command.args(["all-in-one", "--config"]).arg(&config))?;
    refused(&end, &["run as root"]);
    lab.close()
}

fn run_ok(line: &str) -> Result<()> {
    weft_kit::command::run(line).map(drop)
}
