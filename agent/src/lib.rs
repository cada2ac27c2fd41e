//! Weft's host daemon: snapshot in, engines, report out.

pub mod feed;
pub mod service;
pub mod socket;
