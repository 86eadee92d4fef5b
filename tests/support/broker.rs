//! The system under test: the real binary, started once a test process, on free ports.
//!
//! `INTERFLOW_TEST_MQTT`, `INTERFLOW_TEST_WS` and `INTERFLOW_TEST_KAFKA` (`host:port`) name a broker that
//! runs already, so that the tests themselves can be checked against another implementation.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// A broker and where it listens. Dropping it ends the process and removes its data.
pub(crate) struct Broker {
    listeners: HashMap<String, SocketAddr>,
    process: Option<Process>,
}

struct Process {
    /// A shell that ends the broker as soon as its own standard input closes: also when this
    /// process dies without a chance to clean up.
    guard: Child,
    data_dir: PathBuf,
}

/// Starts the broker ("$@"), waits until standard input ends, ends the broker, removes the data.
const GUARD: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- &
broker=$!
echo "pid $broker"
cat <&3 >/dev/null
kill -KILL "$broker" 2>/dev/null
wait "$broker"
rm -rf "$DATA_DIR"
"#;

const PORTS: [&str; 8] = ["mqtt", "mqtts", "ws", "wss", "quic", "kafka", "kafkas", "admin"];

impl Broker {
    /// Starts a broker on a fresh folder with these environment variables and these arguments.
    pub(crate) fn start(settings: &[(&str, &str)], arguments: &[&str]) -> Broker {
        let data_dir = tempfile::tempdir().unwrap().keep();
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
        loop {
            let line = lines.next().expect("the broker ended before it was ready").unwrap();
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some("listening"), Some(name), Some(address)) => {
                    // Both loopback families are announced; the first one is as good as the other.
                    listeners.entry(name.to_owned()).or_insert(address.parse().unwrap());
                }
                (Some("ready"), None, None) => break,
                _ => {}
            }
        }
        // The pipe is read to its end, so that the broker never blocks on its own output.
        std::thread::spawn(move || lines.for_each(drop));
        Broker { listeners, process: Some(Process { guard, data_dir }) }
    }

    /// Where the listener called `name` (`mqtt`, `ws`, `kafka`, …) is to be reached.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        *self.listeners.get(name).unwrap_or_else(|| panic!("no listener {name}"))
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
    static SHARED: OnceLock<Broker> = OnceLock::new();
    SHARED.get_or_init(|| {
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
    })
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
