//! The posts of the target's workers in one cell, added up: what the tap saw.
//!
//! A [`Book`] takes posts in one by one and keeps what the figures need, not the posts. Its
//! moments are on the tap's clock and meet the client's only by way of [`CellPosts::t0`]. Posts come in the order in which
//! they *ended*, so whatever depends on their order goes by their receipt: the same posts in any
//! order give the same figures.

mod attribution;
mod life;
mod route;
#[cfg(test)]
mod sample;
mod simulation;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use attribution::{Attribution, attribution};
pub use life::Life;
pub use route::{Carried, RoutePosts};
pub use simulation::{Moment, Simulation};

use crate::{
    micros::Micros,
    post::{BodyHash, Fates, Post},
    route::Route,
    snapshot::Totals,
    timeline::Between,
};

/// What the tap saw in one cell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellPosts {
    /// Posts by route; neither canaries nor posts of other people's simulations are among them.
    pub routes: BTreeMap<Route, RoutePosts>,
    /// Posts of simulations that are not ours, or of which nobody can say.
    #[serde(default)]
    pub foreign: Fates,
    /// Simulations by the id that workers know, those of earlier cells left out.
    pub simulations: BTreeMap<u64, Simulation>,
    /// Posts that name no simulation. They are counted under their route.
    #[serde(default)]
    pub nameless: u64,
    /// Posts of simulations of earlier cells, by what was decided about them. They are counted
    /// nowhere else.
    #[serde(default)]
    pub late: Fates,
    /// Posts that the tap could not keep until they were read.
    pub unread: u64,
    /// The last moment at which the tap was looked at, on its clock: what had not happened by then
    /// took at least so long.
    #[serde(default)]
    pub until: Micros,
    /// T0 of the cell on the tap's clock, as tightly as asking the tap for its time tells: the one
    /// bridge between its clock and the generator's.
    #[serde(default)]
    pub t0: Option<Between>,
    /// Why this record is not whole, one sentence each.
    pub troubles: Vec<String>,
}

impl CellPosts {
    /// The posts of ours to every route together.
    pub fn all(&self) -> RoutePosts {
        self.routes.values().fold(RoutePosts::default(), |mut all, route| {
            all.merge(route);
            all
        })
    }
}

/// Adds the posts of one cell up.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Book {
    earlier: BTreeSet<u64>,
    posts: CellPosts,
    /// By simulation, since it shows only at the end whose that is.
    routes: BTreeMap<Place, RoutePosts>,
    bodies: BTreeMap<(Route, BodyHash), Body>,
    lives: BTreeMap<u64, simulation::Telling>,
    carried: BTreeMap<Place, Vec<(Order, Carried)>>,
}

/// Of which simulation, and where to.
type Place = (Option<u64>, Route);

/// Place in the order of receipt; the number settles ties.
type Order = (Micros, u64);

/// One body, however often it was posted.
#[derive(Debug, Default, Clone, PartialEq)]
struct Body {
    simulation: Option<u64>,
    /// Each attempt, and whether the worker learned that it was accepted.
    attempts: Vec<(Order, bool)>,
    accepted: bool,
}

impl Book {
    /// An empty book; `earlier` are the simulations of cells before, whose late posts are no
    /// business of this one.
    pub fn new(earlier: BTreeSet<u64>) -> Self {
        Self { earlier, ..Self::default() }
    }

    /// Takes a post in, in whatever order; canaries pass it by.
    pub fn add(&mut self, post: &Post) {
        if post.canary.is_some() {
            return;
        }
        self.posts.until = self.posts.until.max(post.ended);
        if post.simulation.is_some_and(|s| self.earlier.contains(&s)) {
            self.posts.late.count(post.fate);
            return;
        }
        let order = (post.received, post.seq);
        let place = (post.simulation, post.route);
        self.routes.entry(place).or_default().count(post);
        if let Some(carried) = Carried::of(post) {
            self.carried.entry(place).or_default().push((order, carried));
        }
        if let Some(hash) = post.hash {
            let body = self.bodies.entry((post.route, hash)).or_default();
            body.simulation = body.simulation.max(post.simulation);
            body.attempts.push((order, post.is_told()));
            body.accepted |= post.is_accepted();
        }
        match post.simulation {
            Some(id) => self.lives.entry(id).or_default().add(post),
            None => self.posts.nameless += 1,
        }
    }

    /// Takes down that the tap had to drop some.
    pub fn unread(&mut self, posts: u64) {
        self.posts.unread += posts;
    }

    /// Takes down why the record is not whole.
    pub fn trouble(&mut self, why: String) {
        self.posts.troubles.push(why);
    }

    /// Simulations of this cell and of those before.
    pub fn seen(&self) -> BTreeSet<u64> {
        self.earlier.iter().chain(self.lives.keys()).copied().collect()
    }

    /// Takes down how long the tap was looked at, on its clock; the end of the last post stands in
    /// for it where that is later.
    pub fn looked_until(&mut self, until: Micros) {
        self.posts.until = self.posts.until.max(until);
    }

    /// Takes down between which moments of the tap's clock T0 was.
    pub fn began(&mut self, t0: Between) {
        self.posts.t0 = Some(t0);
    }

    /// Everything added up, for the jobs of the cell.
    pub fn close(self, totals: &Totals) -> CellPosts {
        let Self { mut posts, routes, bodies, lives, carried, .. } = self;
        posts.simulations = lives.into_iter().map(|(id, telling)| (id, telling.close())).collect();
        let foreign: BTreeSet<u64> = attribution(totals, &posts).foreign.into_keys().collect();
        let is_ours = |simulation: Option<u64>| simulation.is_none_or(|id| !foreign.contains(&id));
        for ((simulation, route), counted) in routes {
            if is_ours(simulation) {
                posts.routes.entry(route).or_default().merge(&counted);
            } else {
                posts.foreign.add(counted.fates);
            }
        }
        for ((route, _), mut body) in bodies {
            body.attempts.sort_unstable();
            let told = |attempt: &(Order, bool)| attempt.1;
            let repeated = body.attempts.len() as u64 - 1;
            let retried = body.attempts.windows(2).filter(|pair| !told(&pair[0])).count() as u64;
            let lost = u64::from(!body.accepted);
            let answer_lost = u64::from(body.accepted && !body.attempts.iter().any(told));
            if is_ours(body.simulation) {
                let of_route = posts.routes.entry(route).or_default();
                of_route.bodies += 1;
                of_route.repeated += repeated;
                of_route.retried += retried;
                of_route.lost += lost;
                of_route.answers_lost += answer_lost;
            }
            if let Some(simulation) = body.simulation.and_then(|id| posts.simulations.get_mut(&id)) {
                simulation.retried += retried;
                simulation.lost += lost;
                simulation.answers_lost += answer_lost;
            }
        }
        let mut payloads: BTreeMap<Route, Vec<(Order, Carried)>> = BTreeMap::new();
        for ((_, route), carried) in carried.into_iter().filter(|((simulation, _), _)| is_ours(*simulation)) {
            payloads.entry(route).or_default().extend(carried);
        }
        for (route, mut carried) in payloads {
            carried.sort_unstable_by_key(|(order, _)| *order);
            posts.routes.entry(route).or_default().payloads = carried.into_iter().map(|(_, c)| c).collect();
        }
        posts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, prop, prop_assert, prop_assert_eq, proptest};

    use super::{sample::post, *};
    use crate::{
        fault::Fate,
        post::Ending,
        snapshot::{Job, JobKey},
        state::JobState::{Completed, MergingQueued, Running},
        timeline::JobOutcome,
    };

    fn added<'a>(posts: impl IntoIterator<Item = &'a Post>) -> CellPosts {
        let mut book = Book::default();
        posts.into_iter().for_each(|p| book.add(p));
        book.close(&jobs(100))
    }

    /// As many accepted jobs without results, so that every simulation is one of ours.
    fn jobs(number: u32) -> Totals {
        let mut totals = Totals::default();
        for user in 0..number {
            let outcome = JobOutcome::TimedOut { in_state: Running };
            let job = Job { job_id: Some(format!("j{user}")), ..Job::new(0, "t".into(), outcome) };
            totals.jobs.insert(JobKey { user, nth: 0 }, job);
        }
        totals
    }

    #[test]
    fn posts_of_strangers_are_left_out_and_counted() {
        let mut book = Book::default();
        let ours = Post { simulation: Some(3), ..post(1, 100, Route::Tasks, 1) };
        let results = Post { simulation: Some(4), ..post(2, 200, Route::Results, 2) };
        [&ours, &results].into_iter().for_each(|p| book.add(p));
        let cell = book.clone().close(&jobs(1));
        assert_eq!((cell.all().attempted, cell.foreign.passed), (1, 1), "the one with results is not ours");
        assert_eq!(book.close(&jobs(2)).all().attempted, 2);
    }

    #[test]
    fn a_delayed_post_ends_late_and_is_still_the_first() {
        let first = Post { ended: Micros(900), ..post(2, 100, Route::Tasks, 1) };
        let again = post(1, 300, Route::Tasks, 1);
        let route = &added([&again, &first]).routes[&Route::Tasks];
        assert_eq!((route.attempted, route.repeated, route.retried), (2, 1, 0), "the first one was told");
    }

    #[test]
    fn a_repetition_after_a_failure_is_a_retry_and_what_never_arrived_is_lost() {
        let dropped = |seq, at, body| Post {
            fate: Fate::DropRequest,
            ending: Ending::Faulted,
            status: None,
            ..post(seq, at, Route::Tasks, body)
        };
        let unanswered =
            Post { fate: Fate::DropAnswer, ending: Ending::Faulted, ..post(4, 400, Route::Results, 9) };
        let posts = [dropped(1, 100, 1), post(2, 200, Route::Tasks, 1), dropped(3, 300, 2), unanswered];
        let cell = added(&posts);
        let tasks = &cell.routes[&Route::Tasks];
        assert_eq!((tasks.repeated, tasks.retried, tasks.lost, tasks.answers_lost), (1, 1, 1, 0));
        let results = &cell.routes[&Route::Results];
        assert_eq!((results.lost, results.answers_lost), (0, 1));
        assert_eq!(cell.all().fates.harmed(), 3);
        let simulation = &cell.simulations[&7];
        assert_eq!((simulation.lost, simulation.answers_lost, simulation.retried), (1, 1, 1));
    }

    #[test]
    fn canaries_and_earlier_simulations_are_no_business_of_the_cell() {
        let mut book = Book::new([7].into());
        book.add(&post(1, 100, Route::Tasks, 1));
        book.add(&Post { canary: Some(3), simulation: None, ..post(2, 200, Route::Tasks, 2) });
        book.add(&Post { simulation: None, ..post(3, 300, Route::Tasks, 3) });
        book.add(&Post { simulation: Some(8), ..post(4, 400, Route::Jobs, 4) });
        assert_eq!(book.seen(), [7, 8].into());
        book.looked_until(Micros(5_000));
        let cell = book.close(&jobs(5));
        assert_eq!((cell.late.passed, cell.nameless, cell.all().attempted), (1, 1, 2));
        assert_eq!(cell.until, Micros(5_000));
    }

    /// Posts of a few simulations and bodies with every fate and ending, and a shuffle of them.
    fn posts() -> impl Strategy<Value = (Vec<Post>, Vec<Post>)> {
        let one = (0u64..5_000, 1u64..3_000, 0usize..4, 0u8..9, 0u64..3, 0u64..4, 0u8..8, 0u8..6);
        let all = prop::collection::vec(one, 0..60).prop_map(|rows| {
            let mut all: Vec<Post> = rows
                .into_iter()
                .map(|(received, took, route, body, simulation, task, state, how)| {
                    let base = Post {
                        route: Route::ALL[route],
                        ended: Micros(received + took),
                        simulation: (simulation > 0).then_some(simulation),
                        task: Some(task),
                        state: JOB_STATES.get(usize::from(state)).copied(),
                        ..post(0, received, Route::ALL[route], body)
                    };
                    let faulted =
                        |fate, status| Post { fate, ending: Ending::Faulted, status, ..base.clone() };
                    match how {
                        0 => faulted(Fate::DropRequest, None),
                        1 => faulted(Fate::DropAnswer, Some(202)),
                        2 => Post { fate: Fate::Delay(Micros(5)), ..base },
                        3 => Post { hash: None, ending: Ending::RequestCut, status: None, ..base },
                        4 => Post { status: Some(500), ..base },
                        _ => base,
                    }
                })
                .collect();
            all.sort_by_key(|p| p.ended);
            for (post, seq) in all.iter_mut().zip(1..) {
                post.seq = seq;
            }
            all
        });
        all.prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
    }

    const JOB_STATES: [crate::state::JobState; 4] =
        [Running, Completed, crate::state::JobState::Failed, MergingQueued];

    proptest! {
        #[test]
        fn the_order_of_completion_does_not_matter((posts, shuffled) in posts()) {
            prop_assert_eq!(added(&posts), added(&shuffled));
        }

        #[test]
        fn the_books_add_up((posts, _) in posts()) {
            let cell = added(&posts);
            prop_assert_eq!(cell.all().attempted, posts.len() as u64);
            for (route, r) in &cell.routes {
                prop_assert_eq!(r.attempted, r.endings.values().sum::<u64>());
                prop_assert_eq!(r.attempted, r.bodies + r.repeated + r.cut, "{}", route);
                prop_assert_eq!(r.attempted, r.fates.passed + r.fates.harmed());
                prop_assert!(r.retried <= r.repeated);
                prop_assert!(r.lost + r.answers_lost <= r.bodies);
                prop_assert_eq!(r.took.count(), r.endings.get(&Ending::Answered).copied().unwrap_or(0));
            }
            let named: u64 = cell.simulations.values().map(|s| s.posts).sum();
            prop_assert_eq!(named + cell.nameless, posts.len() as u64);
        }

        #[test]
        fn it_survives_the_wire((posts, _) in posts()) {
            let cell = added(&posts);
            let text = serde_json::to_string(&cell).unwrap();
            prop_assert_eq!(serde_json::from_str::<CellPosts>(&text).unwrap(), cell);
        }
    }
}
