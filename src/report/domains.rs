//! What was sampled beside the load, one domain after the other: the place where its tables come
//! into every format. To add one, write its tables in a file of its own and name them in
//! [`Domain::ALL`]; a table is drawn as HTML and as Markdown alike.

use crate::report::{Paper, merge_tables, redis_tables, table::Table};

/// A kind of telemetry with a section of its own.
pub(crate) struct Domain {
    /// The anchor in the page.
    pub(crate) id: &'static str,
    /// The heading.
    pub(crate) title: &'static str,
    /// What must be given for there to be anything to show.
    needs: &'static str,
    /// Its tables; none when nothing was sampled.
    pub(crate) tables: fn(&Paper<'_>) -> Vec<Table>,
    /// Its pictures, as figures in HTML; empty when there is nothing to draw.
    pub(crate) pictures: fn(&Paper<'_>) -> String,
}

impl Domain {
    /// Every domain, in the order of the report. Each is a line of its own.
    pub(crate) const ALL: [Self; 2] = [
        Self {
            id: "redis",
            title: "Redis",
            needs: "--redis-url",
            tables: redis_tables::all,
            pictures: no_picture,
        },
        Self {
            id: "merge",
            title: "Merge",
            needs: "--watch-pid NAME=PID, or a [[probe]] in the matrix file",
            tables: merge_tables::all,
            pictures: no_picture,
        },
    ];

    /// What stands where its tables would.
    pub(crate) fn missing(&self) -> String {
        format!("Not sampled: give {}.", self.needs)
    }
}

fn no_picture(_: &Paper<'_>) -> String {
    String::new()
}
