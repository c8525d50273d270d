//! Made-up posts for the tests.

use crate::{
    fault::Fate,
    micros::Micros,
    post::{BodyHash, Ending, Post},
    route::Route,
    state::JobState,
};

/// A post of simulation 7 that is accepted and takes 50 µs, with a body of that number.
pub(super) fn post(seq: u64, received: u64, route: Route, body: u8) -> Post {
    let at = |after| Some(Micros(received + after));
    Post {
        seq,
        route,
        canary: None,
        simulation: Some(7),
        task: None,
        state: None,
        bytes: 300 + u64::from(body),
        hash: Some(BodyHash([body; 16])),
        received: Micros(received),
        forwarded: at(5),
        first_byte: at(40),
        last_byte: at(45),
        ended: Micros(received + 50),
        status: Some(202),
        answer_bytes: 27,
        replayed: false,
        fate: Fate::Pass,
        ending: Ending::Answered,
    }
}

/// The same on a task.
pub(super) fn post_of_task(seq: u64, received: u64, task: u64, state: JobState) -> Post {
    Post { task: Some(task), state: Some(state), ..post(seq, received, Route::Tasks, seq as u8) }
}
