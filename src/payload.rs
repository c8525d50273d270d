//! What jobs and the target's workers send and fetch: how large, and how long the request took
//! that carried it.

use crate::{
    estimate::{Sample, Span},
    micros::Micros,
    posts::{Carried, CellPosts},
    route::Route,
    snapshot::Job,
    timeline::Stage,
};

/// Which payload of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadKind {
    /// The body of the submit.
    Submit,
    /// The answer with the results.
    Results,
    /// The body of a post of the target's workers, as the tap saw it.
    Post(Route),
}

impl PayloadKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Submit,
        Self::Results,
        Self::Post(Route::Tasks),
        Self::Post(Route::Jobs),
        Self::Post(Route::Results),
        Self::Post(Route::Logfiles),
    ];

    /// The name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Results => "results",
            Self::Post(Route::Tasks) => "post_tasks",
            Self::Post(Route::Jobs) => "post_jobs",
            Self::Post(Route::Results) => "post_results",
            Self::Post(Route::Logfiles) => "post_logfiles",
        }
    }

    /// The stage of a job that carries it; `None` for what is no stage of its own.
    pub fn stage(self) -> Option<Stage> {
        match self {
            Self::Submit => Some(Stage::Submit),
            Self::Results => Some(Stage::Fetch),
            Self::Post(_) => None,
        }
    }

    /// Those payloads among a cell's posts; none of those that jobs themselves have.
    pub fn of_posts(self, posts: &CellPosts) -> impl Iterator<Item = Payload> {
        let route = if let Self::Post(route) = self { posts.routes.get(&route) } else { None };
        let carried = route.map_or(&[][..], |r| r.payloads.as_slice());
        carried.iter().map(|&Carried(bytes, latency)| Payload { wire: bytes, decoded: bytes, latency })
    }

    /// That payload of a job; `None` when the job never had it, and for posts of workers.
    pub fn of(self, job: &Job) -> Option<Payload> {
        match self {
            // A submit's body is sent as it is, so both sizes are its own.
            Self::Submit => job.timeline.submit.map(|sent| Payload {
                wire: job.submit_bytes,
                decoded: job.submit_bytes,
                latency: sent.took(),
            }),
            Self::Results => job.results.as_ref().zip(job.timeline.fetch).map(|(results, fetch)| Payload {
                wire: results.wire_bytes,
                decoded: results.body_bytes,
                latency: fetch.took(),
            }),
            Self::Post(_) => None,
        }
    }
}

/// One payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    /// Bytes on the wire.
    pub wire: u64,
    /// Bytes of the body.
    pub decoded: u64,
    /// How long the request took that carried it.
    pub latency: Micros,
}

/// The sizes of all payloads of one kind, in bytes of the body.
#[derive(Debug, Clone)]
pub struct Sizes {
    /// Which payload.
    pub kind: PayloadKind,
    /// Pearson's correlation of size and latency, −1 to 1; `None` when one of them does not vary.
    pub correlation: Option<f64>,
    /// How long the posts took that carried them; `None` where a job's [stage](PayloadKind::stage)
    /// says it.
    pub latency: Option<Sample>,
    /// Rising.
    sizes: Vec<u64>,
}

impl Sizes {
    /// Sorts those of some jobs in.
    pub fn of(kind: PayloadKind, payloads: &[Payload]) -> Self {
        let mut sizes: Vec<u64> = payloads.iter().map(|p| p.decoded).collect();
        sizes.sort_unstable();
        let took = || Sample::new(payloads.iter().map(|p| Span::exact(p.latency)));
        let latency = kind.stage().is_none().then(took);
        Self { kind, correlation: correlation(payloads), latency, sizes }
    }

    /// How many payloads.
    pub fn count(&self) -> u64 {
        self.sizes.len() as u64
    }

    /// The smallest; zero when there are none.
    pub fn min(&self) -> u64 {
        self.sizes.first().copied().unwrap_or(0)
    }

    /// The largest; zero when there are none.
    pub fn max(&self) -> u64 {
        self.sizes.last().copied().unwrap_or(0)
    }

    /// The size at rank ⌈q·n⌉; zero when there are none.
    pub fn quantile(&self, q: f64) -> u64 {
        let n = self.sizes.len();
        let rank = ((q * n as f64).ceil() as usize).clamp(1, n.max(1)) - 1;
        self.sizes.get(rank).copied().unwrap_or(0)
    }
}

/// Pearson's r of size and latency, in two passes so that large sizes lose no digits.
fn correlation(payloads: &[Payload]) -> Option<f64> {
    let n = payloads.len() as f64;
    let mean = |of: fn(&Payload) -> f64| payloads.iter().map(of).sum::<f64>() / n;
    let (size, latency) = (
        (|p: &Payload| p.decoded as f64) as fn(&Payload) -> f64,
        (|p: &Payload| p.latency.0 as f64) as fn(&Payload) -> f64,
    );
    let (mx, my) = (mean(size), mean(latency));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for p in payloads {
        let (dx, dy) = (size(p) - mx, latency(p) - my);
        xx += dx * dx;
        yy += dy * dy;
        xy += dx * dy;
    }
    (payloads.len() > 2 && xx > 0.0 && yy > 0.0).then(|| xy / (xx * yy).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(decoded: u64, latency: u64) -> Payload {
        Payload { wire: decoded, decoded, latency: Micros(latency) }
    }

    #[test]
    fn correlation_is_one_on_a_line_and_unknown_without_spread() {
        let line: Vec<Payload> = (1..9).map(|i| payload(i * 10, i * 7 + 3)).collect();
        assert!((correlation(&line).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(correlation(&[payload(5, 1), payload(5, 2), payload(5, 3)]), None);
        assert_eq!(correlation(&[]), None);
    }

    #[test]
    fn quantiles_of_sizes_are_order_statistics() {
        let sizes =
            Sizes { kind: PayloadKind::Submit, correlation: None, latency: None, sizes: (1..=100).collect() };
        assert_eq!((sizes.min(), sizes.quantile(0.5), sizes.quantile(0.95), sizes.max()), (1, 50, 95, 100));
    }
}
