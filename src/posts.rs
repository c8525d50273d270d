//! The posts of the target's workers in one cell, added up: what the tap saw.
//!
//! A [`Book`] takes posts in one by one and keeps what the figures need, not the posts. Its
//! moments count from the first post's clock, the tap's, and never meet the client's clock.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{post::Post, route::Route};

/// What the tap saw in one cell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellPosts {
    /// Posts by route; canaries are not among them.
    pub routes: BTreeMap<Route, RoutePosts>,
    /// Simulations by the id that workers know, those of earlier cells left out.
    pub simulations: BTreeMap<u64, Simulation>,
    /// Posts that the tap could not keep until they were read.
    pub unread: u64,
    /// Why this record is not whole, one sentence each.
    pub troubles: Vec<String>,
}

/// The posts to one route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutePosts {
    /// Those that began.
    pub attempted: u64,
}

/// One simulation, as its workers' posts tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Simulation {}

/// Adds the posts of one cell up.
#[derive(Debug, Default)]
pub struct Book {
    earlier: BTreeSet<u64>,
    posts: CellPosts,
}

impl Book {
    /// An empty book; `earlier` are the simulations of cells before, whose late posts are no
    /// business of this one.
    pub fn new(earlier: BTreeSet<u64>) -> Self {
        Self { earlier, posts: CellPosts::default() }
    }

    /// Takes a post in. Posts come in the order of their numbers.
    pub fn add(&mut self, post: &Post) {
        if post.canary.is_none() && post.simulation.is_none_or(|s| !self.earlier.contains(&s)) {
            self.posts.routes.entry(post.route).or_default().attempted += 1;
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
        self.earlier.iter().chain(self.posts.simulations.keys()).copied().collect()
    }

    /// Everything added up.
    pub fn close(self) -> CellPosts {
        self.posts
    }
}
