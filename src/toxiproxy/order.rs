//! What a fault is in Toxiproxy's terms, and what gets lost in the translation.

use serde_json::{Map, Value};

use super::{api::Toxic, error::ToxiproxyError};
use crate::{
    fault::{Distribution, Fault, FaultKind, Side},
    micros::Micros,
    route::Route,
};

/// Names of our toxics begin so.
pub(super) const OURS: &str = "springtide_";

/// A toxic that does nothing but say that it was us who disabled the proxy.
pub(super) const MARKER: &str = "springtide_disabled";

/// What is to be set.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Order {
    /// Nothing.
    Nothing,
    /// This toxic.
    Toxic(Toxic),
    /// The proxy takes no connections.
    Disabled,
}

/// Both directions have toxics of their own; ours are on the way of the requests.
fn toxic(name: &str, kind: &str, toxicity: f64, attributes: &[(&str, u64)]) -> Toxic {
    let attributes = attributes.iter().map(|(key, ms)| ((*key).to_owned(), Value::from(*ms)));
    Toxic {
        name: name.to_owned(),
        kind: kind.to_owned(),
        stream: "upstream".to_owned(),
        toxicity,
        attributes: Map::from_iter(attributes),
    }
}

/// The marker: a latency of nothing that hits no connection.
pub(super) fn marker() -> Toxic {
    toxic(MARKER, "latency", 0.0, &[("latency", 0), ("jitter", 0)])
}

/// Whether a toxic is ours.
pub(super) fn is_ours(toxic: &Toxic) -> bool {
    toxic.name.starts_with(OURS)
}

/// A fault in Toxiproxy's terms.
///
/// # Errors
/// [`ToxiproxyError::Unfit`] when it cannot be said in them.
pub(super) fn order(fault: &Fault) -> Result<Order, ToxiproxyError> {
    let unfit = |why| ToxiproxyError::Unfit { fault: fault.to_string(), why };
    let ms = |span: Micros| {
        let whole = span.0.is_multiple_of(1_000);
        if whole {
            Ok(span.0 / 1_000)
        } else {
            Err(unfit("it counts in whole milliseconds; round the figures"))
        }
    };
    Ok(match fault.kind {
        FaultKind::None => Order::Nothing,
        FaultKind::Latency { delay, jitter, distribution } => {
            if distribution != Distribution::Uniform && jitter > Micros::ZERO {
                return Err(unfit("its jitter is uniform; leave the distribution out, or use the tap"));
            }
            let figures = [("latency", ms(delay)?), ("jitter", ms(jitter)?)];
            Order::Toxic(toxic("springtide_latency", "latency", 1.0, &figures))
        }
        FaultKind::Drop { side: Side::After, .. } => {
            return Err(unfit("it loses requests, never answers alone; use the tap, or lose requests"));
        }
        FaultKind::Drop { ratio, .. } => {
            Order::Toxic(toxic("springtide_drop", "reset_peer", ratio.as_f64(), &[("timeout", 0)]))
        }
        FaultKind::Disconnect { .. } => Order::Disabled,
    })
}

/// What Toxiproxy does otherwise than ordered, one sentence each; empty for no fault.
pub(super) fn deviations(fault: &Fault) -> Vec<String> {
    let mut all = Vec::new();
    let mut say = |text: &str| all.push(text.to_owned());
    match fault.kind {
        FaultKind::None => return all,
        FaultKind::Latency { jitter, .. } => {
            if jitter > Micros::ZERO {
                say(
                    "Toxiproxy draws the jitter by itself, uniformly and in whole milliseconds: the seed does not repeat it.",
                );
                say(
                    "Toxiproxy draws the jitter for each piece of up to 32 kB of a request: a post of 1 MB waits for the longest of many, about delay plus jitter.",
                );
            }
        }
        FaultKind::Drop { side, .. } => {
            say(
                "Toxiproxy decides per connection, not per request: toxicity is a share of connections, and all requests of one meet the same end.",
            );
            say("Toxiproxy decides by itself: the seed does not repeat which connections are hit.");
            if side != Side::Before {
                say(
                    "Toxiproxy's reset_peer loses requests only: no answer gets lost after the target has done what was asked.",
                );
            }
            say(
                "While reset_peer is in place, Toxiproxy ends also the connections it spares with a reset, which cuts off long answers; those to worker posts are short.",
            );
        }
        FaultKind::Disconnect { .. } => {
            say(
                "Toxiproxy closes its port and every open connection: requests under way are cut, on whichever side they are, and new connections are refused.",
            );
        }
    }
    if !Route::ALL.iter().all(|route| fault.routes.contains(route)) {
        let routes: Vec<&str> = fault.routes.iter().map(|route| route.path()).collect();
        let ordered = routes.join(" ");
        say(&format!(
            "Toxiproxy knows no routes: all connections of the proxy are hit, not only those with posts to {ordered}."
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::{Order, deviations, marker, order};
    use crate::{
        fault::{Distribution, Fault, FaultKind, FaultMode, Ratio, Side},
        micros::Micros,
        route::Route,
    };

    fn latency(us: u64, jitter: u64, distribution: Distribution) -> Fault {
        let (delay, jitter) = (Micros(us), Micros(jitter));
        Fault::whole_cell(FaultKind::Latency { delay, jitter, distribution })
    }

    fn drop(side: Side) -> Fault {
        Fault::whole_cell(FaultKind::Drop { ratio: Ratio::percent(2), side })
    }

    #[test]
    fn faults_become_toxics() {
        let json_of = |fault: &Fault| match order(fault).unwrap() {
            Order::Toxic(toxic) => json!(toxic),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            json_of(&latency(250_000, 10_000, Distribution::Uniform)),
            json!({"name": "springtide_latency", "type": "latency", "stream": "upstream", "toxicity": 1.0,
                "attributes": {"latency": 250, "jitter": 10}})
        );
        assert_eq!(
            json_of(&drop(Side::Either)),
            json!({"name": "springtide_drop", "type": "reset_peer", "stream": "upstream", "toxicity": 0.02,
                "attributes": {"timeout": 0}})
        );
        assert_eq!(json!(marker())["toxicity"], 0.0);
    }

    #[test]
    fn the_runbooks_faults_can_be_done() {
        for mode in [FaultMode::None, FaultMode::Latency, FaultMode::Drop, FaultMode::Disconnect] {
            for fault in Fault::default_levels(mode) {
                order(&fault).unwrap();
                assert_eq!(deviations(&fault).is_empty(), fault.is_none(), "{fault}");
            }
        }
    }

    #[rstest]
    #[case(latency(250_000, 1_000, Distribution::Normal), "uniform")]
    #[case(latency(250_000, 1_000, Distribution::Exponential), "uniform")]
    #[case(latency(250_500, 0, Distribution::Uniform), "milliseconds")]
    #[case(latency(250_000, 500, Distribution::Uniform), "milliseconds")]
    #[case(drop(Side::After), "never answers")]
    fn what_it_cannot_do_is_said(#[case] fault: Fault, #[case] says: &str) {
        let said = order(&fault).unwrap_err().to_string();
        assert!(said.contains(says) && said.contains(&fault.to_string()), "{said}");
    }

    #[test]
    fn deviations_are_those_of_the_fault() {
        let said = |fault: &Fault| deviations(fault).join("\n");
        assert!(said(&drop(Side::Either)).contains("loses requests only"));
        assert!(!said(&drop(Side::Before)).contains("loses requests only"));
        assert!(said(&drop(Side::Before)).contains("posts to /tasks /results"));
        let everywhere = Fault { routes: Route::ALL.into(), ..latency(1_000, 0, Distribution::Uniform) };
        assert_eq!(deviations(&everywhere), Vec::<String>::new());
        assert!(said(&latency(1_000, 1_000, Distribution::Uniform)).contains("jitter"));
    }
}
