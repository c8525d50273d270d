//! A worker: does its share of each cell that the manager commands, and reports.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{
    driver::{CellRun, Driver},
    plan::{Cell, Settings, Share},
    plane::{Command, Plane, PlaneError, Report},
    recorder::unix_micros,
    snapshot::{Frame, FrameBody, Totals},
};

/// Time between two frames.
const FRAME: Duration = Duration::from_secs(1);

/// How long users may take to come to an end when the run is over.
const LAST_GRACE: Duration = Duration::from_secs(5);

/// One worker of a run.
#[derive(Debug)]
pub struct Worker<P, D> {
    /// The way to the manager.
    pub plane: Arc<P>,
    /// What makes the load.
    pub driver: Arc<D>,
    /// Which worker, from 0.
    pub number: u32,
    /// Of which run; job titles carry it.
    pub run_id: String,
    /// How users behave.
    pub settings: Settings,
}

/// The cell a worker is at.
struct AtWork {
    run: Arc<CellRun>,
    seq: u64,
    sum: Totals,
    t0_unix: u64,
}

impl<P: Plane, D: Driver> Worker<P, D> {
    /// Serves until the manager says that there is no more to do.
    ///
    /// # Errors
    /// When the plane is lost.
    pub async fn serve(self) -> Result<(), PlaneError> {
        let mut index = 0;
        loop {
            let command = self.plane.next_command(index).await?;
            index += 1;
            match command {
                Command::Prepare { cell, workers } => self.carry_out(cell, workers, &mut index).await?,
                Command::End => return Ok(()),
                // Words about a cell that is over.
                Command::Start { .. } | Command::Settle { .. } | Command::Abort { .. } => {}
            }
        }
    }

    async fn carry_out(&self, cell: Cell, workers: u32, index: &mut u64) -> Result<(), PlaneError> {
        let (number, worker) = (cell.index, self.number);
        let share = Share::of(&cell, worker, workers);
        let stop = CancellationToken::new();
        let run = CellRun::new(share, self.settings.clone(), &self.run_id, stop, self.driver.threads());
        let mut at = AtWork { run: Arc::new(run), seq: 0, sum: Totals::default(), t0_unix: 0 };
        let run = Arc::clone(&at.run);
        let drive = {
            let (driver, run) = (Arc::clone(&self.driver), Arc::clone(&run));
            tokio::spawn(async move { driver.drive(run).await })
        };
        tokio::pin!(drive);
        let (mut said_ready, mut started, mut said_merging, mut said_through) = (false, false, false, false);
        // A worker without users is driven at once, but stands by until the others are through.
        let (mut driven, mut settling) = (false, false);
        let mut frames = tokio::time::interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(driven && (settling || run.stop.is_cancelled())) {
            tokio::select! {
                ended = &mut drive, if !driven => {
                    driven = true;
                    if ended.is_err() {
                        run.fail("the load broke down".into());
                    }
                }
                () = run.start.full(), if !said_ready => {
                    said_ready = true;
                    if run.failure().is_none() {
                        self.plane.report(Report::Ready { worker, cell: number }).await?;
                    }
                }
                () = run.merging.full(), if started && !said_merging => {
                    said_merging = true;
                    self.plane.report(Report::Merging { worker, cell: number }).await?;
                }
                () = run.settle.full(), if started && !said_through => {
                    said_through = true;
                    // With the last frame of the load, so that the manager's live counts are whole.
                    self.send_frame(&mut at).await?;
                    self.plane.report(Report::Through { worker, cell: number, t0_unix: at.t0_unix }).await?;
                }
                command = self.plane.next_command(*index) => {
                    *index += 1;
                    match command? {
                        Command::Start { cell, at: t0 } if cell == number => {
                            let now = Instant::now();
                            let ahead = Duration::from(t0.saturating_sub(self.plane.now()));
                            at.t0_unix = unix_micros() + ahead.as_micros() as u64;
                            run.recorders.iter().for_each(|r| r.start(now + ahead, at.t0_unix));
                            run.start.open(now + ahead);
                            started = true;
                        }
                        Command::Settle { cell } if cell == number => {
                            run.settle.open(Instant::now());
                            settling = true;
                        }
                        Command::Abort { cell } if cell == number => run.stop.cancel(),
                        Command::End => {
                            run.stop.cancel();
                            // It is for `serve` to read again.
                            *index -= 1;
                            // Users that do not come back in time are left to the end of the process.
                            let _ = tokio::time::timeout(LAST_GRACE, &mut drive).await;
                            break;
                        }
                        _ => {}
                    }
                }
                _ = frames.tick() => self.send_frame(&mut at).await?,
            }
        }
        if run.stop.is_cancelled() {
            let why = run.failure();
            return self.plane.report(Report::GaveUp { worker, cell: number, why }).await;
        }
        self.send_frame(&mut at).await?;
        at.seq += 1;
        let body = FrameBody::Final(Box::new(at.sum));
        self.plane.report(Report::Frame(Frame { cell: number, worker, epoch: 1, seq: at.seq, body })).await
    }

    /// Sends what is new, if anything is.
    async fn send_frame(&self, at: &mut AtWork) -> Result<(), PlaneError> {
        let mut delta = Totals::default();
        for recorder in &at.run.recorders {
            delta.merge(recorder.take());
        }
        if delta == Totals::default() {
            return Ok(());
        }
        at.sum.merge(delta.clone());
        at.seq += 1;
        let body = FrameBody::Delta(Box::new(delta));
        let frame = Frame { cell: at.run.share.cell.index, worker: self.number, epoch: 1, seq: at.seq, body };
        self.plane.report(Report::Frame(frame)).await
    }
}
