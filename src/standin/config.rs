//! What the stand-in is told at its start.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::bug::{Bug, Flaw};
use super::celery::Broker;
use super::draw::{self, About};
use super::retries::Retries;

/// How the stand-in behaves. The default is healthy, on a free loopback port.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen. Default `127.0.0.1:0`: a free port.
    pub listen: SocketAddr,
    /// Decides every random choice: task times, estimator values, which jobs are flawed.
    pub seed: u64,
    /// How many tasks and merges run at once; one FIFO queue feeds them all (8-L). Default 8.
    pub slots: usize,
    /// Mean time of a task; each is drawn uniformly from ±40 % of it. Default 350 ms.
    pub task_time: Duration,
    /// How often a running task reports progress. Default 2 s, as the target's workers do.
    pub progress_every: Duration,
    /// Extra time of every merge, between its start and its post of the results. Default none.
    pub merge_delay: Duration,
    /// How long a login takes (the target hashes passwords). Default 20 ms.
    pub login_cost: Duration,
    /// Whether connections are kept open. Default `false`: `Connection: close` on every reply.
    pub keep_alive: bool,
    /// Which tasks fail. Default none.
    pub fail_tasks: FailTasks,
    /// Base URL the internal workers post to, when it is not the server itself (a tap).
    /// It can also be set later, see [`StandIn::post_through`](super::StandIn::post_through).
    pub internal_url: Option<String>,
    /// Life of an access token. Default 10 minutes.
    pub access_life: Duration,
    /// Life of a refresh token. Default 120 minutes.
    pub refresh_life: Duration,
    /// Accounts (name, password) that exist from the start; anyone may register more.
    pub accounts: Vec<(String, String)>,
    /// How many jobs keep their results. Default 200, about 1 MB each.
    ///
    /// Beyond it the oldest results that were fetched at least once are dropped, and beyond
    /// four times as many the oldest of all; a later fetch of those answers 404.
    pub kept_results: usize,
    /// What the internal workers do about a post that got no usable answer. Default nothing.
    pub retries: Retries,
    /// The Redis that moves tasks and results, as Celery would. Default none: a queue in memory.
    pub redis: Option<Broker>,
    /// What is broken on purpose. Default nothing.
    pub bugs: Vec<Bug>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            seed: 1,
            slots: 8,
            task_time: Duration::from_millis(350),
            progress_every: Duration::from_secs(2),
            merge_delay: Duration::ZERO,
            login_cost: Duration::from_millis(20),
            keep_alive: false,
            fail_tasks: FailTasks::None,
            internal_url: None,
            access_life: Duration::from_secs(10 * 60),
            refresh_life: Duration::from_secs(120 * 60),
            accounts: Vec::new(),
            kept_results: 200,
            retries: Retries::None,
            redis: None,
            bugs: Vec::new(),
        }
    }
}

impl Config {
    /// How long task `index` of simulation `pk` runs: seeded, ±40 % around the mean.
    pub fn time_of_task(&self, pk: u64, index: usize) -> Duration {
        let unit = draw::unit(self.seed, About::TaskTime, pk, index as u64);
        self.task_time.mul_f64(0.6 + 0.8 * unit)
    }

    /// The seed of the estimators that task `index` of simulation `pk` yields.
    pub fn seed_of_task(&self, pk: u64, index: usize) -> u64 {
        draw::bits(self.seed, About::TaskValues, pk, index as u64)
    }

    pub(super) fn fails(&self, pk: u64, index: usize) -> bool {
        match &self.fail_tasks {
            FailTasks::None => false,
            FailTasks::Share(share) => draw::unit(self.seed, About::TaskFailure, pk, index as u64) < *share,
            FailTasks::Indices(indices) => indices.contains(&index),
        }
    }

    pub(super) fn flaws_of(&self, pk: u64) -> Vec<Flaw> {
        self.bugs.iter().filter_map(|bug| bug.flaw_of(self.seed, pk)).collect()
    }
}

/// Which tasks end as FAILED.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum FailTasks {
    /// None of them.
    #[default]
    None,
    /// This part of all tasks, in `[0, 1]`, chosen by seed.
    Share(f64),
    /// Those with these indices (from 0), in every job.
    Indices(Vec<usize>),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Config, FailTasks};

    #[test]
    fn task_times_are_seeded_and_within_forty_percent() {
        let config = Config::default();
        let times: Vec<_> = (0..1000).map(|task| config.time_of_task(task / 8 + 1, 0)).collect();
        assert_eq!(times, (0..1000).map(|task| config.time_of_task(task / 8 + 1, 0)).collect::<Vec<_>>());
        let bounds = Duration::from_millis(210)..Duration::from_millis(490);
        assert!(times.iter().all(|time| bounds.contains(time)));
        let other = Config { seed: 2, ..Config::default() };
        assert_ne!(config.time_of_task(1, 0), other.time_of_task(1, 0));
        assert_ne!(config.time_of_task(1, 0), config.time_of_task(1, 1));
        let mean = (0..4000).map(|i| config.time_of_task(9, i).as_secs_f64()).sum::<f64>() / 4000.0;
        assert!((mean - 0.35).abs() < 0.01, "{mean}");
    }

    #[test]
    fn the_right_tasks_fail() {
        let some = Config { fail_tasks: FailTasks::Indices(vec![1, 3]), ..Config::default() };
        assert_eq!((0..5).filter(|&i| some.fails(1, i)).collect::<Vec<_>>(), [1, 3]);
        let share = Config { fail_tasks: FailTasks::Share(0.1), ..Config::default() };
        let failed = (0..2000).filter(|&i| share.fails(1, i)).count();
        assert!((120..280).contains(&failed), "{failed}");
    }
}
