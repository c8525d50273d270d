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

#[cfg(test)]
mod tests {
    use super::*;

    fn user(accounts: Accounts) -> User {
        let kit = Kit {
            origin: Arc::new(Origin::new("http://127.0.0.1:1", None).unwrap()),
            sockets: Arc::default(),
            input: Input::built_in(),
            accounts,
            logins: Semaphore::new(1),
            refresh_after: Duration::MAX,
            timeout: Duration::from_secs(1),
            title: "springtide t".into(),
            most_users: 9,
            spans: None,
        };
        User::new(1, Arc::new(kit))
    }

    fn name(user: &User) -> &str {
        user.login.as_ref().unwrap().username()
    }

    #[test]
    fn nothing_of_another_number_stays_with_a_user() {
        let mut user = user(Accounts::Registered { prefix: "p".into(), key: "k".into() });
        user.become_number(4);
        user.login.as_mut().unwrap().opens();
        user.given_up.insert("job".into(), Trace::of("job"));
        user.become_number(4);
        assert!(user.login.as_ref().unwrap().is_open() && user.given_up.is_empty());
        user.become_number(7);
        assert_eq!((name(&user), user.login.as_ref().unwrap().is_open()), ("p-7", false));
    }

    #[test]
    fn a_shared_account_is_kept_whatever_the_number() {
        let ann = super::super::session::Account { username: "ann".into(), password: "p".into() };
        let mut user = user(Accounts::Shared(ann));
        user.become_number(4);
        user.login.as_mut().unwrap().opens();
        user.become_number(7);
        assert_eq!((name(&user), user.login.as_ref().unwrap().is_open()), ("ann", true));
    }
}
