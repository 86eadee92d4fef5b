//! `interflow-fuzz`: seeded mutation of every target, on stable Rust.

use std::alloc::System;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use interflow_fuzz::{Runner, TARGETS, Target};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Runs the fuzz targets, each on mutations of its seeds. Ends with `N passed, N failed`; an
/// input that fails is kept in `fuzz/artifacts`.
#[derive(Parser, Debug)]
struct Options {
    /// Seconds for each target.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seeds the mutations: the same seed gives the same inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this target.
    #[arg(long)]
    target: Option<String>,
    /// Print the names of the targets and end.
    #[arg(long)]
    list: bool,
    /// Write the seeds of each target as files into a folder of this one, and end.
    #[arg(long, value_name = "FOLDER")]
    write_seeds: Option<PathBuf>,
    /// Run these files through `--target`, and end.
    #[arg(requires = "target")]
    files: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let chosen = |target: &&Target| options.target.as_ref().is_none_or(|name| name == target.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(chosen).collect();
    if targets.is_empty() {
        eprintln!("no such target; --list names them");
        return ExitCode::from(2);
    }
    if options.list {
        targets.iter().for_each(|target| println!("{}", target.name));
        return ExitCode::SUCCESS;
    }
    if let Some(folder) = &options.write_seeds {
        return done(write_seeds(folder, &targets));
    }
    let runner = Runner {
        seed: options.seed,
        time: Duration::from_secs(options.seconds),
        allocated: || ALLOCATOR.stats().bytes_allocated,
    };
    let mut failed = 0;
    for target in &targets {
        let ok = if options.files.is_empty() {
            run(&runner, target)
        } else {
            options.files.iter().all(|file| replay(&runner, target, file))
        };
        failed += usize::from(!ok);
    }
    println!("{} passed, {failed} failed", targets.len() - failed);
    done(failed == 0)
}

fn done(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(runner: &Runner<impl Fn() -> usize>, target: &Target) -> bool {
    let run = runner.run(target, |input| {
        eprintln!("{}: an input takes too long: {}", target.name, keep(target, input));
        std::process::exit(1);
    });
    match run.failure {
        None => {
            println!("{:<16} {:>10} inputs", target.name, run.inputs);
            true
        }
        Some((failure, input)) => {
            let kept = keep(target, &input);
            println!("{:<16} {failure:?} after {} inputs: {kept}", target.name, run.inputs);
            false
        }
    }
}

fn replay(runner: &Runner<impl Fn() -> usize>, target: &Target, file: &Path) -> bool {
    let failure = match std::fs::read(file) {
        Ok(input) => runner.run_once(target, &input).map(|failure| format!("{failure:?}")),
        Err(error) => Some(error.to_string()),
    };
    println!("{}: {}", file.display(), failure.as_deref().unwrap_or("passed"));
    failure.is_none()
}

/// Keeps a failing input and says where.
fn keep(target: &Target, input: &[u8]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts");
    let file = folder.join(format!("{}-{}", target.name, std::process::id()));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, input));
    match written {
        Ok(()) => file.display().to_string(),
        Err(error) => format!("not kept ({error}): {input:02x?}"),
    }
}

fn write_seeds(folder: &Path, targets: &[&Target]) -> bool {
    let write = || {
        for target in targets {
            let folder = folder.join(target.name);
            std::fs::create_dir_all(&folder)?;
            for (number, seed) in (target.seeds)().iter().enumerate() {
                std::fs::write(folder.join(format!("seed-{number}")), seed)?;
            }
        }
        std::io::Result::Ok(())
    };
    write().inspect_err(|error| eprintln!("{}: {error}", folder.display())).is_ok()
}
