//! Compiles the lab's sender and sinks with clang. Needs the apt packages clang-19 and linux-libc-dev.

use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), String> {
    let source = "programs/lab.bpf.c";
    println!("cargo:rerun-if-changed={source}");
    let out: PathBuf = std::env::var_os("OUT_DIR")
        .ok_or("cargo sets OUT_DIR")?
        .into();
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").map_err(|e| e.to_string())?;
    let status = Command::new("clang-19")
        .args([
            "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3",
        ])
        .arg(format!("-I/usr/include/{arch}-linux-gnu"))
        .args(["-c", source, "-o"])
        .arg(out.join("lab.bpf.o"))
        .status()
        .map_err(|e| format!("cannot run clang-19 ({e}): apt-get install clang-19"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("clang-19 on {source}: {status}"))
    }
}
