//! A server under test: started, watched, and ended by its own process id.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long a server may take until its port answers.
const START: Duration = Duration::from_secs(60);
/// How long a server may take to stop after SIGTERM.
const STOP: Duration = Duration::from_secs(30);

/// A running server. Ended when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

/// What a server has used so far.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// CPU seconds, user and system.
    pub cpu_s: f64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Bytes that it asked the kernel to write to disk.
    pub written_bytes: u64,
}

impl Server {
    /// Starts `command` with its output in `log`, and waits until `ready` accepts connections.
    pub fn start(mut command: Command, ready: SocketAddr, log: &Path) -> anyhow::Result<Self> {
        if TcpStream::connect_timeout(&ready, Duration::from_millis(200)).is_ok() {
            bail!("something listens on {ready} already");
        }
        let out = fs::File::create(log)?;
        let err = out.try_clone()?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let mut server = Self { child };
        let begun = Instant::now();
        while TcpStream::connect_timeout(&ready, Duration::from_millis(200)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended ({status}); see {}", log.display());
            }
            if begun.elapsed() > START {
                bail!("no answer on {ready} within {START:?}; see {}", log.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the process has used so far, from /proc.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        usage_of(self.child.id())
    }

    /// Asks the server to stop and waits for it.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.terminate()
    }

    fn terminate(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > STOP {
                self.child.kill()?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.terminate() {
            eprintln!("could not stop process {}: {error}", self.child.id());
        }
    }
}

/// What process `pid` has used so far, from /proc.
pub fn usage_of(pid: u32) -> anyhow::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command in parentheses may hold spaces; fields count from behind it.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    let ticks = |field: usize| -> anyhow::Result<f64> {
        Ok(fields.get(field).context("short /proc stat")?.parse::<f64>()?)
    };
    let cpu_s = (ticks(11)? + ticks(12)?) / ticks_per_second()?;
    let resident_bytes = keyed(&format!("/proc/{pid}/status"), "VmRSS:")? * 1024;
    let written_bytes = keyed(&format!("/proc/{pid}/io"), "write_bytes:").unwrap_or(0);
    Ok(Usage { cpu_s, resident_bytes, written_bytes })
}

fn keyed(path: &str, key: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text
        .lines()
        .find(|line| line.starts_with(key))
        .with_context(|| format!("no {key} in {path}"))?;
    Ok(line.split_whitespace().nth(1).context("no value")?.parse()?)
}

fn ticks_per_second() -> anyhow::Result<f64> {
    let output = Command::new("getconf").arg("CLK_TCK").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}
