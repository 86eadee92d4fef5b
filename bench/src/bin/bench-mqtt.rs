//! `bench/mqtt`: Interflow next to mosquitto.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Parser;
use interflow_bench::fsync;
use interflow_bench::kafka_server::Places;
use interflow_bench::mqtt_load::{Load, run};
use interflow_bench::process::Server;
use interflow_bench::report::Report;
use interflow_bench::verdict::Limit;
use interflow_bench::versions;

const PORT: u16 = 31_883;
const ADMIN_PORT: u16 = 31_890;
const US: &str = "interflow";
const MOSQUITTO: &str = "mosquitto";
const FLOOR: &str = "bare fdatasync loop";

#[derive(Debug, Parser)]
#[command(about = "Interflow next to mosquitto, the same generators, turn by turn")]
struct Options {
    /// Rounds; medians are over these
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Publishes of each throughput load
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Bytes of a payload
    #[arg(long, default_value_t = 100)]
    payload_bytes: usize,
    /// Seconds of each latency load
    #[arg(long, default_value_t = 10)]
    latency_seconds: u64,
    /// Which servers
    #[arg(long, value_delimiter = ',', default_value = "interflow,mosquitto")]
    servers: Vec<String>,
    /// Only scenarios whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Where the JSON goes
    #[arg(long, default_value = "bench/results/mqtt.json")]
    json: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let places = Places::find()?;
    let mut about = versions::machine(&places.scratch);
    about.insert("mosquitto".into(), versions::mosquitto());
    let mut report = Report::new(about, &options);
    let mut servers = options.servers.clone();
    for round in 0..options.rounds {
        if round > 0 {
            servers.rotate_left(1);
        }
        for name in &servers {
            eprintln!("round {} · {name}", round + 1);
            let server = start(&places, name)?;
            for (scenario, load, rate) in loads(&options) {
                if !scenario.contains(&options.only) {
                    continue;
                }
                measure(&mut report, &scenario, name, &server, &load, rate).await?;
            }
            server.stop()?;
        }
        let floor = fsync::measure(&places.scratch, Duration::from_secs(options.latency_seconds))?;
        for (scenario, ..) in loads(&options).iter().filter(|(_, _, rate)| rate.is_some()) {
            report.add(scenario, FLOOR, "p50 ms", floor.ms(50.0));
            report.add(scenario, FLOOR, "p99 ms", floor.ms(99.0));
        }
    }
    judge(&mut report);
    report.print(US);
    report.write(&options.json)
}

/// What the report must show.
fn judge(report: &mut Report) {
    let busy = ["fan-in 100 to 0, QoS 1, 20 in flight", "fan-in 100 to 1, QoS 1, 20 in flight"];
    for scenario in busy {
        let claim = format!("{scenario} each, throughput to mosquitto's");
        let of = [US, MOSQUITTO, "published/s"];
        report.bound_ratio(&claim, scenario, of, Limit::AtLeast(1.0));
        let claim = format!("{scenario} each, server CPU a message to mosquitto's");
        let of = [US, MOSQUITTO, "server CPU s/million"];
        report.bound_ratio(&claim, scenario, of, Limit::AtMost(2.0));
        let claim = format!("{scenario} each, records a batch");
        report.bound(&claim, scenario, US, "records a batch", Limit::MoreThan(10.0));
    }
    let claim = "fan-out 1 to 100, deliveries to mosquitto's";
    let of = [US, MOSQUITTO, "delivered/s"];
    report.bound_ratio(claim, "fan-out 1 to 100", of, Limit::AtLeast(2.0));
    let claim = "QoS 0 at a fixed rate, p99 to mosquitto's";
    let of = [US, MOSQUITTO, "p99 ms"];
    report.bound_ratio(claim, "latency, QoS 0", of, Limit::AtMost(2.0));
    let claim = "QoS 1 at a fixed rate, 10 to 1, p99 to that of a bare fdatasync loop";
    report.bound_ratio(claim, "latency, QoS 1, 10 to 1", [US, FLOOR, "p99 ms"], Limit::AtMost(5.0));
}

fn start(places: &Places, name: &str) -> anyhow::Result<Server> {
    let data = places.scratch.join("server");
    if data.exists() {
        std::fs::remove_dir_all(&data)?;
    }
    std::fs::create_dir_all(&data)?;
    let ready = SocketAddr::from(([127, 0, 0, 1], PORT));
    let command = if name == MOSQUITTO {
        let config = data.join("mosquitto.conf");
        // No limits that would drop what is counted; nothing is written to disk.
        std::fs::write(
            &config,
            format!(
                "listener {PORT} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n\
                 max_inflight_messages 0\nmax_queued_messages 0\nuser root\n"
            ),
        )?;
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(config);
        command
    } else {
        let mut command = Command::new(&places.interflow);
        command.arg("standalone").arg("--data-dir").arg(data.join("data"));
        command.args(["--mqtt-port", &PORT.to_string()]);
        command.args(["--admin-port", &ADMIN_PORT.to_string()]);
        for port in ["ws", "kafka"] {
            command.args([format!("--{port}-port"), "0".into()]);
        }
        command
    };
    Server::start(command, ready, &places.scratch.join("server.log"))
}

/// Scenario, load, and the rate of an open loop.
fn loads(options: &Options) -> Vec<(String, Load, Option<f64>)> {
    let base = Load {
        address: format!("127.0.0.1:{PORT}"),
        publishers: 100,
        filters: Vec::new(),
        qos: 0,
        in_flight: 20,
        messages: options.messages,
        payload_bytes: options.payload_bytes,
    };
    let all = || vec!["load/#".to_owned()];
    let mut loads = Vec::new();
    for (qos, in_flight) in [(1, 20), (1, 1), (0, 0)] {
        let window = if qos == 1 { format!(", {in_flight} in flight") } else { String::new() };
        let messages = if in_flight == 1 { options.messages / 4 } else { options.messages };
        let load = Load { qos, in_flight, messages, ..base.clone() };
        loads.push((format!("fan-in 100 to 0, QoS {qos}{window}"), load.clone(), None));
        if in_flight != 1 {
            let load = Load { filters: all(), ..load };
            loads.push((format!("fan-in 100 to 1, QoS {qos}{window}"), load, None));
        }
    }
    for qos in [0, 1] {
        let filters = vec!["load/#".to_owned(); 100];
        let messages = options.messages / 20;
        let load = Load { qos, publishers: 1, filters, messages, ..base.clone() };
        loads.push((format!("fan-out 1 to 100, QoS {qos}"), load, None));
        let filters = (0..100).map(|n| format!("load/{n}")).collect();
        let load = Load { qos, filters, ..base.clone() };
        loads.push((format!("one to one, 100 pairs, QoS {qos}"), load, None));
        // An open loop each: at a rate, whatever the answers do.
        let fan_out = vec!["load/#".to_owned(); 100];
        let pairs = (0..100).map(|n| format!("load/{n}")).collect();
        for (shape, publishers, filters, rate) in [
            ("10 to 1", 10, all(), 2_000),
            ("1 to 100", 1, fan_out, 50),
            ("100 pairs", 100, pairs, 2_000),
        ] {
            let messages = rate * options.latency_seconds;
            let load = Load { qos, publishers, filters, messages, ..base.clone() };
            let scenario = format!("latency, QoS {qos}, {shape} at {rate}/s");
            loads.push((scenario, load, Some(rate as f64)));
        }
    }
    loads
}

async fn measure(
    report: &mut Report,
    scenario: &str,
    name: &str,
    server: &Server,
    load: &Load,
    rate: Option<f64>,
) -> anyhow::Result<()> {
    let batches_before = batches(name)?;
    let before = server.usage()?;
    let outcome = run(load, rate).await?;
    let after = server.usage()?;
    if let (Some((records, count)), Some((more, bigger))) = (batches_before, batches(name)?) {
        report.add(scenario, name, "records a batch", (more - records) / (bigger - count).max(1.0));
    }
    let published = load.messages as f64;
    if rate.is_none() {
        report.add(scenario, name, "published/s", outcome.published_per_s);
    }
    report.add_usage(scenario, name, before, after, published.max(outcome.delivered as f64));
    if !load.filters.is_empty() {
        if rate.is_none() {
            report.add(scenario, name, "delivered/s", outcome.delivered_per_s);
        }
        report.add(scenario, name, "lost", outcome.lost as f64);
        let percentiles =
            [("p50 ms", 50.0), ("p99 ms", 99.0), ("p99.9 ms", 99.9), ("max ms", 100.0)];
        for (metric, percentile) in percentiles {
            report.add(scenario, name, metric, outcome.latencies.ms(percentile));
        }
    }
    Ok(())
}

/// Records and batches that Interflow has appended for MQTT, from its metrics.
fn batches(name: &str) -> anyhow::Result<Option<(f64, f64)>> {
    if name != US {
        return Ok(None);
    }
    let mut stream = TcpStream::connect(("127.0.0.1", ADMIN_PORT))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let value = |metric: &str| -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse().ok())
    };
    let records = value("interflow_mqtt_batch_records_sum");
    Ok(records.zip(value("interflow_mqtt_batch_records_count")))
}
