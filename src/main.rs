//! `interflow`: one binary; a subcommand is a role or a tool.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    interflow::cli::main()
}
