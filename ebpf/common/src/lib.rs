//! Layouts and numbers shared between the kernel engine's programs and its loader.
//!
//! Guarantees: each layout is declared once, here; the C header is printed from it ([`c_header`]) by the build
//! script of `weft-ebpf`. It knows no syscall, no map and nothing of a snapshot.
//! The classifier's layouts (`policy`) are declared twice, with assertions in both languages.
#![no_std]

extern crate alloc;

pub mod constants;
pub mod declare;
pub mod layout;
pub mod layout_local_ip;
pub mod layout_qos;
pub mod policy;

/// The C header with every constant and struct that the programs share with the loader.
#[must_use]
pub fn c_header() -> alloc::string::String {
    let mut text = alloc::string::String::from(
        "/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */\n/* Printed by ebpf/build.rs from ebpf/common. */\n#pragma once\n#include <linux/types.h>\n",
    );
    text += &constants::c_definitions();
    text += &layout_local_ip::c_declarations();
    text += &layout_qos::c_declarations();
    text += &layout::c_declarations();
    text
}
