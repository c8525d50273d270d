//! What the posts of the target's workers reveal.

use std::collections::BTreeMap;

use super::{EXAMPLES, Kind, Notes};
use crate::{
    posts::{Attribution, CellPosts, RoutePosts, attribution},
    snapshot::Totals,
    timeline::{JobOutcome, JobState},
};

pub(super) fn of_posts(totals: &Totals, posts: &CellPosts, found: &mut Notes) {
    let by_route = |count: &dyn Fn(&RoutePosts) -> u64| {
        let each: Vec<_> = posts.routes.iter().map(|(r, p)| (r, count(p))).filter(|(_, n)| *n > 0).collect();
        let sum = each.iter().map(|(_, n)| n).sum();
        (sum, each.into_iter().map(|(route, _)| format!("POST {route}")).collect())
    };
    let mut put = |kind, (count, routes): (u64, Vec<String>)| found.put(kind, count, routes);
    put(Kind::PostsLost, by_route(&|p| p.lost));
    put(Kind::AnswersLost, by_route(&|p| p.answers_lost));
    let all = posts.all();
    for status in all.statuses.into_keys().filter(|s| !(200..300).contains(s)) {
        let answers = by_route(&|p| p.statuses.get(&status).copied().unwrap_or(0));
        put(Kind::PostsRefusedByTarget { status }, answers);
    }
    let a = attribution(totals, posts);
    // What strangers do says nothing of the workers of our jobs.
    let retried = a.ours().map(|(_, s)| s.retried).sum();
    let (_, routes) = by_route(&|p| p.retried);
    put(Kind::RetriesSeen, (retried, routes));
    for (id, _) in a.ours().filter(|(_, s)| s.final_writes() > 1) {
        found.note(Kind::DuplicateFinalWrite, &format!("simulation {id}"));
    }
    a.foreign.keys().for_each(|id| found.note(Kind::ForeignPosts, &format!("simulation {id}")));
    if retried == 0 {
        stuck(&a, found);
    }
}

/// Jobs that hang because of a lost post, taken out of those that merely hang. Which job a
/// simulation belongs to is not known; that there are as many is enough.
fn stuck(a: &Attribution<'_>, found: &mut Notes) {
    let cause = a.others.values().filter(|s| s.dropped > 0 && s.results.is_none()).count();
    let mut jobs: BTreeMap<JobState, Vec<&str>> = BTreeMap::new();
    for (_, job) in &a.unmapped {
        if let JobOutcome::TimedOut { in_state } = job.outcome {
            jobs.entry(in_state).or_default().push(job.job_id.as_deref().unwrap_or(&job.title));
        }
    }
    let all: usize = jobs.values().map(Vec::len).sum();
    let mut left = cause.min(all);
    let mut states: Vec<_> = jobs.into_iter().collect();
    states.sort_by_key(|(_, ids)| std::cmp::Reverse(ids.len()));
    for (state, ids) in states {
        let explained = ids.len().min(left);
        left -= explained;
        // Where only some of them lost a post, nobody can say which.
        let sure = cause >= all;
        let examples = ids.iter().take(if sure { EXAMPLES } else { 0 }).map(|id| (*id).to_owned());
        found.put(Kind::StuckAfterLostPost { state }, explained as u64, examples.collect());
        let kind = Kind::Stuck { state };
        if let Some((count, _)) = found.0.get_mut(&kind) {
            *count = count.saturating_sub(explained as u64);
            if *count == 0 {
                found.0.remove(&kind);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        finding::of_cell,
        ledger::Ledger,
        micros::Micros,
        posts::Simulation,
        route::Route,
        snapshot::{Job, JobKey},
    };

    fn found(stuck: u32, simulations: &[Simulation], route: RoutePosts) -> Vec<(Kind, u64)> {
        let mut totals = Totals::default();
        for user in 0..stuck {
            let outcome = JobOutcome::TimedOut { in_state: JobState::Running };
            let job = Job { job_id: Some(format!("j{user}")), ..Job::new(0, "t".into(), outcome) };
            totals.jobs.insert(JobKey { user, nth: 0 }, job);
        }
        let posts = CellPosts {
            routes: [(Route::Tasks, route)].into(),
            simulations: (1..).zip(simulations.iter().cloned()).collect(),
            ..CellPosts::default()
        };
        let findings = of_cell(&totals, &Ledger::of(&totals), Micros(1), Some(&posts), None, &[]);
        findings.into_iter().map(|f| (f.kind, f.count)).filter(|(k, _)| *k != Kind::VanishedJob).collect()
    }

    const STATE: JobState = JobState::Running;

    #[test]
    fn a_job_that_hangs_after_a_lost_post_says_so_unless_workers_retry() {
        let hit = Simulation { dropped: 1, lost: 1, ..Simulation::default() };
        let lost = RoutePosts { lost: 1, ..RoutePosts::default() };
        let kinds = found(2, &[hit.clone(), Simulation::default()], lost.clone());
        assert_eq!(
            kinds,
            [
                (Kind::StuckAfterLostPost { state: STATE }, 1),
                (Kind::Stuck { state: STATE }, 1),
                (Kind::PostsLost, 1)
            ]
        );
        // A stranger's repetition is under the route and under none of our simulations.
        let strange = RoutePosts { retried: 1, ..lost.clone() };
        let kinds = found(1, std::slice::from_ref(&hit), strange.clone());
        assert_eq!(kinds, [(Kind::StuckAfterLostPost { state: STATE }, 1), (Kind::PostsLost, 1)]);
        let again = Simulation { retried: 1, ..hit.clone() };
        let kinds = found(1, std::slice::from_ref(&again), strange);
        assert_eq!(kinds, [(Kind::Stuck { state: STATE }, 1), (Kind::PostsLost, 1), (Kind::RetriesSeen, 1)]);
        let foreign = found(0, &[hit], RoutePosts::default());
        assert_eq!(foreign, [(Kind::ForeignPosts, 1)]);
    }

    #[test]
    fn errors_are_told_by_status_and_duplicate_writes_by_simulation() {
        let statuses = [(202, 5), (400, 2), (500, 1)].into();
        let twice = Simulation { results_accepted: 3, results_replayed: 1, ..Simulation::default() };
        let kinds = found(1, &[twice], RoutePosts { statuses, ..RoutePosts::default() });
        assert_eq!(
            kinds[1..],
            [
                (Kind::DuplicateFinalWrite, 1),
                (Kind::PostsRefusedByTarget { status: 400 }, 2),
                (Kind::PostsRefusedByTarget { status: 500 }, 1)
            ]
        );
    }
}
