//! The manager: carries out what the coordinator decides, and closes each cell into its record.

use std::time::Duration;

use tokio::{sync::watch, time::MissedTickBehavior};

use super::{
    coordinator::{Action, Closed, Coordinator, Event, Task},
    members::Wanted,
    rig::{Evidence, Rig, Word},
};
use crate::{
    crew,
    micros::Micros,
    plan::{Cell, CellKind, Plan},
    plane::{
        Command, Plane,
        manager_end::{ManagerEnd, News},
    },
    record::{Beside, CellRecord},
    snapshot::Totals,
};

/// How often deadlines are looked at and the progress is shown.
const TICK: Duration = Duration::from_millis(200);

/// Somebody who is told how the run goes.
pub trait Watcher {
    /// A cell begins, with so many workers there.
    fn opened(&mut self, cell: &Cell, workers: usize);
    /// The cell goes on; `elapsed` counts from T0 and is `None` before it.
    /// `so_far` holds one stretch for each worker.
    fn progress(&mut self, cell: &Cell, so_far: &[&Totals], elapsed: Option<Micros>);
    /// A cell ended. Returns why the run cannot go on, such as a full disk.
    fn closed(&mut self, record: CellRecord) -> Result<(), String>;
    /// Something befell a worker or the plane.
    fn told(&mut self, event: crew::Event);
}

/// Carries out the cells `todo` of a plan, which follow an interruption or not, with the workers that
/// come and are wanted, with a rig beside them if there is one. `stop` holds the reason when somebody
/// wants it to end. Returns why it ended before its plan was done. However it ends, the rig's fault is
/// taken away, and the run closed on the plane.
pub async fn manage<P: Plane>(
    mut end: ManagerEnd<P>,
    plan: &Plan,
    todo: (Vec<Cell>, bool),
    wanted: Wanted,
    watcher: &mut impl Watcher,
    mut rig: Option<Rig>,
    stop: watch::Receiver<Option<String>>,
) -> Option<String> {
    let (cells, is_resumed) = todo;
    let watched = rig.as_ref().is_some_and(Rig::sees_idleness);
    let (settings, lead, rigged) = (plan.settings.clone(), end.lead(), rig.is_some());
    let task = Task { cells, settings, wanted, lead, rigged, watched };
    let mut coordinator = Coordinator::new(task, end.now());
    if is_resumed {
        coordinator.beware();
    }
    let ended = carry_out(&mut end, plan, coordinator, watcher, &mut rig, stop).await;
    end.close().await;
    if let Some(rig) = rig {
        rig.end().await;
    }
    ended
}

async fn carry_out<P: Plane>(
    end: &mut ManagerEnd<P>,
    plan: &Plan,
    mut coordinator: Coordinator,
    watcher: &mut impl Watcher,
    rig: &mut Option<Rig>,
    mut stop: watch::Receiver<Option<String>>,
) -> Option<String> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut running: Option<(Cell, Option<Micros>)> = None;
    let mut stopping = false;
    loop {
        let event = tokio::select! {
            biased;
            why = asked_to_stop(&mut stop), if !stopping => {
                stopping = true;
                Event::Stop(why)
            }
            word = next_word(rig) => Event::Rig(word),
            _ = ticks.tick() => Event::Tick,
            news = end.next() => match news {
                News::Sent(sent) => Event::Sent(sent),
                News::Holders(holders) => Event::Holders(holders),
                News::Cut(why) => Event::Cut(why),
                News::Back => Event::Back,
                News::Over(why) => Event::Over(why),
            },
        };
        let show = matches!(event, Event::Tick);
        let mut actions: Vec<Action> = coordinator.on(event, end.now());
        let mut done = 0;
        while let Some(action) = actions.get(done).cloned() {
            done += 1;
            match action {
                Action::Send(command) => {
                    let is_last = command == Command::End;
                    if let Err(error) = end.command(command).await
                        && !is_last
                    {
                        // Who is not told goes by the lease.
                        end.let_go().await;
                        // All else is done as it was decided: there may be the end of the run in it.
                        let rest = actions.split_off(done);
                        actions.extend(rest.into_iter().filter(|a| !matches!(a, Action::Send(_))));
                        actions.extend(coordinator.on(Event::Cut(error.to_string()), end.now()));
                    }
                }
                Action::Rig(order) => {
                    if let Some(rig) = rig {
                        rig.tell(order, end.now()).await;
                    }
                }
                Action::Opened(cell) => {
                    watcher.opened(&cell, coordinator.present().count());
                    running = Some((cell, None));
                }
                Action::Started(at) => running = running.map(|(cell, _)| (cell, Some(at))),
                Action::Close(closed) => {
                    let record = record(*closed, plan);
                    if record.may_be_made_again(plan.settings.requeue) {
                        coordinator.again(&record.cell, record.has_begun());
                    }
                    if let Err(why) = watcher.closed(record) {
                        actions.extend(coordinator.on(Event::Stop(why), end.now()));
                    }
                    running = None;
                }
                Action::Told(event) => watcher.told(event),
                Action::Finish(why) => return why,
            }
        }
        if let (true, Some((cell, started))) = (show, &running) {
            let so_far: Vec<&Totals> = coordinator.so_far().collect();
            let elapsed = started.map(|at| end.now().saturating_sub(at));
            watcher.progress(cell, &so_far, elapsed);
        }
    }
}

fn record(closed: Closed, plan: &Plan) -> CellRecord {
    let Closed { cell, totals, t0_unix, workers, missing, evidence, unwatched } = closed;
    let Evidence { posts, injection, telemetry, busy } = evidence;
    let posts = posts.map(|book| book.close(&totals));
    let beside = Beside { posts, injection, telemetry, busy, unwatched };
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
