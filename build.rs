//! Puts the commit into the binary.

fn main() {}
