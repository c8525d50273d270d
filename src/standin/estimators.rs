//! Estimators of the real size: the results of a task, their average, their JSON.
//!
//! The shape is that of the target's sample: 4 estimators, 4+3+7+7 pages, 98,892 values.
//! The wide pages are empty outside a cone, as a beam leaves them, so 57, 57 and 75 % of
//! their values are zero. All values live in one vector; the shape is fixed and static.

use std::io::Write;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Number of values in all pages together.
pub const VALUES: usize = 98_892;

/// Number of pages in all estimators together.
pub const PAGES: usize = 21;

/// The part of the cells inside the cone that one task of so many leaves empty by chance: the fewer
/// particles it simulates, the more, and the shorter is its JSON. Fitted to the contract's sizes for
/// 4, 8, 16 and 32 tasks; the average of all tasks has hardly any.
fn missed(tasks: usize) -> f64 {
    const OF_FOUR: f64 = 0.2;
    const BY_DOUBLING: f64 = 0.088;
    (OF_FOUR + BY_DOUBLING * (tasks as f64 / 4.0).log2()).clamp(0.02, 0.6)
}

/// How one estimator is laid out: its axes are shared by its pages.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Name of the estimator.
    pub name: &'static str,
    axes: &'static [Axis],
    pages: &'static [Quantity],
}

#[derive(Debug, Clone, Copy)]
struct Axis {
    name: &'static str,
    unit: &'static str,
    bins: usize,
    step: f64,
}

#[derive(Debug, Clone, Copy)]
struct Quantity {
    name: &'static str,
    unit: &'static str,
    zeros: f64,
}

impl Layout {
    /// How many pages the estimator has.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// How many values each page has.
    pub fn bins(&self) -> usize {
        self.axes.iter().map(|axis| axis.bins).product()
    }
}

const fn axis(name: &'static str, unit: &'static str, bins: usize, step: f64) -> Axis {
    Axis { name, unit, bins, step }
}

const fn full(name: &'static str, unit: &'static str) -> Quantity {
    Quantity { name, unit, zeros: 0.0 }
}

const fn sparse(name: &'static str, unit: &'static str, zeros: f64) -> Quantity {
    Quantity { name, unit, zeros }
}

/// The four estimators, in the order in which they are posted.
pub const LAYOUT: [Layout; 4] = [
    Layout {
        name: "z_profile",
        axes: &[axis("Position (Z)", "cm", 100, 0.2)],
        pages: &[
            full("DOSE", "MeV/g/prim"),
            full("FLUENCE", "/cm^2/prim"),
            full("DLET", "keV/um"),
            full("TLET", "keV/um"),
        ],
    },
    Layout {
        name: "yz_profile",
        axes: &[axis("Position (Y)", "cm", 80, 0.05), axis("Position (Z)", "cm", 400, 0.05)],
        pages: &[
            sparse("DOSE", "MeV/g/prim", 0.57),
            sparse("FLUENCE", "/cm^2/prim", 0.57),
            sparse("DLET", "keV/um", 0.75),
        ],
    },
    Layout {
        name: "energy_spectrum",
        axes: &[axis("Energy", "MeV/nucl", 300, 0.5)],
        pages: &[
            full("All particles", "/cm^2/MeV/prim"),
            full("Protons", "/cm^2/MeV/prim"),
            full("Primaries", "/cm^2/MeV/prim"),
            full("Deuterons", "/cm^2/MeV/prim"),
            full("Tritons", "/cm^2/MeV/prim"),
            full("Helium-3", "/cm^2/MeV/prim"),
            full("Helium-4", "/cm^2/MeV/prim"),
        ],
    },
    Layout {
        name: "let_spectrum",
        axes: &[axis("LET", "keV/um", 56, 1.75)],
        pages: &[
            full("All particles", "/cm^2/keV/prim"),
            full("Protons", "/cm^2/keV/prim"),
            full("Primaries", "/cm^2/keV/prim"),
            full("Deuterons", "/cm^2/keV/prim"),
            full("Tritons", "/cm^2/keV/prim"),
            full("Helium-3", "/cm^2/keV/prim"),
            full("Helium-4", "/cm^2/keV/prim"),
        ],
    },
];

/// The results of one task, or the average of several.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimators {
    /// All pages one after the other, in the order of [`LAYOUT`].
    values: Vec<f64>,
}

impl Estimators {
    /// The results of the task that has this seed, of a job of so many tasks.
    pub fn generate(seed: u64, tasks: usize) -> Self {
        let missed = missed(tasks);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut values = Vec::with_capacity(VALUES);
        for layout in &LAYOUT {
            for (number, quantity) in layout.pages.iter().enumerate() {
                let scale = 1.0 / (1 + number) as f64;
                match *layout.axes {
                    [y, z] => {
                        fill_cone(&mut values, &mut rng, (quantity.zeros, missed), scale, (y.bins, z.bins))
                    }
                    _ => values.extend((0..layout.bins()).map(|_| scale * (0.1 + 0.9 * unit(&mut rng)))),
                }
            }
        }
        Self { values }
    }

    /// The average of the tasks, value by value; `None` of none.
    pub fn average(tasks: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut tasks = tasks.into_iter();
        let mut sum = tasks.next()?;
        let mut count = 1.0;
        for task in tasks {
            for (total, value) in sum.values.iter_mut().zip(&task.values) {
                *total += value;
            }
            count += 1.0;
        }
        for total in &mut sum.values {
            *total /= count;
        }
        Some(sum)
    }

    /// The estimators in a task's result, as [`results_post`](Self::results_post) writes it; `None`
    /// of a text that has another shape, and so of a failed task.
    ///
    /// Every number comes back bit by bit.
    pub fn read(result: &str) -> Option<Self> {
        let result: WireResult<'_> = serde_json::from_str(result).ok()?;
        let mut values = Vec::with_capacity(VALUES);
        for page in result.estimators.iter().flat_map(|estimator| &estimator.pages) {
            // Python's numbers; serde_json's own reading may be off in the last bit.
            let list = page.data.values.get().strip_prefix('[')?.strip_suffix(']')?;
            for number in list.split(',') {
                values.push(number.trim().parse().ok()?);
            }
        }
        (values.len() == VALUES).then_some(Self { values })
    }

    /// Every value, page after page in the order of [`LAYOUT`].
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The JSON array of the estimators, without any space: what a fetch carries.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1_200_000);
        self.write(&mut out, COMPACT, &LAYOUT.map(|layout| layout.name));
        out
    }

    /// The body of `POST /results`, spaced as the target's workers send it.
    ///
    /// `outputs` are the names a project wants; with more than four of them the
    /// estimators repeat, so that the target finds one for each.
    pub fn results_post(&self, simulation: u64, update_key: &str, outputs: &[String]) -> Vec<u8> {
        let mut names: Vec<&str> = LAYOUT.map(|layout| layout.name).to_vec();
        names.extend(outputs.iter().skip(names.len()).map(String::as_str));
        let mut out = Vec::with_capacity(1_300_000 * names.len().div_ceil(LAYOUT.len()));
        out.extend_from_slice(b"{\"estimators\": ");
        self.write(&mut out, SPACED, &names);
        put(&mut out, format_args!(", \"simulation_id\": {simulation}"));
        put(&mut out, format_args!(", \"update_key\": \"{update_key}\"}}"));
        out
    }

    fn write(&self, out: &mut Vec<u8>, style: Style, names: &[&str]) {
        let Style { comma, colon } = style;
        out.push(b'[');
        for (place, name) in names.iter().enumerate() {
            if place > 0 {
                out.extend_from_slice(comma.as_bytes());
            }
            let which = place % LAYOUT.len();
            let layout = &LAYOUT[which];
            let name = serde_json::Value::from(*name);
            put(out, format_args!("{{\"metadata\"{colon}{{\"counter\"{colon}\"{which}\"{comma}"));
            put(out, format_args!("\"file_format\"{colon}\"bdo2019\"{comma}\"name\"{colon}{name}"));
            put(out, format_args!("{comma}\"number_of_files\"{colon}\"1\"}}{comma}"));
            put(out, format_args!("\"name\"{colon}{name}{comma}\"pages\"{colon}["));
            for number in 0..layout.pages.len() {
                if number > 0 {
                    out.extend_from_slice(comma.as_bytes());
                }
                write_page(out, style, layout, number, self.page(which, number));
            }
            out.extend_from_slice(b"]}");
        }
        out.push(b']');
    }

    fn page(&self, estimator: usize, number: usize) -> &[f64] {
        let before: usize = LAYOUT[..estimator].iter().map(|layout| layout.pages.len() * layout.bins()).sum();
        let bins = LAYOUT[estimator].bins();
        &self.values[before + number * bins..][..bins]
    }
}

#[derive(Deserialize)]
struct WireResult<'a> {
    #[serde(borrow)]
    estimators: Vec<WireEstimator<'a>>,
}

#[derive(Deserialize)]
struct WireEstimator<'a> {
    #[serde(borrow)]
    pages: Vec<WirePage<'a>>,
}

#[derive(Deserialize)]
struct WirePage<'a> {
    #[serde(borrow)]
    data: WireData<'a>,
}

#[derive(Deserialize)]
struct WireData<'a> {
    #[serde(borrow)]
    values: &'a RawValue,
}

/// What stands between two items and after a key.
#[derive(Clone, Copy)]
struct Style {
    comma: &'static str,
    colon: &'static str,
}

const COMPACT: Style = Style { comma: ",", colon: ":" };
const SPACED: Style = Style { comma: ", ", colon: ": " };

fn write_page(out: &mut Vec<u8>, style: Style, layout: &Layout, number: usize, values: &[f64]) {
    let Style { comma, colon } = style;
    let Quantity { name, unit, .. } = layout.pages[number];
    out.push(b'{');
    for (axis, dimension) in layout.axes.iter().zip(1..) {
        put(out, format_args!("\"axis_dim{dimension}\"{colon}{{\"name\"{colon}\"{}\"", axis.name));
        put(out, format_args!("{comma}\"unit\"{colon}\"{}\"{comma}\"values\"{colon}", axis.unit));
        write_numbers(out, style, (0..axis.bins).map(|bin| (bin as f64 + 0.5) * axis.step));
        put(out, format_args!("}}{comma}"));
    }
    put(out, format_args!("\"data\"{colon}{{\"name\"{colon}\"{name}\"{comma}\"unit\"{colon}"));
    put(out, format_args!("\"{unit}\"{comma}\"values\"{colon}"));
    write_numbers(out, style, values.iter().copied());
    put(out, format_args!("}}{comma}\"dimensions\"{colon}{}{comma}", layout.axes.len()));
    put(out, format_args!("\"metadata\"{colon}{{\"dettyp\"{colon}\"{name}\"{comma}\"name\"{colon}"));
    put(out, format_args!("\"{name}\"{comma}\"page_normalized\"{colon}\"2\"{comma}\"page_number\""));
    put(out, format_args!("{colon}\"{number}\"{comma}\"unit\"{colon}\"{unit}\"}}}}"));
}

fn write_numbers(out: &mut Vec<u8>, style: Style, numbers: impl Iterator<Item = f64>) {
    out.push(b'[');
    for (place, number) in numbers.enumerate() {
        if place > 0 {
            out.extend_from_slice(style.comma.as_bytes());
        }
        if number == 0.0 {
            out.extend_from_slice(b"0.0");
        } else {
            serde_json::to_writer(&mut *out, &number).expect("a vector takes every number");
        }
    }
    out.push(b']');
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes every text");
}

/// Rows along the beam, each with the cells near the axis filled: a cone that opens with depth.
fn fill_cone(
    values: &mut Vec<f64>,
    rng: &mut ChaCha8Rng,
    (zeros, missed): (f64, f64),
    scale: f64,
    (width, depth): (usize, usize),
) {
    for row in 0..depth {
        let opening = 0.5 + (row as f64 + 0.5) / depth as f64;
        let filled = ((1.0 - zeros) * width as f64 * opening).round() as usize;
        let first = (width - filled.min(width)) / 2;
        for cell in 0..width {
            if !(first..first + filled).contains(&cell) {
                values.push(0.0);
                continue;
            }
            let noise = unit(rng);
            let off_axis = (cell as f64 + 0.5 - width as f64 / 2.0) / 20.0;
            let value = scale * (0.5 + 0.5 * noise) / (1.0 + off_axis * off_axis);
            // The low bits of the same draw decide whether the task missed the cell.
            let is_missed = (noise * 4096.0).fract() < missed;
            values.push(if is_missed { 0.0 } else { value });
        }
    }
}

fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::{Estimators, LAYOUT, PAGES, VALUES};

    #[test]
    fn the_shape_is_that_of_the_target() {
        assert_eq!(LAYOUT.map(|layout| layout.pages()), [4, 3, 7, 7]);
        assert_eq!(LAYOUT.iter().map(|layout| layout.pages()).sum::<usize>(), PAGES);
        assert_eq!(LAYOUT.iter().map(|l| l.pages() * l.bins()).sum::<usize>(), VALUES);
        assert_eq!(Estimators::generate(3, 4).values().len(), VALUES);
    }

    #[test]
    fn the_same_seed_gives_the_same_values() {
        assert_eq!(Estimators::generate(5, 4), Estimators::generate(5, 4));
        assert_ne!(Estimators::generate(5, 4), Estimators::generate(6, 4));
    }

    #[test]
    fn averages_are_averages() {
        let tasks: Vec<_> = (0..4).map(|seed| Estimators::generate(seed, 4)).collect();
        let merged = Estimators::average(tasks.clone()).unwrap();
        for cell in [0, 399, 20_000, 90_000, VALUES - 1] {
            let mean = tasks.iter().map(|task| task.values()[cell]).sum::<f64>() / 4.0;
            assert!((merged.values()[cell] - mean).abs() < 1e-12);
        }
        assert_eq!(Estimators::average([]), None);
    }

    #[test]
    fn sizes_and_zero_shares_match_the_contract() {
        for (tasks, expected) in [(4, 1_011_362.0), (8, 955_976.0), (16, 903_538.0), (32, 859_097.0)] {
            let result = Estimators::generate(1, tasks).results_post(1, &"k".repeat(180), &[]).len();
            assert!((result as f64 / expected - 1.0).abs() < 0.03, "one of {tasks} tasks has {result} B");
        }
        let merged = Estimators::average((0..8).map(|seed| Estimators::generate(seed, 8))).unwrap();
        for (number, expected) in [0.57, 0.57, 0.75].into_iter().enumerate() {
            let page = merged.page(1, number);
            let zeros = page.iter().filter(|value| **value == 0.0).count();
            let share = zeros as f64 / page.len() as f64;
            assert!((share - expected).abs() < 0.01, "page {number}: {share}");
        }
        let fetched = merged.to_json().len() as f64;
        assert!((fetched / 1_029_239.0 - 1.0).abs() < 0.05, "GET has {fetched} B");
        let posted = merged.results_post(1, &"k".repeat(180), &[]).len() as f64;
        assert!((posted / 1_133_530.0 - 1.0).abs() < 0.05, "POST has {posted} B");
    }

    #[test]
    fn a_result_comes_back_bit_by_bit() {
        let task = Estimators::generate(4, 2);
        let result = String::from_utf8(task.results_post(7, "key", &[])).unwrap();
        assert_eq!(Estimators::read(&result), Some(task));
        assert_eq!(Estimators::read(r#"{"logfiles": {}, "stdout": ""}"#), None);
        assert_eq!(Estimators::read(r#"{"estimators": []}"#), None);
    }

    #[test]
    fn both_styles_are_the_same_json() {
        let merged = Estimators::generate(9, 1);
        let posted: serde_json::Value = serde_json::from_slice(&merged.results_post(7, "key", &[])).unwrap();
        let compact: serde_json::Value = serde_json::from_slice(&merged.to_json()).unwrap();
        assert_eq!(posted["estimators"], compact);
        assert_eq!(posted["simulation_id"], 7);
        assert_eq!(compact[1]["pages"][2]["metadata"]["page_number"], "2");
        assert_eq!(compact[1]["pages"][0]["data"]["values"].as_array().unwrap().len(), 32_000);
    }
}
