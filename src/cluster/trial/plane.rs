//! The leases of the plane, on the world's clock.

use std::collections::BTreeMap;

use crate::{crew::Member, micros::Micros};

/// How long a lease lasts.
pub(super) const TTL: Micros = Micros(5_000_000);

/// Who holds what until when.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: BTreeMap<String, (u64, Micros)>,
    epochs: u64,
}

impl Leases {
    /// The epoch of the holder, and how long it still lasts.
    pub(super) fn holder(&self, name: &str, now: Micros) -> Option<(u64, Micros)> {
        self.held
            .get(name)
            .filter(|(_, until)| now < *until)
            .map(|(epoch, until)| (*epoch, until.saturating_sub(now)))
    }

    pub(super) fn holds(&self, member: &Member, now: Micros) -> bool {
        self.holder(&member.name, now).is_some_and(|(epoch, _)| epoch == member.epoch)
    }

    /// Takes a lease that nobody holds.
    pub(super) fn take(&mut self, name: &str, now: Micros) -> Option<Member> {
        if self.holder(name, now).is_some() {
            return None;
        }
        self.epochs += 1;
        self.held.insert(name.to_owned(), (self.epochs, now + TTL));
        Some(Member { name: name.to_owned(), epoch: self.epochs })
    }

    /// Whether it was held, and lasts a TTL from now on.
    pub(super) fn renew(&mut self, member: &Member, now: Micros) -> bool {
        let holds = self.holds(member, now);
        if holds {
            self.held.insert(member.name.clone(), (member.epoch, now + TTL));
        }
        holds
    }

    pub(super) fn release(&mut self, member: &Member, now: Micros) {
        if self.holds(member, now) {
            self.held.remove(&member.name);
        }
    }
}
