//! Weft's host daemon: snapshot in, engines, report out.

pub mod feed;
