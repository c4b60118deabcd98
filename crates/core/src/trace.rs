//! The trace settings: global ones, and those in which a model differs.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// Some settings; what is absent is as one level above.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `OFF` alone, or `TIMESTAMPS` and `TENSORS`.
    pub level: Option<Vec<String>>,
    /// Every which request.
    pub rate: Option<u32>,
    /// How many are left, -1 = no end.
    pub count: Option<i32>,
    /// Traces a file, 0 = all in one.
    pub log_frequency: Option<u32>,
}

/// Settings without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// As in [`Overrides`].
    pub level: Vec<String>,
    /// As in [`Overrides`].
    pub rate: u32,
    /// As in [`Overrides`].
    pub count: i32,
    /// As in [`Overrides`].
    pub log_frequency: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { level: vec!["OFF".to_owned()], rate: 1000, count: -1, log_frequency: 0 }
    }
}

impl Settings {
    fn with(&self, overrides: &Overrides) -> Self {
        Self {
            level: overrides.level.clone().unwrap_or_else(|| self.level.clone()),
            rate: overrides.rate.unwrap_or(self.rate),
            count: overrides.count.unwrap_or(self.count),
            log_frequency: overrides.log_frequency.unwrap_or(self.log_frequency),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Held {
    global: Overrides,
    models: HashMap<String, Overrides>,
}

/// The settings of a server.
#[derive(Debug, Default)]
pub struct TraceSettings {
    held: ArcSwap<Held>,
}

impl TraceSettings {
    /// The settings of a model, or the global ones.
    pub fn of(&self, model: Option<&str>) -> Settings {
        let held = self.held.load();
        let global = Settings::default().with(&held.global);
        match model.and_then(|model| held.models.get(model)) {
            Some(own) => global.with(own),
            None => global,
        }
    }

    /// Changes what a model differs in, or the global settings.
    pub fn update(&self, model: Option<&str>, change: impl Fn(&mut Overrides)) {
        self.held.rcu(|held| {
            let mut held = Held::clone(held);
            match model {
                None => change(&mut held.global),
                Some(model) => change(held.models.entry(model.to_owned()).or_default()),
            }
            Arc::new(held)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_differs_only_where_it_was_told_to() {
        let settings = TraceSettings::default();
        settings.update(Some("m"), |own| own.rate = Some(5));
        settings.update(None, |global| (global.rate, global.count) = (Some(7), Some(9)));
        assert_eq!((settings.of(Some("m")).rate, settings.of(Some("m")).count), (5, 9));
        settings.update(Some("m"), |own| own.rate = None);
        assert_eq!((settings.of(Some("m")).rate, settings.of(None).rate), (7, 7));
        settings.update(None, |global| *global = Overrides::default());
        assert_eq!(settings.of(Some("m")), Settings::default());
    }
}
