//! Which listeners there are: all ports are taken before anything is served.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use interflow_gateway::net::{
    Bound, ConnectionLimits, ListenerSpec, Tls, TlsFiles, TransportSpec, WebSocketOptions, dev_tls,
};

use crate::config::Config;

/// What a WebSocket message may have over the largest MQTT packet.
const WS_MARGIN_BYTES: usize = 64 << 10;

/// The listeners for clients, none served yet.
pub(super) struct Listeners {
    pub(super) mqtt: Vec<Bound>,
    pub(super) kafka: Vec<Bound>,
    pub(super) tls: Option<Arc<Tls>>,
    /// The CA of `--dev-tls`.
    pub(super) ca: Option<PathBuf>,
}

/// Whether every address is this machine's own.
pub(super) fn is_loopback_only(config: &Config) -> anyhow::Result<bool> {
    Ok(hosts(config)?.iter().all(IpAddr::is_loopback))
}

fn loopback() -> Vec<IpAddr> {
    vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
}

fn hosts(config: &Config) -> anyhow::Result<Vec<IpAddr>> {
    let mut hosts = Vec::new();
    for text in &config.listen {
        if text == "localhost" {
            hosts.extend(loopback());
        } else {
            let host = text.trim_matches(['[', ']']).parse().with_context(|| {
                format!("--listen {text}: want an IP address, such as 0.0.0.0 (ports have flags of their own)")
            })?;
            hosts.push(host);
        }
    }
    Ok(if hosts.is_empty() { loopback() } else { hosts })
}

/// Takes the port `port` of the listener `name` on `hosts`.
fn bind_on(
    config: &Config,
    hosts: &[IpAddr],
    name: &str,
    port: u16,
    transport: TransportSpec,
) -> anyhow::Result<Bound> {
    let limits = ConnectionLimits {
        max_connections: config.net.max_connections,
        max_per_address: config.net.max_connections_per_address,
    };
    let addresses = hosts.iter().map(|host| SocketAddr::new(*host, port)).collect();
    let spec = ListenerSpec { name: name.into(), addresses, transport, limits };
    Bound::bind(spec).map_err(|error| {
        anyhow::Error::new(error)
            .context(format!("choose another port with --{name}-port, or 0 for any"))
    })
}

/// Takes the admin port. Never open to others: it has no users of its own.
///
/// # Errors
/// A port in use or not allowed, with the flag that chooses another.
pub(super) fn bind_admin(config: &Config) -> anyhow::Result<Bound> {
    bind_on(config, &loopback(), "admin", config.ports.admin, TransportSpec::Tcp)
}

/// Takes all ports for clients.
///
/// # Errors
/// A port in use or not allowed, with the flag that chooses another; certificates that can't be
/// read.
pub(super) fn bind(config: &Config) -> anyhow::Result<Listeners> {
    let (tls, ca) = certificates(config)?;
    let hosts = hosts(config)?;
    let net = &config.net;
    let bind = |name: &str, port: u16, transport: TransportSpec| {
        bind_on(config, &hosts, name, port, transport)
    };
    let web = || WebSocketOptions {
        path: net.ws_path.as_str().into(),
        allowed_origins: (!net.ws_allowed_origins.is_empty())
            .then(|| net.ws_allowed_origins.clone().into()),
        max_message_bytes: config.mqtt.max_packet_bytes as usize + WS_MARGIN_BYTES,
    };
    let ports = &config.ports;
    let mut mqtt = vec![
        bind("mqtt", ports.mqtt, TransportSpec::Tcp)?,
        bind("ws", ports.ws, TransportSpec::Ws(web()))?,
    ];
    let mut kafka = vec![bind("kafka", ports.kafka, TransportSpec::Tcp)?];
    if let Some(tls) = &tls {
        mqtt.push(bind("mqtts", ports.mqtts, TransportSpec::Tls(tls.clone()))?);
        mqtt.push(bind("wss", ports.wss, TransportSpec::Wss(web(), tls.clone()))?);
        mqtt.push(bind("quic", ports.quic, TransportSpec::Quic(tls.clone()))?);
        kafka.push(bind("kafkas", ports.kafkas, TransportSpec::Tls(tls.clone()))?);
    }
    Ok(Listeners { mqtt, kafka, tls, ca })
}

fn certificates(config: &Config) -> anyhow::Result<(Option<Arc<Tls>>, Option<PathBuf>)> {
    let tls = &config.tls;
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        if config.dev_tls {
            bail!("--dev-tls makes a certificate and --tls-cert names one: leave one of them out");
        }
        let files = TlsFiles {
            certificates: cert.clone(),
            key: key.clone(),
            client_ca: tls.client_ca.clone(),
        };
        return Ok((Some(Tls::load(files)?), None));
    }
    if !config.dev_tls {
        return Ok((None, None));
    }
    let made = dev_tls::ensure(&dev_tls_folder(&config.data_dir.0))?;
    Ok((Some(Tls::load(made.server)?), Some(made.ca)))
}

/// Reads certificates again; connections that are open keep theirs.
pub(super) fn reload(tls: Option<&Tls>) {
    match tls.map(Tls::reload) {
        Some(Ok(())) => tracing::info!("certificates were read again"),
        Some(Err(error)) => tracing::error!(%error, "the old certificates stay"),
        None => {}
    }
}

fn dev_tls_folder(data: &Path) -> PathBuf {
    data.join("dev-tls")
}
