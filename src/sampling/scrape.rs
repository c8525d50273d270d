//! Scrapes a Prometheus exposition endpoint: once when a cell is opened, then once a second, and
//! once more when it is closed.
//!
//! Whatever goes wrong after the start is a gap in the series. No answer may take longer than two
//! seconds or be larger than 16 MiB.

use std::{fmt, str, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{Method, Uri, header};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    moment::Moment,
    plan::Cell,
    target::{Client, Origin, Sockets, http::Call, origin::OriginError},
    telemetry::scrape::{
        Keeper, ScrapeSeries,
        text::{self, Format},
    },
};

/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_millis(1900);
/// The largest answer that is read, in bytes.
const LARGEST: usize = 16 << 20;
/// OpenMetrics rather than classic text rather than anything.
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
    text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// Why an endpoint cannot be scraped.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// It is no address.
    #[error("{0}")]
    Address(#[from] OriginError),
    /// Nobody answers there, or not with metrics.
    #[error(
        "{url}: {why}; give the address of a metrics endpoint that is running, such as http://HOST:PORT/metrics"
    )]
    NoMetrics {
        /// The address.
        url: String,
        /// What came instead.
        why: String,
    },
}

/// An endpoint, and the task that scrapes it.
pub struct Scraper {
    url: String,
    /// `None` while the task has it.
    eye: Option<Eye>,
    /// The task, and what ends it.
    task: Option<(CancellationToken, JoinHandle<Eye>)>,
    path: String,
    origin: Arc<Origin>,
}

impl fmt::Debug for Scraper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scraper").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The connection to an endpoint, and what it has shown of the present cell.
struct Eye {
    client: Client,
    path: String,
    opened: Instant,
    keeper: Keeper,
}

impl Scraper {
    /// Finds an endpoint and scrapes it once.
    ///
    /// # Errors
    /// When the address is none, nobody answers there, or what comes is no metrics.
    pub async fn connect(url: &str) -> Result<Self, ScrapeError> {
        let url = url.trim().to_owned();
        let (base, path) = split(&url);
        // Looking a name up may take its time.
        let look_up = tokio::task::spawn_blocking(move || Origin::new(&base, None));
        let failed = |why: String| ScrapeError::NoMetrics { url: url.clone(), why };
        let origin = timeout(PATIENCE, look_up)
            .await
            .map_err(|_| failed("its name is not looked up in time".into()))?
            .map_err(|e| failed(e.to_string()))??;
        let origin = Arc::new(origin.accepting(ACCEPT));
        let mut scraper = Self { eye: None, task: None, path, origin, url: url.clone() };
        let mut eye = scraper.new_eye();
        eye.look().await.map_err(failed)?;
        eye.keeper = Keeper::default();
        scraper.eye = Some(eye);
        Ok(scraper)
    }

    /// The address, as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn new_eye(&self) -> Eye {
        let client = Client::new(Arc::clone(&self.origin), Arc::new(Sockets::default()), PATIENCE);
        Eye {
            client: client.reading_at_most(LARGEST),
            path: self.path.clone(),
            opened: Instant::now(),
            keeper: Keeper::default(),
        }
    }

    /// A cell is about to begin: scrapes are kept from now on.
    pub async fn open(&mut self, _cell: &Cell) {
        let mut eye = self.end().await;
        eye.opened = Instant::now();
        eye.keeper = Keeper::default();
        eye.look_twice().await;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let once = async {
                    ticks.tick().await;
                    eye.see().await;
                };
                if stopped.run_until_cancelled(once).await.is_none() {
                    return eye;
                }
            }
        });
        self.task = Some((stop, task));
    }

    /// The cell is over: the address, and what was seen.
    pub async fn close(&mut self, t0: Instant) -> (String, ScrapeSeries) {
        let mut eye = self.end().await;
        eye.look_twice().await;
        let closed = Moment::of(Instant::now(), eye.opened);
        let shift = Moment::of(eye.opened, t0).0;
        let series = std::mem::take(&mut eye.keeper).finish(closed, shift);
        self.eye = Some(eye);
        (self.url.clone(), series)
    }

    /// Ends the task, if there is one.
    async fn end(&mut self) -> Eye {
        if let Some((stop, task)) = self.task.take() {
            stop.cancel();
            let abort = task.abort_handle();
            match timeout(PATIENCE, task).await {
                Ok(Ok(eye)) => return eye,
                _ => abort.abort(),
            }
        }
        self.eye.take().unwrap_or_else(|| self.new_eye())
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        if let Some((stop, _)) = &self.task {
            stop.cancel();
        }
    }
}

impl Eye {
    /// Scrapes, and keeps what there is.
    async fn see(&mut self) {
        if let Err(why) = self.look().await {
            self.keeper.miss(Moment(0), why);
        }
    }

    /// The scrapes on which all of a cell depends get a second chance.
    async fn look_twice(&mut self) {
        let first = self.look().await;
        if let Err(why) = first
            && self.look().await.is_err()
        {
            self.keeper.miss(Moment(0), why);
        }
    }

    /// One scrape.
    async fn look(&mut self) -> Result<(), String> {
        let call = Call {
            method: Method::GET,
            path: &self.path,
            cookie: None,
            body: Bytes::new(),
            safe: true,
            trace: None,
            headers: None,
        };
        let answer = self.client.call(&call).await.map_err(|e| e.kind.to_string())?;
        if answer.status != 200 {
            return Err(format!("status {}", answer.status));
        }
        let kind = answer.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let format = format_of(kind)?;
        let said =
            str::from_utf8(&answer.body).map_err(|e| format!("no UTF-8 at byte {}", e.valid_up_to()))?;
        let families = text::read(said, format).map_err(|e| e.to_string())?;
        // Between the question and the end of its answer, as nobody knows better.
        let (sent, done) = (answer.exchange.sent, answer.exchange.done);
        let at = Moment::of(sent + (done - sent) / 2, self.opened);
        self.keeper.take(at, format, &families, said.len());
        Ok(())
    }
}

/// Which format a content type stands for.
fn format_of(content_type: &str) -> Result<Format, String> {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/openmetrics-text" => Ok(Format::OpenMetrics),
        // Plain files are served as anything.
        "" | "text/plain" | "application/octet-stream" => Ok(Format::Classic),
        other => Err(format!("it answers {}, not metrics", short(other))),
    }
}

/// Foreign text, in no more than a few words.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

/// The server, and the path with its query.
fn split(url: &str) -> (String, String) {
    match url.parse::<Uri>() {
        Ok(uri) if uri.authority().is_some() && uri.scheme().is_some() => {
            let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
            let scheme = uri.scheme_str().unwrap_or_default();
            let authority = uri.authority().map(|a| a.as_str()).unwrap_or_default();
            (format!("{scheme}://{authority}"), path)
        }
        // It will be refused as it is.
        _ => (url.to_owned(), "/".into()),
    }
}
