//! Routes: public names that share their requests among models, changed while the host serves.
//!
//! A route is looked up before the models, so that it may have a model's own name. Its targets are models, never
//! routes.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::config::RouteConfig;

/// Most routes; one more is refused.
pub(super) const ROUTES_MAX: usize = 1024;

/// All routes by name.
#[derive(Debug, Default)]
pub(super) struct Routes(RwLock<BTreeMap<String, Arc<Route>>>);

/// One route, with whose turn it is.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) config: RouteConfig,
    turns: Mutex<Turns>,
}

#[derive(Debug)]
struct Turns {
    /// By target: how much of its share it has not had yet.
    credits: Vec<i64>,
    /// By shadow: how many hundredths of a request it is owed.
    owed: Vec<u32>,
}

impl Routes {
    pub(super) fn new(configs: &BTreeMap<String, RouteConfig>) -> Self {
        let routes =
            configs.iter().map(|(name, config)| (name.clone(), Arc::new(Route::new(config.clone()))));
        Self(RwLock::new(routes.collect()))
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Route>> {
        self.0.read().get(name).cloned()
    }

    /// All of them, sorted by name.
    pub(super) fn list(&self) -> Vec<(String, RouteConfig)> {
        self.0.read().iter().map(|(name, route)| (name.clone(), route.config.clone())).collect()
    }

    /// Makes a route, or replaces the one of this name; requests that are being answered are not affected. False when
    /// there are [`ROUTES_MAX`] others.
    pub(super) fn set(&self, name: &str, config: RouteConfig) -> bool {
        let mut routes = self.0.write();
        let has_room = routes.len() < ROUTES_MAX || routes.contains_key(name);
        if has_room {
            routes.insert(name.to_owned(), Arc::new(Route::new(config)));
        }
        has_room
    }

    /// Removes a route. Returns whether there was one.
    pub(super) fn remove(&self, name: &str) -> bool {
        self.0.write().remove(name).is_some()
    }
}

impl Route {
    fn new(config: RouteConfig) -> Self {
        let turns = Turns { credits: vec![0; config.targets.len()], owed: vec![0; config.shadows.len()] };
        Self { config, turns: Mutex::new(turns) }
    }

    /// The targets for the next request: the one whose turn it is, then the others, heaviest first, for when it cannot
    /// be loaded.
    ///
    /// Smooth weighted round-robin, as in nginx: each target earns its weight, the richest is taken and pays the sum of
    /// all weights. Shares are exact over each such sum of requests, and a light target's turns are spread out.
    pub(super) fn targets(&self) -> Vec<&str> {
        let targets = &self.config.targets;
        let mut turns = self.turns.lock();
        let mut sum = 0;
        for (credit, target) in turns.credits.iter_mut().zip(targets) {
            *credit += i64::from(target.weight);
            sum += i64::from(target.weight);
        }
        let richest = (0..targets.len()).rev().max_by_key(|&index| turns.credits[index]).unwrap_or(0);
        turns.credits[richest] -= sum;
        let mut others: Vec<usize> = (0..targets.len()).filter(|&index| index != richest).collect();
        others.sort_by_key(|&index| std::cmp::Reverse(targets[index].weight));
        std::iter::once(richest).chain(others).map(|index| targets[index].model.as_str()).collect()
    }

    /// The models that get a copy of the next request.
    pub(super) fn shadows(&self) -> Vec<&str> {
        let mut turns = self.turns.lock();
        let mut due = Vec::new();
        for (owed, shadow) in turns.owed.iter_mut().zip(&self.config.shadows) {
            *owed += shadow.percent;
            if *owed >= 100 {
                *owed -= 100;
                due.push(shadow.model.as_str());
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{RouteShadow, RouteTarget};

    fn route(weights: &[u32], percents: &[u32]) -> Route {
        let targets = weights.iter().enumerate();
        let targets = targets.map(|(i, &weight)| RouteTarget { model: format!("m{i}"), weight }).collect();
        let shadows = percents.iter().enumerate();
        let shadows = shadows.map(|(i, &percent)| RouteShadow { model: format!("s{i}"), percent }).collect();
        Route::new(RouteConfig { targets, shadows })
    }

    #[test]
    fn turns_are_spread_out_and_the_rest_stands_by() {
        let route = route(&[5, 1, 1], &[]);
        let order: Vec<String> = (0..7).map(|_| route.targets()[0].to_owned()).collect();
        assert_eq!(order, ["m0", "m0", "m1", "m0", "m2", "m0", "m0"]);
        let standby = super::tests::route(&[1, 0, 7], &[]);
        assert_eq!(standby.targets(), ["m2", "m0", "m1"]);
    }

    #[test]
    fn a_shadow_gets_its_percentage() {
        let route = route(&[1], &[25, 100, 0]);
        let mut counts = BTreeMap::new();
        for _ in 0..200 {
            for shadow in route.shadows() {
                *counts.entry(shadow.to_owned()).or_insert(0) += 1;
            }
        }
        assert_eq!(counts, BTreeMap::from([("s0".to_owned(), 50), ("s1".to_owned(), 200)]));
    }

    #[test]
    fn routes_are_made_replaced_and_removed() {
        let routes = Routes::default();
        let config = route(&[1], &[]).config;
        assert!(routes.set("a", config.clone()) && routes.set("a", config.clone()));
        assert_eq!(routes.list(), [("a".to_owned(), config.clone())]);
        for i in 1..ROUTES_MAX {
            assert!(routes.set(&i.to_string(), config.clone()));
        }
        assert!(!routes.set("one more", config.clone()) && routes.set("a", config));
        assert!(routes.remove("a") && !routes.remove("a"));
    }

    proptest! {
        #[test]
        fn shares_are_exact(weights in proptest::collection::vec(0u32..20, 1..6)) {
            let sum: u32 = weights.iter().sum();
            prop_assume!(sum > 0);
            let route = route(&weights, &[]);
            let mut counts = vec![0; weights.len()];
            for _ in 0..sum {
                let targets = route.targets();
                prop_assert_eq!(targets.len(), weights.len());
                counts[targets[0][1..].parse::<usize>().unwrap()] += 1;
            }
            prop_assert_eq!(counts, weights);
        }
    }
}
