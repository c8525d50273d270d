//! The plan: every decision about a run taken before it starts, as a seeded, ordered list of
//! cells. It is what is stored and compared; the flags that led to it are not.

use std::time::Duration;

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    fault::Fault,
    micros::Micros,
    scenario::{Probe, Scenario, ScenarioId},
};

/// How many tries at a cell may come to nothing without counting.
const UNBEGUN: u32 = 5;

/// What one repetition of one scenario is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Its place in the plan, from 0.
    pub index: u32,
    /// Whether it counts.
    pub kind: CellKind,
    /// The scenario it repeats.
    pub scenario: ScenarioId,
    /// Which repetition, from 1; 0 for a warm-up.
    pub repetition: u32,
    /// Which try at it, from 1: an INVALID one may be made again.
    pub attempt: u32,
    /// How many tries before it came to nothing before any user was let go, and do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unbegun: u32,
    /// Users, each with one job in flight.
    pub users: u32,
    /// Tasks of each job.
    pub tasks: u32,
    /// The fault while it runs.
    pub fault: Fault,
    /// A job is given up after so long, instead of the settings' time.
    pub job_timeout: Option<Micros>,
    /// Seed of everything random in it.
    pub seed: u64,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Cell {
    /// The next try at it, after one in which users were let go or not.
    pub fn again(&self, index: u32, has_begun: bool) -> Self {
        let unbegun = self.unbegun_with(has_begun);
        Self { index, attempt: self.attempt + 1, unbegun, ..self.clone() }
    }

    /// How many tries that count there have been with this one, in which users were let go or not.
    pub fn tries(&self, has_begun: bool) -> u32 {
        self.attempt.saturating_sub(self.unbegun_with(has_begun))
    }

    fn unbegun_with(&self, has_begun: bool) -> u32 {
        if has_begun || self.unbegun >= UNBEGUN { self.unbegun } else { self.unbegun + 1 }
    }
}

/// Whether a cell counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellKind {
    /// One job to wake the target up; its numbers are thrown away.
    WarmUp,
    /// A repetition.
    Measured,
}

/// How users come by their accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accounts {
    /// Every user logs in to the one given account.
    Shared,
    /// Every user registers an account of its own.
    Registered,
}

/// How the users of every cell behave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Pause between the end of a poll and the next, before ±10 % of jitter.
    pub poll_interval: Micros,
    /// A job without a terminal state this long after its submit is given up and canceled.
    pub job_timeout: Micros,
    /// A target that gives no answer for this long is given up.
    pub patience: Micros,
    /// Jobs one after another per user and cell, when there is no `run_time`.
    pub jobs_per_user: u32,
    /// Users submit job after job until this moment of the cell; then each finishes its last.
    pub run_time: Option<Micros>,
    /// Users that start per second from T0 on; all at T0 when absent.
    pub spawn_rate: Option<f64>,
    /// How often an INVALID cell is made again at the end.
    pub requeue: u32,
    /// Pause after a cell has become quiet.
    pub cool_down: Micros,
    /// Limits beyond which the generator measured itself.
    pub limits: Limits,
}

/// What the generator may cost before a cell is INVALID.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// 99th percentile of how late planned waits end.
    pub lag_p99: Micros,
    /// Share of its cores that the load threads may use over a cell, 0 to 1.
    pub cpu: f64,
    /// Share of the users' time that may be missing from Little's law, 0 to 1.
    pub little: f64,
}

impl Settings {
    /// As they are in that cell.
    pub fn within(self, cell: &Cell) -> Self {
        Self { job_timeout: cell.job_timeout.unwrap_or(self.job_timeout), ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { lag_p99: Micros(100_000), cpu: 0.9, little: 0.05 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            poll_interval: Micros(500_000),
            job_timeout: Micros(600_000_000),
            patience: Micros(30_000_000),
            jobs_per_user: 1,
            run_time: None,
            spawn_rate: None,
            requeue: 0,
            cool_down: Micros::ZERO,
            limits: Limits::default(),
        }
    }
}

/// The payload that every submit sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFacts {
    /// File name, or the name of a built-in one.
    pub name: String,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The fully resolved run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Seed of order, jitter and everything else random.
    pub seed: u64,
    /// SHA-256 of the matrix file.
    pub matrix_sha256: String,
    /// The file or `built-in`.
    pub matrix_name: String,
    /// The scenarios as they will run, overrides applied.
    pub scenarios: Vec<Scenario>,
    /// What of them was overridden, one sentence each, for every report.
    pub overrides: Vec<String>,
    /// What is submitted.
    pub input: InputFacts,
    /// Whose jobs they are.
    pub accounts: Accounts,
    /// How users behave.
    pub settings: Settings,
    /// External commands that run beside the cells.
    pub probes: Vec<Probe>,
    /// Warm-ups first, then the blocks.
    pub cells: Vec<Cell>,
}

impl Plan {
    /// Orders the scenarios into cells: a warm-up for each number of tasks (unless `warm_up` is
    /// off), then randomized complete blocks: for each repetition all scenarios that have one,
    /// in a fresh shuffled order.
    pub fn cells(seed: u64, scenarios: &[Scenario], warm_up: bool) -> Vec<Cell> {
        let mut cells = Vec::new();
        let mut push = |kind, s: &Scenario, repetition, users| {
            let index = cells.len() as u32;
            cells.push(Cell {
                index,
                kind,
                scenario: s.id.clone(),
                repetition,
                attempt: 1,
                unbegun: 0,
                users,
                tasks: s.tasks,
                fault: if kind == CellKind::WarmUp { Fault::none() } else { s.level(repetition).clone() },
                job_timeout: None,
                seed: sub_seed(seed, &format!("{}/{repetition}", s.id)),
            });
        };
        if warm_up {
            let mut warmed = Vec::new();
            for s in scenarios {
                if !warmed.contains(&s.tasks) {
                    warmed.push(s.tasks);
                    push(CellKind::WarmUp, s, 0, 1);
                }
            }
        }
        let most = scenarios.iter().map(|s| s.repetitions).max().unwrap_or(0);
        for repetition in 1..=most {
            let mut block: Vec<&Scenario> =
                scenarios.iter().filter(|s| s.repetitions >= repetition).collect();
            block.shuffle(&mut rng(seed, &format!("block/{repetition}")));
            for s in block {
                push(CellKind::Measured, s, repetition, s.concurrent_jobs);
            }
        }
        cells
    }

    /// SHA-256 over the whole plan, in hex: two runs with one hash did the same, on whatever machine
    /// and wherever their files lay.
    pub fn hash(&self) -> String {
        let nameless = Self { matrix_name: String::new(), ..self.clone() };
        let text = serde_json::to_vec(&nameless).expect("a plan is plain data");
        crate::scenario::hex(&Sha256::digest(text))
    }

    /// The cells that count.
    pub fn measured(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(|c| c.kind == CellKind::Measured)
    }
}

/// What one worker does of one cell: users `first..first + users` of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The cell.
    pub cell: Cell,
    /// Which worker, from 0.
    pub worker: u32,
    /// First user of this worker.
    pub first_user: u32,
    /// How many users; 0 for a worker that stands by.
    pub users: u32,
}

impl Share {
    /// The share of worker `worker` of `workers`: pure arithmetic, so the shares of a cell add up
    /// to it whatever the number of workers. The last `users % workers` get one more.
    pub fn of(cell: &Cell, worker: u32, workers: u32) -> Self {
        let (each, more) = (cell.users / workers, cell.users % workers);
        let from_end = workers - 1 - worker;
        // Counted from the end, so that 10 users on 3 workers are 3 + 3 + 4.
        let users = each + u32::from(from_end < more);
        let first_user = each * worker + more.saturating_sub(workers - worker);
        Self { cell: cell.clone(), worker, first_user, users }
    }
}

/// A generator for one purpose: the same seed and name give the same numbers, other names others.
pub fn rng(seed: u64, name: &str) -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(sub_seed(seed, name))
}

fn sub_seed(seed: u64, name: &str) -> u64 {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize();
    u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}

/// A pause of `mean` ± 10 %, uniformly, so that users do not march in step.
pub fn jittered(mean: Micros, rng: &mut ChaCha12Rng) -> Duration {
    let tenth = mean.0 / 10;
    Duration::from_micros(rng.random_range(mean.0 - tenth..=mean.0 + tenth))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::scenario::Matrix;

    #[test]
    fn a_few_tries_that_never_began_do_not_count() {
        let first = Plan::cells(1, &Matrix::runbook().scenarios, false).remove(0);
        assert_eq!((first.tries(true), first.tries(false)), (1, 0));
        let mut cell = first;
        for n in 1..=8 {
            cell = cell.again(100 + n, false);
            assert_eq!((cell.index, cell.attempt, cell.unbegun), (100 + n, n + 1, n.min(UNBEGUN)));
        }
        assert_eq!((cell.tries(false), cell.tries(true)), (4, 4));
        assert_eq!(cell.again(200, true).tries(true), 5);
    }

    #[test]
    fn a_block_holds_every_scenario_once() {
        let matrix = Matrix::runbook();
        let cells = Plan::cells(7, &matrix.scenarios, true);
        let (warm, blocks) = cells.split_at(4);
        assert!(warm.iter().all(|c| c.kind == CellKind::WarmUp && c.users == 1));
        assert_eq!(blocks.len(), 80);
        let mut orders = Vec::new();
        for (r, block) in blocks.chunks(8).enumerate() {
            let order: Vec<&str> = block.iter().map(|c| c.scenario.as_str()).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, ["S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8"]);
            assert!(block.iter().all(|c| c.repetition == r as u32 + 1));
            orders.push(order);
        }
        orders.dedup();
        assert!(orders.len() > 5, "blocks are shuffled afresh");
        assert!(cells.iter().enumerate().all(|(i, c)| c.index as usize == i));
    }

    #[test]
    fn the_seed_decides_everything() {
        let scenarios = Matrix::runbook().scenarios;
        assert_eq!(Plan::cells(1, &scenarios, true), Plan::cells(1, &scenarios, true));
        assert_ne!(Plan::cells(1, &scenarios, true), Plan::cells(2, &scenarios, true));
    }

    proptest! {
        #[test]
        fn shares_add_up_to_the_cell(users in 0u32..500, workers in 1u32..40) {
            let mut cell = Plan::cells(1, &Matrix::runbook().scenarios, false).remove(0);
            cell.users = users;
            let mut next = 0;
            for w in 0..workers {
                let share = Share::of(&cell, w, workers);
                prop_assert_eq!(share.first_user, next);
                prop_assert!(share.users.abs_diff(users / workers) <= 1);
                next += share.users;
            }
            prop_assert_eq!(next, users);
        }

        #[test]
        fn jitter_stays_within_a_tenth(us in 10u64..10_000_000, seed: u64) {
            let pause = jittered(Micros(us), &mut rng(seed, "poll")).as_micros() as u64;
            prop_assert!(pause.abs_diff(us) <= us / 10);
        }
    }
}
