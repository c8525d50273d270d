//! Samples the target's Redis: once a second while a cell is open, over one connection of its own.
//!
//! Only reads: `INFO`, `LLEN`, `HLEN`, `SCAN`, `STRLEN`, `GETRANGE`. Nothing is ever set, not even
//! its statistics back. To add a figure: a field of `RedisSample`, and a line in `info`.

mod address;
mod answer;
mod info;
mod keys;
mod link;
mod told;
mod watch;

use std::{io, path::Path, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use self::{
    address::Address,
    answer::text,
    info::Info,
    link::{Asks, Link, Lost, Own},
    watch::{Backlog, Order, Watch},
};
use crate::{
    moment::Moment,
    plan::Cell,
    record::RedisFacts,
    target::{OriginError, connector},
    telemetry::{Gap, redis::RedisSeries},
};

/// How long connecting may take before a run.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How often the queues are looked at while somebody waits for them to become empty.
const IDLE_EVERY: Duration = Duration::from_millis(250);
/// How long nothing may go on before the target is idle.
const STILL_FOR: Duration = Duration::from_secs(1);
/// After so long somebody who looks on wants to know what is waited for.
const SAID_AFTER: Duration = Duration::from_secs(3);
/// Bytes a second that are nothing: heartbeats of idle workers, and other people's monitoring.
const STILL: f64 = 50e3;
/// How long opening may hold a cell up; what is not done by then goes on beside it.
const OPEN_WITHIN: Duration = Duration::from_secs(2);
/// How long closing may: the task is done before, so this only guards against its end.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// Why a Redis cannot be sampled. One line each, never with a password.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The URL is none.
    #[error("{url:?} is no address of a Redis: {why}")]
    BadUrl {
        /// The URL without credentials.
        url: String,
        /// What is wrong, or how to write it.
        why: String,
    },
    /// Nothing takes the connection.
    #[error("{address}: cannot connect: {source}; is Redis running there?")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// It takes connections and says nothing.
    #[error("{address}: no answer within {:.1} s", .within.as_secs_f64())]
    Silent {
        /// Where.
        address: String,
        /// How long we waited.
        within: Duration,
    },
    /// The certificates to trust cannot be used.
    #[error(transparent)]
    Certificates(#[from] OriginError),
    /// TLS failed.
    #[error(
        "{address}: TLS failed: {why}; does it speak TLS, and is its authority trusted (--redis-ca-cert)?"
    )]
    Tls {
        /// Where.
        address: String,
        /// How.
        why: String,
    },
    /// It wants a password.
    #[error("{address}: wants a password: give SPRINGTIDE_REDIS_PASSWORD or --redis-password-file")]
    PasswordNeeded {
        /// Where.
        address: String,
    },
    /// User and password do not fit.
    #[error("{address}: refuses the password of user {user:?}")]
    WrongPassword {
        /// Where.
        address: String,
        /// Who we said we are.
        user: String,
    },
    /// The user may not look.
    #[error(
        "{address}: user {user:?} may not use {command}; allow it +info +llen +hlen +scan +strlen +getrange +select on all keys"
    )]
    NotAllowed {
        /// Where.
        address: String,
        /// Who we are.
        user: String,
        /// What was refused.
        command: String,
    },
    /// It refuses us for another reason.
    #[error("{address}: refuses {command}: {said}")]
    Refused {
        /// Where.
        address: String,
        /// What was refused.
        command: String,
        /// Its words.
        said: String,
    },
    /// Something else answers there.
    #[error("{address}: does not answer as Redis does ({said}); is it one, and without TLS?")]
    NotRedis {
        /// Where.
        address: String,
        /// What came instead.
        said: String,
    },
}

/// A connection to the target's Redis, and the task that samples it.
#[derive(Debug)]
pub struct RedisSampler {
    orders: mpsc::Sender<Order>,
    /// Ends when `orders` is dropped.
    _task: JoinHandle<()>,
    /// Whether it was said that Redis is gone.
    is_missed: bool,
    opened: Instant,
}

impl RedisSampler {
    /// Connects to a Redis and asks it what it is. `url` is `redis://` or `rediss://`; `password`
    /// is taken rather than one in it, `ca` is a PEM file to trust instead of the system's
    /// authorities. `queues` are the names of Celery's queues; `prefix` stands before every key,
    /// as Kombu's and Celery's `global_keyprefix`, and is mostly empty.
    ///
    /// # Errors
    /// When it cannot be reached, does not let us in, or is none.
    pub async fn connect(
        url: &str,
        password: Option<String>,
        ca: Option<&Path>,
        queues: Vec<String>,
        prefix: &str,
    ) -> Result<(Self, RedisFacts), RedisError> {
        let address = Address::read(url, password)?;
        if ca.is_some() && !address.is_tls {
            let why = "there is no TLS with redis://, which --redis-ca-cert is for; write rediss://".into();
            return Err(RedisError::BadUrl { url: address.to_string(), why });
        }
        let tls = if address.is_tls { Some(connector(ca)?) } else { None };
        let mut own = Own::default();
        let mut link = Link::open(&address, tls.as_ref(), &mut own, CONNECT_WITHIN).await?;
        let facts = facts(&mut link, &address, &mut own).await?;
        let (orders, inbox) = mpsc::channel(4);
        let watch = Watch::new(address, tls, queues, prefix.to_owned(), link, own);
        let task = tokio::spawn(watch.serve(inbox));
        Ok((Self { orders, _task: task, is_missed: false, opened: Instant::now() }, facts))
    }

    /// Waits until the target is idle, as far as its Redis tells: its queues are empty, no worker holds
    /// a message back, and for a second next to nothing goes through Redis. What a worker has begun
    /// and says nothing about cannot be seen here. A Redis that is not there cannot tell: nobody waits
    /// for it. May be dropped at any moment.
    ///
    /// # Errors
    /// What was still going on there after `within`.
    pub async fn idle(&mut self, within: Duration) -> Result<(), String> {
        let until = Instant::now() + within;
        // Since when nothing waits, and what had been moved by then.
        let mut still: Option<(Instant, u64)> = None;
        let mut moving: Option<String> = None;
        let (began, mut is_said) = (Instant::now(), false);
        loop {
            let (done, backlog) = oneshot::channel();
            // A task that is gone, or one that is slow, cannot tell either.
            let told = async {
                self.orders.send(Order::Backlog(done)).await.ok()?;
                backlog.await.ok().flatten()
            };
            let Some(backlog) = timeout(OPEN_WITHIN, told).await.ok().flatten() else {
                if !std::mem::replace(&mut self.is_missed, true) {
                    tracing::warn!("Redis does not answer: nobody knows whether the target is idle");
                }
                return Ok(());
            };
            self.is_missed = false;
            let now = Instant::now();
            let mut busy = waiting(&backlog);
            match still {
                _ if !busy.is_empty() => (still, moving) = (None, None),
                Some((since, moved)) if now - since >= STILL_FOR => {
                    let rate = backlog.moved.saturating_sub(moved) as f64 / (now - since).as_secs_f64();
                    if rate <= STILL {
                        return Ok(());
                    }
                    moving = Some(format!("Redis still moves {:.0} kB a second", rate / 1e3));
                    still = Some((now, backlog.moved));
                }
                Some(_) => {}
                // There is no time to look twice.
                None if now + STILL_FOR > until => return Ok(()),
                None => still = Some((now, backlog.moved)),
            }
            if !is_said
                && now - began > SAID_AFTER
                && let Some(why) = busy.first().or(moving.as_ref())
            {
                is_said = true;
                tracing::info!("waiting until the target is idle: {why}");
            }
            if now >= until {
                busy.extend(moving);
                if busy.is_empty() {
                    return Ok(());
                }
                return Err(format!("{} after {} s", busy.join(", "), within.as_secs()));
            }
            sleep(IDLE_EVERY.min(until - now)).await;
        }
    }

    /// A cell is about to begin: samples are kept from now on.
    pub async fn open(&mut self, _cell: &Cell) {
        self.opened = Instant::now();
        let (done, opened) = oneshot::channel();
        let told = async {
            if self.orders.send(Order::Open(done)).await.is_ok() {
                let _ = opened.await;
            }
        };
        let _ = timeout(OPEN_WITHIN, told).await;
    }

    /// The cell is over.
    pub async fn close(&mut self, t0: Instant) -> RedisSeries {
        let (done, series) = oneshot::channel();
        let told = async {
            self.orders.send(Order::Close(t0, done)).await.ok()?;
            series.await.ok()
        };
        let told = timeout(CLOSE_WITHIN, told).await.ok().flatten();
        told.unwrap_or_else(|| {
            let why = "the sampler itself did not answer".to_owned();
            let (from, to) = (Moment::of(self.opened, t0), Moment::of(Instant::now(), t0));
            RedisSeries {
                gaps: vec![Gap { from, to, why: why.clone() }],
                cuts: vec![why],
                ..RedisSeries::default()
            }
        })
    }
}

/// `queue simulations still holds 12 messages`, for each that is not empty.
fn waiting(backlog: &Backlog) -> Vec<String> {
    let messages = |n: u64| if n == 1 { "1 message".to_owned() } else { format!("{n} messages") };
    let held = backlog.queues.iter().filter(|(_, n)| **n > 0);
    let mut all: Vec<String> =
        held.map(|(name, n)| format!("queue {name} still holds {}", messages(*n))).collect();
    if backlog.unacked > 0 {
        all.push(format!(
            "workers still hold {} back (unacked; those of a worker that died stay for its visibility timeout)",
            messages(backlog.unacked)
        ));
    }
    all
}

async fn facts(link: &mut Link, address: &Address, own: &mut Own) -> Result<RedisFacts, RedisError> {
    let mut asks = Asks::default();
    asks.add("info", &[]);
    let not_redis = |said: String| RedisError::NotRedis { address: address.to_string(), said };
    let answers = link.ask(&asks, own, CONNECT_WITHIN).await.map_err(|Lost(said)| not_redis(said))?;
    let text = answers.first().and_then(text).ok_or_else(|| not_redis("INFO has an odd answer".into()))?;
    let info = Info::read(&text);
    if info.is_of_redis() {
        may_look(link, address, own).await?;
        Ok(info.facts(address.to_string()))
    } else {
        Err(not_redis("INFO names no run_id".into()))
    }
}

/// Tries every command that a sample needs: what is refused would look like nothing.
async fn may_look(link: &mut Link, address: &Address, own: &mut Own) -> Result<(), RedisError> {
    const NOWHERE: &[u8] = b"springtide:no-such-key";
    let mut asks = Asks::default();
    let commands: [(&'static str, &[&[u8]]); 5] = [
        ("llen", &[NOWHERE]),
        ("hlen", &[NOWHERE]),
        ("scan", &[b"0", b"COUNT", b"1"]),
        ("strlen", &[NOWHERE]),
        ("getrange", &[NOWHERE, b"0", b"0"]),
    ];
    commands.iter().for_each(|(name, args)| asks.add(name, args));
    let lost = |Lost(said)| RedisError::NotRedis { address: address.to_string(), said };
    let answers = link.ask(&asks, own, CONNECT_WITHIN).await.map_err(lost)?;
    for ((command, _), answer) in commands.iter().zip(&answers) {
        if let ::redis::Value::ServerError(e) = answer {
            return Err(link::refusal(
                address,
                address.user.as_deref().unwrap_or("default"),
                command,
                &format!("{} {}", e.code(), e.details().unwrap_or_default()),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_named() {
        let queues = [("helper", 0), ("simulations", 12), ("x", 1)].map(|(k, n)| (k.to_owned(), n)).into();
        let lengths = Backlog { queues, unacked: 0, moved: 0 };
        assert_eq!(
            waiting(&lengths),
            ["queue simulations still holds 12 messages", "queue x still holds 1 message"]
        );
    }
}
