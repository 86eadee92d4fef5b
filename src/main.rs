//! `interflow`: one binary, a subcommand a role or tool.

fn main() {}
