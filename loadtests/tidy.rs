//! Before a cell: jobs of this run that an earlier cell may have left going on are canceled, so that
//! they do not load the target beside the cell's own.
//!
//! Where every user has an account, user `i` of `n` looks after those of the numbers `i`, `i + n`,
//! `i + 2n`, …: so each is looked after once, whoever had it before, and also in a cell of few users.
//! An account that all users of a worker share is looked after by the worker's first. One of a worker
//! that is lost, which no other has, is out of reach.
//!
//! It must not meet a job of a cell that runs. None of this cell is submitted before every user has
//! come to the start. Those of a later one are not in a list that was read while the permit held: the
//! manager goes on without a worker only when that has run out.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use super::{
    session::Login,
    settle::{QUIET_WITHIN, cancel_open, read_list_of, wait_for},
    turn::Turn,
};
use crate::{snapshot::TargetView, trace::Trace};

/// Cancels them and waits until they are terminal. What could not be looked into, or goes on, is told as
/// of this cell: its figures are not its own.
pub(super) async fn tidy(turn: &mut Turn<'_>) {
    let kit = Arc::clone(&turn.user.kit);
    let (shared, users) = (turn.shares_account(), turn.run.share.cell.users);
    if shared && turn.user.slot() > 0 {
        return;
    }
    let most = if shared { 0 } else { kit.most_users };
    let others = looked_after(turn.number, users, most).skip(1);
    let mut view = TargetView::default();
    // All are canceled before one is waited for, so that they end at the same time.
    let own = turn.user.login.take();
    let mut seen = Vec::new();
    for login in own.into_iter().chain(others.map(|number| Login::of(&kit.accounts, number))) {
        turn.user.login = Some(login);
        let canceled = cancel_leftovers(turn, &mut view).await;
        seen.extend(turn.user.login.take().map(|login| (login, canceled)));
        if turn.run.stop.is_cancelled() {
            break;
        }
    }
    let deadline = Instant::now() + QUIET_WITHIN;
    let mut own = None;
    for (login, canceled) in seen {
        turn.user.login = Some(login);
        wait_for(turn, canceled, deadline, &mut view.unfinished).await;
        let login = turn.user.login.take();
        own = own.or(login);
    }
    turn.user.login = own;
    for why in &view.errors {
        tracing::warn!("jobs of an earlier cell may go on: {why}");
    }
    for (id, state) in &mut view.unfinished {
        tracing::warn!("job {id} of an earlier cell goes on: {state}");
        state.push_str(", of an earlier cell");
    }
    if view != TargetView::default() {
        turn.recorder.target(view);
    }
}

/// The accounts of which numbers user `number` of `users` looks after, its own first, when there are
/// `most` at the most.
fn looked_after(number: u32, users: u32, most: u32) -> impl Iterator<Item = u32> {
    std::iter::once(number).chain((number..most).step_by(users.max(1) as usize).skip(1))
}

/// Cancels what goes on in the account that the user is in, if it is there.
async fn cancel_leftovers(turn: &mut Turn<'_>, view: &mut TargetView) -> BTreeMap<String, Trace> {
    let mut listed = TargetView::default();
    let title = turn.user.kit.title.clone();
    let read = match turn.look_in().await {
        Ok(true) => read_list_of(turn, &mut listed, &title, &title).await.map_err(|problem| problem.what),
        // Nobody has ever worked in it.
        Ok(false) => Ok(()),
        Err(why) => Err(why),
    };
    if !turn.run.may_submit() {
        return BTreeMap::new();
    }
    if let Err(why) = read {
        view.errors.insert(format!("before the cell: {why}"));
    }
    cancel_open(turn, &listed).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::{
        plan::{Plan, Share},
        scenario::Matrix,
    };

    proptest! {
        #[test]
        fn each_account_is_looked_after_once(users in 1u32..300, more in 0u32..300, workers in 1u32..40) {
            let mut cell = Plan::cells(1, &Matrix::runbook().scenarios, false).remove(0);
            cell.users = users;
            let most = users + more;
            let mut times = vec![0; most as usize];
            for worker in 0..workers {
                let share = Share::of(&cell, worker, workers);
                for slot in 0..share.users {
                    let number = share.first_user + slot;
                    let mut accounts = looked_after(number, share.cell.users, most);
                    prop_assert_eq!(accounts.next(), Some(number), "its own first");
                    times[number as usize] += 1;
                    accounts.for_each(|account| times[account as usize] += 1);
                }
            }
            prop_assert!(times.iter().all(|n| *n == 1), "{:?}", times);
        }

        #[test]
        fn a_users_own_is_looked_after_whatever_the_plan_says(number in 0u32..50, users in 0u32..50, most in 0u32..50) {
            prop_assert_eq!(looked_after(number, users, most).next(), Some(number));
        }
    }
}
