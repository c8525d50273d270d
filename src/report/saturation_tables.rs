//! The tables on what goes together with the load of Redis, and where that leaves its trend.

use crate::{
    micros::Micros,
    report::{
        figure::NONE,
        redis_tables::{count, said},
        table::{Table, name, num},
    },
    saturation::{Correlation, FAR, Inflection, LEAST_CELLS, LEAST_LOADS, Saturation},
};

/// Each figure, and the first scenario that leaves its trend.
pub(super) fn inflections(saturation: &Saturation) -> Table {
    let mut t = Table::new(
        "Redis and stages: the first scenario that leaves the trend of the smaller loads",
        &["figure", "leaves it at", "tasks in flight", "seen", "expected", "by"],
    );
    let mut push = |what: String, found: &Inflection, say: &dyn Fn(f64) -> String| match found {
        Inflection::At { point, expected, half_width } => {
            let by = match half_width {
                Some(w) => format!("outside ± {}", say(*w)),
                None => format!("further off than {:.0} %", FAR * 100.0),
            };
            t.row(vec![
                what.into(),
                name(&point.name),
                num(count(point.load)),
                num(say(point.value())),
                num(say(*expected)),
                by.into(),
            ]);
        }
        Inflection::Nowhere { tried } => {
            let said = format!("none of {tried} that could be held against it");
            t.row(vec![what.into(), said.into(), num(NONE), num(NONE), num(NONE), NONE.into()]);
        }
        Inflection::Unknown { smaller } => {
            let said = format!(
                "not determinable (needs {LEAST_LOADS} different smaller loads with a trend, has {smaller})"
            );
            t.row(vec![what.into(), said.into(), num(NONE), num(NONE), num(NONE), NONE.into()]);
        }
    };
    for (cost, found) in &saturation.costs {
        push(cost.name().into(), found, &|v| said(*cost, Some(v)));
    }
    for (stage, found) in &saturation.stages {
        push(format!("{stage}, median"), found, &|v| time(v));
    }
    t.note("Scenarios without a fault in the order of tasks in flight (jobs × tasks); medians over cells. Expected: the straight line through the cells of all smaller loads, over the tasks in flight for what all jobs cost together and for end to end, over the tasks of each job for what a job costs and for its stages. Out is what lies outside its 95 % prediction interval and 10 % off at least; with fewer than five such cells, what is off by more than half. Each figure and step has its own 5 %. Two loads of one size may differ in kind: one job of 32 tasks is not four of eight.");
    t
}

fn time(us: f64) -> String {
    let sign = if us < 0.0 { "−" } else { "" };
    format!("{sign}{}", Micros(us.abs().round() as u64))
}

/// Each stage with each figure of Redis.
pub(super) fn correlations(saturation: &Saturation) -> Table {
    let mut t = Table::new(
        "Redis and stages: what goes together",
        &[
            "stage, median of the cell",
            "figure of Redis",
            "n",
            "Spearman ρ",
            "Pearson r",
            "r within scenarios",
        ],
    );
    let coefficient =
        |r: Option<f64>| num(r.map_or_else(|| NONE.into(), |r| format!("{r:+.2}").replace('-', "−")));
    let is_told = |c: &&Correlation| c.cells > 0;
    for c in saturation.correlations.iter().filter(is_told) {
        t.row(vec![
            c.stage.as_str().into(),
            c.cost.name().into(),
            num(c.cells),
            coefficient(c.spearman),
            coefficient(c.pearson),
            coefficient(c.within),
        ]);
    }
    t.note(format!("A point is a fault-free cell that counts, of all scenarios; no coefficient with fewer than {LEAST_CELLS}. Both sides grow with the load, so that ρ and r over all scenarios say little more than that; r within scenarios takes the mean of its scenario off each cell first. Neither says that one causes the other."));
    t
}
