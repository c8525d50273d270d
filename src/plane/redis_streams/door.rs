//! How a plane's Redis is named and entered: an address, who we are there, and whom to trust.

use std::{fmt, path::Path, sync::Arc};

use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use tokio_rustls::TlsConnector;

use super::super::PlaneError;
use crate::target::{connector, without_credentials};

/// How to write an address.
const FORM: &str = "write redis://[user@]host[:port][/db], or rediss:// for TLS";

/// The way to a plane. Copies are cheap; neither `Display` nor `Debug` shows a password.
#[derive(Clone)]
pub struct Door(Arc<Way>);

struct Way {
    host: String,
    port: u16,
    db: i64,
    user: Option<String>,
    password: Option<String>,
    tls: Option<TlsConnector>,
}

impl Door {
    /// Reads an address, `redis://` or `rediss://`. `password` is taken rather than one in it; `ca` is
    /// a PEM file to trust instead of the system's authorities. Connects to nothing.
    ///
    /// # Errors
    /// When the address is none, or there is nothing to trust.
    pub fn new(url: &str, password: Option<String>, ca: Option<&Path>) -> Result<Self, PlaneError> {
        let bad = |why: &str| {
            PlaneError::Refused(format!("has no address in {:?}: {why}", without_credentials(url)))
        };
        let parsed = redis::parse_redis_url(url.trim()).ok_or_else(|| bad(FORM))?;
        if parsed.fragment().is_some() {
            return Err(bad("leave out what begins with #; to trust a certificate, give --plane-ca-cert"));
        }
        // What the library says may repeat parts of the URL.
        let info = parsed.into_connection_info().map_err(|_| bad(FORM))?;
        let (host, port, is_tls) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (host.clone(), *port, false),
            ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port, true),
            _ => return Err(bad(FORM)),
        };
        if host.is_empty() || port == 0 {
            return Err(bad(FORM));
        }
        let tls = match (is_tls, ca) {
            (true, ca) => {
                Some(connector(ca).map_err(|e| PlaneError::Refused(format!("cannot be trusted: {e}")))?)
            }
            (false, Some(_)) => {
                return Err(bad(
                    "there is no TLS with redis://, which --plane-ca-cert is for; write rediss://",
                ));
            }
            (false, None) => None,
        };
        let redis = info.redis_settings();
        let own = |text: Option<&str>| text.filter(|t| !t.is_empty()).map(str::to_owned);
        Ok(Self(Arc::new(Way {
            host,
            port,
            db: redis.db(),
            user: own(redis.username()),
            password: password.filter(|p| !p.is_empty()).or_else(|| own(redis.password())),
            tls,
        })))
    }

    /// Host and port to connect to.
    pub(super) fn host(&self) -> (&str, u16) {
        (&self.0.host, self.0.port)
    }

    /// Whether a password is known.
    pub(super) fn has_password(&self) -> bool {
        self.0.password.is_some()
    }

    /// Who we are, for messages.
    pub(super) fn user(&self) -> &str {
        self.0.user.as_deref().unwrap_or("default")
    }

    /// What opens TLS, where it is spoken.
    pub(super) fn tls(&self) -> Option<&TlsConnector> {
        self.0.tls.as_ref()
    }

    /// What is said when a connection stands.
    pub(super) fn greeting(&self) -> RedisConnectionInfo {
        let mut greeting = self.anonymous().set_db(self.0.db);
        if let Some(user) = &self.0.user {
            greeting = greeting.set_username(user);
        }
        if let Some(password) = &self.0.password {
            greeting = greeting.set_password(password);
        }
        greeting
    }

    /// The same by somebody who has no password.
    pub(super) fn anonymous(&self) -> RedisConnectionInfo {
        RedisConnectionInfo::default().set_skip_set_lib_name()
    }
}

/// `redis://127.0.0.1:6379/0`, without credentials.
impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Way { host, port, db, tls, .. } = &*self.0;
        let scheme = if tls.is_some() { "rediss" } else { "redis" };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        write!(f, "{scheme}://{host}:{port}/{db}")
    }
}

/// As it is shown: the password stays out of logs.
impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("redis://127.0.0.1", "redis://127.0.0.1:6379/0", "default", None)]
    #[case("redis://:pa%40ss@db:6400/3", "redis://db:6400/3", "default", Some("pa@ss"))]
    #[case("rediss://ann:secret@db", "rediss://db:6379/0", "ann", Some("secret"))]
    #[case("redis://[::1]:7000", "redis://[::1]:7000/0", "default", None)]
    fn an_address_says_where_and_who(
        #[case] url: &str,
        #[case] shown: &str,
        #[case] user: &str,
        #[case] password: Option<&str>,
    ) {
        let door = Door::new(url, None, None).unwrap();
        assert_eq!(door.to_string(), shown);
        assert_eq!((door.user(), door.greeting().password()), (user, password));
        assert!(!format!("{door:?}{:?}", door.greeting()).contains("secret"));
        assert_eq!(door.anonymous().password(), None);
    }

    #[test]
    fn a_password_given_beside_it_is_taken() {
        let door = Door::new("redis://ann:old@db", Some("new".into()), None).unwrap();
        assert_eq!((door.user(), door.greeting().password()), ("ann", Some("new")));
        let door = Door::new("redis://:old@db", Some(String::new()), None).unwrap();
        assert_eq!(door.greeting().password(), Some("old"));
    }

    #[rstest]
    #[case("localhost:6379")]
    #[case("http://ann:secret@localhost:6379")]
    #[case("redis://")]
    #[case("redis://ann:secret@host:port")]
    #[case("redis://ann:secret@host/name")]
    #[case("redis://ann:secret@host:0")]
    #[case("rediss://ann:secret@host/#insecure")]
    #[case("unix:///run/redis.sock")]
    #[case("ann:secret@host")]
    fn a_bad_one_is_refused_without_its_password(#[case] url: &str) {
        let said = Door::new(url, None, None).unwrap_err().to_string();
        assert_eq!(said.lines().count(), 1);
        assert!(!said.contains("secret"), "{said}");
    }

    #[test]
    fn certificates_are_for_tls() {
        let said = Door::new("redis://host", None, Some(Path::new("ca.pem"))).unwrap_err().to_string();
        assert!(said.contains("write rediss://"), "{said}");
        let said =
            Door::new("rediss://host", None, Some(Path::new("/nowhere/ca.pem"))).unwrap_err().to_string();
        assert!(said.contains("/nowhere/ca.pem"), "{said}");
    }
}
