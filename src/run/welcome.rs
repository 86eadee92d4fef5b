//! What the person who started it reads.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

use interflow_gateway::auth::Users;
use interflow_meta::members::Me;

use super::listen;
use crate::config::Config;

/// The order of listeners.
pub(super) const ORDER: [&str; 9] =
    ["mqtt", "mqtts", "ws", "wss", "quic", "kafka", "kafkas", "logstore", "admin"];

/// What is said.
pub(super) struct Welcome<'a> {
    pub(super) listeners: &'a [(String, Vec<SocketAddr>)],
    /// The data folder, where there is one.
    pub(super) data: Option<&'a Path>,
    /// The CA of throw-away certificates.
    pub(super) ca: Option<&'a Path>,
    /// Where clients are served.
    pub(super) clients: Option<Clients>,
    /// In a cluster.
    pub(super) node: Option<Me>,
}

/// Who may connect.
pub(super) struct Clients {
    users: usize,
    is_anonymous_everywhere: bool,
}

impl Clients {
    pub(super) fn new(config: &Config, users: &Users) -> Self {
        let is_loopback = listen::is_loopback_only(config).unwrap_or(false);
        Self {
            users: users.names().len(),
            is_anonymous_everywhere: config.allow_anonymous && !is_loopback,
        }
    }
}

impl Welcome<'_> {
    /// Prints it on standard output. The last line is `ready`.
    pub(super) fn print(&self) {
        // Nobody reads it: no reason not to serve.
        let _ = self.write();
    }

    fn write(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "interflow {}", crate::cli::VERSION)?;
        if let Some(me) = self.node {
            writeln!(out, "node {} incarnation {}", me.id, me.incarnation)?;
        }
        for (name, addresses) in self.listeners {
            for address in addresses {
                writeln!(out, "listening {name} {address}")?;
            }
        }
        if let Some(data) = self.data {
            let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
            writeln!(out, "data {}", data.display())?;
        }
        if let Some(ca) = self.ca {
            writeln!(out, "dev-tls CA: {}", ca.display())?;
        }
        match &self.clients {
            Some(Clients { users: 0, is_anonymous_everywhere: true }) => {
                writeln!(out, "access: no users, so anybody who can connect may do anything")?;
            }
            Some(Clients { users: 0, .. }) => {
                writeln!(out, "access: no users, so credentials are ignored; loopback only")?;
            }
            Some(Clients { users, .. }) => {
                writeln!(out, "access: {users} users; credentials are demanded")?;
            }
            None => {}
        }
        if let Some(port) = self.port("mqtt") {
            writeln!(out, "try: interflow sub -b localhost:{port} -t 'sensors/#' &")?;
            writeln!(out, "     interflow pub -b localhost:{port} -t sensors/1/temp -m 21")?;
        }
        if let Some(port) = self.port("kafka") {
            writeln!(out, "     kcat -b localhost:{port} -C -t mqtt -K:")?;
        }
        writeln!(out, "ready")
    }

    fn port(&self, wanted: &str) -> Option<u16> {
        let (_, addresses) = self.listeners.iter().find(|(name, _)| name == wanted)?;
        addresses.first().map(SocketAddr::port)
    }
}
