//! A table with its caption, drawn once as HTML, Markdown and plain text: the three cannot
//! disagree.

use std::fmt::Write as _;

use crate::verdict::Verdict;

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Words.
    Text(String),
    /// A figure with its unit, set to the right.
    Number(String),
    /// A few words that stay on one line.
    Name(String),
    /// What a machine said, kept as it is.
    Code(String),
    /// A judgement.
    Verdict(Verdict),
    /// Another one, in its own words; good, bad, or neither.
    State(&'static str, Option<bool>),
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Self::Text(s) | Self::Number(s) | Self::Name(s) | Self::Code(s) => s.clone(),
            Self::Verdict(v) => v.to_string(),
            Self::State(words, _) => (*words).to_owned(),
        }
    }

    fn html(&self) -> String {
        match self {
            Self::Text(s) | Self::Number(s) => escape(s),
            Self::Name(s) => format!("<span class=\"short\">{}</span>", escape(s)),
            // A short name stays on one line, whatever the table is squeezed to.
            Self::Code(s) if s.chars().count() <= 28 => {
                format!("<code class=\"short\">{}</code>", escape(s))
            }
            Self::Code(s) => format!("<code>{}</code>", escape(s)),
            Self::Verdict(v) => badge(*v),
            Self::State(words, good) => {
                let class = match good {
                    Some(true) => " pass",
                    Some(false) => " fail",
                    None => "",
                };
                format!("<span class=\"badge{class}\">{}</span>", escape(words))
            }
        }
    }

    fn markdown(&self) -> String {
        match self {
            Self::Text(s) | Self::Number(s) | Self::Name(s) => escape_markdown(s),
            Self::Code(s) if s.contains('`') => escape_markdown(s),
            Self::Code(s) => format!("`{}`", one_line(s).replace('|', "\\|")),
            Self::Verdict(v) => format!("**{v}**"),
            Self::State(words, _) => format!("**{words}**"),
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<Verdict> for Cell {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

/// A figure.
pub(crate) fn num(n: impl ToString) -> Cell {
    Cell::Number(n.to_string())
}

/// A few words that stay on one line.
pub(crate) fn name(words: impl ToString) -> Cell {
    Cell::Name(words.to_string())
}

/// What a machine said.
pub(crate) fn code(text: impl Into<String>) -> Cell {
    Cell::Code(text.into())
}

/// Rows under named columns.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    caption: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    notes: Vec<String>,
}

impl Table {
    /// An empty one.
    pub(crate) fn new(caption: impl Into<String>, columns: &[&'static str]) -> Self {
        Self { caption: caption.into(), columns: columns.to_vec(), rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a row; it has as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "{}", self.caption);
        self.rows.push(cells);
    }

    /// Adds a sentence at its foot.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Whether it has no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Drops a column, for a narrower picture of the same figures.
    pub(crate) fn without(mut self, column: &str) -> Self {
        if let Some(at) = self.columns.iter().position(|c| *c == column) {
            self.columns.remove(at);
            for row in &mut self.rows {
                row.remove(at);
            }
        }
        self
    }

    /// Puts a column of one value in front.
    pub(crate) fn with_first(mut self, column: &'static str, value: Cell) -> Self {
        self.columns.insert(0, column);
        for row in &mut self.rows {
            row.insert(0, value.clone());
        }
        self
    }

    /// Adds the rows of a table with the same columns.
    pub(crate) fn and(mut self, other: Self) -> Self {
        debug_assert_eq!(self.columns, other.columns);
        self.rows.extend(other.rows);
        self
    }

    fn is_numeric(&self, column: usize) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|r| matches!(r[column], Cell::Number(_)))
    }

    /// As HTML, in a box of its own that scrolls when the page is narrower.
    pub(crate) fn html(&self) -> String {
        let mut out = String::new();
        let caption = escape(&self.caption);
        let _ = write!(
            out,
            "<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\"><table><caption>{caption}</caption><thead><tr>"
        );
        for (i, column) in self.columns.iter().enumerate() {
            let class = if self.is_numeric(i) { " class=\"n\"" } else { "" };
            let _ = write!(out, "<th scope=\"col\"{class}>{}</th>", escape(column));
        }
        out.push_str("</tr></thead><tbody>");
        for row in &self.rows {
            out.push_str("<tr>");
            for (i, cell) in row.iter().enumerate() {
                match cell {
                    _ if i == 0 => {
                        let _ = write!(out, "<th scope=\"row\">{}</th>", cell.html());
                    }
                    // Sentences keep a width they can be read at.
                    Cell::Text(words) if words.chars().count() > 32 => {
                        let _ = write!(out, "<td class=\"w\">{}</td>", cell.html());
                    }
                    Cell::Number(_) => {
                        let _ = write!(out, "<td class=\"n\">{}</td>", cell.html());
                    }
                    _ => {
                        let _ = write!(out, "<td>{}</td>", cell.html());
                    }
                }
            }
            out.push_str("</tr>");
        }
        if self.rows.is_empty() {
            let _ = write!(out, "<tr><td colspan=\"{}\">none</td></tr>", self.columns.len());
        }
        out.push_str("</tbody></table></div>\n");
        for note in &self.notes {
            let _ = writeln!(out, "<p class=\"note\">{}</p>", escape(note));
        }
        out
    }

    /// As Markdown, the caption as a line above.
    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("{}:\n\n", escape_markdown(&self.caption));
        if self.rows.is_empty() {
            out.push_str("none\n\n");
            return out;
        }
        let _ = writeln!(out, "| {} |", self.columns.join(" | "));
        let rules: Vec<&str> =
            (0..self.columns.len()).map(|i| if self.is_numeric(i) { "---:" } else { "---" }).collect();
        let _ = writeln!(out, "| {} |", rules.join(" | "));
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(Cell::markdown).collect();
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
        out.push('\n');
        for note in &self.notes {
            let _ = writeln!(out, "{}\n", escape_markdown(note));
        }
        out
    }

    /// As plain text, columns in line; without caption and notes.
    pub(crate) fn text(&self) -> String {
        let cells: Vec<Vec<String>> =
            self.rows.iter().map(|r| r.iter().map(|c| one_line(&c.text())).collect()).collect();
        let width = |i: usize| {
            let heads = std::iter::once(self.columns[i].chars().count());
            heads.chain(cells.iter().map(|r| r[i].chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut out = String::new();
        let heads: Vec<String> = self.columns.iter().map(|c| (*c).to_owned()).collect();
        for row in std::iter::once(&heads).chain(&cells) {
            let mut line = String::new();
            for (i, cell) in row.iter().enumerate() {
                let w = widths[i];
                let _ = if self.is_numeric(i) {
                    write!(line, "  {cell:>w$}")
                } else {
                    write!(line, "  {cell:<w$}")
                };
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A verdict in colour and in words.
pub(crate) fn badge(verdict: Verdict) -> String {
    let class = match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Invalid => "invalid",
    };
    format!("<span class=\"badge {class}\">{verdict}</span>")
}

/// Text as it may stand in HTML, attribute values included.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters are not allowed in HTML, and move the cursor of a terminal.
            c if c.is_control() && c != '\n' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Text as it may stand in a Markdown table: one line, no markup.
pub(crate) fn escape_markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in one_line(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '|' | '`' | '[' | ']' | '*' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// Text on one line, without control characters.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut t = Table::new("Jobs <now>", &["id", "p50", "verdict"]);
        t.row(vec![code("a|b<c>"), num("4.56 s"), Verdict::Fail.into()]);
        t
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let html = table().html();
        assert!(html.contains(">a|b&lt;c&gt;</code>"), "{html}");
        assert!(html.contains("Jobs &lt;now&gt;"));
        assert_eq!(escape("\"'\u{1b}[1m"), "&quot;&#39;\u{fffd}[1m");
    }

    #[test]
    fn the_three_drawings_have_the_same_cells() {
        let t = table();
        assert!(t.html().contains("4.56 s"));
        assert!(t.markdown().contains("| `a\\|b<c>` | 4.56 s | **FAIL** |"));
        assert_eq!(t.text(), "  id         p50  verdict\n  a|b<c>  4.56 s  FAIL\n");
    }

    #[test]
    fn an_empty_table_says_so() {
        let t = Table::new("Errors", &["error"]);
        assert!(t.is_empty());
        assert!(t.html().contains(">none<"));
        assert!(t.markdown().contains("none"));
    }
}
