//! A hostile front-end.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weft_vhost_fuzz::protocol(data));
