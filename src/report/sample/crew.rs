//! A made-up run over a plane: three workers, of which one is lost in the middle of a cell, sends late
//! frames and comes back; one that is sent away; and a plane that is away for a while.

use crate::{
    crew::{Crew, Event, Member, Offset, Part, What},
    judgement,
    micros::Micros,
    plan::{Cell, Plan, Share},
    record::{Beside, CellRecord, Host, RunRecord},
    snapshot::{Health, TargetView, Totals},
};

/// Lets a run of one scenario with four repetitions have been carried out over a plane.
pub(super) fn over_a_plane(mut run: RunRecord) -> RunRecord {
    let first = [("load-a", 2), ("load-b", 3), ("load-c", 4)];
    let left = [("load-a", 2), ("load-c", 4)];
    let anew = [("load-a", 6), ("load-b", 8), ("load-c", 7)];
    run.plan.settings.requeue = 1;
    let mut cells = std::mem::take(&mut run.cells).into_iter();
    let mut next = || cells.next().unwrap();
    let (warm_up, one, two, three, mut four) = (next(), next(), next(), next(), next());
    let (lost_at, cut_at) = (two.t0_unix + 4_000_000, three.t0_unix + three.duration.0 + 400_000);
    four.t0_unix += 6_000_000;
    let mut again = two.clone();
    (again.cell.index, again.cell.attempt) = (four.cell.index + 1, 2);
    again.t0_unix = four.t0_unix + four.duration.0 + 3_000_000;
    let end = again.t0_unix + again.duration.0;
    let plan = run.plan.clone();
    run.cells = vec![
        carried_out(warm_up, &plan, &first).without_totals(),
        carried_out(one, &plan, &first),
        lost(two, &plan, &first),
        carried_out(three, &plan, &left),
        carried_out(four, &plan, &anew),
        carried_out(again, &plan, &anew),
    ];
    run.finished = jiff::Timestamp::from_microsecond(end as i64).ok();
    run.command = "springtide manager --scenario S6 --users 10".into();
    run.label = "S6".into();

    let mut crew = Crew {
        plane: "rediss://plane.example:6380".into(),
        version: "7.2.4".into(),
        run_id: "9c".repeat(20),
        lease: Micros(5_000_000),
        expected: 3,
        events: Vec::new(),
    };
    let began = run.started.as_microsecond() as u64;
    let mut tell = |at, who: Option<(&str, u64)>, cell, what| {
        let who = who.map(|(name, epoch)| Member { name: name.into(), epoch });
        crew.take_down(Event { at, who, cell, what });
    };
    let joined = |number: usize| {
        let host = Host { name: format!("bench-{}", number + 2), cores: 8, ..run.host.clone() };
        What::Joined { host, build: run.build.clone() }
    };
    for (number, who) in first.into_iter().enumerate() {
        tell(began + 100_000 * number as u64, Some(who), None, joined(number));
    }
    let why = "another build: 77f0 (0.0.9 89abcde release) here, the manager's is 1c55; copy the manager's program to this host";
    tell(began + 900_000, Some(("load-d", 5)), None, What::Refused { why: why.into() });
    tell(lost_at, Some(("load-b", 3)), Some(2), What::Lost { why: "its lease ran out".into() });
    for n in 0..6 {
        tell(lost_at + 5_000_000 + n, Some(("load-b", 3)), None, What::LateFrames { frames: 1 });
    }
    tell(cut_at, None, None, What::Cut { why: "connection reset by peer".into() });
    tell(cut_at + 3_400_000, None, None, What::Back);
    for (n, at) in [(0, 3_500_000), (2, 3_600_000), (1, 4_100_000)] {
        tell(cut_at + at, Some(anew[n]), None, joined(n));
    }
    run.crew = Some(crew);
    judgement::close(&mut run);
    run
}

/// A plane of that name, and a worker that everything befell there for that reason.
pub(super) fn of_one(part: &Part, why: &str) -> Crew {
    let why = || why.to_owned();
    let all = [
        What::Refused { why: why() },
        What::Lost { why: why() },
        What::LateFrames { frames: 1 },
        What::Cut { why: why() },
        What::Short { why: why() },
    ];
    let events = all.map(|what| Event { at: 0, who: Some(part.member()), cell: Some(99), what });
    Crew { plane: why(), version: why(), run_id: why(), events: events.into(), ..Crew::default() }
}

/// The cell as these workers would have carried it out together.
fn carried_out(cell: CellRecord, plan: &Plan, members: &[(&str, u64)]) -> CellRecord {
    let CellRecord { cell, mut totals, t0_unix, .. } = cell;
    let parts = shared(&cell, &mut totals, members);
    CellRecord::close(cell, plan, totals, t0_unix, parts, None, Beside::default())
}

/// The same with the second of them lost while the jobs ran.
fn lost(cell: CellRecord, plan: &Plan, members: &[(&str, u64)]) -> CellRecord {
    let CellRecord { cell, mut totals, t0_unix, .. } = cell;
    let mut parts = shared(&cell, &mut totals, members);
    totals.jobs.clear();
    totals.target = TargetView::default();
    parts[1].lost = Some("its lease ran out".into());
    for part in &mut parts {
        (part.frames, part.start_late) = (4, None);
    }
    let why = format!("worker {} is lost: its lease ran out", parts[1].member());
    CellRecord::close(cell, plan, totals, t0_unix, parts, Some(why), Beside::default())
}

/// Divides a cell among workers. Their clocks are wrong, one by five seconds.
fn shared(cell: &Cell, totals: &mut Totals, members: &[(&str, u64)]) -> Vec<Part> {
    let all = std::mem::take(&mut totals.health);
    let mut parts = Vec::new();
    for (number, (name, epoch)) in (0..).zip(members) {
        let share = Share::of(cell, number, members.len() as u32);
        let its = |whole: Micros| Micros(whole.0 * u64::from(share.users) / u64::from(cell.users));
        let salt = u64::from(name.as_bytes()[5] - b'a');
        let mut health = Health {
            cpu: Micros(its(all.user_time).0 * (salt + 1) / 40),
            capacity: its(all.user_time),
            sockets: u64::from(share.users) + 1,
            user_time: its(all.user_time),
            in_flight: its(all.in_flight),
            waiting: its(all.waiting),
            checking: its(all.checking),
            ..Health::default()
        };
        for n in 0..u64::from(share.users) * 12 {
            health.lag.record(Micros(60 + (n * 37 + salt * 211 + u64::from(cell.index) * 5) % 900));
        }
        totals.health.merge(&health);
        let is_its = |user| (share.first_user..share.first_user + share.users).contains(&user);
        totals.jobs.iter_mut().filter(|(key, _)| is_its(key.user)).for_each(|(_, job)| job.worker = number);
        parts.push(Part {
            name: (*name).to_owned(),
            epoch: *epoch,
            users: share.users,
            frames: 9 + salt,
            repeated: u64::from(salt == 2),
            offset: [
                Offset { ahead: -4_999_100, error: Micros(310) },
                Offset { ahead: 1_500, error: Micros(180) },
                Offset { ahead: -220, error: Micros(950) },
            ][salt as usize],
            start_late: (share.users > 0).then_some(Micros(120 + 340 * salt + 13 * u64::from(cell.index))),
            health,
            ..Part::default()
        });
    }
    parts
}
