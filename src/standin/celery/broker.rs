//! Which Redis moves the work, and why it cannot.

use std::fmt;
use std::path::PathBuf;

/// A Redis that moves tasks and results as Celery would.
#[derive(Clone, PartialEq, Eq)]
pub struct Broker {
    /// `redis://[[user]:password@]host[:port][/db]`, or `rediss://` for TLS.
    pub url: String,
    /// The list that tasks wait on. Two stand-ins on one database need two names.
    /// Default `simulations`, as at the target.
    pub queue: String,
    /// Certificates (PEM) to trust with `rediss://`. Default: those of the system.
    pub ca: Option<PathBuf>,
}

impl Broker {
    /// The queue `simulations` at this URL.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), queue: "simulations".to_owned(), ca: None }
    }
}

/// Without the URL, which may hold a password.
impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("queue", &self.queue).field("ca", &self.ca).finish_non_exhaustive()
    }
}

/// Why the stand-in cannot work over a Redis. None of the texts holds a password.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Not a URL of a Redis.
    #[error("not a Redis URL; write redis://[:password@]host:port[/db], or rediss:// for TLS ({reason})")]
    Url {
        /// What the client library said.
        reason: String,
    },
    /// The certificates cannot be read.
    #[error("cannot read the certificates in {path:?}")]
    Ca {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nobody answers there, or not as a Redis that lets us in.
    #[error(
        "Redis at {at} does not serve the stand-in: {reason}; is it running, and are user and password right?"
    )]
    Refused {
        /// Host and port.
        at: String,
        /// What the client library said.
        reason: String,
    },
    /// Somebody else's work is on the list.
    #[error(
        "list {queue:?} of Redis at {at} holds {messages} messages that are not the stand-in's; \
         choose another database (redis://…/1), or delete the list if nobody needs it"
    )]
    InUse {
        /// Host and port.
        at: String,
        /// The list.
        queue: String,
        /// How many.
        messages: u64,
    },
    /// Another stand-in works there.
    #[error(
        "another stand-in uses list {queue:?} of Redis at {at}; stop it, wait {wait_s} s if it is \
         already dead, or choose another database (redis://…/1)"
    )]
    Claimed {
        /// Host and port.
        at: String,
        /// The list.
        queue: String,
        /// After so long the claim of a dead one ends.
        wait_s: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::Broker;

    #[test]
    fn a_password_is_not_shown() {
        let broker = Broker::at("redis://:secret@127.0.0.1:1/0");
        assert!(!format!("{broker:?}").contains("secret"));
    }
}
