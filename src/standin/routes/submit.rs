//! `POST /jobs/direct`: rows first, then the queue, then the reply.

use std::sync::Arc;

use axum::extract::State;
use hyper::StatusCode;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::submission::Submission;
use crate::standin::backend::Backend;
use crate::standin::bug::Flaw;
use crate::standin::call::Call;
use crate::standin::clock::{in_job_id, now_us};
use crate::standin::draw::{self, About};
use crate::standin::job::{Job, Request, State as JobRowState, Task, Told};
use crate::standin::metrics::Payload;
use crate::standin::reply::{Answer, Reply};
use crate::standin::store::{Store, User};
use crate::standin::traced::Traced;
use crate::standin::truth::JobTruth;
use crate::standin::worker::Chord;
use crate::timeline::JobState;

pub(super) async fn submit(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    backend.metrics.payload(Payload::Submit, call.body.len());
    let user = backend.user(&call)?;
    let submission = Submission::read(&call.filled_object()?)?;
    let Submission { title, mut request, tasks, primaries_per_task, raises } = submission;
    let (chords, job_id, inputs) = {
        let mut store = backend.store();
        store.submitted += 1;
        request.inputs = store.share_input(request.inputs);
        let flaws = backend.config.flaws_of(store.next_pk());
        let zombie = raises || flaws.contains(&Flaw::Ghost);
        let inputs = request.inputs.clone();
        let twice = flaws.contains(&Flaw::DuplicateJob) && !zombie;
        let (backend, user, arrived_us) = (&*backend, &user, call.arrived_us);
        let mut traced = Traced::default();
        traced.note(call.traceparent.as_ref());
        let mut row = NewRow { backend, user, title, request, flaws, arrived_us, traced };
        if zombie {
            row.insert(&mut store, None);
            return Err(Reply::server_error());
        }
        let shape = Some((tasks, primaries_per_task));
        let (job_id, chord) = row.insert(&mut store, shape);
        let mut chords = vec![chord];
        if twice {
            chords.push(row.insert(&mut store, shape).1);
        }
        (if row.flaws.contains(&Flaw::LoseJob) { Vec::new() } else { chords }, job_id, inputs)
    };
    for chord in &chords {
        if backend.queue.publish(chord, &inputs).await.is_err() {
            // The rows are there, and the state that the end of the submit would have set is not.
            backend.store().unpublished(chord.simulation());
            return Err(Reply::server_error());
        }
    }
    let content = Map::from_iter([("job_id".to_owned(), Value::from(job_id))]);
    Ok(Reply::with(StatusCode::ACCEPTED, "Task started", content))
}

/// A simulation row about to be written.
struct NewRow<'a> {
    backend: &'a Backend,
    user: &'a User,
    title: String,
    request: Request,
    flaws: Vec<Flaw>,
    arrived_us: u64,
    /// The submit itself.
    traced: Traced,
}

impl NewRow<'_> {
    /// Writes the row: with (number of tasks, primaries of each) as PENDING,
    /// with none as the UNKNOWN row that a failed submit leaves.
    fn insert(&mut self, store: &mut Store, shape: Option<(usize, u64)>) -> (String, Arc<Chord>) {
        let (pk, now) = (store.next_pk(), now_us());
        let job_id = self.job_id(pk, now);
        let (tasks, primaries) = shape.unwrap_or_default();
        let first = store.take_task_pks(tasks);
        let rows = (0..tasks as u64).map(|index| Task::pending(first + index, primaries, now));
        let state = if shape.is_some() { JobState::Pending } else { JobState::Unknown };
        let revoke = CancellationToken::new();
        let chord = Chord::new(
            &self.backend.config,
            pk,
            self.backend.mint.update_key(pk, now),
            (tasks, primaries),
            &self.request,
            &self.flaws,
            revoke.clone(),
        );
        let truth = JobTruth {
            job_id: job_id.clone(),
            title: self.title.clone(),
            username: self.user.name.clone(),
            simulation_id: pk,
            tasks,
            flaws: self.flaws.clone(),
            submitted_us: self.arrived_us,
            accepted_us: shape.map(|_| now_us()),
            running_us: None,
            tasks_done_us: None,
            merging_queued_us: None,
            merging_running_us: None,
            results_begun_us: None,
            completed_us: None,
            ended_us: None,
            final_state: state,
            results_posts: 0,
            died_of: None,
            traced: self.traced.clone(),
        };
        store.insert(Job {
            owner: self.user.id,
            request: self.request.clone(),
            state: JobRowState::Known(state),
            tasks: rows.collect(),
            start_us: now,
            end_us: None,
            results: None,
            logfiles: None,
            fetched: false,
            deleted: false,
            revoke,
            truth,
            told: Told::default(),
        });
        (job_id, chord)
    }

    /// Time, a version-4 UUID (RFC 9562), and the platform.
    fn job_id(&self, pk: u64, now: u64) -> String {
        let half = |which| draw::bits(self.backend.config.seed ^ now, About::JobId, pk, which);
        let bits = (u128::from(half(0)) << 64) | u128::from(half(1));
        format!("{}-{}DIRECT", in_job_id(now), draw::uuid(bits))
    }
}
