//! How many connections a listener takes, in all and from one address.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

/// A listener's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections at a time from one IP address.
    pub max_per_address: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { max_connections: 1_000_000, max_per_address: usize::MAX }
    }
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("the listener has its maximum of connections")]
    Listener,
    #[error("the address has its maximum of connections")]
    Address,
}

/// The places of a listener.
#[derive(Debug)]
pub(crate) struct Places {
    limits: ConnectionLimits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    /// Kept only where addresses are limited. As many entries as connections at most.
    by_address: HashMap<IpAddr, usize>,
}

impl Places {
    pub(crate) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    /// Takes a place for a connection from `address`.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let address = address.to_canonical();
        let mut taken = self.taken.lock();
        if taken.total >= self.limits.max_connections {
            return Err(Full::Listener);
        }
        if self.limits.max_per_address != usize::MAX {
            let count = taken.by_address.entry(address).or_default();
            if *count >= self.limits.max_per_address {
                return Err(Full::Address);
            }
            *count += 1;
        }
        taken.total += 1;
        Ok(Place { places: Arc::clone(self), address })
    }
}

/// A place of one connection, given back when dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the place back"]
pub(crate) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.total -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_address() {
        let places = Places::new(ConnectionLimits { max_connections: 3, max_per_address: 2 });
        let [a, b] = ["10.0.0.1", "::ffff:10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let first = places.take(a).unwrap();
        let second = places.take(a).unwrap();
        assert_eq!(places.take(a).unwrap_err(), Full::Address);
        let third = places.take(b).unwrap();
        assert_eq!(places.take(b).unwrap_err(), Full::Listener);
        drop(first);
        let fourth = places.take("10.0.0.2".parse().unwrap()).unwrap();
        assert_eq!(places.taken.lock().by_address.len(), 2);
        drop((second, third, fourth));
        assert_eq!(places.taken.lock().total, 0);
        assert!(places.taken.lock().by_address.is_empty());
    }
}
