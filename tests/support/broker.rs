//! The system under test: the real binary, started once a test process, on free ports.
//!
//! `INTERFLOW_TEST_MQTT`, `INTERFLOW_TEST_WS` and `INTERFLOW_TEST_KAFKA` (`host:port`) name a broker that
//! runs already, so that the tests themselves can be checked against another implementation.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// A broker and where it listens. Dropping it ends the process and removes its data.
pub(crate) struct Broker {
    listeners: HashMap<String, SocketAddr>,
    process: Option<Process>,
}

struct Process {
    pid: String,
    /// A shell that ends the broker as soon as its own standard input closes: also when this
    /// process dies without a chance to clean up.
    guard: Child,
    data_dir: PathBuf,
}

/// Starts the broker ("$@") and waits until standard input ends; then ends the broker and removes its
/// data, or, if the word was `keep`, waits for its own end and keeps them.
const GUARD: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- &
broker=$!
echo "pid $broker"
exec >&-
if [ "$(cat <&3)" = keep ]; then
  { wait "$broker"; } 2>/dev/null
  exit
fi
kill -KILL "$broker" 2>/dev/null
{ wait "$broker"; } 2>/dev/null
rm -rf "$DATA_DIR"
"#;

const PORTS: [&str; 8] = ["mqtt", "mqtts", "ws", "wss", "quic", "kafka", "kafkas", "admin"];

impl Broker {
    /// Starts a broker on a fresh folder with these environment variables and these arguments.
    pub(crate) fn start(settings: &[(&str, &str)], arguments: &[&str]) -> Broker {
        Broker::start_in(tempfile::tempdir().unwrap().keep(), settings, arguments)
    }

    fn start_in(data_dir: PathBuf, settings: &[(&str, &str)], arguments: &[&str]) -> Broker {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "broker", env!("CARGO_BIN_EXE_interflow"), "standalone"]);
        command.arg("--data-dir").arg(&data_dir);
        for port in PORTS {
            command.args([&format!("--{port}-port"), "0"]);
        }
        command.args(arguments).env("DATA_DIR", &data_dir).envs(settings.iter().copied());
        let mut guard =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh starts");
        let mut lines = BufReader::new(guard.stdout.take().unwrap()).lines();
        let mut listeners = HashMap::new();
        let mut pid = String::new();
        loop {
            let line = lines.next().expect("the broker ended before it was ready").unwrap();
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some("listening"), Some(name), Some(address)) => {
                    // Both loopback families are announced; the first one is as good as the other.
                    listeners.entry(name.to_owned()).or_insert(address.parse().unwrap());
                }
                (Some("pid"), Some(id), None) => pid = id.to_owned(),
                (Some("ready"), None, None) => break,
                _ => {}
            }
        }
        // The pipe is read to its end, so that the broker never blocks on its own output.
        std::thread::spawn(move || lines.for_each(drop));
        Broker { listeners, process: Some(Process { pid, guard, data_dir }) }
    }

    /// Where the listener called `name` (`mqtt`, `ws`, `kafka`, …) is to be reached.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        *self.listeners.get(name).unwrap_or_else(|| panic!("no listener {name}"))
    }

    /// Sends SIGTERM.
    #[allow(dead_code, reason = "shared by test crates that need different parts")]
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends the signal called `name`.
    #[allow(dead_code, reason = "shared by test crates that need different parts")]
    pub(crate) fn signal(&self, name: &str) {
        let pid = &self.process.as_ref().expect("a broker of our own").pid;
        assert!(Command::new("kill").args(["-s", name, pid]).status().unwrap().success());
    }

    /// Waits until the process, which was told to stop, ends well; starts another on the same folder.
    #[allow(dead_code, reason = "shared by test crates that need different parts")]
    pub(crate) fn restart(mut self, settings: &[(&str, &str)]) -> Broker {
        let mut process = self.process.take().expect("a broker of our own");
        process.guard.stdin.take().unwrap().write_all(b"keep").unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            match process.guard.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "the broker doesn't stop"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        // 137 is what a shell makes of SIGKILL, which only a test sends.
        assert!(matches!(status.code(), Some(0 | 137)), "the broker ended with {status}");
        Broker::start_in(process.data_dir, settings, &[])
    }

    /// The folder with the broker's data.
    #[allow(dead_code, reason = "shared by test crates that need different parts")]
    pub(crate) fn data_dir(&self) -> &Path {
        &self.process.as_ref().expect("a broker of our own").data_dir
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            drop(process.guard.stdin.take());
            let _ = process.guard.wait();
        }
    }
}

/// The broker that the tests of this process share. Tests keep apart by topics and client ids.
pub(crate) fn shared() -> &'static Broker {
    // A start that fails once isn't tried again by every test.
    static SHARED: LazyLock<Broker> = LazyLock::new(|| {
        let mut listeners = HashMap::new();
        for name in ["mqtt", "ws", "kafka"] {
            if let Ok(address) = std::env::var(format!("INTERFLOW_TEST_{}", name.to_uppercase())) {
                let address = address.to_socket_addrs().unwrap().next().unwrap();
                listeners.insert(name.to_owned(), address);
            }
        }
        if listeners.is_empty() {
            let quick = ("INTERFLOW_KAFKA__GROUP_INITIAL_REBALANCE_DELAY_MS", "0");
            Broker::start(&[quick], &[])
        } else {
            Broker { listeners, process: None }
        }
    });
    &SHARED
}

/// True when the shared broker isn't ours but another implementation.
#[allow(dead_code, reason = "shared by test crates that need different parts")]
pub(crate) fn is_reference() -> bool {
    shared().process.is_none()
}

/// A name that no other test of this run uses.
pub(crate) fn unique(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{SystemTime, UNIX_EPOCH};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() % 100_000_000;
    format!("{prefix}-{now:x}-{:x}-{n:x}", std::process::id())
}
