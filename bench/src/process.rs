//! A server under test: started, watched, and ended by its own process id.

use std::fs;
use std::iter::Sum;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long a server may take until it serves.
const START: Duration = Duration::from_secs(180);
/// How long a server may take to stop after SIGTERM.
const STOP: Duration = Duration::from_secs(30);

/// By what a server shows that it serves.
#[derive(Clone, Copy, Debug)]
pub enum Ready {
    /// It accepts connections there.
    Port(SocketAddr),
    /// It prints a line that begins so.
    Line(&'static str),
}

impl Ready {
    fn is_so(self, log: &Path) -> anyhow::Result<bool> {
        match self {
            Self::Port(address) => Ok(accepts(&address)),
            Self::Line(start) => {
                Ok(fs::read_to_string(log)?.lines().any(|line| line.starts_with(start)))
            }
        }
    }
}

fn accepts(address: &SocketAddr) -> bool {
    TcpStream::connect_timeout(address, Duration::from_millis(200)).is_ok()
}

/// A running server. Ended when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    is_asked_to_stop: bool,
}

/// What a server has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU seconds, user and system.
    pub cpu_s: f64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Bytes that it asked the kernel to write to disk.
    pub written_bytes: u64,
    /// Bytes that the kernel fetched from disk for it.
    pub read_bytes: u64,
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            cpu_s: a.cpu_s + b.cpu_s,
            resident_bytes: a.resident_bytes + b.resident_bytes,
            written_bytes: a.written_bytes + b.written_bytes,
            read_bytes: a.read_bytes + b.read_bytes,
        })
    }
}

impl Server {
    /// Starts `command` with its output in `log`, and waits until `ready` accepts connections.
    pub fn start(command: Command, ready: SocketAddr, log: &Path) -> anyhow::Result<Self> {
        let mut server = Self::spawn(command, ready, log)?;
        server.wait(Ready::Port(ready), log)?;
        Ok(server)
    }

    /// Starts `command`, which is to listen on `address`, with its output in `log`.
    pub fn spawn(mut command: Command, address: SocketAddr, log: &Path) -> anyhow::Result<Self> {
        if accepts(&address) {
            bail!("something listens on {address} already");
        }
        let out = fs::File::create(log)?;
        let err = out.try_clone()?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, is_asked_to_stop: false })
    }

    /// Waits until it serves. `log` has its output.
    pub fn wait(&mut self, ready: Ready, log: &Path) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !ready.is_so(log)? {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended ({status}); see {}", log.display());
            }
            if begun.elapsed() > START {
                bail!("not ready ({ready:?}) within {START:?}; see {}", log.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the process has used so far, from /proc.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        usage_of(self.child.id())
    }

    /// Asks the server to stop, once: SIGTERM.
    pub fn ask_to_stop(&mut self) -> anyhow::Result<()> {
        if !std::mem::replace(&mut self.is_asked_to_stop, true) {
            Command::new("kill").arg(self.child.id().to_string()).status()?;
        }
        Ok(())
    }

    /// Asks the server to stop and waits for it.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.terminate()
    }

    /// Ends it as a crash does, by SIGKILL.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn terminate(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        self.ask_to_stop()?;
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
    let read_bytes = keyed(&format!("/proc/{pid}/io"), "read_bytes:").unwrap_or(0);
    Ok(Usage { cpu_s, resident_bytes, written_bytes, read_bytes })
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
