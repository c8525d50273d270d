//! What all handlers share: the tables, the tokens, the ledger, the queue, the bugs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use percent_encoding::percent_decode_str;

use super::bug::Bug;
use super::call::Call;
use super::clock::now_us;
use super::config::Config;
use super::draw::{self, About};
use super::ledger::{Ledger, Side};
use super::metrics::Metrics;
use super::replay::Memory;
use super::reply::Reply;
use super::store::{Store, User};
use super::token::{Mint, Refusal};
use super::traced::TRACEPARENT;
use super::truth::{JobTruth, Truth};
use super::worker::{Queue, Tally};

/// The server's state.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) config: Config,
    pub(super) started: Instant,
    pub(super) mint: Mint,
    pub(super) ledger: Arc<Ledger>,
    pub(super) metrics: Arc<Metrics>,
    /// What was posted under an idempotency key.
    pub(super) memory: Memory,
    /// What the internal workers count.
    tally: Arc<Tally>,
    started_us: u64,
    store: Mutex<Store>,
    /// Where submitted work goes.
    pub(super) queue: Queue,
    /// Requests that each `error-500` has seen, in the order of the bugs.
    error_rolls: Vec<AtomicU64>,
}

impl Backend {
    pub(super) fn new(config: Config, queue: Queue, tally: Arc<Tally>, metrics: Arc<Metrics>) -> Self {
        let started_us = now_us();
        let mut store = Store::telling(Arc::clone(&metrics));
        for (name, password) in &config.accounts {
            store.register(name, password);
        }
        Self {
            mint: Mint::new(config.seed, started_us, config.access_life, config.refresh_life),
            error_rolls: config.bugs.iter().map(|_| AtomicU64::new(0)).collect(),
            config,
            started: Instant::now(),
            ledger: Arc::new(Ledger::telling(Arc::clone(&metrics))),
            metrics,
            memory: Memory::default(),
            tally,
            started_us,
            store: Mutex::new(store),
            queue,
        }
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes of which trace a request about a job is.
    pub(super) fn note_trace<B>(&self, request: &hyper::Request<B>) {
        let Some(query) = request.uri().query().filter(|query| query.contains("job_id=")) else { return };
        let job_id = query.split('&').find_map(|pair| pair.strip_prefix("job_id="));
        let Some(job_id) = job_id.and_then(|id| percent_decode_str(id).decode_utf8().ok()) else { return };
        if let Some(job) = self.store().ever_named(&job_id) {
            job.truth.traced.note(request.headers().get(TRACEPARENT));
        }
    }

    pub(super) fn truth(&self) -> Truth {
        let (client, worker) = (self.ledger.side(Side::Client), self.ledger.side(Side::Worker));
        let posted = self.tally.so_far();
        let store = self.store();
        let with_death = |mut job: JobTruth| {
            job.died_of = posted.deaths.get(&job.simulation_id).copied();
            job
        };
        Truth {
            started_us: self.started_us,
            jobs: store.all().iter().map(|job| with_death(job.truth.clone())).collect(),
            client,
            worker,
            worker_attempts: posted.attempts,
            worker_retries: posted.retries,
            worker_given_up: posted.given_up,
            redis: match &self.queue {
                Queue::Memory(_) => None,
                Queue::Celery(celery) => Some(celery.truth()),
            },
            replayed: self.memory.replayed(),
            jobs_submitted: store.submitted,
            jobs_in_flight_max: store.in_flight_max,
            logins: store.logins,
        }
    }

    /// The user whose access token the request carries.
    pub(super) fn user(&self, call: &Call) -> Result<User, Reply> {
        self.user_by(call, "access_token", "Refresh access token")
    }

    /// The user whose refresh token the request carries.
    pub(super) fn user_to_refresh(&self, call: &Call) -> Result<User, Reply> {
        self.user_by(call, "refresh_token", "Log in again")
    }

    fn user_by(&self, call: &Call, cookie: &str, advice: &str) -> Result<User, Reply> {
        let token = call
            .cookie(cookie)
            .ok_or_else(|| Reply::framework(StatusCode::UNAUTHORIZED, "No token provided"))?;
        let forbidden = |text: &str| Reply::framework(StatusCode::FORBIDDEN, text);
        let claims = match cookie {
            "refresh_token" => self.mint.read_refresh(token, now_us()),
            _ => self.mint.read_access(token, now_us()),
        };
        let claims = claims.map_err(|refusal| match refusal {
            Refusal::Invalid => forbidden(&format!("{advice}. Invalid token.")),
            Refusal::Expired => forbidden(&format!("{advice}. Signature expired.")),
        })?;
        // An update key carries no user: the target raises.
        let id = claims.sub.ok_or_else(Reply::server_error)?;
        let user = id.parse().ok().and_then(|id| self.store().user(id).cloned());
        user.ok_or_else(|| forbidden("User not found"))
    }

    /// Whether `key` lets a worker write to simulation `pk`; checked after the row was found.
    pub(super) fn check_key(&self, key: &serde_json::Value, pk: u64) -> Result<(), Reply> {
        let invalid = || Reply::bad_request("Invalid update key");
        let void = self
            .bugs()
            .any(|bug| matches!(bug, Bug::KeysVoidAfter(after) if self.started.elapsed() >= *after));
        if void {
            return Err(invalid());
        }
        let key = key.as_str().ok_or_else(invalid)?;
        let claims = self.mint.read_access(key, now_us()).map_err(|_| invalid())?;
        // A session token carries no simulation: the target raises.
        let of = claims.simulation_id.ok_or_else(Reply::server_error)?;
        if of == pk.to_string() { Ok(()) } else { Err(invalid()) }
    }

    pub(super) fn bugs(&self) -> impl Iterator<Item = &Bug> {
        self.config.bugs.iter()
    }

    /// The extra time of `POST /results`.
    pub(super) fn slow_results(&self) -> Duration {
        self.bugs().map(|bug| if let Bug::SlowResults(by) = bug { *by } else { Duration::ZERO }).sum()
    }

    /// The extra time of `GET /results`.
    pub(super) fn slow_fetch(&self) -> Duration {
        self.bugs().map(|bug| if let Bug::SlowFetch(by) = bug { *by } else { Duration::ZERO }).sum()
    }

    pub(super) fn has(&self, bug: &Bug) -> bool {
        self.config.bugs.contains(bug)
    }

    /// What a bug answers to a client before any handler sees the request.
    pub(super) fn answer_of_a_bug(&self, path: &str) -> Option<Reply> {
        const PAGE: &str = "<html>\n<head><title>springtide stand-in</title></head>\n\
            <body><h1>It works!</h1></body>\n</html>\n";
        const GATEWAY: &str = "<html>\n<head><title>502 Bad Gateway</title></head>\n\
            <body><center><h1>502 Bad Gateway</h1></center></body>\n</html>\n";
        for (bug, rolls) in self.config.bugs.iter().zip(&self.error_rolls) {
            match bug {
                Bug::Html => return Some(Reply::html(StatusCode::OK, PAGE)),
                Bug::HtmlError => return Some(Reply::html(StatusCode::BAD_GATEWAY, GATEWAY)),
                Bug::Error500 { route, share } if route == path => {
                    let roll = rolls.fetch_add(1, Ordering::Relaxed);
                    let which =
                        path.bytes().fold(0, |sum: u64, b| sum.wrapping_mul(31).wrapping_add(u64::from(b)));
                    if draw::unit(self.config.seed, About::Error, which, roll) < *share {
                        return Some(Reply::server_error());
                    }
                }
                _ => {}
            }
        }
        None
    }
}
