//! Weft's control plane: the Networking API, its store, realize and the feed.

pub mod feed;
