//! What goes wrong with a Toxiproxy, each in one line.

/// Why a Toxiproxy cannot be used, or did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum ToxiproxyError {
    /// The address is of no use.
    #[error("--toxiproxy {url:?}: {why}; write http://HOST:8474")]
    Url {
        /// As given, without what may be a password.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The name cannot be one of a proxy.
    #[error("--toxiproxy-proxy {name:?}: {why}; `toxiproxy-cli list` shows the names")]
    Name {
        /// As given.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// No answer.
    #[error("--toxiproxy {url}: {call} got no answer: {why}; is toxiproxy-server running there?")]
    Unreachable {
        /// The address.
        url: String,
        /// Method and path.
        call: String,
        /// What the system said, or that it took too long.
        why: String,
    },
    /// An answer that a Toxiproxy would not give.
    #[error(
        "--toxiproxy {url}: {call} is not answered as a Toxiproxy would: {why}; give the address of its HTTP API"
    )]
    Strange {
        /// The address.
        url: String,
        /// Method and path.
        call: String,
        /// What is odd.
        why: String,
    },
    /// It said no.
    #[error("Toxiproxy answers {call} with {status}: {said}")]
    Refused {
        /// Method and path.
        call: String,
        /// The status.
        status: u16,
        /// Its message.
        said: String,
    },
    /// There is no such proxy.
    #[error("--toxiproxy-proxy {name:?}: the Toxiproxy at {url} has no such proxy; {}", has(.known))]
    NoProxy {
        /// The address.
        url: String,
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// Somebody else works with this proxy.
    #[error(
        "--toxiproxy-proxy {name:?}: it has toxics that are not springtide's: {}; remove them, or name another proxy",
        .toxics.join(", ")
    )]
    Foreign {
        /// The proxy.
        name: String,
        /// Names of those toxics.
        toxics: Vec<String>,
    },
    /// Somebody else disabled it.
    #[error("--toxiproxy-proxy {name:?}: it is disabled, and not by springtide; enable it: {curl}")]
    Disabled {
        /// The proxy.
        name: String,
        /// The command line that enables it.
        curl: String,
    },
    /// It is no fault that a Toxiproxy can do.
    #[error("Toxiproxy cannot do \"{fault}\": {why}")]
    Unfit {
        /// The fault, for people.
        fault: String,
        /// What it cannot do, and the remedy.
        why: &'static str,
    },
    /// What was set is not what is there.
    #[error("Toxiproxy said yes, but proxy {name:?} has {found} instead of {wanted}")]
    Differs {
        /// The proxy.
        name: String,
        /// What was set.
        wanted: String,
        /// What was read back.
        found: String,
    },
    /// What we set could not be taken away again.
    #[error("Toxiproxy still has our fault in proxy {name:?} ({why}); take it away by hand: {curl}")]
    Left {
        /// The proxy.
        name: String,
        /// Why the last attempt failed.
        why: Box<ToxiproxyError>,
        /// The command lines that do it.
        curl: String,
    },
}

fn has(known: &[String]) -> String {
    if known.is_empty() {
        return "it has none: create it with `toxiproxy-cli create`".into();
    }
    format!("it has {}", known.join(", "))
}
