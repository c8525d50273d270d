//! The posts of late, in the order in which they ended, for readers that come by now and then.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    micros::Micros,
    post::{Batch, Post},
};

/// The most posts in one batch.
pub(super) const BATCH: usize = 5_000;

/// The most posts under way that a batch names.
const UNDER_WAY: usize = 1_000;

/// A bounded log: the oldest posts give way to new ones, and their numbers never come again.
#[derive(Debug)]
pub(super) struct Log {
    capacity: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    posts: VecDeque<Post>,
    /// The number of the next one.
    next: u64,
    in_flight: u64,
    /// How many of those, canaries aside, came at which moment.
    under_way: BTreeMap<Micros, u32>,
}

impl Log {
    /// An empty log of at most that many posts.
    pub(super) fn new(capacity: usize) -> Self {
        let kept = Kept { posts: VecDeque::new(), next: 1, in_flight: 0, under_way: BTreeMap::new() };
        Self { capacity: capacity.max(1), kept: Mutex::new(kept) }
    }

    /// A post is under way whose head was read then.
    pub(super) fn begin(&self, received: Micros, is_canary: bool) {
        let mut kept = self.kept();
        kept.in_flight += 1;
        if !is_canary {
            *kept.under_way.entry(received).or_default() += 1;
        }
    }

    /// A post that began has ended; it gets its number here.
    pub(super) fn end(&self, mut post: Post) {
        let mut kept = self.kept();
        post.seq = kept.next;
        kept.next += 1;
        // In one step with the push: who sees none under way sees all that were.
        kept.in_flight = kept.in_flight.saturating_sub(1);
        if post.canary.is_none()
            && let Entry::Occupied(mut left) = kept.under_way.entry(post.received)
        {
            *left.get_mut() -= 1;
            if *left.get() == 0 {
                left.remove();
            }
        }
        if kept.posts.len() == self.capacity {
            kept.posts.pop_front();
        }
        kept.posts.push_back(post);
    }

    /// The number that the next post will have.
    pub(super) fn next(&self) -> u64 {
        self.kept().next
    }

    /// A copy of the posts from that number on, no more than fit in a batch.
    pub(super) fn since(&self, from: u64, boot: String, now: Micros) -> Batch {
        let kept = self.kept();
        let oldest = kept.next - kept.posts.len() as u64;
        let from = from.clamp(1, kept.next);
        let lost = oldest.saturating_sub(from);
        let skip = usize::try_from(from.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let posts: Vec<Post> = kept.posts.range(skip.min(kept.posts.len())..).take(BATCH).cloned().collect();
        let next = from.max(oldest) + posts.len() as u64;
        let each = |(at, count): (&Micros, &u32)| std::iter::repeat_n(*at, *count as usize);
        let under_way = kept.under_way.iter().flat_map(each).take(UNDER_WAY).collect();
        let more = next < kept.next;
        Batch { boot, now, lost, posts, next, more, in_flight: kept.in_flight, under_way }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;
    use crate::{fault::Fate, post::Ending, route::Route};

    fn post() -> Post {
        Post {
            seq: 0,
            route: Route::Tasks,
            canary: None,
            simulation: None,
            task: None,
            state: None,
            bytes: 0,
            hash: None,
            received: Micros(0),
            forwarded: None,
            first_byte: None,
            last_byte: None,
            ended: Micros(0),
            status: None,
            answer_bytes: 0,
            replayed: false,
            fate: Fate::Pass,
            ending: Ending::NoAnswer,
        }
    }

    fn read(log: &Log, from: u64) -> Batch {
        log.since(from, "b".into(), Micros(0))
    }

    #[test]
    fn posts_under_way_are_known_until_they_can_be_read() {
        let log = Log::new(10);
        log.begin(Micros(0), false);
        log.begin(Micros(5), false);
        log.end(post());
        let batch = read(&log, 0);
        assert_eq!((batch.posts.len(), batch.in_flight, batch.next), (1, 1, 2));
        assert_eq!(batch.under_way, [Micros(5)]);
    }

    #[test]
    fn the_oldest_posts_under_way_are_told_first_and_canaries_never() {
        let log = Log::new(10);
        for received in [7, 3, 3] {
            log.begin(Micros(received), false);
        }
        log.begin(Micros(1), true);
        let batch = read(&log, 0);
        assert_eq!((batch.in_flight, batch.under_way), (4, vec![Micros(3), Micros(3), Micros(7)]));
        log.end(Post { canary: Some(1), received: Micros(3), ..post() });
        log.end(Post { received: Micros(3), ..post() });
        let batch = read(&log, 0);
        assert_eq!((batch.in_flight, batch.under_way), (2, vec![Micros(3), Micros(7)]));
        for _ in 0..2_000 {
            log.begin(Micros(5), false);
        }
        let batch = read(&log, 0);
        assert_eq!((batch.in_flight, batch.under_way.len(), batch.under_way[0]), (2_002, 1_000, Micros(3)));
    }

    #[test]
    fn a_number_that_is_not_there_yet_yields_nothing() {
        let log = Log::new(10);
        let batch = read(&log, 99);
        assert_eq!((batch.posts.len(), batch.lost, batch.next, batch.more), (0, 0, 1, false));
    }

    proptest! {
        #[test]
        fn whoever_follows_next_gets_each_post_once_or_is_told_of_its_loss(
            steps in proptest::collection::vec(0usize..9_000, 1..6), capacity in 1usize..12_000
        ) {
            let log = Log::new(capacity);
            let (mut from, mut got, mut lost, mut pushed) = (0, 0, 0, 0u64);
            for step in steps {
                for _ in 0..step {
                    log.end(post());
                }
                pushed += step as u64;
                loop {
                    let batch = read(&log, from);
                    for (i, post) in batch.posts.iter().enumerate() {
                        prop_assert_eq!(post.seq, from.max(1) + batch.lost + i as u64);
                    }
                    got += batch.posts.len() as u64;
                    lost += batch.lost;
                    from = batch.next;
                    if !batch.more {
                        break;
                    }
                }
                prop_assert_eq!(got + lost, pushed);
                prop_assert_eq!(from, log.next());
            }
        }
    }
}
