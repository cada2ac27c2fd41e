//! A hostile driver's packed ring.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weft_vhost_fuzz::ring(true, data));
