//! (placeholder) 
fn main() {}
