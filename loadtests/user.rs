//! A user: one place in the load with its connection, which lasts from cell to cell, and with the
//! account and session of its number in the cell. The number may change with the workers that share it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::{
    input::Input,
    session::{Accounts, Login},
};
use crate::{
    spans,
    target::{Client, Origin, Sockets},
    trace::Trace,
};

/// What all users of a worker share.
#[derive(Debug)]
pub struct Kit {
    /// The target.
    pub origin: Arc<Origin>,
    /// Open sockets of all users.
    pub sockets: Arc<Sockets>,
    /// What they submit.
    pub input: Input,
    /// Whose accounts they use.
    pub accounts: Accounts,
    /// Permits to log in: the target hashes passwords slowly, so only a few do it at a time.
    pub logins: Semaphore,
    /// Age at which a session is renewed.
    pub refresh_after: Duration,
    /// A request without a complete answer after this long has failed.
    pub timeout: Duration,
    /// How the titles of all jobs of this run begin, before it was resumed and after.
    pub title: String,
    /// The most users of any cell of the plan: so many accounts may have jobs.
    pub most_users: u32,
    /// Where spans of requests are left, when somebody collects them.
    pub spans: Option<spans::Sender>,
}

/// How many users log in at the same time.
pub const LOGINS_AT_ONCE: usize = 4;

/// One virtual user.
pub struct User {
    slot: u32,
    pub(super) kit: Arc<Kit>,
    pub(super) client: Client,
    /// The account it is in; `None` before the first cell.
    pub(super) login: Option<Login>,
    /// Jobs of this cell that were given up and may go on at the target, by id.
    pub(super) given_up: BTreeMap<String, Trace>,
}

impl User {
    /// The user of that place on this worker, not logged in yet.
    pub fn new(slot: u32, kit: Arc<Kit>) -> Self {
        let client = Client::new(Arc::clone(&kit.origin), Arc::clone(&kit.sockets), kit.timeout);
        Self { slot, kit, client, login: None, given_up: BTreeMap::new() }
    }

    /// Becomes the user of that number in the next cell. It goes into that user's account, if it is not
    /// there yet, and leaves session and jobs of a cell that was cut short behind.
    pub(super) fn become_number(&mut self, number: u32) {
        self.given_up.clear();
        let login = Login::of(&self.kit.accounts, number);
        if self.login.as_ref().is_none_or(|now| now.username() != login.username()) {
            self.login = Some(login);
        }
    }

    /// Its place on this worker, from 0.
    pub fn slot(&self) -> u32 {
        self.slot
    }
}
