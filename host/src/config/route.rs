//! A route: a public name that shares its requests among models.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// Most targets of a route, and most shadows; more are refused.
pub const ROUTE_TARGETS_MAX: usize = 16;
/// Largest weight; a greater one is refused.
pub const ROUTE_WEIGHT_MAX: u32 = 1_000_000;

/// What stands behind a public name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawRoute")]
pub struct RouteConfig {
    /// The models that answer, each with its share.
    pub targets: Vec<RouteTarget>,
    /// The models that get copies of requests, and whose answers nobody sees.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<RouteShadow>,
}

/// A model that answers requests of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTarget {
    /// Its id or alias; the name of a route is not looked up again.
    pub model: String,
    /// Its share of the requests, in relation to the other weights; 0 means only when no other target can be loaded.
    #[serde(default = "one")]
    pub weight: u32,
}

/// A model that gets copies of a route's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteShadow {
    /// Its id or alias.
    pub model: String,
    /// How many of a hundred requests it gets.
    #[serde(default = "hundred")]
    pub percent: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    targets: Vec<RouteTarget>,
    #[serde(default)]
    shadows: Vec<RouteShadow>,
}

fn one() -> u32 {
    1
}

fn hundred() -> u32 {
    100
}

impl TryFrom<RawRoute> for RouteConfig {
    type Error = String;

    fn try_from(raw: RawRoute) -> Result<Self, String> {
        let RawRoute { targets, shadows } = raw;
        if targets.is_empty() {
            return Err("`targets` is empty: name at least one model".to_owned());
        }
        for (field, count) in [("targets", targets.len()), ("shadows", shadows.len())] {
            if count > ROUTE_TARGETS_MAX {
                return Err(format!("`{field}` has {count} models, at most {ROUTE_TARGETS_MAX} are allowed"));
            }
        }
        if targets.iter().all(|target| target.weight == 0) {
            return Err("every weight is 0: give at least one target a share".to_owned());
        }
        if let Some(target) = targets.iter().find(|target| target.weight > ROUTE_WEIGHT_MAX) {
            return Err(format!("`weight` of \"{}\" is above {ROUTE_WEIGHT_MAX}", target.model));
        }
        if let Some(shadow) = shadows.iter().find(|shadow| shadow.percent > 100) {
            return Err(format!(
                "`percent` of \"{}\" is {}: expected 0 to 100",
                shadow.model, shadow.percent
            ));
        }
        let mut names = HashSet::new();
        let models = targets.iter().map(|target| &target.model).chain(shadows.iter().map(|s| &s.model));
        for model in models {
            if model.is_empty() {
                return Err("`model` is empty: expected the name of a model".to_owned());
            }
            if !names.insert(model) {
                return Err(format!("\"{model}\" is named twice"));
            }
        }
        Ok(Self { targets, shadows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_percentages_have_defaults() {
        let route: RouteConfig =
            toml::from_str("targets = [{ model = 'a' }]\nshadows = [{ model = 'b' }]").unwrap();
        assert_eq!(route.targets, [RouteTarget { model: "a".into(), weight: 1 }]);
        assert_eq!(route.shadows, [RouteShadow { model: "b".into(), percent: 100 }]);
    }

    #[test]
    fn wrong_routes_say_what_was_expected() {
        let many = format!("targets = [{}]", "{ model = 'a' },".repeat(17));
        for (text, expected) in [
            ("", "missing field `targets`"),
            ("targets = []", "`targets` is empty"),
            ("targets = ['a']", "expected struct RouteTarget"),
            (&many, "`targets` has 17 models, at most 16"),
            ("targets = [{ model = 'a', weight = 0 }]", "every weight is 0"),
            ("targets = [{ model = 'a', weight = -1 }]", "expected u32"),
            ("targets = [{ model = 'a', weight = 1000001 }]", "`weight` of \"a\" is above 1000000"),
            ("targets = [{ model = 'a', wait = 1 }]", "unknown field `wait`"),
            ("targets = [{ model = '' }]", "`model` is empty"),
            ("targets = [{ model = 'a' }, { model = 'a' }]", "\"a\" is named twice"),
            ("targets = [{ model = 'a' }]\nshadows = [{ model = 'a' }]", "\"a\" is named twice"),
            (
                "targets = [{ model = 'a' }]\nshadows = [{ model = 'b', percent = 101 }]",
                "`percent` of \"b\" is 101",
            ),
        ] {
            let error = toml::from_str::<RouteConfig>(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
