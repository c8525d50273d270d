//! Axes: from a value to a place in a picture, and where the ticks stand.

use crate::{micros::Micros, report::svg::Picture};

/// A stretch of a picture along one axis.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    log: bool,
}

impl Scale {
    /// Zero to `most`, evenly.
    pub(crate) fn linear(most: f64, start: f64, end: f64) -> Self {
        let to = if most > 0.0 { most } else { 1.0 };
        Self { from: 0.0, to, start, end, log: false }
    }

    /// Whole decades that hold `least` to `most`.
    pub(crate) fn decades(least: f64, most: f64, start: f64, end: f64) -> Self {
        let from = least.max(1.0).log10().floor();
        let to = most.max(1.0).log10().ceil().max(from + 1.0);
        Self { from, to, start, end, log: true }
    }

    /// Where a value stands, kept within the picture.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let v = if self.log { value.max(1e-9).log10() } else { value };
        let share = ((v - self.from) / (self.to - self.from)).clamp(0.0, 1.0);
        self.start + share * (self.end - self.start)
    }

    /// The largest value of an even scale.
    pub(crate) fn last(&self) -> f64 {
        self.to
    }

    /// Values worth a tick, rising: every decade, or about six round ones.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        if self.log {
            return (self.from as i32..=self.to as i32).map(|e| 10f64.powi(e)).collect();
        }
        let step = round_step(self.to / 6.0);
        let mut ticks = Vec::new();
        let mut n = 0.0;
        while n * step <= self.to * 1.000_001 {
            ticks.push(n * step);
            n += 1.0;
        }
        ticks
    }
}

/// The next larger of 1, 2, 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().find(|s| s * power >= least);
    step.unwrap_or(10.0) * power
}

/// The same for seconds, where minutes and hours are round.
fn round_seconds(least: f64) -> f64 {
    let clock = [15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0];
    if least <= 10.0 {
        return round_step(least);
    }
    clock.into_iter().find(|s| *s >= least).unwrap_or_else(|| 3_600.0 * round_step(least / 3_600.0))
}

/// The frame that a chart is drawn into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    /// Left edge.
    pub(crate) left: f64,
    /// Right edge.
    pub(crate) right: f64,
    /// Upper edge.
    pub(crate) top: f64,
    /// Lower edge.
    pub(crate) bottom: f64,
}

impl Frame {
    /// Draws the time axis, microseconds from zero to `most`, below the frame.
    pub(crate) fn time_axis(&self, p: &mut Picture, most: Micros, title: &str) -> Scale {
        let scale = self.even_below(p, most, 6.0);
        self.title_below(p, title);
        scale
    }

    /// Draws a time axis in decades below the frame, microseconds from `least` to `most`.
    pub(crate) fn decades_below(&self, p: &mut Picture, least: Micros, most: Micros) -> Scale {
        let scale = Scale::decades(least.0 as f64, most.0 as f64, self.left, self.right);
        for tick in scale.ticks() {
            self.tick_below(p, scale.at(tick), &tick_time(tick));
        }
        scale
    }

    /// Draws an even time axis below the frame, with about so many ticks.
    pub(crate) fn even_below(&self, p: &mut Picture, most: Micros, ticks: f64) -> Scale {
        let scale = Scale::linear(most.0 as f64, self.left, self.right);
        let step = round_seconds(most.as_secs().max(1e-6) / ticks) * 1e6;
        let mut tick = 0.0;
        while tick <= most.0 as f64 * 1.000_001 {
            self.tick_below(p, scale.at(tick), &tick_time(tick));
            tick += step;
        }
        scale
    }

    /// Draws a response-time axis in decades, left of the frame.
    pub(crate) fn latency_axis(&self, p: &mut Picture, least: Micros, most: Micros) -> Scale {
        let scale = Scale::decades(least.0 as f64, most.0 as f64, self.bottom, self.top);
        for tick in scale.ticks() {
            self.tick_left(p, scale.at(tick), &tick_time(tick));
        }
        scale
    }

    /// A tick with its grid line below the frame.
    pub(crate) fn tick_below(&self, p: &mut Picture, x: f64, text: &str) {
        p.line("grid", (x, self.top), (x, self.bottom));
        p.text("tick", (x, self.bottom + 15.0), "middle", text);
    }

    /// A tick with its grid line left of the frame.
    pub(crate) fn tick_left(&self, p: &mut Picture, y: f64, text: &str) {
        p.line("grid", (self.left, y), (self.right, y));
        p.text("tick", (self.left - 6.0, y + 4.0), "end", text);
    }

    /// What the lower axis shows.
    pub(crate) fn title_below(&self, p: &mut Picture, text: &str) {
        let middle = f64::midpoint(self.left, self.right);
        p.text("axis", (middle, self.bottom + 32.0), "middle", text);
    }
}

/// Microseconds as a tick has them: `10 ms`, `2 s`, `1.5 min`.
fn tick_time(us: f64) -> String {
    let (value, unit) = match us {
        0.0 => return "0".into(),
        us if us < 1e3 => (us, "µs"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us if us < 120e6 => (us / 1e6, "s"),
        us if us < 7_200e6 => (us / 60e6, "min"),
        us => (us / 3_600e6, "h"),
    };
    let rounded = (value * 100.0).round() / 100.0;
    format!("{rounded} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_hold_their_values() {
        let s = Scale::decades(870.0, 4_560_000.0, 0.0, 50.0);
        assert_eq!(s.ticks().first().copied(), Some(100.0));
        assert_eq!(s.ticks().last().copied(), Some(10_000_000.0));
        assert!(s.at(870.0) > 0.0 && s.at(4_560_000.0) < 50.0);
        assert!((s.at(1.0) - 0.0).abs() < 1e-9, "kept within the picture");
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(Scale::linear(42.0, 0.0, 1.0).ticks(), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(
            [0.0, 500.0, 20e3, 2e6, 90e6, 150e6].map(tick_time),
            ["0", "500 µs", "20 ms", "2 s", "90 s", "2.5 min"]
        );
        assert!((round_seconds(50.0) - 60.0).abs() < 1e-9);
    }
}
