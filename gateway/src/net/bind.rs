//! Takes ports: before anything is served, with errors that say which and why.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::Transport;

/// Connections that the kernel completes before they are accepted: a burst of reconnects.
const BACKLOG: i32 = 4096;

/// What a UDP socket may hold for a burst of handshakes: all connections share it.
const UDP_BUFFER: usize = 2 << 20;

/// A port could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket has it.
    #[error("listener {listener}: {protocol} port {} of {} is in use by another process", address.port(), address.ip())]
    InUse {
        /// The listener's name.
        listener: Arc<str>,
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// Ports below 1024 need a privilege.
    #[error("listener {listener}: no permission to listen on {protocol} port {} of {}", address.port(), address.ip())]
    Denied {
        /// The listener's name.
        listener: Arc<str>,
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// No interface of this machine has the address.
    #[error("listener {listener}: this machine does not have the address {}", address.ip())]
    NoSuchAddress {
        /// The listener's name.
        listener: Arc<str>,
        /// The address.
        address: SocketAddr,
    },
    /// The specification names no address.
    #[error("listener {listener}: no address to listen on")]
    NoAddress {
        /// The listener's name.
        listener: Arc<str>,
    },
    /// Anything else.
    #[error("listener {listener}: cannot listen on {protocol} {address}: {source}")]
    Other {
        /// The listener's name.
        listener: Arc<str>,
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A port that the system chose for one address may be taken on the next: so often another is
/// tried.
const CHOSEN_PORT_ATTEMPTS: usize = 8;

/// Sockets of one listener, with the addresses that they got.
pub(crate) fn bind_all<T>(
    listener: &Arc<str>,
    transport: Transport,
    addresses: &[SocketAddr],
    bind: impl Fn(SocketAddr) -> io::Result<(T, SocketAddr)>,
) -> Result<Vec<(T, SocketAddr)>, BindError> {
    let may_choose = addresses.iter().any(|address| address.port() == 0);
    for _ in 1..CHOSEN_PORT_ATTEMPTS {
        match bind_once(listener, transport, addresses, &bind) {
            Err(BindError::InUse { .. }) if may_choose => {}
            result => return result,
        }
    }
    bind_once(listener, transport, addresses, &bind)
}

fn bind_once<T>(
    listener: &Arc<str>,
    transport: Transport,
    addresses: &[SocketAddr],
    bind: &impl Fn(SocketAddr) -> io::Result<(T, SocketAddr)>,
) -> Result<Vec<(T, SocketAddr)>, BindError> {
    let mut bound: Vec<(T, SocketAddr)> = Vec::new();
    let mut first_missing = None;
    for address in addresses {
        let mut address = *address;
        if let (0, Some((_, first))) = (address.port(), bound.first()) {
            address.set_port(first.port());
        }
        match bind(address) {
            Ok(socket) => bound.push(socket),
            Err(source) if address.is_ipv6() && is_missing(&source) => {
                // Containers often have no IPv6: the other addresses still serve.
                tracing::info!(%listener, %address, error = %source, "no IPv6 here: not listening");
                first_missing.get_or_insert((address, source));
            }
            Err(source) => return Err(explain(listener, transport, address, source)),
        }
    }
    if bound.is_empty() {
        return Err(match first_missing {
            Some((address, source)) => explain(listener, transport, address, source),
            None => BindError::NoAddress { listener: Arc::clone(listener) },
        });
    }
    Ok(bound)
}

fn is_missing(error: &io::Error) -> bool {
    // EAFNOSUPPORT has no stable kind.
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

fn explain(
    listener: &Arc<str>,
    transport: Transport,
    address: SocketAddr,
    source: io::Error,
) -> BindError {
    let listener = Arc::clone(listener);
    let protocol = if transport == Transport::Quic { "UDP" } else { "TCP" };
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { listener, protocol, address },
        io::ErrorKind::PermissionDenied => BindError::Denied { listener, protocol, address },
        io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress { listener, address },
        _ => BindError::Other { listener, protocol, address, source },
    }
}

/// A listening TCP socket. Must be called within a runtime.
pub(crate) fn tcp(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old connections' TIME-WAIT.
    socket.set_reuse_address(true)?;
    prepare(&socket, address)?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A bound UDP socket.
pub(crate) fn udp(address: SocketAddr) -> io::Result<(UdpSocket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // As much of it as the system allows: with less, bursts lose packets and are sent again.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_BUFFER);
    prepare(&socket, address)?;
    let socket: UdpSocket = socket.into();
    let address = socket.local_addr()?;
    Ok((socket, address))
}

fn prepare(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are listeners of their own.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_port_that_is_taken_on_the_next_address_is_chosen_again() {
        let chosen = std::cell::Cell::new(1000);
        let bind = |mut address: SocketAddr| {
            if address.port() == 0 {
                chosen.set(chosen.get() + 1);
                address.set_port(chosen.get());
            }
            match (address.is_ipv6(), address.port()) {
                (true, ..1003) => Err(io::ErrorKind::AddrInUse.into()),
                _ => Ok(((), address)),
            }
        };
        let bind = |port| {
            let addresses =
                ["127.0.0.1", "::1"].map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
            bind_all(&"test".into(), Transport::Tcp, &addresses, bind)
        };
        let ports: Vec<_> = bind(0).unwrap().iter().map(|(_, address)| address.port()).collect();
        assert_eq!(ports, [1003, 1003]);
        assert!(matches!(bind(1002), Err(BindError::InUse { .. })), "a port asked for is kept to");
    }
}
