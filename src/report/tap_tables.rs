//! The tables on what the tap saw of a scenario, for HTML and Markdown alike.

use crate::{
    agreement::Agreement,
    micros::Offset,
    posts::attribution,
    record::RunRecord,
    report::{
        figure::{NONE, of_requests, or_none, said},
        table::{Table, code, num},
    },
    summary::ScenarioSummary,
};

/// Posts by route.
pub(crate) fn posts(run: &RunRecord, s: &ScenarioSummary) -> Option<Table> {
    let (mut nameless, mut late, mut unread, mut troubles) = (0, 0, 0, Vec::new());
    let mut foreign_posts = 0;
    let (mut ours, mut foreign, mut unseen) = (0, 0, 0);
    for (posts, totals) in s.counting(run).iter().filter_map(|c| c.posts.as_ref().zip(Some(&c.totals))) {
        let whose = attribution(totals, posts);
        ours += whose.ours().count();
        foreign += whose.foreign.len();
        unseen += whose.unseen;
        foreign_posts += posts.foreign.total();
        (nameless, late, unread) =
            (nameless + posts.nameless, late + posts.late.total(), unread + posts.unread);
        troubles.extend(posts.troubles.iter().cloned());
    }
    if !s.is_tapped() {
        return None;
    }
    let mut t = Table::new(
        format!("{}: posts of the target's workers, seen by the tap", s.name()),
        &[
            "route",
            "posts",
            "bodies",
            "statuses",
            "errors",
            "faulted",
            "repeated",
            "retried",
            "lost",
            "answers lost",
            "cut",
            "worker waited p50",
            "waited p95",
            "waited max",
            "target took p50",
            "took p95",
            "took max",
        ],
    );
    for (route, r) in &s.posts(run) {
        let statuses: Vec<String> = r.statuses.iter().map(|(s, n)| format!("{s}: {n}")).collect();
        let mut row = vec![code(route.path()), num(r.attempted), num(r.bodies), statuses.join(", ").into()];
        row.extend([
            num(r.errors),
            num(r.fates.harmed()),
            num(r.repeated),
            num(r.retried),
            num(r.lost),
            num(r.answers_lost),
            num(r.cut),
        ]);
        for h in [&r.took, &r.served] {
            row.extend([num(of_requests(h, 0.5)), num(of_requests(h, 0.95)), num(or_none(h, |h| h.max()))]);
        }
        t.row(row);
    }
    t.note(format!("Bodies: different ones. Cut: never came whole. Waited: from the receipt of a post to the end of its answer. Took: from sending it on to the last byte of the answer; what was refused or never sent on is not in it. {nameless} posts name no simulation; {late} came late, of simulations of earlier cells, and {foreign_posts} are of simulations that may be somebody else's: neither are counted; {unread} were lost before they were read."));
    t.note(format!("{ours} simulations are those of jobs of ours, {foreign} cannot be told from somebody else's and are in no stage; of {unseen} fetched jobs the tap saw no post."));
    troubles.into_iter().for_each(|why| t.note(why));
    Some(t)
}

/// Polled stages against the tap's, where both are there.
pub(crate) fn agreement(run: &RunRecord, s: &ScenarioSummary) -> Option<Table> {
    let cells = s.counting(run);
    let both: Vec<Agreement> =
        Agreement::STAGES.into_iter().filter_map(|stage| Agreement::of(&cells, stage)).collect();
    if both.is_empty() {
        return None;
    }
    let mut t = Table::new(
        format!("{}: polled stages against the tap, job by job on the same bounds", s.name()),
        &["stage", "jobs", "agree", "p50 polled", "p50 tap", "median gap", "widest gap"],
    );
    for a in both {
        let [polled, tap] = a.medians().map(said);
        let apart = |d: Option<Offset>| num(d.map_or_else(|| NONE.into(), |d| d.to_string()));
        t.row(vec![
            a.stage.to_string().into(),
            num(a.count()),
            num(a.agree),
            num(polled),
            num(tap),
            apart(a.median_gap()),
            apart(a.widest_gap()),
        ]);
    }
    t.note("Here both go from state to state, as the target knew them: run from RUNNING to MERGING_QUEUED, merge from MERGING_QUEUED to COMPLETED. The stages above have other bounds at the tap. Agree: jobs whose two intervals overlap. Gap: how far the two intervals of a job are apart, polled less tap; none where they overlap. Only jobs whose simulation is known and that were polled through the stage.");
    Some(t)
}
