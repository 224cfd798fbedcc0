//! Figures of rounds: medians of per-round ratios with a bootstrap interval, as JSON lines and as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;

const RESAMPLES: usize = 4000;

/// What was measured: one value for each contender and metric in each round.
#[derive(Clone, Debug, Default)]
pub struct Samples(BTreeMap<(&'static str, &'static str), BTreeMap<u32, f64>>);

/// One line of a bench's JSON file.
///
/// `ratio` is the median of per-round ratios to the baseline, which ran in the same rounds; `ratio_min` and `ratio_max`
/// bound that median with 95 % (bootstrap).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The bench's name.
    pub bench: &'static str,
    /// The metric's stable name.
    pub metric: &'static str,
    /// Who was measured.
    pub contender: &'static str,
    /// Whom it is compared to; `None` for the baseline itself.
    pub baseline: Option<&'static str>,
    /// Median over the rounds.
    pub value: f64,
    /// Unit of `value`.
    pub unit: &'static str,
    /// See above.
    pub ratio: Option<f64>,
    /// Lower bound.
    pub ratio_min: Option<f64>,
    /// Upper bound.
    pub ratio_max: Option<f64>,
    /// Rounds in which both were measured.
    pub rounds: usize,
}

impl Row {
    /// A figure that is compared to nothing: the median of `values`; 0 where there are none.
    pub fn absolute(bench: &'static str, metric: &'static str, unit: &'static str, values: Vec<f64>) -> Self {
        let rounds = values.len();
        Self {
            bench,
            metric,
            contender: "stolos",
            baseline: None,
            value: median(values).unwrap_or_default(),
            unit,
            ratio: None,
            ratio_min: None,
            ratio_max: None,
            rounds,
        }
    }
}

/// What the figures are measured on: how many processors, and how busy they are before it begins.
pub fn machine(bench: &'static str) -> Vec<Row> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN);
    let of = |metric, unit, value| Row { contender: "machine", ..Row::absolute(bench, metric, unit, vec![value]) };
    vec![of("machine_cores", "cores", cores as f64), of("machine_load_1min", "processes", load)]
}

impl Samples {
    /// Notes one value.
    pub fn note(&mut self, metric: &'static str, contender: &'static str, round: u32, value: f64) {
        self.0.entry((metric, contender)).or_default().insert(round, value);
    }

    /// The row of one metric and contender; `None` where nothing was measured.
    pub fn row(
        &self,
        bench: &'static str,
        (metric, unit): (&'static str, &'static str),
        contender: &'static str,
        baseline: Option<&'static str>,
    ) -> Option<Row> {
        let own = self.0.get(&(metric, contender))?;
        let mut row = Row {
            bench,
            metric,
            contender,
            baseline,
            value: median(own.values().copied().collect())?,
            unit,
            ratio: None,
            ratio_min: None,
            ratio_max: None,
            rounds: own.len(),
        };
        if let Some(base) = baseline.and_then(|baseline| self.0.get(&(metric, baseline))) {
            let paired = own.iter().filter_map(|(round, value)| Some(value / base.get(round)?));
            let ratios: Vec<f64> = paired.filter(|ratio| ratio.is_finite()).collect();
            row.rounds = ratios.len();
            let (low, high) = interval(&ratios)?;
            (row.ratio, row.ratio_min, row.ratio_max) = (median(ratios), Some(low), Some(high));
        }
        Some(row)
    }
}

/// JSON, one object per line.
pub fn json_lines(rows: &[Row]) -> Result<String> {
    let mut text = String::new();
    for row in rows {
        text += &serde_json::to_string(row).context("BUG: a row is JSON")?;
        text.push('\n');
    }
    Ok(text)
}

/// A table for people.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:30} {:15} {:>14} {:>16} {:>19} {:>7}\n",
        "metric", "contender", "median", "ratio", "95 % of the median", "rounds"
    );
    for row in rows {
        let ratio = row.ratio.zip(row.baseline);
        let ratio = ratio.map_or(String::new(), |(ratio, baseline)| format!("{ratio:.3} × {baseline}"));
        let bounds = row.ratio_min.zip(row.ratio_max);
        let bounds = bounds.map_or(String::new(), |(low, high)| format!("{low:.3} – {high:.3}"));
        let value = format!("{:.1} {}", row.value, row.unit);
        let _ = writeln!(
            text,
            "{:30} {:15} {value:>14} {ratio:>16} {bounds:>19} {:>7}",
            row.metric, row.contender, row.rounds
        );
    }
    text
}

/// The middle value; the mean of the two middle ones of an even number. `None` of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// The value below which `p` per cent of the others lie. `None` of nothing.
pub fn percentile(mut values: Vec<f64>, p: usize) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) * p / 100).copied()
}

/// 95 % bootstrap interval of the median, from a fixed seed.
fn interval(values: &[f64]) -> Option<(f64, f64)> {
    let mut random = StdRng::seed_from_u64(1);
    let resample = |_| median((0..values.len()).map(|_| values[random.random_range(0..values.len())]).collect());
    let mut medians = (0..RESAMPLES).map(resample).collect::<Option<Vec<f64>>>()?;
    medians.sort_by(f64::total_cmp);
    Some((medians[RESAMPLES * 25 / 1000], medians[RESAMPLES * 975 / 1000 - 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let mut samples = Samples::default();
        for (round, speed) in [(0, 1.0), (1, 10.0), (2, 100.0)] {
            samples.note("m", "none", round, 2.0 * speed);
            samples.note("m", "ours", round, 3.0 * speed);
        }
        samples.note("m", "ours", 3, 1e9);
        let row = samples.row("b", ("m", "us"), "ours", Some("none")).expect("measured");
        assert_eq!((row.ratio, row.ratio_min, row.ratio_max, row.rounds), (Some(1.5), Some(1.5), Some(1.5), 3));
        let base = samples.row("b", ("m", "us"), "none", None).expect("measured");
        assert_eq!((base.value, base.ratio), (20.0, None));
        assert_eq!(samples.row("b", ("x", "us"), "none", None), None);
        let line = json_lines(&[row]).expect("JSON");
        assert!(
            line.starts_with(r#"{"bench":"b","metric":"m","contender":"ours","baseline":"none","value":"#),
            "{line}"
        );
    }

    #[test]
    fn the_interval_holds_the_median() {
        let values: Vec<f64> = (0..61).map(|n| 0.9 + f64::from(n * 37 % 61) / 305.0).collect();
        let (low, high) = interval(&values).expect("values");
        let middle = median(values).expect("values");
        assert!(low < middle && middle < high && high - low < 0.1, "{low} {middle} {high}");
    }
}
