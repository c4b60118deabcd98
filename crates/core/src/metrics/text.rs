//! Writes the text form of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

use serde::Deserialize;

use crate::statistics::histogram::HistogramSnapshot;

/// What a family counts.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations by bucket.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The text so far.
#[derive(Debug, Default)]
pub struct Text {
    out: String,
}

impl Text {
    /// Begins a family.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
    }

    /// One sample; `labels` as [`Labels`] made them.
    pub fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.out, "{name} {value}"),
            _ => writeln!(self.out, "{name}{{{labels}}} {value}"),
        };
    }

    /// The samples of a histogram whose observations are `unit` times what is shown.
    pub fn histogram(&mut self, name: &str, labels: &str, seen: &HistogramSnapshot, unit: f64) {
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, count) in &seen.buckets {
            let bound = *bound as f64 / unit;
            let _ = writeln!(self.out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(self.out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", seen.count);
        self.sample(&format!("{name}_sum"), labels, seen.sum as f64 / unit);
        self.sample(&format!("{name}_count"), labels, seen.count);
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.out
    }
}

/// The labels of a sample.
#[derive(Clone, Debug, Default)]
pub struct Labels(String);

impl Labels {
    /// The same labels and one more; a name that is none is made one.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut text = self.0.clone();
        if !text.is_empty() {
            text.push(',');
        }
        let fits = |position, letter: char| {
            letter == '_' || letter.is_ascii_alphabetic() || position > 0 && letter.is_ascii_digit()
        };
        text.extend(name.chars().enumerate().map(|(at, letter)| if fits(at, letter) { letter } else { '_' }));
        text.push_str("=\"");
        for letter in value.chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                _ => text.push(letter),
            }
        }
        text.push('"');
        Self(text)
    }

    /// As they stand between the braces.
    pub fn text(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_names_made_valid() {
        let labels = Labels::default().with("model", "a\"b\\c\nd").with("9-é", "x");
        assert_eq!(labels.text(), r#"model="a\"b\\c\nd",___="x""#);
    }

    #[test]
    fn a_histogram_ends_with_all() {
        let mut text = Text::default();
        let seen = HistogramSnapshot { buckets: vec![(500_000, 1)], count: 2, sum: 1_500_000 };
        text.histogram("h", "a=\"b\"", &seen, 1e9);
        let lines = ["h_bucket{a=\"b\",le=\"0.0005\"} 1", "h_bucket{a=\"b\",le=\"+Inf\"} 2", "h_sum{a=\"b\"} 0.0015"];
        assert_eq!(text.finish(), lines.join("\n") + "\nh_count{a=\"b\"} 2\n");
    }
}
