//! Sessions: register where asked for, log in, renew before the token runs out, log in once more
//! when the target forgot us.

use std::{collections::BTreeMap, fmt, time::Duration};

use bytes::Bytes;
use hyper::header::HeaderValue;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::turn::{Problem, Turn};
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
    /// Each registers one, named `<prefix>-<slot>`.
    Registered {
        /// Unique for each run and worker.
        prefix: String,
        /// Secret that the passwords are made of; a run that is resumed has the same again.
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
fn registered(prefix: &str, key: &str, slot: u32) -> Account {
    let username = format!("{prefix}-{slot}");
    let digest = Sha256::new().chain_update(key).chain_update(&username).finalize();
    Account { password: hex(&digest[..16]), username }
}

impl Turn<'_> {
    /// Makes sure that the user has a session. A few users at a time do this.
    ///
    /// # Errors
    /// Why there is none after several tries; a sentence for the run's end.
    pub(super) async fn open_session(&mut self) -> Result<(), String> {
        if self.user.session.is_some() {
            return Ok(());
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
            let opened = match self.ensure_account().await {
                Ok(()) => self.log_in().await,
                Err(problem) => Err(problem),
            };
            drop(permit);
            match opened {
                Ok(()) => return Ok(()),
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

    async fn ensure_account(&mut self) -> Result<(), Problem> {
        use super::session::Accounts::{Registered, Shared};
        if self.user.account.is_some() {
            return Ok(());
        }
        let before = self.user.lost_registration.take();
        let again = before.is_some() || self.user.kit.leftovers.is_some();
        let account = match (&self.user.kit.accounts, before) {
            (Shared(account), _) => account.clone(),
            (Registered { .. }, Some(account)) => account,
            (Registered { prefix, key }, None) => registered(prefix, key, self.user.slot()),
        };
        if matches!(self.user.kit.accounts, Registered { .. }) {
            match self.call(Endpoint::Register, "", credentials(&account), 201, |_| Ok(())).await {
                Ok(_) => {}
                // Its name is ours alone: a try before this one made it, or the run before it was resumed.
                Err(Problem { status: Some(403), .. }) if again => {}
                Err(problem) => {
                    self.user.lost_registration = Some(account);
                    return Err(problem);
                }
            }
        }
        self.user.account = Some(account);
        Ok(())
    }

    async fn log_in(&mut self) -> Result<(), Problem> {
        let Some(account) = &self.user.account else {
            return Err(Problem { status: None, what: "no account".into() });
        };
        let body = credentials(account);
        self.user.session = None;
        let read = |answer: &Answer| {
            let cookies = decode::cookies(&answer.headers);
            if cookies.is_empty() { Err("login without a cookie".to_owned()) } else { Ok(cookies) }
        };
        let (cookies, _) = self.call(Endpoint::Login, "", body, 202, read).await?;
        self.user.session = Some(Session::new(cookies));
        Ok(())
    }

    /// Renews the session when it is due; a refusal is mended by the next call's re-login.
    async fn keep_session(&mut self) {
        let due = self.user.kit.refresh_after;
        if self.user.session.as_ref().is_some_and(|s| s.opened.elapsed() >= due) {
            let read = |answer: &Answer| Ok(decode::cookies(&answer.headers));
            let renewed = self.call(Endpoint::Refresh, "", Bytes::new(), 200, read).await;
            if let (Ok((cookies, _)), Some(session)) = (renewed, &mut self.user.session) {
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
