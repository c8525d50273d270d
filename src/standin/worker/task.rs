//! One task: the posts a simulator's run leaves behind, in their order.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::post::{PostError, Poster};
use super::{Chord, Program};
use crate::route::Route;
use crate::standin::clock::{in_post, now_us};
use crate::standin::config::Config;
use crate::standin::draw;

/// The log of the simulator is looked at once a second, so short tasks start "late":
/// RUNNING is seen after this part of the task, a second at most.
const NOTICED_AFTER: f64 = 0.2;
const NOTICED_AT_MOST: Duration = Duration::from_secs(1);

/// Runs task `index` under the id that the queue gave it, if it did; `false` when it never ends.
pub(super) async fn run(
    config: &Config,
    poster: &Poster,
    chord: &Chord,
    index: usize,
    celery_id: Option<&str>,
) -> Result<bool, PostError> {
    let started = Instant::now();
    let time = config.time_of_task(chord.simulation, index);
    let posts = Posts { poster, chord, index };
    let celery_id = celery_id.map_or_else(|| made_up_id(config, chord.simulation, index), str::to_owned);
    posts.send(json!({ "celery_id": celery_id })).await?;
    if chord.program == Program::Unknown {
        return Ok(false);
    }
    let mut watch = Watch { posts: &posts, alive: chord.program == Program::Shieldhit };
    let noticed = time.mul_f64(NOTICED_AFTER).min(NOTICED_AT_MOST);
    sleep_until(started + noticed).await;
    let start = in_post(now_us());
    let running = json!({"simulated_primaries": 0, "start_time": start, "task_state": "RUNNING"});
    watch.send(running).await;
    if chord.stuck {
        return Ok(false);
    }
    let mut next = config.progress_every;
    while next < time && !config.progress_every.is_zero() {
        sleep_until(started + next).await;
        let part = next.as_secs_f64() / time.as_secs_f64();
        let (done, left) = ((chord.primaries as f64 * part) as u64, (time - next).as_secs());
        watch.send(json!({"estimated_time": left, "simulated_primaries": done})).await;
        next += config.progress_every;
    }
    sleep_until(started + time).await;
    let end = in_post(now_us());
    if chord.fails[index] {
        posts.send(json!({"end_time": end, "task_state": "FAILED"})).await?;
        return Ok(true);
    }
    let primaries = chord.primaries;
    watch.send(json!({"end_time": end, "simulated_primaries": primaries, "task_state": "COMPLETED"})).await;
    posts
        .send(json!({
            "end_time": end,
            "requested_primaries": primaries,
            "simulated_primaries": primaries,
            "task_state": "COMPLETED",
        }))
        .await?;
    Ok(true)
}

/// An id for a task that crossed no queue.
fn made_up_id(config: &Config, simulation: u64, index: usize) -> String {
    let seed = config.seed_of_task(simulation, index);
    draw::uuid((u128::from(seed) << 64) | (u128::from(simulation) << 16) | index as u128)
}

/// The posts to `/tasks` of one task.
struct Posts<'a> {
    poster: &'a Poster,
    chord: &'a Chord,
    index: usize,
}

impl Posts<'_> {
    async fn send(&self, update: Value) -> Result<(), PostError> {
        let body = json!({
            "simulation_id": self.chord.simulation,
            "task_id": self.index,
            "update_dict": update,
            "update_key": self.chord.key,
        });
        self.poster.post(Route::Tasks, Bytes::from(body.to_string())).await.map(|_| ())
    }
}

/// The thread that watches the log: a post that fails ends it with a FAILED, but not the task.
struct Watch<'a> {
    posts: &'a Posts<'a>,
    alive: bool,
}

impl Watch<'_> {
    async fn send(&mut self, update: Value) {
        if self.alive && self.posts.send(update).await.is_err() {
            self.alive = false;
            // It takes the failure of its post for the failure of the task, and says so once. What
            // the task says at its end comes too late then.
            let failed = json!({"end_time": in_post(now_us()), "task_state": "FAILED"});
            let _ = self.posts.send(failed).await;
        }
    }
}
