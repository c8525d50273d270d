//! A user: one place in the load with its connection, its account and its session, which last
//! from cell to cell.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::{
    input::Input,
    session::{Account, Accounts, Session},
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
    /// In a run that is resumed, how the titles of its jobs begin: those that were under way when it
    /// was interrupted must not go on.
    pub leftovers: Option<String>,
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
    pub(super) account: Option<Account>,
    /// An account whose registration got no answer: it may be there or not.
    pub(super) lost_registration: Option<Account>,
    pub(super) session: Option<Session>,
    /// Whether it has looked after jobs from before the run was resumed.
    pub(super) has_tidied: bool,
    /// Jobs of this cell that were given up and may go on at the target, by id.
    pub(super) given_up: BTreeMap<String, Trace>,
}

impl User {
    /// The user of that place on this worker, not logged in yet.
    pub fn new(slot: u32, kit: Arc<Kit>) -> Self {
        let client = Client::new(Arc::clone(&kit.origin), Arc::clone(&kit.sockets), kit.timeout);
        Self {
            slot,
            kit,
            client,
            account: None,
            lost_registration: None,
            session: None,
            has_tidied: false,
            given_up: BTreeMap::new(),
        }
    }

    /// Its place on this worker, from 0.
    pub fn slot(&self) -> u32 {
        self.slot
    }
}
