//! `bench/idle`: what Interflow uses when nothing happens, and for each idle connection.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Parser;
use interflow_bench::kafka_server::Places;
use interflow_bench::mqtt_wire;
use interflow_bench::process::{Server, usage_of};
use interflow_bench::report::Report;

const PORT: u16 = 31_883;

#[derive(Parser)]
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
    /// (internal) Only open the connections to PORT and wait
    #[arg(long, hide = true)]
    only_connect: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.only_connect {
        return hold(options.connections).await;
    }
    let places = Places::find()?;
    let mut report = Report::new();
    let data = places.scratch.join("server");
    if data.exists() {
        std::fs::remove_dir_all(&data)?;
    }
    let mut command = Command::new(&places.interflow);
    command.arg("standalone").arg("--dev-tls").arg("--data-dir").arg(&data);
    command.args(["--mqtt-port", &PORT.to_string()]);
    let limit = options.connections.to_string();
    command.env("INTERFLOW_NET__MAX_CONNECTIONS_PER_ADDRESS", &limit);
    let log = places.scratch.join("server.log");
    let server = Server::start(command, SocketAddr::from(([127, 0, 0, 1], PORT)), &log)?;
    let pause = Duration::from_secs;
    tokio::time::sleep(pause(10)).await;
    let (rest, lines) = (server.usage()?, line_count(&log)?);
    report.add("at rest", "interflow", "resident MiB", rest.resident_bytes as f64 / 1048576.0);
    tokio::time::sleep(pause(options.seconds)).await;
    let later = server.usage()?;
    report.add("at rest", "interflow", "CPU s", later.cpu_s - rest.cpu_s);
    let written = (later.written_bytes - rest.written_bytes) as f64;
    report.add("at rest", "interflow", "bytes written", written);
    report.add("at rest", "interflow", "log lines", (line_count(&log)? - lines) as f64);

    // The clients are another process: their sockets' memory is not the server's.
    let mut clients = Command::new(std::env::current_exe()?)
        .arg("--only-connect")
        .args(["--connections", &options.connections.to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    if let Some(out) = clients.stdout.take() {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)?;
        let open: f64 = line.trim().parse()?;
        tokio::time::sleep(pause(5)).await;
        let full = usage_of(server.pid())?;
        let grown = full.resident_bytes.saturating_sub(later.resident_bytes) as f64;
        report.add("idle connections", "interflow", "connections", open);
        report.add("idle connections", "interflow", "bytes each", grown / open.max(1.0));
    }
    drop(clients.stdin.take());
    clients.wait()?;
    server.stop()?;
    report.print("interflow");
    report.write(&options.json)
}

fn line_count(path: &std::path::Path) -> anyhow::Result<usize> {
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
