//! Where a Redis is, read from its URL, and the credentials that no message ever shows.

use std::fmt;

use redis::{ConnectionAddr, IntoConnectionInfo};

use super::RedisError;
use crate::target::without_credentials;

/// Where a Redis is and who we are to it.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) db: i64,
    pub(super) is_tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

impl Address {
    /// Reads a URL; `password` is taken rather than one in it.
    ///
    /// # Errors
    /// When it is none of ours.
    pub(super) fn read(url: &str, password: Option<String>) -> Result<Self, RedisError> {
        let bad = |why: &str| RedisError::BadUrl { url: without_credentials(url), why: why.to_owned() };
        let form = "write redis://[user[:password]@]host[:port][/db], or rediss:// for TLS";
        let parsed = redis::parse_redis_url(url.trim()).ok_or_else(|| bad(form))?;
        if parsed.fragment().is_some() {
            return Err(bad("leave out what begins with #; to trust a certificate, give --redis-ca-cert"));
        }
        // What the library says is about the URL's form, and may repeat parts of it.
        let info = parsed.into_connection_info().map_err(|_| bad(form))?;
        let (host, port, is_tls) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (host.clone(), *port, false),
            ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port, true),
            _ => return Err(bad(form)),
        };
        if host.is_empty() || port == 0 {
            return Err(bad(form));
        }
        let redis = info.redis_settings();
        let own = |text: Option<&str>| text.filter(|t| !t.is_empty()).map(str::to_owned);
        Ok(Self {
            host,
            port,
            db: redis.db(),
            is_tls,
            user: own(redis.username()),
            password: password.filter(|p| !p.is_empty()).or_else(|| own(redis.password())),
        })
    }
}

/// `redis://127.0.0.1:6379/0`, without credentials.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "{scheme}://{host}:{}/{}", self.port, self.db)
    }
}

/// As it is shown: the password stays out of logs.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("redis://127.0.0.1", "redis://127.0.0.1:6379/0", None, None)]
    #[case("redis://:pa%40ss@db:6400/3", "redis://db:6400/3", None, Some("pa@ss"))]
    #[case("rediss://ann:secret@db", "rediss://db:6379/0", Some("ann"), Some("secret"))]
    #[case("redis://[::1]:7000", "redis://[::1]:7000/0", None, None)]
    fn a_url_says_where_and_who(
        #[case] url: &str,
        #[case] shown: &str,
        #[case] user: Option<&str>,
        #[case] password: Option<&str>,
    ) {
        let address = Address::read(url, None).unwrap();
        assert_eq!(address.to_string(), shown);
        assert_eq!((address.user.as_deref(), address.password.as_deref()), (user, password));
        assert!(!format!("{address:?}").contains("secret"));
    }

    #[test]
    fn a_password_given_beside_it_is_taken() {
        let address = Address::read("redis://ann:old@db", Some("new".into())).unwrap();
        assert_eq!((address.user.as_deref(), address.password.as_deref()), (Some("ann"), Some("new")));
        let address = Address::read("redis://:old@db", Some(String::new())).unwrap();
        assert_eq!(address.password.as_deref(), Some("old"));
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
        let said = Address::read(url, None).unwrap_err().to_string();
        assert_eq!(said.lines().count(), 1);
        assert!(!said.contains("secret"), "{said}");
    }
}
