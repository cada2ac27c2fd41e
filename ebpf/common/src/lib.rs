//! Layouts shared between the kernel engine's programs (C, `ebpf/programs`) and its loader: keys, values and
//! numbers, each with its size and offsets asserted here and in the header of the same name.
//!
//! It holds no behaviour and needs no std.
#![no_std]

pub mod policy;
