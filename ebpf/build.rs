//! Compiles the programs: prints the header that they share with the loader (layouts and constants from
//! `weft-ebpf-common`, drop reasons and limits from `weft-model`) and calls clang.
//!
//! It needs `clang-19` (or what `WEFT_CLANG` names) and linux/bpf.h, and says which package brings what is missing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use weft_model::{DropReason, limits};

fn main() -> std::process::ExitCode {
    match build() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let programs = PathBuf::from(env("CARGO_MANIFEST_DIR")?).join("programs");
    let out = PathBuf::from(env("OUT_DIR")?);
    println!("cargo:rerun-if-changed={}", programs.display());
    println!("cargo:rerun-if-env-changed=WEFT_CLANG");
    let header = header()?;
    std::fs::write(out.join("weft_generated.h"), &header).map_err(|e| format!("OUT_DIR: {e}"))?;
    let mut hash = Fnv::default();
    hash.add(header.as_bytes());
    for name in ["state.h", "policy.h"] {
        let text = std::fs::read(programs.join(name)).map_err(|e| format!("{name}: {e}"))?;
        hash.add(&text);
    }
    println!("cargo:rustc-env=WEFT_LAYOUT={:016x}", hash.0);
    compile(&programs, &out, "weft")?;
    compile(&programs, &out, "steer")?;
    compile(&programs, &out, "policy_harness")
}

fn env(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|e| format!("{name}: {e}"))
}

fn compile(programs: &Path, out: &Path, name: &str) -> Result<(), String> {
    let clang = std::env::var("WEFT_CLANG").unwrap_or_else(|_unset| "clang-19".to_owned());
    let asm = format!("/usr/include/{}-linux-gnu", env("CARGO_CFG_TARGET_ARCH")?);
    let result = Command::new(&clang)
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror"])
        .args(["-Wno-unused-function", "-Wno-unused-const-variable", "-Wno-unused-parameter"])
        .args(["-fdebug-prefix-map=/=", "-I", &asm, "-I"])
        .arg(out)
        .arg("-c")
        .arg(programs.join(format!("{name}.bpf.c")))
        .arg("-o")
        .arg(out.join(format!("{name}.bpf.o")))
        .output()
        .map_err(|e| {
            format!("cannot run {clang} ({e}): install it (apt-get install clang-19), or name another one in WEFT_CLANG")
        })?;
    if result.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&result.stderr);
    let hint = if said.contains("linux/bpf.h") || said.contains("asm/types.h") {
        "\nthe kernel's headers are missing: apt-get install linux-libc-dev"
    } else {
        ""
    };
    Err(format!("{clang} refused {name}.bpf.c:\n{said}{hint}"))
}

fn header() -> Result<String, String> {
    let mut text = weft_ebpf_common::c_header();
    let mut define = |name: &str, value: u64| {
        writeln!(text, "#define {name} {value}u").map_err(|e| e.to_string())
    };
    for reason in DropReason::ALL {
        define(
            &format!("REASON_{}", reason.name().to_ascii_uppercase()),
            reason.number().into(),
        )?;
    }
    for (name, value) in [
        ("PORTS_PER_HOST_MAX", limits::PORTS_PER_HOST_MAX as u64),
        ("QOS_ADDRESSES_MAX", limits::QOS_ADDRESSES_MAX as u64),
        (
            "NETWORKS_PER_HOST_MAX",
            limits::NETWORKS_PER_HOST_MAX as u64,
        ),
        ("ROUTERS_PER_HOST_MAX", limits::ROUTERS_PER_HOST_MAX as u64),
        (
            "REMOTE_PORTS_PER_HOST_MAX",
            limits::REMOTE_PORTS_PER_HOST_MAX as u64,
        ),
        ("DROP_REASONS_MAX", limits::DROP_REASONS_MAX as u64),
        ("NEIGHBOURS_MAX", limits::NEIGHBOURS_MAX.into()),
        ("FRAGMENTS_MAX", limits::FRAGMENTS_MAX.into()),
        (
            "IPV6_EXTENSION_HEADERS_MAX",
            limits::IPV6_EXTENSION_HEADERS_MAX as u64,
        ),
        (
            "METERING_REGIONS_PER_HOST_MAX",
            limits::METERING_REGIONS_PER_HOST_MAX as u64,
        ),
        ("METERS_MAX", limits::METERS_MAX as u64),
        ("NAT_PORT_TRIES_MAX", limits::NAT_PORT_TRIES_MAX.into()),
        ("SESSIONS_MAX_DEFAULT", limits::SESSIONS_MAX_DEFAULT.into()),
        (
            "SESSIONS_PER_PORT_MAX_DEFAULT",
            limits::SESSIONS_PER_PORT_MAX_DEFAULT.into(),
        ),
        ("LOGS_PER_SECOND", limits::LOGS_PER_SECOND.into()),
        ("LOGS_BURST", limits::LOGS_BURST.into()),
        (
            "SERVICE_PACKETS_PER_SECOND",
            limits::SERVICE_PACKETS_PER_SECOND.into(),
        ),
        (
            "SERVICE_PACKETS_BURST",
            limits::SERVICE_PACKETS_BURST.into(),
        ),
        ("MULTICAST_COPIES_MAX", limits::MULTICAST_COPIES_MAX.into()),
        (
            "MULTICAST_COPIES_PER_SECOND",
            limits::MULTICAST_COPIES_PER_SECOND.into(),
        ),
        (
            "MULTICAST_COPIES_BURST",
            limits::MULTICAST_COPIES_BURST.into(),
        ),
        (
            "SERVICE_FRAME_BYTES_MAX",
            limits::SERVICE_FRAME_BYTES_MAX as u64,
        ),
    ] {
        define(&format!("LIMIT_{name}"), value)?;
    }
    use limits::session_timeout_s as timeout;
    for (name, value) in [
        ("TCP_OPENING", timeout::TCP_OPENING),
        ("TCP_ESTABLISHED", timeout::TCP_ESTABLISHED),
        ("TCP_CLOSING", timeout::TCP_CLOSING),
        ("UDP_OPENING", timeout::UDP_OPENING),
        ("UDP_ESTABLISHED", timeout::UDP_ESTABLISHED),
        ("ICMP", timeout::ICMP),
    ] {
        define(&format!("TIMEOUT_{name}"), value.into())?;
    }
    Ok(text)
}

/// FNV-1a, 64 bits: names the layout of pinned maps. Not against malice.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
