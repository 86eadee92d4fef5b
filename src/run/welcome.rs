//! What the person who started it reads.

use std::net::SocketAddr;
use std::path::Path;

/// Prints listeners, data folder and first steps on standard output. The last line is `ready`.
pub(super) fn print(
    listeners: &[(String, Vec<SocketAddr>)],
    data: &Path,
    ca: Option<&Path>,
    users: usize,
    is_anonymous_everywhere: bool,
) {
    println!("interflow {}", crate::cli::VERSION);
    for (name, addresses) in listeners {
        for address in addresses {
            println!("listening {name} {address}");
        }
    }
    println!("data {}", data.display());
    if let Some(ca) = ca {
        println!("dev-tls CA: {}", ca.display());
    }
    match users {
        0 if is_anonymous_everywhere => {
            println!("access: no users, so anybody who can connect may do anything");
        }
        0 => println!("access: no users, so credentials are ignored; loopback only"),
        users => println!("access: {users} users; credentials are demanded"),
    }
    let port = |wanted: &str| {
        listeners
            .iter()
            .find(|(name, _)| name == wanted)
            .and_then(|(_, addresses)| addresses.first())
            .map(SocketAddr::port)
    };
    if let Some(port) = port("mqtt") {
        println!("try: interflow sub -b localhost:{port} -t 'sensors/#' &");
        println!("     interflow pub -b localhost:{port} -t sensors/1/temp -m 21");
    }
    if let Some(port) = port("kafka") {
        println!("     kcat -b localhost:{port} -C -t mqtt -K:");
    }
    println!("ready");
}
