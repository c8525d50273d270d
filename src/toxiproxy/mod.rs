//! Drives a Toxiproxy (github.com/Shopify/toxiproxy, 2.x) instead of the tap's own faults, over its
//! HTTP API.
//!
//! The operator has put the Toxiproxy between the target's workers and its API. One proxy of it is
//! ours while a run lasts: it must have no toxics when we come, and has none when we go. What we
//! put there bears our name, so that the next run can take away what a crashed one left.

mod api;
mod error;
mod order;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::fault::Fault;

use api::{Api, Proxy, Toxic};
pub use error::ToxiproxyError;
use order::{MARKER, Order, is_ours};

/// The longest that taking a fault away may take, attempts together.
const CLEARING: Duration = Duration::from_secs(5);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// One proxy of a Toxiproxy.
#[derive(Debug)]
pub struct Toxiproxy {
    api: Api,
    name: String,
    version: String,
    listen: String,
}

impl Toxiproxy {
    /// A proxy by its name; nothing is called yet.
    ///
    /// # Errors
    /// The address is not of the form `http://host:port`, or the name cannot be that of a proxy.
    pub fn new(url: &str, proxy: &str) -> Result<Self, ToxiproxyError> {
        let bad = |why| ToxiproxyError::Name { name: proxy.to_owned(), why };
        if proxy.trim().is_empty() {
            return Err(bad("it is empty"));
        }
        if proxy.contains('/') {
            return Err(bad("a name with a slash cannot be addressed"));
        }
        Ok(Self {
            api: Api::new(url)?,
            name: proxy.to_owned(),
            version: String::new(),
            listen: String::new(),
        })
    }

    /// Whether a Toxiproxy can do that fault, more or less: see [`deviations`](Self::deviations).
    ///
    /// # Errors
    /// [`ToxiproxyError::Unfit`], with what it cannot do.
    pub fn check(fault: &Fault) -> Result<(), ToxiproxyError> {
        order::order(fault).map(|_| ())
    }

    /// What a Toxiproxy does otherwise than ordered, one sentence each.
    pub fn deviations(fault: &Fault) -> Vec<String> {
        order::deviations(fault)
    }

    /// Takes hold of the proxy. What it returns is what a crashed run of ours had left, which is
    /// taken away: one phrase each, for the log.
    ///
    /// # Errors
    /// There is no Toxiproxy or no such proxy; the proxy has toxics that are not ours, or was
    /// disabled by somebody else (then nothing is changed); what was left cannot be taken away.
    pub async fn open(&mut self) -> Result<Vec<String>, ToxiproxyError> {
        self.version = self.api.version().await?;
        let proxy = self.look().await?;
        self.refuse_others(&proxy)?;
        self.listen = base_url(&proxy.listen, &self.api.host);
        let mut left: Vec<String> =
            proxy.toxics.iter().map(|toxic| format!("removed toxic {}", toxic.name)).collect();
        if !proxy.enabled {
            left.push(format!("enabled proxy {} again", self.name));
        }
        if !left.is_empty() {
            self.clear().await?;
        }
        Ok(left)
    }

    /// What the Toxiproxy calls its version; empty before [`open`](Self::open).
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The base URL at which the proxy takes connections, `http://HOST:PORT`; empty before
    /// [`open`](Self::open).
    ///
    /// A proxy that listens on all addresses is reached where the API is.
    pub fn listen(&self) -> &str {
        &self.listen
    }

    /// Sets a fault and reads it back. No fault at all sets nothing.
    ///
    /// It knows no window: the fault is at work from now until [`clear`](Self::clear), which must
    /// follow, whatever this says. Let it end before that: a call that is dropped half-way may still
    /// be carried out.
    ///
    /// # Errors
    /// The fault is none that Toxiproxy can do, the proxy is not as we left it, or what is read back
    /// is not what was set.
    pub async fn inject(&mut self, fault: &Fault) -> Result<(), ToxiproxyError> {
        let order = order::order(fault)?;
        let proxy = self.look().await?;
        self.refuse_others(&proxy)?;
        if !proxy.enabled || !proxy.toxics.is_empty() {
            self.clear().await?;
        }
        match order {
            Order::Nothing => self.compare(true, None).await,
            Order::Toxic(toxic) => {
                self.api.add(&self.name, &toxic).await?;
                self.compare(true, Some(&toxic)).await
            }
            Order::Disabled => {
                // The marker first: whoever finds the proxy disabled must find out by whom.
                let marker = order::marker();
                self.api.add(&self.name, &marker).await?;
                self.compare(true, Some(&marker)).await?;
                self.api.enable(&self.name, false).await?;
                self.compare(false, Some(&marker)).await
            }
        }
    }

    /// Whether the fault still stands as it was set, or none does.
    ///
    /// # Errors
    /// Somebody changed the proxy, or it cannot be asked.
    pub async fn verify(&self, fault: &Fault) -> Result<(), ToxiproxyError> {
        match order::order(fault)? {
            Order::Nothing => self.compare(true, None).await,
            Order::Toxic(toxic) => self.compare(true, Some(&toxic)).await,
            Order::Disabled => self.compare(false, Some(&order::marker())).await,
        }
    }

    /// Takes away what is ours and reads back that it is gone; does nothing when nothing is there.
    /// Tries again for up to five seconds.
    ///
    /// # Errors
    /// [`ToxiproxyError::Left`] with the command lines that do it by hand.
    pub async fn clear(&mut self) -> Result<(), ToxiproxyError> {
        let deadline = Instant::now() + CLEARING;
        let mut seen = None;
        let mut last = None;
        loop {
            match timeout_at(deadline, self.clear_once(&mut seen)).await {
                Ok(Ok(())) => return Ok(()),
                // Somebody else's doing is not undone by waiting.
                Ok(Err(error @ ToxiproxyError::Disabled { .. })) => return Err(error),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {}
            }
            if timeout_at(deadline, sleep(PAUSE)).await.is_err() {
                break;
            }
        }
        let why = last.unwrap_or_else(|| ToxiproxyError::Unreachable {
            url: self.api.url.clone(),
            call: format!("GET {}", Api::path_of(&self.name)),
            why: format!("none within {} s", CLEARING.as_secs()),
        });
        let curl = self.by_hand(seen.as_ref());
        Err(ToxiproxyError::Left { name: self.name.clone(), why: Box::new(why), curl })
    }

    async fn clear_once(&self, seen: &mut Option<Proxy>) -> Result<(), ToxiproxyError> {
        let proxy = seen.insert(self.look().await?).clone();
        let marked = proxy.toxics.iter().any(|toxic| toxic.name == MARKER);
        if !proxy.enabled {
            if !marked {
                return Err(self.disabled());
            }
            self.api.enable(&self.name, true).await?;
        }
        // The marker goes last: until then the proxy may be found disabled.
        let (markers, rest): (Vec<&Toxic>, Vec<&Toxic>) =
            proxy.toxics.iter().filter(|toxic| is_ours(toxic)).partition(|toxic| toxic.name == MARKER);
        for toxic in rest.iter().chain(&markers) {
            self.api.remove(&self.name, &toxic.name).await?;
        }
        if proxy.enabled && rest.is_empty() && markers.is_empty() {
            return Ok(());
        }
        let now = seen.insert(self.look().await?);
        if now.enabled && !now.toxics.iter().any(is_ours) {
            return Ok(());
        }
        Err(self.differs("no toxic of ours", now))
    }

    /// The proxy as it stands; if there is none, the error names those there are.
    async fn look(&self) -> Result<Proxy, ToxiproxyError> {
        match self.api.proxy(&self.name).await {
            Err(ToxiproxyError::Refused { status: 404, .. }) => {
                let (url, name) = (self.api.url.clone(), self.name.clone());
                Err(ToxiproxyError::NoProxy { url, name, known: self.api.names().await? })
            }
            other => other,
        }
    }

    /// Reads back.
    async fn compare(&self, enabled: bool, wanted: Option<&Toxic>) -> Result<(), ToxiproxyError> {
        let proxy = self.look().await?;
        let is_so = match (wanted, proxy.toxics.as_slice()) {
            (None, []) => true,
            (Some(wanted), [found]) => wanted.is_like(found),
            _ => false,
        };
        if is_so && proxy.enabled == enabled {
            return Ok(());
        }
        Err(self.differs(&described(enabled, wanted), &proxy))
    }

    fn differs(&self, wanted: &str, found: &Proxy) -> ToxiproxyError {
        let found = described(found.enabled, &found.toxics);
        ToxiproxyError::Differs { name: self.name.clone(), wanted: wanted.to_owned(), found }
    }

    /// Refuses a proxy with which somebody else works.
    fn refuse_others(&self, proxy: &Proxy) -> Result<(), ToxiproxyError> {
        let foreign = proxy.toxics.iter().filter(|toxic| !is_ours(toxic));
        let toxics: Vec<String> = foreign.map(|toxic| toxic.name.clone()).collect();
        if !toxics.is_empty() {
            return Err(ToxiproxyError::Foreign { name: self.name.clone(), toxics });
        }
        if !proxy.enabled && !proxy.toxics.iter().any(|toxic| toxic.name == MARKER) {
            return Err(self.disabled());
        }
        Ok(())
    }

    fn disabled(&self) -> ToxiproxyError {
        ToxiproxyError::Disabled { name: self.name.clone(), curl: self.curl_enable() }
    }

    fn curl_enable(&self) -> String {
        let path = Api::path_of(&self.name);
        format!("curl -X POST -d '{{\"enabled\":true}}' {}{path}", self.api.url)
    }

    /// The command lines that undo what was seen last, or all that we may have done.
    fn by_hand(&self, seen: Option<&Proxy>) -> String {
        let ours = |proxy: &Proxy| -> Vec<String> {
            proxy.toxics.iter().filter(|toxic| is_ours(toxic)).map(|toxic| toxic.name.clone()).collect()
        };
        let all = || ["springtide_latency", "springtide_drop", MARKER].map(str::to_owned).to_vec();
        let delete = |toxic: String| {
            format!("curl -X DELETE {}{}/toxics/{toxic}", self.api.url, Api::path_of(&self.name))
        };
        let enable = seen.is_none_or(|proxy| !proxy.enabled).then(|| self.curl_enable());
        let deletes = seen.map_or_else(all, ours).into_iter().map(delete);
        enable.into_iter().chain(deletes).collect::<Vec<_>>().join("; ")
    }
}

/// For people: a proxy's toxics with their figures.
fn described<'a>(enabled: bool, toxics: impl IntoIterator<Item = &'a Toxic>) -> String {
    let one = |toxic: &Toxic| {
        let Toxic { name, kind, stream, toxicity, attributes } = toxic;
        let figures = serde_json::Value::Object(attributes.clone());
        format!("{name} ({kind} {stream}, toxicity {toxicity}, {figures})")
    };
    let toxics: Vec<String> = toxics.into_iter().map(one).collect();
    let toxics = if toxics.is_empty() { "no toxic".to_owned() } else { toxics.join(", ") };
    if enabled { toxics } else { format!("{toxics}, disabled") }
}

/// Where a proxy that listens on `listen` is reached, if its API is on `host`.
fn base_url(listen: &str, host: &str) -> String {
    let (at, port) = listen.rsplit_once(':').unwrap_or((listen, "80"));
    let at = if matches!(at, "" | "0.0.0.0" | "[::]") { host } else { at };
    format!("http://{at}:{port}")
}

#[cfg(test)]
mod tests {
    use super::{Toxiproxy, base_url};

    #[test]
    fn a_proxy_on_all_addresses_is_reached_where_its_api_is() {
        for listen in ["0.0.0.0:8475", "[::]:8475", ":8475"] {
            assert_eq!(base_url(listen, "toxi"), "http://toxi:8475");
        }
        assert_eq!(base_url("127.0.0.1:8475", "toxi"), "http://127.0.0.1:8475");
        assert_eq!(base_url("[fd00::1]:8475", "[::1]"), "http://[fd00::1]:8475");
    }

    #[test]
    fn names_that_cannot_be_addressed_are_refused() {
        for name in ["", " ", "a/b"] {
            let said = Toxiproxy::new("http://toxi:8474", name).unwrap_err().to_string();
            assert!(said.contains("--toxiproxy-proxy"), "{said}");
        }
    }
}
