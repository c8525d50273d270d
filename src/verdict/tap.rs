//! The rules on what stood between the target's workers and its API: the tap and the fault.

use super::{Check, Facts, Rule, Verdict};
use crate::{
    injection::{Canary, Injection},
    post::Fates,
    posts::{self, CellPosts},
    timeline::JobOutcome,
};

/// Whether the tap missed nothing, and its own count of decisions is that of the posts.
pub(super) fn is_complete(facts: &Facts<'_>, posts: &CellPosts) -> Check {
    let mut troubles = posts.troubles.clone();
    if posts.unread > 0 {
        troubles.push(format!("{} posts were overwritten in the tap before they were read", posts.unread));
    }
    let attribution = posts::attribution(facts.totals, posts);
    let fetched = || facts.totals.jobs.iter().filter(|(_, job)| job.outcome == JobOutcome::Fetched);
    let (jobs, attempted) = (fetched().count(), posts.all().attempted);
    let stored = |key| attribution.known.get(key).is_some_and(|(_, s)| s.results_accepted > 0);
    let mapped = fetched().filter(|(_, job)| job.results.as_ref().is_some_and(|r| r.simulation.is_some()));
    let missing = mapped.filter(|(key, _)| !stored(key)).count();
    if jobs > 0 && attempted == 0 {
        troubles.push(format!(
            "it saw no post of {jobs} fetched jobs: the target's workers do not post through it"
        ));
    } else if missing > 0 && troubles.is_empty() {
        troubles.push(format!("the results of {missing} of {jobs} fetched jobs did not come through it"));
    }
    let mut seen = posts.all().fates;
    seen.add(posts.foreign);
    seen.add(posts.late);
    let harmed = seen.harmed();
    if harmed > 0 && facts.cell.fault.is_none() {
        troubles.push(format!("{harmed} posts were harmed by a fault that is none of ours"));
    }
    if let Some(decided) = facts.injection.and_then(|i| i.fates) {
        let harm = |f: Fates| [f.delayed, f.requests_dropped, f.answers_dropped, f.refused];
        if harm(seen) != harm(decided) {
            let decided = decided.harmed();
            troubles.push(format!("it decided to harm {decided} posts, and {harmed} harmed ones were read"));
        }
    }
    let evidence = match troubles.is_empty() {
        true => format!("{attempted} posts of {} simulations", posts.simulations.len()),
        false => troubles.join("; "),
    };
    Check::new(Rule::TapComplete, troubles.is_empty(), Verdict::Invalid, evidence)
}

/// What of the workers' posts was about jobs of somebody else, or of earlier cells, when that is more
/// than a twentieth: their tasks took the place of ours.
pub(super) fn others(posts: &CellPosts) -> Option<String> {
    let (foreign, late, ours) = (posts.foreign.total(), posts.late.total(), posts.all().attempted);
    let is_much = (foreign + late) * 20 > ours.max(20);
    is_much.then(|| {
        format!(
            "beside {ours} posts of this cell's jobs, workers made {late} of earlier cells' and {foreign} of somebody else's"
        )
    })
}

/// Whether the fault that the cell was to have showed; `None` where it was to have none.
pub(super) fn fault_showed(facts: &Facts<'_>) -> Option<Check> {
    if facts.cell.fault.is_none() {
        return None;
    }
    let Some(injection) = facts.injection else {
        let why = facts.frames.map(|why| format!(": {why}")).unwrap_or_default();
        let evidence = format!("{} was not carried through{why}", facts.cell.fault);
        return Some(Check::new(Rule::FaultProven, false, Verdict::Invalid, evidence));
    };
    let mut flaws = injection.proof.flaws.clone();
    // In a short window there may be nothing to hit.
    if let Some(fates) = injection.fates
        && injection.fault.window.is_whole()
        && fates.total() == 0
    {
        flaws.push("no post came its way".into());
    }
    let proven = flaws.is_empty();
    let evidence =
        format!("{}{}", flaws.iter().map(|f| format!("{f}; ")).collect::<String>(), figures(injection));
    Some(Check::new(Rule::FaultProven, proven, Verdict::Invalid, evidence))
}

/// How the canaries fared.
fn figures(injection: &Injection) -> String {
    let proof = &injection.proof;
    let said = |canaries: &[Canary]| {
        let cut = canaries.iter().filter(|c| c.status.is_none()).count();
        let mut answered: Vec<_> = canaries.iter().filter(|c| c.status.is_some()).map(|c| c.took).collect();
        answered.sort_unstable();
        let median = answered.get(answered.len() / 2).map(|m| format!(", median {m}")).unwrap_or_default();
        format!("{} answered{median}, {cut} cut off", answered.len())
    };
    format!(
        "{}: canaries before {}; during {}; after {}",
        injection.fault,
        said(&proof.before),
        said(&proof.during),
        said(&proof.after)
    )
}
