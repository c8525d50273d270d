//! Who is there: the workers that were taken in, and whether they are enough.

use std::collections::{BTreeMap, BTreeSet};

use crate::{crew::Member, micros::Micros, plane::Hello};

/// How long a lease that was just taken may be missing from a look at all leases.
const LOOK: Micros = Micros(3_000_000);

/// The workers a run takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// How many are waited for before the first cell. Later, one is enough to go on.
    pub count: u32,
    /// Those that must be among them.
    pub names: BTreeSet<String>,
    /// How long they are waited for.
    pub max_wait: Micros,
    /// SHA-256 of the program that they must run; `None` takes any.
    pub build_hash: Option<String>,
    /// SHA-256 of the plan that they must have understood; `None` takes any.
    pub plan_hash: Option<String>,
}

impl Wanted {
    /// So many, whatever they are.
    pub fn any(count: u32) -> Self {
        let max_wait = Micros(60_000_000);
        Self { count, names: BTreeSet::new(), max_wait, build_hash: None, plan_hash: None }
    }
}

/// One that is there.
#[derive(Debug)]
struct Here {
    member: Member,
    host: String,
    since: Micros,
    /// Whether its lease was seen.
    seen: bool,
    /// Finishes what it is at, and is not counted on any further.
    drains: bool,
}

/// Who is there, by name.
#[derive(Debug)]
pub(super) struct Members {
    wanted: Wanted,
    here: BTreeMap<String, Here>,
    /// Who was sent away, and why.
    refused: BTreeMap<String, String>,
    /// Who was there and is not any more.
    gone: BTreeSet<String>,
    begun: bool,
    /// Who was there when the manager was cut off, and did not join anew yet.
    awaited: BTreeSet<String>,
}

impl Members {
    pub(super) fn new(wanted: Wanted) -> Self {
        let (refused, gone) = (BTreeMap::new(), BTreeSet::new());
        Self { wanted, here: BTreeMap::new(), refused, gone, begun: false, awaited: BTreeSet::new() }
    }

    /// Whom the next cell would go to, in the order of their names.
    pub(super) fn present(&self) -> impl Iterator<Item = &Member> {
        self.here.values().filter(|h| !h.drains).map(|h| &h.member)
    }

    pub(super) fn are_none(&self) -> bool {
        self.present().next().is_none()
    }

    pub(super) fn max_wait(&self) -> Micros {
        self.wanted.max_wait
    }

    /// Whether a cell can begin.
    pub(super) fn are_enough(&self) -> bool {
        if self.begun {
            return !self.are_none();
        }
        let is_here = |name: &String| self.present().any(|member| member.name == *name);
        self.present().count() >= self.wanted.count as usize && self.wanted.names.iter().all(is_here)
    }

    /// They were enough once: from now on the run makes do with those that are left.
    pub(super) fn begin(&mut self) {
        self.begun = true;
    }

    /// Whether exactly this one, in this life, is there.
    pub(super) fn knows(&self, member: &Member) -> bool {
        self.here.get(&member.name).is_some_and(|h| h.member == *member)
    }

    /// An earlier life of the same worker that is still counted on.
    pub(super) fn other_life(&self, member: &Member) -> Option<Member> {
        let before = &self.here.get(&member.name)?.member;
        (before.epoch < member.epoch).then(|| before.clone())
    }

    /// Takes one in.
    ///
    /// # Errors
    /// Why it cannot take part.
    pub(super) fn take_in(&mut self, member: Member, hello: &Hello, now: Micros) -> Result<(), String> {
        if let Some(why) = self.objection(&member, hello) {
            self.refused.insert(member.name, why.clone());
            return Err(why);
        }
        self.refused.remove(&member.name);
        self.gone.remove(&member.name);
        self.awaited.remove(&member.name);
        let here = Here { member, host: hello.host.name.clone(), since: now, seen: false, drains: false };
        self.here.insert(here.member.name.clone(), here);
        Ok(())
    }

    fn objection(&self, member: &Member, hello: &Hello) -> Option<String> {
        if self.here.contains_key(&member.name) {
            return Some("a later life of it is there already".into());
        }
        if let Some(trouble) = &hello.trouble {
            return Some(trouble.clone());
        }
        if let Some(ours) = self.wanted.build_hash.as_ref().filter(|ours| **ours != hello.build_hash) {
            let (theirs, build) = (&hello.build_hash, &hello.build);
            return Some(format!(
                "another build: {theirs} ({} {} {}) here, the manager's is {ours}; copy the manager's program to this host",
                build.version, build.revision, build.profile
            ));
        }
        let ours = self.wanted.plan_hash.as_ref().filter(|ours| **ours != hello.plan_hash)?;
        Some(format!("another plan: {} here, the manager's is {ours}", hello.plan_hash))
    }

    /// Those of whom a look at the leases shows that they are gone.
    pub(super) fn missing_from(&mut self, holders: &BTreeSet<Member>, now: Micros) -> Vec<Member> {
        let mut missing = Vec::new();
        for here in self.here.values_mut() {
            if holders.contains(&here.member) {
                here.seen = true;
            } else if here.seen || now > here.since + LOOK {
                missing.push(here.member.clone());
            }
        }
        missing
    }

    /// It finishes what it is at, and no more.
    pub(super) fn drain(&mut self, member: &Member) {
        if let Some(here) = self.here.get_mut(&member.name).filter(|h| h.member == *member) {
            here.drains = true;
        }
    }

    /// Counts on it no more. Returns whether it was there.
    pub(super) fn remove(&mut self, member: &Member) -> bool {
        let was_here = self.knows(member);
        if was_here {
            self.here.remove(&member.name);
            self.gone.insert(member.name.clone());
        }
        was_here
    }

    /// Nobody is there.
    pub(super) fn clear(&mut self) {
        let here = std::mem::take(&mut self.here);
        self.awaited.extend(here.keys().cloned());
        self.gone.extend(here.into_keys());
    }

    /// Whether all that were there before the manager was cut off have joined anew.
    pub(super) fn are_back(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Waits for them no more.
    pub(super) fn make_do(&mut self) {
        self.awaited.clear();
    }

    /// Who came and who did not, for the end of a wait.
    pub(super) fn shortage(&self) -> String {
        let list = |names: Vec<String>| names.join(", ");
        let here: Vec<String> =
            self.here.values().map(|h| format!("{} on {}", h.member.name, h.host)).collect();
        let wanted = if self.begun { 1 } else { self.wanted.count.max(self.wanted.names.len() as u32) };
        // Others may have come beside those that were named.
        let came = match self.wanted.names.iter().filter(|n| self.here.contains_key(*n)).count() {
            named if !self.begun && !self.wanted.names.is_empty() => named,
            _ => here.len(),
        };
        let mut said = format!("{came} of {wanted} workers came within {}", self.wanted.max_wait);
        if !here.is_empty() {
            said += &format!(": {}", list(here));
        }
        let named = self.wanted.names.iter().filter(|n| !self.here.contains_key(*n)).cloned();
        let missing: BTreeSet<String> = named.chain(self.gone.iter().cloned()).collect();
        if missing.is_empty() {
            let n = wanted.saturating_sub(self.here.len() as u32);
            said += &format!("; {n} {} missing", if n == 1 { "is" } else { "are" });
        } else {
            said += &format!("; missing: {}", list(missing.into_iter().collect()));
        }
        let refused: Vec<String> = self.refused.iter().map(|(name, why)| format!("{name} ({why})")).collect();
        if !refused.is_empty() {
            said += &format!("; refused: {}", list(refused));
        }
        said
    }
}
