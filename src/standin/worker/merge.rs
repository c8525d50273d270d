//! The merge of a job: its states, the average of its tasks, the post of the results.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinSet;

use super::Chord;
use super::post::{PostError, Poster};
use crate::route::Route;
use crate::standin::celery;
use crate::standin::config::Config;
use crate::standin::estimators::Estimators;

/// Posts a state of the job.
pub(super) async fn announce(poster: &Poster, chord: &Chord, state: &str) -> Result<(), PostError> {
    let body = json!({"job_state": state, "sim_id": chord.simulation, "update_key": chord.key});
    poster.post(Route::Jobs, Bytes::from(body.to_string())).await.map(|_| ())
}

/// Averages and posts; with no task left to average, nothing more is heard of the job (8-D).
///
/// The values of a task are made here, from its seed, and not where it ran: a waiting job
/// then costs no memory, and the average does not depend on the order in which tasks end.
pub(super) async fn run(config: &Config, poster: &Arc<Poster>, chord: &Chord) -> Result<(), PostError> {
    let tasks = chord.fails.len();
    let survivors = chord.fails.iter().enumerate().filter(|(_, fails)| !**fails);
    let seeds: Vec<u64> = survivors.map(|(index, _)| config.seed_of_task(chord.simulation, index)).collect();
    let average =
        move || Estimators::average(seeds.into_iter().map(|seed| Estimators::generate(seed, tasks)));
    of(config, poster, chord, average).await
}

/// The same of the results in the body of a message; those of failed tasks have no estimators.
pub(super) async fn run_on(
    config: &Config,
    poster: &Arc<Poster>,
    chord: &Chord,
    body: Vec<u8>,
) -> Result<(), PostError> {
    let average = move || {
        let results = celery::items(celery::results_in(&body)?)?;
        Estimators::average(results.into_iter().filter_map(Estimators::read))
    };
    of(config, poster, chord, average).await
}

async fn of(
    config: &Config,
    poster: &Arc<Poster>,
    chord: &Chord,
    average: impl FnOnce() -> Option<Estimators> + Send + 'static,
) -> Result<(), PostError> {
    tokio::time::sleep(config.merge_delay).await;
    let (simulation, key, outputs) = (chord.simulation, chord.key.clone(), chord.outputs.clone());
    let merge = move || Some(average()?.results_post(simulation, &key, &outputs));
    let Ok(Some(body)) = tokio::task::spawn_blocking(merge).await else {
        return Ok(());
    };
    let body = Bytes::from(body);
    let mut posts = JoinSet::new();
    for _ in 0..chord.results_posts {
        let (poster, body) = (Arc::clone(poster), body.clone());
        posts.spawn(async move { poster.post(Route::Results, body).await });
    }
    while let Some(posted) = posts.join_next().await {
        if let Ok(result) = posted {
            result?;
        }
    }
    Ok(())
}
