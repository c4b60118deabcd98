//! The trace settings: global ones, those in which a model differs, and which requests they choose.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::options::TraceOptions;
use crate::error::InferError;

/// What a trace holds; nothing = `OFF`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// What happened when.
    pub timestamps: bool,
    /// The tensors themselves.
    pub tensors: bool,
}

impl Level {
    /// `OFF` alone, or `TIMESTAMPS` and `TENSORS`; none if it is neither.
    pub fn read(names: &[String]) -> Option<Self> {
        if names == ["OFF"] {
            return Some(Self::default());
        }
        let mut level = Self::default();
        for name in names {
            match name.as_str() {
                "TIMESTAMPS" => level.timestamps = true,
                "TENSORS" => level.tensors = true,
                _ => return None,
            }
        }
        Some(level)
    }

    /// As they are read.
    pub fn names(self) -> Vec<String> {
        let all = [(self.timestamps, "TIMESTAMPS"), (self.tensors, "TENSORS"), (self.is_off(), "OFF")];
        all.into_iter().filter(|(is_on, _)| *is_on).map(|(_, name)| name.to_owned()).collect()
    }

    /// Whether nothing is traced.
    pub fn is_off(self) -> bool {
        self == Self::default()
    }
}

/// How many traces are left, -1 = no end. Settings that take the number from one place use it up together.
#[derive(Clone, Debug)]
pub struct Left(Arc<AtomicI32>);

impl Left {
    /// So many.
    pub fn new(count: i32) -> Self {
        Self(Arc::new(AtomicI32::new(count)))
    }

    /// How many there are now.
    pub fn get(&self) -> i32 {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        let less = |left: i32| (left != 0).then_some(if left > 0 { left - 1 } else { left });
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// Some settings; what is absent is as one level above.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// What a trace holds.
    pub level: Option<Level>,
    /// Every which request.
    pub rate: Option<u32>,
    /// How many are left.
    pub count: Option<Left>,
    /// Traces a file, 0 = all in one.
    pub log_frequency: Option<u32>,
}

/// Settings without a gap.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As in [`Overrides`].
    pub level: Level,
    /// As in [`Overrides`].
    pub rate: u32,
    /// As in [`Overrides`].
    pub count: Left,
    /// As in [`Overrides`].
    pub log_frequency: u32,
}

impl Settings {
    fn with(&self, overrides: &Overrides) -> Self {
        Self {
            level: overrides.level.unwrap_or(self.level),
            rate: overrides.rate.unwrap_or(self.rate),
            count: overrides.count.as_ref().unwrap_or(&self.count).clone(),
            log_frequency: overrides.log_frequency.unwrap_or(self.log_frequency),
        }
    }
}

/// Chooses requests by some settings.
#[derive(Debug)]
pub struct Sampler {
    /// By which.
    pub settings: Settings,
    /// Whose traces share a file: the model that has settings of its own, or `""`.
    pub group: Arc<str>,
    seen: AtomicU64,
}

impl Sampler {
    fn new(settings: Settings, group: &str) -> Arc<Self> {
        Arc::new(Self { settings, group: Arc::from(group), seen: AtomicU64::new(0) })
    }

    /// Whether this request is the next one to be traced.
    pub fn chooses(&self) -> bool {
        let rate = u64::from(self.settings.rate);
        rate > 0 && (self.seen.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(rate) && self.settings.count.take()
    }
}

#[derive(Clone, Debug)]
struct Held {
    global: Overrides,
    models: HashMap<String, Overrides>,
    everywhere: Arc<Sampler>,
    own: HashMap<String, Arc<Sampler>>,
}

/// The settings of a server.
#[derive(Debug)]
pub struct TraceSettings {
    default: Settings,
    /// Why no request can be traced; none if it can.
    refusal: fn(&Settings) -> Option<&'static str>,
    held: ArcSwap<Held>,
    changing: Mutex<()>,
    on: AtomicBool,
}

impl TraceSettings {
    /// Those of the start, and what makes of settings that no trace could be made by them.
    pub fn new(options: &TraceOptions, refusal: fn(&Settings) -> Option<&'static str>) -> Result<Self, InferError> {
        let level = Level::read(&options.level)
            .ok_or_else(|| InferError::InvalidArgument(format!("trace level: got {}", options.level.join(","))))?;
        let (rate, log_frequency) = (options.rate, options.log_frequency);
        let default = Settings { level, rate, count: Left::new(options.count), log_frequency };
        check(&default, refusal)?;
        let everywhere = Sampler::new(default.clone(), "");
        let (global, models, own) = (Overrides::default(), HashMap::new(), HashMap::new());
        let held = ArcSwap::from_pointee(Held { global, models, everywhere, own });
        Ok(Self { default, refusal, held, changing: Mutex::new(()), on: AtomicBool::new(!level.is_off()) })
    }

    /// Whether any request may be traced.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Who chooses among the requests of a model.
    pub fn sampler(&self, model: &str) -> Arc<Sampler> {
        let held = self.held.load();
        Arc::clone(held.own.get(model).unwrap_or(&held.everywhere))
    }

    /// The settings of a model, or the global ones.
    pub fn of(&self, model: Option<&str>) -> Settings {
        let held = self.held.load();
        model.and_then(|model| held.own.get(model)).unwrap_or(&held.everywhere).settings.clone()
    }

    /// Changes what a model differs in, or the global settings. Whoever uses the changed ones begins to count anew.
    pub fn update(&self, model: Option<&str>, change: impl Fn(&mut Overrides)) -> Result<(), InferError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = Held::clone(&self.held.load());
        match model {
            None => {
                change(&mut held.global);
                held.everywhere = Sampler::new(self.default.with(&held.global), "");
                check(&held.everywhere.settings, self.refusal)?;
            }
            Some(model) => change(held.models.entry(model.to_owned()).or_default()),
        }
        held.models.retain(|_, own| {
            own.level.is_some() || own.rate.is_some() || own.count.is_some() || own.log_frequency.is_some()
        });
        held.own.retain(|name, _| held.models.contains_key(name));
        for (name, overrides) in &held.models {
            if model.is_none_or(|model| model == name) {
                let sampler = Sampler::new(held.everywhere.settings.with(overrides), name);
                check(&sampler.settings, self.refusal)?;
                held.own.insert(name.clone(), sampler);
            }
        }
        let is_on = |sampler: &Arc<Sampler>| !sampler.settings.level.is_off();
        let on = is_on(&held.everywhere) || held.own.values().any(is_on);
        self.held.store(Arc::new(held));
        self.on.store(on, Ordering::Relaxed);
        Ok(())
    }
}

/// Settings by which no trace could be made are refused, unless they say that none is wanted.
fn check(settings: &Settings, refusal: fn(&Settings) -> Option<&'static str>) -> Result<(), InferError> {
    match refusal(settings).filter(|_| !settings.level.is_off()) {
        None => Ok(()),
        Some(why) => Err(InferError::InvalidArgument(format!("Attempting to set invalid trace setting :{why}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: Level = Level { timestamps: true, tensors: false };

    fn settings() -> TraceSettings {
        TraceSettings::new(&TraceOptions::default(), |_| None).unwrap()
    }

    fn chosen(settings: &TraceSettings, model: &str, requests: usize) -> usize {
        (0..requests).filter(|_| settings.sampler(model).chooses()).count()
    }

    #[test]
    fn a_model_differs_only_where_it_was_told_to() {
        let settings = settings();
        settings.update(Some("m"), |own| own.rate = Some(5)).unwrap();
        let change = |global: &mut Overrides| (global.rate, global.count) = (Some(7), Some(Left::new(9)));
        settings.update(None, change).unwrap();
        assert_eq!((settings.of(Some("m")).rate, settings.of(Some("m")).count.get()), (5, 9));
        settings.update(Some("m"), |own| own.rate = None).unwrap();
        assert_eq!((settings.of(Some("m")).rate, settings.of(None).rate), (7, 7));
        settings.update(None, |global| *global = Overrides::default()).unwrap();
        let back = settings.of(Some("m"));
        assert_eq!((back.rate, back.count.get(), back.level.names()), (1000, -1, vec!["OFF".to_owned()]));
    }

    #[test]
    fn every_so_many_requests_one_is_chosen_until_none_is_left() {
        let settings = settings();
        assert!(!settings.is_on());
        settings.update(None, |global| (global.level, global.rate) = (Some(ON), Some(3))).unwrap();
        assert!(settings.is_on());
        assert_eq!(chosen(&settings, "m", 8), 2);
        settings.update(None, |global| global.count = Some(Left::new(2))).unwrap();
        settings.update(Some("n"), |own| own.rate = Some(1)).unwrap();
        assert_eq!((chosen(&settings, "n", 1), chosen(&settings, "m", 9)), (1, 1), "they share the count");
        assert_eq!(settings.of(None).count.get(), 0);
        settings.update(None, |global| global.level = None).unwrap();
        assert!(!settings.is_on());
    }

    #[test]
    fn settings_that_lead_to_no_trace_are_refused_whole() {
        let settings = TraceSettings::new(&TraceOptions::default(), |_| Some("no")).unwrap();
        settings.update(Some("m"), |own| own.rate = Some(2)).unwrap();
        let refused = settings.update(Some("m"), |own| (own.level, own.rate) = (Some(ON), Some(9)));
        assert_eq!(refused.unwrap_err().to_string(), "Attempting to set invalid trace setting :no");
        assert_eq!(settings.of(Some("m")).rate, 2);
        assert!(settings.update(None, |global| global.level = Some(ON)).is_err() && !settings.is_on());
    }
}
