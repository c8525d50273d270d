//! Who does the harm: the tap itself, or a Toxiproxy.

use std::time::Duration;

use tokio::time::Instant;

use super::canaries::Canaries;
use crate::{
    fault::Fault,
    injection::{Injection, Injector, Proof},
    micros::Micros,
    plan::Cell,
    post::FaultOrder,
    tap::{Link, LinkError},
    toxiproxy::Toxiproxy,
};

/// The tap takes a fault away by itself when nobody has asked for it for so long.
const LEASE: Micros = Micros(5_000_000);

/// Who does the harm.
#[derive(Debug)]
pub enum Harm {
    /// The tap.
    Tap(Link),
    /// A Toxiproxy.
    Toxiproxy(Box<Toxiproxy>),
}

/// A fault that is in place, or will be within the cell.
#[derive(Debug)]
pub(super) struct InPlace {
    cell: Cell,
    /// What a Toxiproxy has to be told still: offsets from T0, and whether the fault is to be there.
    switches: Vec<(Micros, bool)>,
    /// Whether a Toxiproxy has the fault now.
    is_on: bool,
    /// T0 on the tap's clock, once the tap was told.
    t0: Option<Micros>,
}

impl InPlace {
    /// When the fault is to be put in or taken out next.
    pub(super) fn next_switch(&self, t0: Instant) -> Option<Instant> {
        self.switches.first().map(|(after, _)| t0 + Duration::from(*after))
    }
}

impl Harm {
    /// The canaries of a cell, which take the way that the fault lies on.
    pub(super) fn canaries(&self, cell: &Cell) -> Canaries {
        match self {
            Self::Tap(link) => Canaries::at_tap(link.url(), cell),
            Self::Toxiproxy(proxy) => Canaries::at_toxiproxy(proxy.listen(), cell),
        }
    }

    /// Puts the fault of a cell in place, as far as it is there before T0.
    pub(super) async fn put_in_place(&mut self, run: &str, cell: &Cell) -> Result<InPlace, String> {
        let (mut switches, mut is_on) = (Vec::new(), false);
        match self {
            Self::Tap(link) => {
                let order = FaultOrder {
                    run: run.to_owned(),
                    cell: cell.index,
                    seed: cell.seed,
                    fault: cell.fault.clone(),
                    lease: LEASE,
                };
                let status = link.set(&order).await.map_err(|e| e.to_string())?;
                if status.order.as_ref() != Some(&order) {
                    return Err(format!("the tap did not take the fault {} as it was ordered", cell.fault));
                }
            }
            Self::Toxiproxy(proxy) => {
                if cell.fault.is_active(None) {
                    proxy.inject(&cell.fault).await.map_err(|e| e.to_string())?;
                    is_on = true;
                } else {
                    let end = Micros(u64::MAX / 2);
                    let stretches = cell.fault.stretches(end).into_iter();
                    switches = stretches.flat_map(|(from, to)| [(from, true), (to, false)]).collect();
                }
            }
        }
        Ok(InPlace { cell: cell.clone(), switches, is_on, t0: None })
    }

    /// Makes sure that nobody else's fault is there: for a cell that is to have none.
    ///
    /// A fault of a run that has died ends by itself, so the tap is given the time for that.
    pub(super) async fn is_absent(&mut self) -> Result<(), String> {
        match self {
            Self::Tap(link) => {
                let deadline = Instant::now() + 2 * Duration::from(LEASE);
                loop {
                    let status = link.status().await.map_err(|e| e.to_string())?;
                    let Some(order) = status.order else { return Ok(()) };
                    if Instant::now() >= deadline {
                        return Err(format!(
                            "run {} has its fault {} in the tap; let it end first",
                            order.run, order.fault
                        ));
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
            Self::Toxiproxy(proxy) => proxy.verify(&Fault::none()).await.map_err(|e| e.to_string()),
        }
    }

    /// Says when T0 is.
    pub(super) async fn start(
        &mut self,
        run: &str,
        in_place: &mut InPlace,
        t0: Instant,
    ) -> Result<(), String> {
        if let Self::Tap(link) = self {
            let ahead = t0.saturating_duration_since(Instant::now());
            let status = link.start(run, in_place.cell.index, ahead).await.map_err(|e| e.to_string())?;
            in_place.t0 = status.t0;
        }
        Ok(())
    }

    /// Puts the fault in or takes it out, as the next switch says.
    pub(super) async fn switch(&mut self, in_place: &mut InPlace) -> Result<(), String> {
        let Self::Toxiproxy(proxy) = self else { return Ok(()) };
        let (_, on) = in_place.switches.remove(0);
        in_place.is_on = on;
        if on { proxy.inject(&in_place.cell.fault).await } else { proxy.clear().await }
            .map_err(|e| e.to_string())
    }

    /// Says that the run is alive and still wants its fault.
    pub(super) async fn renew(&mut self, run: &str, cell: &Cell) -> Result<(), String> {
        match self {
            Self::Tap(link) => match link.renew(run, cell.index).await {
                Ok(_) => Ok(()),
                // Whoever reads the tap knows when its silence is too long.
                Err(LinkError::Unreachable { .. }) => Ok(()),
                Err(e) => Err(format!("the fault is no longer in the tap: {e}")),
            },
            Self::Toxiproxy(_) => Ok(()),
        }
    }

    /// Takes the fault away at the end of its cell.
    pub(super) async fn lift(
        &mut self,
        run: &str,
        in_place: InPlace,
        t0: Instant,
    ) -> Result<Injection, String> {
        let fault = in_place.cell.fault;
        let proof = Proof::default();
        match self {
            Self::Tap(link) => {
                let status = link.clear(run).await.map_err(|e| e.to_string())?;
                if status.order.is_some() || status.active {
                    return Err("the tap was told to take the fault away and still has it".into());
                }
                if status.expired {
                    return Err("the lease of the fault ended within the cell".into());
                }
                let t0 = in_place.t0.ok_or("the tap does not know when the cell began")?;
                Ok(Injection {
                    cleared: status.now.saturating_sub(t0),
                    t0: Some(t0),
                    fates: Some(status.fates),
                    by: Injector::Tap,
                    deviations: Vec::new(),
                    fault,
                    proof,
                })
            }
            Self::Toxiproxy(proxy) => {
                let none = Fault::none();
                let wanted = if in_place.is_on { &fault } else { &none };
                let stood = proxy.verify(wanted).await.map_err(|e| e.to_string());
                proxy.clear().await.map_err(|e| e.to_string())?;
                stood.map_err(|e| format!("the fault was not as it was left: {e}"))?;
                Ok(Injection {
                    cleared: t0.elapsed().into(),
                    t0: None,
                    fates: None,
                    by: Injector::Toxiproxy,
                    deviations: Toxiproxy::deviations(&fault),
                    fault,
                    proof,
                })
            }
        }
    }

    /// Takes away whatever is there of this run; for the end and for accidents.
    pub(super) async fn clear(&mut self, run: &str) -> Result<(), String> {
        match self {
            Self::Tap(link) => link.clear(run).await.map(|_| ()).map_err(|e| {
                let seconds = LEASE.as_secs();
                format!(
                    "the fault could not be taken out of the tap ({e}); it ends by itself after {seconds} s"
                )
            }),
            Self::Toxiproxy(proxy) => proxy.clear().await.map_err(|e| e.to_string()),
        }
    }
}
