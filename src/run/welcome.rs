//! What the person who started it reads.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

/// Prints listeners, data folder and first steps on standard output. The last line is `ready`.
pub(super) fn print(
    listeners: &[(String, Vec<SocketAddr>)],
    data: &Path,
    ca: Option<&Path>,
    users: usize,
    is_anonymous_everywhere: bool,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "interflow {}", crate::cli::VERSION)?;
    for (name, addresses) in listeners {
        for address in addresses {
            writeln!(out, "listening {name} {address}")?;
        }
    }
    writeln!(out, "data {}", data.display())?;
    if let Some(ca) = ca {
        writeln!(out, "dev-tls CA: {}", ca.display())?;
    }
    match users {
        0 if is_anonymous_everywhere => {
            writeln!(out, "access: no users, so anybody who can connect may do anything")?;
        }
        0 => writeln!(out, "access: no users, so credentials are ignored; loopback only")?,
        users => writeln!(out, "access: {users} users; credentials are demanded")?,
    }
    let port = |wanted: &str| {
        listeners
            .iter()
            .find(|(name, _)| name == wanted)
            .and_then(|(_, addresses)| addresses.first())
            .map(SocketAddr::port)
    };
    if let Some(port) = port("mqtt") {
        writeln!(out, "try: interflow sub -b localhost:{port} -t 'sensors/#' &")?;
        writeln!(out, "     interflow pub -b localhost:{port} -t sensors/1/temp -m 21")?;
    }
    if let Some(port) = port("kafka") {
        writeln!(out, "     kcat -b localhost:{port} -C -t mqtt -K:")?;
    }
    writeln!(out, "ready")
}
