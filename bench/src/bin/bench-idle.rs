//! `bench/idle`: what Interflow uses when nothing happens, and for each idle connection.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use interflow_bench::kafka_server::Places;
use interflow_bench::mqtt_wire;
use interflow_bench::process::{Server, usage_of};
use interflow_bench::report::Report;
use interflow_bench::verdict::Limit;
use interflow_bench::versions;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PORT: u16 = 31_883;
const TLS_PORT: u16 = 31_884;
const US: &str = "interflow";
const REST: &str = "at rest";
const TCP: &str = "idle connections, TCP";
const TLS: &str = "idle connections, TLS";

#[derive(Debug, Parser)]
#[command(about = "Interflow at rest: memory, CPU, disk writes; memory of idle connections")]
struct Options {
    /// Idle MQTT connections with keep-alive
    #[arg(long, default_value_t = 15_000)]
    connections: usize,
    /// Seconds watched at rest
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where the JSON goes
    #[arg(long, default_value = "bench/results/idle.json")]
    json: PathBuf,
    /// Idle MQTT connections over TLS
    #[arg(long, default_value_t = 2_000)]
    tls_connections: usize,
    /// (internal) Only open the connections and wait
    #[arg(long, hide = true)]
    only_connect: bool,
    /// (internal) The CA of a TLS listener
    #[arg(long, hide = true)]
    ca: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.only_connect {
        return match &options.ca {
            Some(ca) => hold_tls(options.connections, ca).await,
            None => hold(options.connections).await,
        };
    }
    let places = Places::find()?;
    let mut report = Report::new(versions::machine(&places.scratch), &options);
    let (server, log) = start(&places, options.connections)?;
    let pause = Duration::from_secs;
    tokio::time::sleep(pause(10)).await;
    let (rest, lines) = (server.usage()?, line_count(&log)?);
    report.add(REST, US, "resident MB", rest.resident_bytes as f64 / 1e6);
    tokio::time::sleep(pause(options.seconds)).await;
    let later = server.usage()?;
    let a_minute = (later.cpu_s - rest.cpu_s) / options.seconds.max(1) as f64 * 60.0;
    report.add(REST, US, "CPU s a minute", a_minute);
    let written = (later.written_bytes - rest.written_bytes) as f64;
    report.add(REST, US, "bytes written", written);
    report.add(REST, US, "log lines", (line_count(&log)? - lines) as f64);

    connections(&mut report, &server, options.connections, None)?;
    server.stop()?;
    // A fresh process: memory that the first connections left behind would be used again.
    let (server, _) = start(&places, options.tls_connections)?;
    let ca = places.scratch.join("server/dev-tls/ca.pem");
    connections(&mut report, &server, options.tls_connections, Some(&ca))?;
    server.stop()?;
    judge(&mut report);
    report.print(US);
    report.write(&options.json)
}

/// What the report must show.
fn judge(report: &mut Report) {
    for (claim, metric, most) in [
        ("at rest, resident MB", "resident MB", 40.0),
        ("at rest, CPU seconds a minute", "CPU s a minute", 0.2),
        ("at rest, bytes written to disk", "bytes written", 0.0),
        ("at rest, log lines", "log lines", 0.0),
    ] {
        report.bound(claim, REST, US, metric, Limit::AtMost(most));
    }
    let claim = "memory of an idle TCP connection, bytes";
    report.bound(claim, TCP, US, "bytes each", Limit::AtMost(12_000.0));
}

/// A fresh server on an empty folder, and the file of its log lines.
fn start(places: &Places, connections: usize) -> anyhow::Result<(Server, PathBuf)> {
    let data = places.scratch.join("server");
    if data.exists() {
        std::fs::remove_dir_all(&data)?;
    }
    let mut command = Command::new(&places.interflow);
    command.arg("standalone").arg("--dev-tls").arg("--data-dir").arg(&data);
    command.args(["--mqtt-port", &PORT.to_string()]);
    command.args(["--mqtts-port", &TLS_PORT.to_string()]);
    for port in ["ws", "wss", "quic", "kafka", "kafkas", "admin"] {
        command.args([format!("--{port}-port"), "0".into()]);
    }
    command.env("INTERFLOW_NET__MAX_CONNECTIONS_PER_ADDRESS", connections.to_string());
    let log = places.scratch.join("server.log");
    let ready = SocketAddr::from(([127, 0, 0, 1], PORT));
    Ok((Server::start(command, ready, &log)?, log))
}

/// Opens connections from another process (their sockets' memory is not the server's), and
/// counts what the server grew by.
fn connections(
    report: &mut Report,
    server: &Server,
    count: usize,
    ca: Option<&Path>,
) -> anyhow::Result<()> {
    let before = server.usage()?.resident_bytes;
    let mut clients = Command::new(std::env::current_exe()?);
    clients.arg("--only-connect").args(["--connections", &count.to_string()]);
    if let Some(ca) = ca {
        clients.arg("--ca").arg(ca);
    }
    let piped = std::process::Stdio::piped;
    let mut clients = clients.stdin(piped()).stdout(piped()).spawn()?;
    let mut line = String::new();
    if let Some(out) = clients.stdout.take() {
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)?;
    }
    let open: f64 = line.trim().parse()?;
    std::thread::sleep(Duration::from_secs(5));
    let grown = usage_of(server.pid())?.resident_bytes.saturating_sub(before) as f64;
    let scenario = if ca.is_some() { TLS } else { TCP };
    report.add(scenario, US, "connections", open);
    report.add(scenario, US, "bytes each", grown / open.max(1.0));
    drop(clients.stdin.take());
    clients.wait()?;
    Ok(())
}

fn line_count(path: &Path) -> anyhow::Result<usize> {
    Ok(std::fs::read_to_string(path)?.lines().count())
}

/// Opens the connections, prints how many, and holds them until standard input ends.
async fn hold(connections: usize) -> anyhow::Result<()> {
    let mut open = Vec::with_capacity(connections);
    let address = format!("127.0.0.1:{PORT}");
    for number in 0..connections {
        match mqtt_wire::connect(&address, &format!("idle-{number}"), 600).await {
            Ok(connection) => open.push(connection),
            Err(error) => {
                eprintln!("connection {number}: {error:#}");
                break;
            }
        }
    }
    println!("{}", open.len());
    tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin())).await??;
    Ok(())
}

/// The same over TLS, trusting the CA in `ca`.
async fn hold_tls(connections: usize, ca: &Path) -> anyhow::Result<()> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let mut open = Vec::with_capacity(connections);
    for number in 0..connections {
        let stream = TcpStream::connect(("127.0.0.1", TLS_PORT)).await?;
        let mut stream = connector.connect("localhost".try_into()?, stream).await?;
        let packet = mqtt_wire::connect_packet(&format!("tls-{number}"), 600)?;
        stream.write_all(&packet).await?;
        stream.read_exact(&mut [0; 4]).await?;
        open.push(stream);
    }
    println!("{}", open.len());
    tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin())).await??;
    Ok(())
}
