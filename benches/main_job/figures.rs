//! Samples, percentiles and how they are printed. Measures nothing.

use std::time::{Duration, Instant};

/// Milliseconds.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Milliseconds from one moment to another, negative if the other was earlier.
pub(crate) fn ms_between(from: Instant, to: Instant) -> f64 {
    ms(to.saturating_duration_since(from)) - ms(from.saturating_duration_since(to))
}

/// Measurements of one thing.
#[derive(Debug, Default, Clone)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// The value below which this part of the samples lies.
    pub(crate) fn at(&self, part: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0[((last as f64) * part).round() as usize]
    }

    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }

    /// Middle, tail and worst.
    pub(crate) fn spread(&self, unit: &str) -> String {
        format!(
            "P50 {:8.1} {unit}   P90 {:8.1} {unit}   max {:8.1} {unit}   (n = {})",
            self.median(),
            self.at(0.9),
            self.at(1.0),
            self.0.len()
        )
    }
}

/// Says what the figures were taken on, and how busy it was.
pub(crate) fn print_machine() {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.unwrap_or_default().trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: f64 = total
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or_default();
    println!("machine: {cores} cores, {model}, {:.0} GiB", kib / 1024.0 / 1024.0);
}

/// A section's heading, with the machine's load, which explains what looks odd.
pub(crate) fn heading(text: &str) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or_default().to_owned();
    println!("\n== {text}   (load before: {load})");
}

/// One figure.
pub(crate) fn line(what: &str, figure: &str) {
    println!("{what:<58} {figure}");
}

/// A figure held against its goal.
pub(crate) fn goal(what: &str, value: f64, goal: f64, unit: &str) {
    let verdict = if value <= goal { "met" } else { "MISSED" };
    line(
        what,
        &format!(
            "{value:.1} {unit}, {:.2} x the goal of {goal:.1} {unit}: {verdict}",
            value / goal
        ),
    );
}

/// A figure that shall be at least its goal.
pub(crate) fn at_least(what: &str, value: f64, goal: f64, unit: &str) {
    let verdict = if value >= goal { "met" } else { "MISSED" };
    line(
        what,
        &format!("{value:.2} {unit}, the goal is at least {goal:.2} {unit}: {verdict}"),
    );
}
