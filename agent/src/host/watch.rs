//! Captures on the host's interfaces: as long as there is one, all that passes is to be seen.

use super::Host;
use crate::capture::{Place, Taps};
use weft_dataplane::Ingress;

impl Host {
    /// A capture begins: devices are told apart from sockets, whose frames the user engine shows.
    pub(super) fn watch(&mut self, number: u64, places: Vec<Place>) -> Taps {
        let (taps, tap) = Taps::new(places.len());
        for (at, place) in places.into_iter().enumerate() {
            match place.ingress {
                Ingress::Port(id) if self.user.tap(id, number, &tap(at)) => {}
                _ => self.watch_device(place.interface, true),
            }
        }
        taps
    }

    /// It has ended.
    pub(super) fn unwatch(&mut self, number: u64, places: Vec<Place>) {
        self.user.untap(number);
        for place in places {
            self.watch_device(place.interface, false);
        }
    }

    /// One capture more, or one fewer, on a device; nothing for a socket.
    fn watch_device(&mut self, name: String, more: bool) {
        let count = self.watched.get(&name).copied().unwrap_or(0);
        let count = if more {
            count + 1
        } else {
            count.saturating_sub(1)
        };
        self.engine.interface_watched(&name, count > 0);
        match count {
            0 => drop(self.watched.remove(&name)),
            _ => drop(self.watched.insert(name, count)),
        }
    }
}
