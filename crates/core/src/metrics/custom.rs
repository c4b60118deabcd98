//! Metrics that the code of models makes: what each version's workers said, within bounds, and all of it in a scrape.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use super::text::{Kind, Labels, Text};
use crate::log::{Level, Log, Record};
use crate::model::Model;
use crate::statistics::monotonic_ns;

/// Bounds of one version; the worker refuses the model's code what is beyond, so only one that breaks the protocol, or
/// many instances with labels of their own, meet them here.
const MOST_FAMILIES: usize = 128;
const MOST_SERIES: usize = 4096;
const MOST_BUCKETS: usize = 100;
const MOST_BYTES: usize = 4 << 20;
/// Under these names the server speaks of itself.
const RESERVED: [&str; 2] = ["nv_", "naiad_"];
/// What a histogram's samples end in.
const ENDS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// A family as a worker tells of it: what changed since it last did.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FamilyChange {
    name: String,
    help: String,
    kind: Kind,
    metrics: Vec<Change>,
}

/// One metric of it. Numbers are texts, so that `nan` and `inf` travel.
#[derive(Debug, Deserialize)]
struct Change {
    labels: BTreeMap<String, String>,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum What {
    Add { add: Number },
    Set { set: Number, at: u64 },
    Observe { bounds: Vec<Number>, counts: Vec<u64>, sum: Number },
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Number(f64);

impl TryFrom<String> for Number {
    type Error = std::num::ParseFloatError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

/// What one metric has come to.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    /// A counter or gauge, and when it last changed.
    Number { value: f64, at: u64 },
    /// Observations in each bucket alone, the last one above all bounds.
    Histogram { bounds: Vec<f64>, counts: Vec<u64>, sum: f64 },
}

impl Value {
    fn new(kind: Kind, change: &What) -> Option<Self> {
        match (kind, change) {
            (Kind::Histogram, What::Observe { bounds, .. }) => {
                let bounds: Vec<_> = bounds.iter().map(|bound| bound.0).collect();
                let finite = bounds.iter().all(|bound| bound.is_finite());
                let ascend = finite && bounds.is_sorted_by(|left, right| left < right);
                let counts = vec![0; bounds.len() + 1];
                (ascend && bounds.len() <= MOST_BUCKETS).then_some(Self::Histogram { bounds, counts, sum: 0.0 })
            }
            (Kind::Counter | Kind::Gauge, What::Add { .. } | What::Set { .. }) => {
                Some(Self::Number { value: 0.0, at: 0 })
            }
            _ => None,
        }
    }

    /// Takes a change; false if it does not fit.
    fn apply(&mut self, kind: Kind, change: &What) -> bool {
        match (self, change) {
            (Self::Number { value, at }, What::Add { add }) if kind == Kind::Gauge || add.0 >= 0.0 => {
                (*value, *at) = (*value + add.0, monotonic_ns());
            }
            // Instances tell of their changes in any order; none can claim that its own will be the last for ever.
            (Self::Number { value, at }, What::Set { set, at: when }) if kind == Kind::Gauge => {
                let when = monotonic_ns().min(*when);
                if when >= *at {
                    (*value, *at) = (set.0, when);
                }
            }
            (Self::Histogram { bounds, counts, sum }, What::Observe { bounds: theirs, counts: more, sum: add }) => {
                let same = bounds.iter().copied().eq(theirs.iter().map(|bound| bound.0));
                if !same || counts.len() != more.len() {
                    return false;
                }
                counts.iter_mut().zip(more).for_each(|(count, more)| *count = count.saturating_add(*more));
                *sum += add.0;
            }
            _ => return false,
        }
        true
    }

    /// Takes what another version says of the same metric: counts add up, of gauges the last one counts.
    fn merge(&mut self, kind: Kind, other: &Self) {
        match (self, other) {
            (Self::Number { value, at }, Self::Number { value: theirs, at: when }) => {
                if kind == Kind::Counter {
                    *value += theirs;
                } else if when > at {
                    (*value, *at) = (*theirs, *when);
                }
            }
            (Self::Histogram { bounds, counts, sum }, Self::Histogram { bounds: same, counts: more, sum: add })
                if bounds == same =>
            {
                counts.iter_mut().zip(more).for_each(|(count, more)| *count = count.saturating_add(*more));
                *sum += add;
            }
            _ => {}
        }
    }

    fn size(&self) -> usize {
        let Self::Histogram { bounds, .. } = self else { return 0 };
        16 * bounds.len()
    }
}

#[derive(Clone, Debug)]
struct Family {
    help: String,
    kind: Kind,
    series: BTreeMap<String, Value>,
}

#[derive(Debug, Default)]
struct Book {
    families: BTreeMap<String, Family>,
    series: usize,
    bytes: usize,
}

/// The metrics of one version, shared by its workers and those that replace them.
#[derive(Debug, Default)]
pub struct CustomMetrics {
    // Off the request path: workers tell of changes ten times a second at most.
    book: Mutex<Book>,
    /// Something was left out and the log does not know yet.
    lost: AtomicBool,
    told: AtomicBool,
}

impl CustomMetrics {
    /// Takes what a worker says has changed.
    pub fn apply(&self, families: Vec<FamilyChange>) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        for family in families {
            if !book.apply(family) {
                self.lost.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Says once that something is not shown, and why.
    fn tell(&self, log: &Log, model: &Model, why: &str) {
        if !self.told.swap(true, Ordering::Relaxed) {
            let record = Record::new(Level::Warning, format!("metrics of the model are left out of the scrape: {why}"));
            log.write(record.with("model", model.spec.name.as_str()).with("version", model.spec.version));
        }
    }
}

impl Book {
    fn apply(&mut self, change: FamilyChange) -> bool {
        let FamilyChange { name, help, kind, metrics } = change;
        if !is_name(&name) || RESERVED.iter().any(|prefix| name.starts_with(prefix)) {
            return false;
        }
        let (known, size) = (self.families.len(), name.len() + help.len());
        let family = match self.families.entry(name) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if known >= MOST_FAMILIES || self.bytes + size > MOST_BYTES => return false,
            Entry::Vacant(entry) => {
                self.bytes += size;
                entry.insert(Family { help, kind, series: BTreeMap::new() })
            }
        };
        if family.kind != kind {
            return false;
        }
        let mut whole = true;
        for Change { labels, what } in metrics {
            let fits = labels.keys().all(|name| is_label(name) && !(kind == Kind::Histogram && name == "le"));
            let text = labels.iter().fold(Labels::default(), |text, (name, value)| text.with(name, value));
            let text = text.text();
            if let Some(value) = family.series.get_mut(text) {
                whole &= value.apply(kind, &what);
                continue;
            }
            let fresh = Value::new(kind, &what).filter(|_| fits && self.series < MOST_SERIES);
            let fresh = fresh.map(|value| (text.len() + value.size(), value));
            let Some((size, mut value)) = fresh.filter(|(size, _)| self.bytes + size <= MOST_BYTES) else {
                whole = false;
                continue;
            };
            whole &= value.apply(kind, &what);
            self.bytes += size;
            self.series += 1;
            family.series.insert(text.to_owned(), value);
        }
        whole
    }
}

/// Whether a family may have this name.
fn is_name(name: &str) -> bool {
    let inside = |letter: char| letter == '_' || letter == ':' || letter.is_ascii_alphanumeric();
    !name.is_empty() && !name.starts_with(|letter: char| letter.is_ascii_digit()) && name.chars().all(inside)
}

fn is_label(name: &str) -> bool {
    is_name(name) && !name.contains(':') && !name.starts_with("__")
}

/// Writes the metrics of all published versions, the same ones of several together.
pub fn write(text: &mut Text, models: &[Arc<Model>], log: &Log) {
    let mut all: BTreeMap<String, Family> = BTreeMap::new();
    for model in models {
        let own = &model.voice.metrics;
        let book = own.book.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, family) in &book.families {
            if let Some(other) = clash(&all, name, family.kind) {
                own.tell(log, model, &format!("'{name}' and '{other}' of another model cannot both be shown"));
                continue;
            }
            let Some(merged) = all.get_mut(name) else {
                all.insert(name.clone(), family.clone());
                continue;
            };
            for (labels, value) in &family.series {
                match merged.series.entry(labels.clone()) {
                    Entry::Occupied(entry) => entry.into_mut().merge(family.kind, value),
                    Entry::Vacant(entry) => drop(entry.insert(value.clone())),
                }
            }
        }
        drop(book);
        if own.lost.load(Ordering::Relaxed) {
            own.tell(log, model, "there are too many of them, or the worker told of them in a wrong way");
        }
    }
    for (name, family) in all.iter().filter(|(_, family)| !family.series.is_empty()) {
        family.write(text, name);
    }
}

/// The family with which one of this name and kind cannot stand in one scrape.
fn clash<'a>(all: &'a BTreeMap<String, Family>, name: &'a str, kind: Kind) -> Option<&'a str> {
    if let Some(same) = all.get(name) {
        return (same.kind != kind).then_some(name);
    }
    let histogram = |stem: &&str| all.get(*stem).is_some_and(|family| family.kind == Kind::Histogram);
    let under = ENDS.iter().filter_map(|end| name.strip_suffix(end)).find(histogram);
    let over = |end: &&'static str| all.get_key_value(&format!("{name}{end}")).map(|(other, _)| other.as_str());
    under.or_else(|| if kind == Kind::Histogram { ENDS.iter().find_map(over) } else { None })
}

impl Family {
    fn write(&self, text: &mut Text, name: &str) {
        text.family(name, self.kind, &self.help.replace('\\', "\\\\").replace('\n', "\\n"));
        for (labels, value) in &self.series {
            match value {
                Value::Number { value, .. } => text.sample(name, labels, shown(*value)),
                Value::Histogram { bounds, counts, sum } => {
                    let comma = if labels.is_empty() { "" } else { "," };
                    let mut count = 0_u64;
                    for (bound, more) in bounds.iter().chain([&f64::INFINITY]).zip(counts) {
                        count = count.saturating_add(*more);
                        let labels = format!("{labels}{comma}le=\"{}\"", shown(*bound));
                        text.sample(&format!("{name}_bucket"), &labels, count);
                    }
                    text.sample(&format!("{name}_sum"), labels, shown(*sum));
                    text.sample(&format!("{name}_count"), labels, count);
                }
            }
        }
    }
}

/// A number as the text form has it.
fn shown(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn told(metrics: &CustomMetrics, families: Json) -> bool {
        metrics.apply(serde_json::from_value(families).unwrap());
        !metrics.lost.load(Ordering::Relaxed)
    }

    fn scraped(metrics: &CustomMetrics) -> String {
        let mut text = Text::default();
        for (name, family) in &metrics.book.lock().unwrap().families {
            family.write(&mut text, name);
        }
        text.finish()
    }

    fn counter(name: &str, labels: &Json) -> Json {
        json!([{"name": name, "help": "h", "kind": "counter", "metrics": [{"labels": labels, "add": "2"}]}])
    }

    #[test]
    fn changes_of_several_workers_come_to_one_value() {
        let metrics = CustomMetrics::default();
        let gauge = |change: Json| {
            let mut row = json!({"labels": {"x": "\"q\"\n"}});
            row.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            json!([{"name": "g", "help": "a\\b\nc", "kind": "gauge", "metrics": [row]}])
        };
        let seen = |counts: Json| {
            let row = json!({"labels": {}, "bounds": ["0.5", "2"], "counts": counts, "sum": "inf"});
            json!([{"name": "h", "help": "h", "kind": "histogram", "metrics": [row]}])
        };
        let changes = [
            gauge(json!({"set": "5", "at": 9})),
            gauge(json!({"set": "6", "at": 8})),
            gauge(json!({"add": "-7.5"})),
            gauge(json!({"set": "1", "at": 10})),
            seen(json!([1, 0, 2])),
            seen(json!([0, 1, 0])),
            counter("c", &json!({})),
            counter("c", &json!({})),
        ];
        for change in changes {
            assert!(told(&metrics, change));
        }
        let expected = "# HELP c h\n# TYPE c counter\nc 4\n# HELP g a\\\\b\\nc\n# TYPE g gauge\ng{x=\"\\\"q\\\"\\n\"} -2.5\n\
            # HELP h h\n# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"2\"} 2\nh_bucket{le=\"+Inf\"} 4\nh_sum +Inf\nh_count 4\n";
        assert_eq!(scraped(&metrics), expected);
    }

    #[test]
    fn what_breaks_a_scrape_is_left_out() {
        let histogram = |bounds: Json, counts: Json| json!([{"name": "h", "help": "", "kind": "histogram", "metrics": [{"labels": {}, "bounds": bounds, "counts": counts, "sum": "1"}]}]);
        let wrong = [
            counter("nv_inference_count", &json!({})),
            counter("naiad_workers", &json!({})),
            counter("a b", &json!({})),
            counter("", &json!({})),
            counter("1a", &json!({})),
            counter("a", &json!({"__name__": "x"})),
            counter("a", &json!({"b:c": "x"})),
            json!([{"name": "a", "help": "", "kind": "counter", "metrics": [{"labels": {}, "add": "-1"}]}]),
            json!([{"name": "a", "help": "", "kind": "counter", "metrics": [{"labels": {}, "set": "1", "at": 1}]}]),
            json!([{"name": "h", "help": "", "kind": "histogram", "metrics": [{"labels": {"le": "1"}, "bounds": [], "counts": [1], "sum": "1"}]}]),
            histogram(json!(["2", "1"]), json!([0, 0, 0])),
            histogram(json!(["nan"]), json!([0, 0])),
            histogram(json!(["1"]), json!([0, 0, 0])),
        ];
        for change in wrong {
            assert!(!told(&CustomMetrics::default(), change.clone()), "{change}");
        }
    }

    #[test]
    fn a_version_has_bounded_memory() {
        let metrics = CustomMetrics::default();
        let series = |number: usize| json!({"labels": {"n": number.to_string()}, "add": "1"});
        let family = |name: &str, from: usize, to: usize| json!([{"name": name, "help": "", "kind": "counter", "metrics": (from..to).map(series).collect::<Vec<_>>()}]);
        assert!(told(&metrics, family("c", 0, MOST_SERIES)));
        assert!(told(&metrics, family("c", 0, 1)), "what is there still changes");
        assert!(!told(&metrics, family("c", MOST_SERIES, MOST_SERIES + 1)));
        let metrics = CustomMetrics::default();
        for number in 0..MOST_FAMILIES {
            assert!(told(&metrics, family(&format!("c{number}"), 0, 0)));
        }
        assert!(!told(&metrics, family("one_more", 0, 0)));
        let metrics = CustomMetrics::default();
        assert!(!told(&metrics, counter("c", &json!({"x": "y".repeat(MOST_BYTES)}))));
    }

    #[test]
    fn names_that_a_histogram_needs_are_its_own() {
        let family = |kind| Family { help: String::new(), kind, series: BTreeMap::new() };
        let there = |name: &str, kind| BTreeMap::from([(name.to_owned(), family(kind))]);
        assert_eq!(clash(&there("h", Kind::Histogram), "h_count", Kind::Counter), Some("h"));
        assert_eq!(clash(&there("h_sum", Kind::Gauge), "h", Kind::Histogram), Some("h_sum"));
        assert_eq!(clash(&there("h_sum", Kind::Gauge), "h", Kind::Counter), None);
        assert_eq!(clash(&there("h", Kind::Counter), "h", Kind::Gauge), Some("h"));
        assert_eq!(clash(&there("h", Kind::Counter), "h", Kind::Counter), None);
    }
}
