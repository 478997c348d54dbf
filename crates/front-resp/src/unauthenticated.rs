//! How many connections of one address may be open without a password.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Share of all connections that one address may hold before it has
/// authenticated, and the least there is for each.
const SHARE: usize = 8;
const LEAST: usize = 16;

/// Counts connections that have not authenticated, by the client's address.
/// Clones count together, so that an address has one share of all listeners.
#[derive(Clone, Debug, Default)]
pub struct Unauthenticated {
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Unauthenticated {
    /// A place for one more connection of `address`, unless it has its share
    /// of `connections_max`.
    pub(crate) fn enter(&self, address: IpAddr, connections_max: usize) -> Option<Place> {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(address).or_default();
        if *count >= (connections_max / SHARE).max(LEAST) {
            return None;
        }
        *count += 1;
        Some(Place { address, all: self.clone() })
    }
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    address: IpAddr,
    all: Unauthenticated,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.all.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_share_and_gets_its_places_back() {
        let all = Unauthenticated::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut places: Vec<_> = (0..16).filter_map(|_| all.enter(one, 100)).collect();
        assert_eq!(places.len(), 16);
        assert!(all.enter(one, 100).is_none());
        assert!(all.enter(one, 1000).is_some());
        assert!(all.enter(other, 100).is_some());
        places.pop();
        assert!(all.enter(one, 100).is_some());
        drop(places);
        assert!(all.by_address.lock().expect("no panic").is_empty());
    }
}
