//! Sessions: register where asked for, log in, renew before the token runs out, log in once more
//! when the target forgot us.

use std::{collections::BTreeMap, fmt, time::Duration};

use bytes::Bytes;
use hyper::header::HeaderValue;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::turn::{Problem, Turn, said};
use crate::{
    scenario::hex,
    target::{Answer, Endpoint, decode, http::Exchange},
};

/// Tries to open a session before the run is given up.
const TRIES: u32 = 3;

/// A name and its password. Its `Debug` hides the password.
#[derive(Clone)]
pub struct Account {
    /// User name.
    pub username: String,
    /// Password; only ever sent to the target.
    pub password: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({})", self.username)
    }
}

/// Where users get their accounts.
#[derive(Debug, Clone)]
pub enum Accounts {
    /// All use this one, each with a session of its own.
    Shared(Account),
    /// Each user of a cell has one of its own, named `<prefix>-<number>` and registered by whoever has
    /// that number first.
    Registered {
        /// Unique for each run, and the same on all its workers.
        prefix: String,
        /// Secret that the passwords are made of, the same on all workers; a run that is resumed has
        /// it again.
        key: String,
    },
}

/// What the target gave us to be known by.
pub struct Session {
    cookies: BTreeMap<String, String>,
    /// All of them as a header; only the refresh needs the refresh token, but a browser sends it
    /// everywhere too.
    header: Option<HeaderValue>,
    opened: Instant,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({} cookies)", self.cookies.len())
    }
}

impl Session {
    fn new(cookies: BTreeMap<String, String>) -> Self {
        let mut session = Self { cookies, header: None, opened: Instant::now() };
        session.write_header();
        session
    }

    fn renew(&mut self, cookies: BTreeMap<String, String>) {
        self.cookies.extend(cookies);
        self.opened = Instant::now();
        self.write_header();
    }

    fn write_header(&mut self) {
        let all: Vec<String> = self.cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
        self.header = HeaderValue::from_str(&all.join("; ")).ok().map(|mut value| {
            value.set_sensitive(true);
            value
        });
    }

    /// The `Cookie` header for a request; none where a session is only being opened.
    pub(super) fn cookie_for(&self, endpoint: Endpoint) -> Option<HeaderValue> {
        match endpoint {
            Endpoint::Register | Endpoint::Login | Endpoint::Hello => None,
            _ => self.header.clone(),
        }
    }
}

/// The account of a user: nobody knows its password without the key.
fn registered(prefix: &str, key: &str, number: u32) -> Account {
    let username = format!("{prefix}-{number}");
    let digest = Sha256::new().chain_update(key).chain_update(&username).finalize();
    Account { password: hex(&digest[..16]), username }
}

/// An account as a user holds it, with its session.
#[derive(Debug)]
pub(super) struct Login {
    account: Account,
    presence: Presence,
    session: Option<Session>,
}

/// Whether the target has an account.
#[derive(Debug)]
enum Presence {
    /// We have not asked.
    Unknown,
    /// It would not make it, and said this. If it has it, our password opens it.
    Claimed(String),
    /// It has.
    Known,
}

impl Login {
    /// The account of the user of that number in a cell, without a session.
    pub(super) fn of(accounts: &Accounts, number: u32) -> Self {
        let (account, presence) = match accounts {
            Accounts::Shared(account) => (account.clone(), Presence::Known),
            Accounts::Registered { prefix, key } => (registered(prefix, key, number), Presence::Unknown),
        };
        Self { account, presence, session: None }
    }

    /// Whose it is.
    pub(super) fn username(&self) -> &str {
        &self.account.username
    }

    /// The `Cookie` header for a request.
    pub(super) fn cookie_for(&self, endpoint: Endpoint) -> Option<HeaderValue> {
        self.session.as_ref().and_then(|s| s.cookie_for(endpoint))
    }

    /// Whether it has a session.
    pub(super) fn is_open(&self) -> bool {
        self.session.is_some()
    }

    #[cfg(test)]
    pub(super) fn opens(&mut self) {
        self.session = Some(Session::new(BTreeMap::new()));
    }
}

impl Turn<'_> {
    /// Whether all users of the worker use one account.
    pub(super) fn shares_account(&self) -> bool {
        matches!(self.user.kit.accounts, Accounts::Shared(_))
    }

    /// Makes sure that the user has a session, in an account that is made where there is none. A few
    /// users at a time do this.
    ///
    /// # Errors
    /// Why there is none after several tries; a sentence for the run's end.
    pub(super) async fn open_session(&mut self) -> Result<(), String> {
        self.open(true).await.map(drop)
    }

    /// Opens a session in an account that may never have been made, and makes none. Returns whether
    /// there is one; that the target refuses it is an answer, and no failed request.
    ///
    /// # Errors
    /// Why it is not known after several tries.
    pub(super) async fn look_in(&mut self) -> Result<bool, String> {
        self.open(false).await
    }

    async fn open(&mut self, make: bool) -> Result<bool, String> {
        if self.user.login.as_ref().is_some_and(Login::is_open) {
            return Ok(true);
        }
        let kit = std::sync::Arc::clone(&self.user.kit);
        let mut problem = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 && !self.wait(Duration::from_millis(500)).await {
                break;
            }
            let permit = tokio::select! {
                biased;
                () = self.run.stop.cancelled() => break,
                permit = kit.logins.acquire() => permit,
            };
            let opened = match make {
                true => self.log_in_for_the_first_time().await.map(|()| true),
                false => self.log_in_if_there().await,
            };
            drop(permit);
            match opened {
                Ok(there) => return Ok(there),
                // The target said no: asking again will not change its mind.
                Err(p) if matches!(p.status, Some(400..=407 | 409..=428 | 430..=499)) => {
                    return Err(refusal(&p));
                }
                Err(p) => problem = refusal(&p),
            }
        }
        if problem.is_empty() {
            "stopped before every user had a session".clone_into(&mut problem)
        }
        Err(problem)
    }

    /// Makes the account, unless the target has it, and logs in.
    async fn log_in_for_the_first_time(&mut self) -> Result<(), Problem> {
        self.make_account().await?;
        self.log_in().await.map_err(|problem| match self.user.login.as_ref().map(|l| &l.presence) {
            Some(Presence::Claimed(said)) if matches!(problem.status, Some(401 | 403)) => {
                Problem { what: format!("registering: {said}, logging in: {}", problem.what), ..problem }
            }
            _ => problem,
        })
    }

    /// Makes the account, where it is not known to be there. It may be: a try whose answer was lost
    /// has made it, the run before it was resumed, or another worker, whose user had this number in
    /// an earlier cell. Its name is ours alone, so that a 403 is no failed request; whether it means
    /// that the account is there shows when its password opens it or not.
    async fn make_account(&mut self) -> Result<(), Problem> {
        let Some(Login { account, presence: Presence::Unknown, .. }) = &self.user.login else {
            return Ok(());
        };
        let read = |answer: &Answer| match answer.status {
            201 => Ok(Presence::Known),
            403 => Ok(Presence::Claimed(said(answer))),
            _ => Err(said(answer)),
        };
        let (presence, _) = self.ask(Endpoint::Register, "", credentials(account), read).await?;
        if let Some(login) = &mut self.user.login {
            login.presence = presence;
        }
        Ok(())
    }

    async fn log_in(&mut self) -> Result<(), Problem> {
        let read = |answer: &Answer| if answer.status == 202 { cookies(answer) } else { Err(said(answer)) };
        let cookies = self.ask_for_session(read).await?;
        self.has_session(cookies);
        Ok(())
    }

    async fn log_in_if_there(&mut self) -> Result<bool, Problem> {
        let read = |answer: &Answer| match answer.status {
            202 => cookies(answer).map(Some),
            401 | 403 => Ok(None),
            _ => Err(said(answer)),
        };
        let cookies = self.ask_for_session(read).await?;
        let is_there = cookies.is_some();
        cookies.into_iter().for_each(|cookies| self.has_session(cookies));
        Ok(is_there)
    }

    async fn ask_for_session<T>(
        &mut self,
        read: impl FnOnce(&Answer) -> Result<T, String>,
    ) -> Result<T, Problem> {
        let Some(login) = &mut self.user.login else {
            return Err(Problem { status: None, what: "no account".into() });
        };
        login.session = None;
        let body = credentials(&login.account);
        self.ask(Endpoint::Login, "", body, read).await.map(|(read, _)| read)
    }

    fn has_session(&mut self, cookies: BTreeMap<String, String>) {
        if let Some(login) = &mut self.user.login {
            (login.presence, login.session) = (Presence::Known, Some(Session::new(cookies)));
        }
    }

    /// Renews the session when it is due; a refusal is mended by the next call's re-login.
    async fn keep_session(&mut self) {
        let due = self.user.kit.refresh_after;
        let session = self.user.login.as_ref().and_then(|l| l.session.as_ref());
        if session.is_some_and(|s| s.opened.elapsed() >= due) {
            let read = |answer: &Answer| Ok(decode::cookies(&answer.headers));
            let renewed = self.call(Endpoint::Refresh, "", Bytes::new(), 200, read).await;
            let session = self.user.login.as_mut().and_then(|l| l.session.as_mut());
            if let (Ok((cookies, _)), Some(session)) = (renewed, session) {
                session.renew(cookies);
            }
        }
    }

    /// Sends a request in the user's session, logging in once more when the target says 401 or
    /// 403.
    pub(super) async fn in_session<T>(
        &mut self,
        endpoint: Endpoint,
        query: &str,
        body: Bytes,
        expected: u16,
        read: impl Fn(&Answer) -> Result<T, String>,
    ) -> Result<(T, Exchange), Problem> {
        self.keep_session().await;
        let first = self.call(endpoint, query, body.clone(), expected, &read).await;
        match first {
            Err(Problem { status: Some(401 | 403), .. }) if !self.run.stop.is_cancelled() => {
                let kit = std::sync::Arc::clone(&self.user.kit);
                let asked = Instant::now();
                let permit = tokio::select! {
                    biased;
                    () = self.run.stop.cancelled() => return first,
                    permit = kit.logins.acquire() => permit,
                };
                self.waited_since(asked);
                let again = self.log_in().await;
                drop(permit);
                again?;
                self.call(endpoint, query, body, expected, &read).await
            }
            other => other,
        }
    }
}

fn cookies(answer: &Answer) -> Result<BTreeMap<String, String>, String> {
    let cookies = decode::cookies(&answer.headers);
    if cookies.is_empty() { Err("login without a cookie".into()) } else { Ok(cookies) }
}

fn credentials(account: &Account) -> Bytes {
    json!({"username": account.username, "password": account.password}).to_string().into()
}

fn refusal(p: &Problem) -> String {
    format!("no session at the target: {}", p.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let account = Account { username: "ann".into(), password: "s3cret".into() };
        assert!(!format!("{:?}", Accounts::Shared(account)).contains("s3cret"));
        let session = Session::new([("access_token".to_owned(), "t0ken".to_owned())].into());
        assert!(!format!("{session:?} {:?}", session.header).contains("t0ken"));
    }
}
