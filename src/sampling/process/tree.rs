//! A process and its descendants, as `/proc` shows them.
//!
//! The kernel adds the CPU time of a child to its parent when that waits for it, so most of what
//! ended ones used is never lost: it is in the figures of those that live. A child whose parent
//! ignores it, or died before it, is not waited for by anyone we look at: what was last seen of it
//! is kept here.

use std::collections::{BTreeMap, BTreeSet};

use procfs::{ProcError, ProcResult, process::Process};

use crate::micros::Micros;

/// A process by its number and the moment of its start, which tells it from a later one of the
/// same number.
type Id = (i32, u64);

/// What was used and is used, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) cpu: Micros,
    pub(super) rss: u64,
    pub(super) peak_rss: u64,
    pub(super) own_peak: u64,
    pub(super) processes: u32,
}

/// What one of them showed at the last look. Times are ticks of the kernel's clock.
#[derive(Debug, Clone, Copy)]
struct Seen {
    parent: Option<Id>,
    /// Its own, and those of its children that it waited for.
    ticks: u64,
    /// The latter alone.
    of_children: u64,
    rss: u64,
    peak_rss: u64,
}

/// The process, and its descendants as far as they are known.
#[derive(Debug)]
pub(super) struct Tree {
    root: Id,
    /// Those of the last look.
    seen: BTreeMap<Id, Seen>,
    /// Ticks of ended ones that nobody took over.
    lost: u64,
    /// The most that was told: what was used is never less.
    told: u64,
    tick: u64,
    page: u64,
    /// Whether the kernel tells the children of a process; if not, all processes are gone through.
    lists_children: bool,
}

impl Tree {
    /// Watches that process, which must be there.
    pub(super) fn of(pid: u32) -> Result<Self, String> {
        let pid = i32::try_from(pid).map_err(|_| "there is no such process".to_owned())?;
        let stat = Process::new(pid).and_then(|p| p.stat()).map_err(|e| match e {
            ProcError::NotFound(_) => "there is no such process".to_owned(),
            e => format!("it cannot be looked at: {e}"),
        })?;
        if stat.state == 'Z' {
            return Err("it has ended already".into());
        }
        let lists_children = std::path::Path::new(&format!("/proc/{pid}/task/{pid}/children")).exists();
        let mut tree = Self {
            root: (pid, stat.starttime),
            seen: BTreeMap::new(),
            lost: 0,
            told: 0,
            tick: procfs::ticks_per_second(),
            page: procfs::page_size(),
            lists_children,
        };
        tree.look()?;
        Ok(tree)
    }

    /// Looks at all of them; `None` when the system refuses for the moment.
    ///
    /// # Errors
    /// When the process itself has ended, which it never comes back from.
    pub(super) fn look(&mut self) -> Result<Option<Look>, String> {
        let Some(mut now) = self.walk() else { return Ok(None) };
        if self.seen.keys().any(|id| !now.contains_key(id)) {
            // A parent may have been read before it waited for its child: read again.
            match self.walk() {
                Some(again) => now = again,
                None => return Ok(None),
            }
        }
        if !now.contains_key(&self.root) {
            return Err(format!("it (pid {}) has ended", self.root.0));
        }
        self.lost += self.not_taken_over(&now);
        self.seen = now;
        let ticks = self.seen.values().map(|s| s.ticks).sum::<u64>() + self.lost;
        self.told = self.told.max(ticks);
        Ok(Some(Look {
            cpu: Micros(self.told * 1_000_000 / self.tick.max(1)),
            rss: self.seen.values().map(|s| s.rss).sum(),
            peak_rss: self.seen.values().map(|s| s.peak_rss).sum(),
            own_peak: self.seen.get(&self.root).map_or(0, |s| s.peak_rss),
            processes: self.seen.len() as u32,
        }))
    }

    /// Ticks of those that are gone and that no ancestor has now.
    fn not_taken_over(&self, now: &BTreeMap<Id, Seen>) -> u64 {
        let mut by_heir: BTreeMap<Option<Id>, u64> = BTreeMap::new();
        for seen in self.seen.iter().filter(|(id, _)| !now.contains_key(id)).map(|(_, seen)| seen) {
            let mut heir = seen.parent;
            while let Some(id) = heir.filter(|id| !now.contains_key(id)) {
                heir = self.seen.get(&id).and_then(|s| s.parent);
            }
            *by_heir.entry(heir).or_default() += seen.ticks;
        }
        let left = by_heir.into_iter().map(|(heir, ticks)| {
            let of_heir = |all: &BTreeMap<Id, Seen>| Some(all.get(&heir?)?.of_children);
            let taken = of_heir(now).unwrap_or(0).saturating_sub(of_heir(&self.seen).unwrap_or(0));
            ticks.saturating_sub(taken)
        });
        left.sum()
    }

    /// The process, its descendants, and those that once were some: from the top down, so that
    /// nothing that a parent takes over in between counts twice.
    fn walk(&self) -> Option<BTreeMap<Id, Seen>> {
        let mut now = BTreeMap::new();
        let mut done = BTreeSet::new();
        let all = if self.lists_children { BTreeMap::new() } else { children_of_all() };
        let mut next = vec![(self.root.0, Some(self.root.1))];
        // Those whose parent has ended are nobody's children that we know of.
        let mut rest: Vec<_> = self.seen.keys().map(|id| (id.0, Some(id.1))).collect();
        while let Some((pid, started)) = next.pop().or_else(|| rest.pop()) {
            if done.contains(&pid) {
                continue;
            }
            let read = Process::new(pid).and_then(|process| {
                let seen = self.read(&process, started, &now)?;
                Ok((process, seen))
            });
            let (process, (id, seen)) = match read {
                Ok((process, Some(seen))) => (process, seen),
                Ok((_, None)) => continue,
                Err(ProcError::NotFound(_)) => continue,
                Err(_) => return None,
            };
            done.insert(pid);
            now.insert(id, seen);
            let children = if self.lists_children {
                children_of(&process)
            } else {
                all.get(&pid).cloned().unwrap_or_default()
            };
            next.extend(children.into_iter().map(|pid| (pid, None)));
        }
        Some(now)
    }

    /// One process; `None` when another one has its number now, and for the root when it has ended
    /// and nobody has waited for it yet.
    fn read(
        &self,
        process: &Process,
        started: Option<u64>,
        now: &BTreeMap<Id, Seen>,
    ) -> ProcResult<Option<(Id, Seen)>> {
        let stat = process.stat()?;
        let id = (stat.pid, stat.starttime);
        let has_ended = matches!(stat.state, 'Z' | 'X');
        if started.is_some_and(|at| at != stat.starttime) || has_ended && id == self.root {
            return Ok(None);
        }
        let of_children = stat.cutime.max(0).unsigned_abs() + stat.cstime.max(0).unsigned_abs();
        let parent = now.keys().chain(self.seen.keys()).find(|p| p.0 == stat.ppid).copied();
        let (mut rss, mut peak_rss) = (0, 0);
        if !has_ended {
            rss = stat.rss * self.page;
            peak_rss = process.status()?.vmhwm.unwrap_or(0) * 1024;
        }
        let ticks = stat.utime + stat.stime + of_children;
        Ok(Some((id, Seen { parent, ticks, of_children, rss, peak_rss })))
    }
}

/// The children of each thread of a process.
fn children_of(process: &Process) -> Vec<i32> {
    let Ok(tasks) = process.tasks() else { return Vec::new() };
    let pids = tasks.filter_map(|task| task.ok()?.children().ok()).flatten();
    pids.filter_map(|pid| i32::try_from(pid).ok()).collect()
}

/// The children of every process of the host.
fn children_of_all() -> BTreeMap<i32, Vec<i32>> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let all = procfs::process::all_processes().into_iter().flatten().flatten();
    for stat in all.filter_map(|process| process.stat().ok()) {
        children.entry(stat.ppid).or_default().push(stat.pid);
    }
    children
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Id = (10, 1);
    const CHILD: Id = (11, 2);
    const GRANDCHILD: Id = (12, 3);

    fn seen(parent: Option<Id>, own: u64, of_children: u64) -> Seen {
        Seen { parent, ticks: own + of_children, of_children, rss: 0, peak_rss: 0 }
    }

    fn tree(all: &[(Id, Seen)]) -> Tree {
        Tree {
            root: ROOT,
            seen: all.iter().copied().collect(),
            lost: 0,
            told: 0,
            tick: 100,
            page: 4096,
            lists_children: true,
        }
    }

    fn family() -> Tree {
        tree(&[
            (ROOT, seen(None, 5, 2)),
            (CHILD, seen(Some(ROOT), 30, 0)),
            (GRANDCHILD, seen(Some(CHILD), 7, 0)),
        ])
    }

    #[test]
    fn what_an_ancestor_took_over_is_not_lost() {
        let now = [(ROOT, seen(None, 5, 2 + 30 + 7))].into();
        assert_eq!(family().not_taken_over(&now), 0);
    }

    #[test]
    fn what_nobody_waited_for_is_kept() {
        let ignored = [(ROOT, seen(None, 5, 2))].into();
        assert_eq!(family().not_taken_over(&ignored), 37);
        let orphan_went_elsewhere = [(ROOT, seen(None, 5, 2 + 30))].into();
        assert_eq!(family().not_taken_over(&orphan_went_elsewhere), 7);
        let of_nobody = tree(&[(ROOT, seen(None, 5, 2)), (CHILD, seen(None, 9, 0))]);
        assert_eq!(of_nobody.not_taken_over(&ignored), 9);
    }

    #[test]
    fn another_process_of_the_same_number_is_not_taken_for_it() {
        let me = std::process::id();
        let mut tree = Tree::of(me).unwrap();
        tree.root.1 += 1;
        assert!(tree.look().unwrap_err().contains("has ended"));
        assert!(Tree::of(u32::MAX).is_err());
    }

    #[test]
    fn both_ways_to_children_find_the_same() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut tree = Tree::of(std::process::id()).unwrap();
        let is_there = |tree: &mut Tree| {
            tree.look().unwrap();
            tree.seen.keys().any(|id| id.0 as u32 == child.id())
        };
        assert!(is_there(&mut tree));
        tree.seen.clear();
        tree.lists_children = false;
        assert!(is_there(&mut tree));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
