//! A worker: does its share of each cell that the manager commands, and reports.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{
    crew::Member,
    driver::{CellRun, Driver},
    plan::{Cell, Settings, Share},
    plane::{
        Command, Plane, Report,
        worker_end::{Word, WorkerEnd},
    },
    snapshot::{Frame, FrameBody, Totals},
    verdict::START_WITHIN,
};

/// Time between two frames.
const FRAME: Duration = Duration::from_secs(1);
/// How often a worker says again what it waits with, lest the answer was lost.
const AGAIN: Duration = Duration::from_secs(5);

/// How long users may take to come to an end when the run is over.
const LAST_GRACE: Duration = Duration::from_secs(5);

/// What somebody wants a worker to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Take part in cell after cell.
    Serve,
    /// Finish the cell it is at, and take no more part.
    Drain,
    /// Give up the cell it is at, cancel its jobs, and take no more part.
    Stop,
}

/// Why a worker takes no more part in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served {
    /// The run is over.
    Ended,
    /// The manager did not take it.
    Refused(String),
    /// The run was lost to it.
    Lost(String),
    /// It was asked to go, and has finished what it was at.
    Drained,
    /// It was asked to stop.
    Stopped,
}

/// One worker of a run.
#[derive(Debug)]
pub struct Worker<P, D> {
    /// The way to the manager.
    pub end: WorkerEnd<P>,
    /// What makes the load.
    pub driver: Arc<D>,
    /// Of which run; job titles carry it.
    pub run_id: String,
    /// How users behave.
    pub settings: Settings,
    /// What somebody wants of it.
    pub ask: watch::Receiver<Ask>,
}

/// The cell a worker is at.
struct AtWork {
    run: Arc<CellRun>,
    /// How many share the cell.
    of: usize,
    seq: u64,
    sum: Totals,
    began: Began,
    said_ready: bool,
    said_merging: bool,
    said_through: bool,
    settling: bool,
}

/// Whether the users were let go.
#[derive(Debug, PartialEq, Eq)]
enum Began {
    NotYet,
    Yes,
    /// They were not, for this reason.
    Missed(String),
}

impl<P: Plane, D: Driver> Worker<P, D> {
    /// Serves until there is no more to do, or it can or should not go on.
    pub async fn serve(&mut self) -> Served {
        // A plane may say a thing twice, and no user is to be started twice.
        let mut done = BTreeSet::new();
        loop {
            let word = tokio::select! {
                biased;
                ask = asked(&mut self.ask, Ask::Serve) => {
                    self.end.report(Report::Leaving);
                    return if ask == Ask::Drain { Served::Drained } else { Served::Stopped };
                }
                word = self.end.next() => word,
            };
            match word {
                Word::Lost(why) => return Served::Lost(why),
                Word::Command(Command::Prepare { cell, members, tidy }) => {
                    let us = members.iter().position(|m| m == self.end.member());
                    if let Some(us) = us
                        && done.insert(cell.index)
                        && let Some(served) = self.carry_out(cell, us as u32, &members, tidy).await
                    {
                        return served;
                    }
                }
                Word::Command(Command::Refuse { member, why }) if member == *self.end.member() => {
                    return Served::Refused(why);
                }
                Word::Command(Command::End) => return Served::Ended,
                // Words to others, or about a cell that is over.
                Word::Command(_) => {}
            }
        }
    }

    /// Does its share of a cell. Returns why there is no more to do, if there is not.
    async fn carry_out(&mut self, cell: Cell, worker: u32, members: &[Member], tidy: bool) -> Option<Served> {
        let number = cell.index;
        let share = Share::of(&cell, worker, members.len() as u32);
        let stop = CancellationToken::new();
        let mut run = CellRun::new(share, self.settings.clone(), &self.run_id, stop, self.driver.threads());
        (run.permit, run.tidy) = (self.end.permit().clone(), tidy);
        let mut at = AtWork::new(Arc::new(run), members.len());
        let run = Arc::clone(&at.run);
        let drive = {
            let (driver, run) = (Arc::clone(&self.driver), Arc::clone(&run));
            tokio::spawn(async move { driver.drive(run).await })
        };
        tokio::pin!(drive);
        // A worker without users is driven at once, but stands by until the others are through.
        let (mut driven, mut ended) = (false, None);
        let (mut frames, mut again) = (every(FRAME), every(AGAIN));
        let (mut drain, mut drains) = (self.ask.clone(), false);
        while !(driven && (at.settling || run.stop.is_cancelled())) {
            tokio::select! {
                ended = &mut drive, if !driven => {
                    driven = true;
                    if ended.is_err() {
                        run.fail("the load broke down".into());
                    }
                }
                // Who stands by is ready when it has looked after what its account has left over.
                () = run.start.full(), if !at.said_ready && (driven || run.share.users > 0) => {
                    at.said_ready = true;
                    self.say_ready(&at);
                }
                () = run.merging.full(), if at.began == Began::Yes && !at.said_merging => {
                    at.said_merging = true;
                    self.end.report(Report::Merging { cell: number });
                }
                () = run.settle.full(), if at.began == Began::Yes && !at.said_through => {
                    at.said_through = true;
                    // With the last frame of the load, so that the manager's live counts are whole.
                    self.send_frame(&mut at);
                    self.say_through(&at);
                }
                ask = asked(&mut drain, Ask::Serve), if !drains => {
                    drains = true;
                    // Said now: when this cell is over the next one may be given out already.
                    if ask == Ask::Drain {
                        self.end.report(Report::Draining);
                    }
                }
                ask = asked(&mut self.ask, Ask::Drain), if ended.is_none() => {
                    debug_assert_eq!(ask, Ask::Stop);
                    self.end.report(Report::Leaving);
                    ended = Some(Served::Stopped);
                    run.stop.cancel();
                }
                word = self.end.next() => match word {
                    Word::Lost(why) => {
                        tracing::warn!("lost to the run: {why}; stopping the load");
                        ended = Some(Served::Lost(why));
                        run.stop.cancel();
                    }
                    Word::Command(Command::End) => {
                        ended = Some(Served::Ended);
                        run.stop.cancel();
                        // Users that do not come back in time are left to the end of the process.
                        if !driven {
                            let _ = tokio::time::timeout(LAST_GRACE, &mut drive).await;
                        }
                        break;
                    }
                    Word::Command(command) => self.obey(command, &mut at),
                },
                _ = frames.tick() => self.send_frame(&mut at),
                _ = again.tick() => match &at {
                    AtWork { said_ready: true, began: Began::NotYet, .. } => self.say_ready(&at),
                    AtWork { said_through: true, settling: false, .. } => self.say_through(&at),
                    _ => {}
                },
            }
        }
        self.send_frame(&mut at);
        if !run.stop.is_cancelled() {
            at.seq += 1;
            let body = FrameBody::Final(at.sum.fingerprint());
            self.end.report(Report::Frame(self.frame(&at, body)));
        } else if let Began::Missed(why) = at.began {
            self.end.report(Report::Missed { cell: number, why });
        } else if ended.is_none() && !self.end.permit().holds() {
            // The users saw before us that it ran out. It is not for us to say that the run is over.
            tracing::warn!("without a permit; the load has stopped");
        } else if ended.is_none() || ended == Some(Served::Ended) {
            self.end.report(Report::GaveUp { cell: number, why: run.failure() });
        }
        ended
    }

    fn obey(&self, command: Command, at: &mut AtWork) {
        let run = &at.run;
        let ours = run.share.cell.index;
        match command {
            Command::Start { cell, at: t0 } if cell == ours && at.began == Began::NotYet => {
                let late = self.end.clock().now().saturating_sub(t0);
                // Where nobody else was let go, nobody is behind.
                if late > START_WITHIN && at.of > 1 {
                    at.began = Began::Missed(format!("the start came {late} too late"));
                    run.stop.cancel();
                    return;
                }
                let moment = self.end.clock().instant_of(t0).unwrap_or_else(Instant::now);
                run.recorders.iter().for_each(|r| r.start(moment, t0.0));
                run.start.open(moment);
                at.began = Began::Yes;
            }
            Command::Settle { cell } if cell == ours => {
                run.settle.open(Instant::now());
                at.settling = true;
            }
            Command::Abort { cell } if cell == ours => run.stop.cancel(),
            _ => {}
        }
    }

    fn say_ready(&self, at: &AtWork) {
        if at.run.failure().is_none() {
            let (cell, offset) = (at.run.share.cell.index, self.end.offset());
            self.end.report(Report::Ready { cell, offset });
        }
    }

    fn say_through(&self, at: &AtWork) {
        let (cell, start_late) = (at.run.share.cell.index, at.run.start_late());
        self.end.report(Report::Through { cell, start_late });
    }

    fn frame(&self, at: &AtWork, body: FrameBody) -> Frame {
        let (cell, worker) = (at.run.share.cell.index, at.run.share.worker);
        Frame { cell, worker, epoch: self.end.member().epoch, seq: at.seq, body }
    }

    /// Sends what is new, if anything is.
    fn send_frame(&self, at: &mut AtWork) {
        let mut delta = Totals::default();
        for recorder in &at.run.recorders {
            delta.merge(recorder.take());
        }
        if delta == Totals::default() {
            return;
        }
        at.sum.merge(delta.clone());
        at.seq += 1;
        self.end.report(Report::Frame(self.frame(at, FrameBody::Delta(Box::new(delta)))));
    }
}

impl AtWork {
    fn new(run: Arc<CellRun>, of: usize) -> Self {
        Self {
            run,
            of,
            seq: 0,
            sum: Totals::default(),
            began: Began::NotYet,
            said_ready: false,
            said_merging: false,
            said_through: false,
            settling: false,
        }
    }
}

/// Waits until something other than `serving`, or than to serve, is asked for.
async fn asked(ask: &mut watch::Receiver<Ask>, serving: Ask) -> Ask {
    let asked = ask.wait_for(|ask| *ask != Ask::Serve && *ask != serving).await.map(|ask| *ask);
    match asked {
        Ok(ask) => ask,
        // Nobody is left who could ask.
        Err(_) => std::future::pending().await,
    }
}

fn every(time: Duration) -> Interval {
    let mut ticks = tokio::time::interval(time);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
