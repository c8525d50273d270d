//! The manager: carries out what the coordinator decides, and closes each cell into its record.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::MissedTickBehavior};

use super::{
    coordinator::{Action, Closed, Coordinator, Event},
    rig::{Evidence, Rig, Word},
};
use crate::{
    micros::Micros,
    plan::{Cell, CellKind, Plan},
    plane::{Plane, PlaneError},
    record::{Beside, CellRecord},
    snapshot::Totals,
};

/// How often deadlines are looked at and the progress is shown.
const TICK: Duration = Duration::from_millis(200);

/// Somebody who is told how the run goes.
pub trait Watcher {
    /// A cell begins.
    fn opened(&mut self, cell: &Cell);
    /// The cell goes on; `elapsed` counts from T0 and is `None` before it.
    /// `so_far` holds one stretch for each worker.
    fn progress(&mut self, cell: &Cell, so_far: &[&Totals], elapsed: Option<Micros>);
    /// A cell ended. Returns why the run cannot go on, such as a full disk.
    fn closed(&mut self, record: CellRecord) -> Result<(), String>;
}

/// Carries out the cells `todo` of a plan, which follow an interruption or not, on `workers` workers that listen on the plane, with a rig beside them if there
/// is one. `stop` holds the reason when somebody wants it to end. Returns why it ended before its
/// plan was done. However it ends, the rig's fault is taken away.
///
/// # Errors
/// When the plane is lost.
pub async fn manage<P: Plane>(
    plane: &Arc<P>,
    plan: &Plan,
    todo: (Vec<Cell>, bool),
    workers: u32,
    watcher: &mut impl Watcher,
    mut rig: Option<Rig>,
    stop: watch::Receiver<Option<String>>,
) -> Result<Option<String>, PlaneError> {
    let ended = carry_out(plane, plan, todo, workers, watcher, &mut rig, stop).await;
    if let Some(rig) = rig {
        rig.end().await;
    }
    ended
}

async fn carry_out<P: Plane>(
    plane: &Arc<P>,
    plan: &Plan,
    (todo, is_resumed): (Vec<Cell>, bool),
    workers: u32,
    watcher: &mut impl Watcher,
    rig: &mut Option<Rig>,
    mut stop: watch::Receiver<Option<String>>,
) -> Result<Option<String>, PlaneError> {
    let settings = plan.settings.clone();
    let mut coordinator = Coordinator::new(todo, settings, workers, rig.is_some());
    if is_resumed {
        coordinator.beware();
    }
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut index = 0;
    let mut running: Option<(Cell, Option<Micros>)> = None;
    let mut stopping = false;
    loop {
        let event = tokio::select! {
            biased;
            why = asked_to_stop(&mut stop), if !stopping => {
                stopping = true;
                Event::Stop(why)
            }
            report = plane.next_report(index) => {
                index += 1;
                Event::Report(Box::new(report?))
            }
            word = next_word(rig) => Event::Rig(word),
            _ = ticks.tick() => Event::Tick,
        };
        let show = matches!(event, Event::Tick);
        let mut actions: Vec<Action> = coordinator.on(event, plane.now());
        let mut done = 0;
        while let Some(action) = actions.get(done).cloned() {
            done += 1;
            match action {
                Action::Send(command) => plane.command(command).await?,
                Action::Rig(order) => {
                    if let Some(rig) = rig {
                        rig.tell(order, plane.now()).await;
                    }
                }
                Action::Opened(cell) => {
                    watcher.opened(&cell);
                    running = Some((cell, None));
                }
                Action::Started(at) => running = running.map(|(cell, _)| (cell, Some(at))),
                Action::Close(closed) => {
                    let record = record(*closed, plan);
                    if record.may_be_made_again(plan.settings.requeue) {
                        coordinator.again(&record.cell);
                    }
                    if let Err(why) = watcher.closed(record) {
                        actions.extend(coordinator.on(Event::Stop(why), plane.now()));
                    }
                }
                Action::Finish(why) => return Ok(why),
            }
        }
        if let (true, Some((cell, started))) = (show, &running) {
            let so_far: Vec<&Totals> = coordinator.so_far().collect();
            let elapsed = started.map(|at| plane.now().saturating_sub(at));
            watcher.progress(cell, &so_far, elapsed);
        }
    }
}

fn record(closed: Closed, plan: &Plan) -> CellRecord {
    let Closed { cell, totals, t0_unix, workers, missing, evidence } = closed;
    let Evidence { posts, injection, telemetry, busy } = evidence;
    let posts = posts.map(|book| book.close(&totals));
    let beside = Beside { posts, injection, telemetry, busy };
    let warm_up = cell.kind == CellKind::WarmUp;
    let record = CellRecord::close(cell, plan, totals, t0_unix, workers, missing, beside);
    if warm_up { record.without_totals() } else { record }
}

async fn next_word(rig: &mut Option<Rig>) -> Word {
    match rig {
        Some(rig) => rig.next_word().await,
        None => std::future::pending().await,
    }
}

async fn asked_to_stop(stop: &mut watch::Receiver<Option<String>>) -> String {
    match stop.wait_for(Option::is_some).await.map(|why| why.clone()) {
        Ok(Some(why)) => why,
        // Nobody is left who could ask.
        _ => std::future::pending().await,
    }
}
