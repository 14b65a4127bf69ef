//! The options of a model, as written in `model.toml` or given at load.

use std::collections::BTreeMap;
use std::time::Duration;

use pajamas_plugin_api::{Error, options};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Most rows of one run that can be asked for.
pub const BATCH_MAX: u32 = 128;

/// Options of one model. Every field has a default. What is not listed here belongs to the model's pipeline, which
/// refuses what it does not know either.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The GPU, counted from 0 in the driver's order.
    pub device: u32,
    /// Most rows (pictures, texts) of one run, for which the engine is built; 1 runs every request alone.
    pub batch_max: u32,
    /// How long a request that has waited for another one's run waits on, in µs, for more to fill the batch.
    pub batch_delay_us: u32,
    /// Runs at the same time, each with its own stream, buffers and working memory.
    pub streams: u32,
    /// Record each shape's kernels once and start them with one call.
    pub cuda_graphs: bool,
    /// The shapes that the engine is built for, by input, where the defaults do not fit.
    pub profiles: BTreeMap<String, ProfileOption>,
    /// How long the library looks for faster kernels, 0 to 5; its own default where not given.
    pub optimization_level: Option<u32>,
    /// Most device memory that one layer may use while it works, in MiB; without it, what the GPU has.
    pub workspace_max_mb: Option<u32>,
    /// Most that all kept engines may take in the cache folder, in MiB; 0 keeps none.
    pub cache_max_mb: u32,
    /// Run each network once with zeros when it is loaded.
    pub warm_up: bool,
    /// Requests that are worked on at the same time.
    pub slots: u32,
    /// Requests that may wait for a slot; one more is refused as overloaded.
    pub queue: u32,
    /// The options of the model's pipeline.
    #[serde(flatten)]
    pub pipeline: Map<String, Value>,
}

/// Dimensions that one input may have: the smallest, those that are made fast, the largest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileOption {
    /// Smallest.
    pub min: Vec<i64>,
    /// Those that kernels are chosen for; the largest where not given.
    #[serde(default)]
    pub opt: Option<Vec<i64>>,
    /// Largest.
    pub max: Vec<i64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device: 0,
            batch_max: 16,
            batch_delay_us: 0,
            streams: 1,
            cuda_graphs: false,
            profiles: BTreeMap::new(),
            optimization_level: None,
            workspace_max_mb: None,
            cache_max_mb: 8192,
            warm_up: true,
            slots: 32,
            queue: 256,
            pipeline: Map::new(),
        }
    }
}

impl Options {
    /// Reads options and checks their ranges.
    ///
    /// # Errors
    /// An option has a wrong type or is out of range; the message names it and what is allowed.
    pub fn parse(map: &Map<String, Value>) -> Result<Self, Error> {
        let options: Self = options::parse(map)?;
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), Error> {
        options::check_ranges([
            ("device", Some(self.device), 0..=255),
            ("batch_max", Some(self.batch_max), 1..=BATCH_MAX),
            ("batch_delay_us", Some(self.batch_delay_us), 0..=1_000_000),
            ("streams", Some(self.streams), 1..=16),
            ("optimization_level", self.optimization_level, 0..=5),
            ("workspace_max_mb", self.workspace_max_mb, 1..=1 << 20),
            ("cache_max_mb", Some(self.cache_max_mb), 0..=1 << 20),
            ("slots", Some(self.slots), 1..=1024),
            ("queue", Some(self.queue), 0..=1024),
        ])?;
        if self.cuda_graphs && cfg!(feature = "enterprise") {
            return Err(Error::invalid(
                "option `cuda_graphs`: only TensorRT-RTX records them by itself; leave it out",
            ));
        }
        Ok(())
    }

    /// [`Options::batch_delay_us`] as a duration.
    #[must_use]
    pub fn batch_delay(&self) -> Duration {
        Duration::from_micros(u64::from(self.batch_delay_us))
    }

    /// [`Options::batch_max`] as a number of rows.
    #[must_use]
    pub fn rows_max(&self) -> usize {
        usize::try_from(self.batch_max).unwrap_or(1)
    }

    /// The GPU as statistics and estimates name it.
    #[must_use]
    pub fn device_id(&self) -> String {
        format!("cuda:{}", self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: Value) -> Result<Options, String> {
        Options::parse(value.as_object().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_valid_and_the_rest_is_the_pipelines() {
        assert_eq!(parse(serde_json::json!({})).unwrap(), Options::default());
        let options = parse(serde_json::json!({
            "batch_max": 128, "device": 1, "profiles": {"x": {"min": [1, 3], "max": [4, 3]}}, "image_size": 320,
        }))
        .unwrap();
        assert_eq!((options.rows_max(), options.device_id().as_str()), (128, "cuda:1"));
        assert_eq!(options.profiles["x"], ProfileOption { min: vec![1, 3], opt: None, max: vec![4, 3] });
        assert_eq!(Value::Object(options.pipeline.clone()), serde_json::json!({"image_size": 320}));
    }

    #[test]
    fn every_option_that_the_readme_lists_is_one_and_none_is_left_out() {
        let readme = include_str!("../README.md");
        let readme = readme.split_once("## Options").unwrap().1.split_once("## ").unwrap().0;
        let listed: Vec<&str> = readme
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name))
            .collect();
        for name in &listed {
            // A value that no option takes: it must be refused by name, and not be handed on to the pipeline.
            let map = Map::from_iter([((*name).to_owned(), serde_json::json!([[]]))]);
            let error = Options::parse(&map).unwrap_err();
            assert!(error.message().contains(&format!("`{name}`")), "{name}: {error}");
        }
        assert_eq!(listed.len(), 12, "{listed:?}");
    }

    #[test]
    fn wrong_options_are_named_with_what_is_allowed() {
        let cases = [
            (serde_json::json!({"batch_max": 0}), vec!["`batch_max`", "1 to 128"]),
            (serde_json::json!({"batch_max": 129}), vec!["`batch_max`", "1 to 128"]),
            (serde_json::json!({"streams": 0}), vec!["`streams`", "1 to 16"]),
            (serde_json::json!({"streams": "many"}), vec!["`streams`", "u32"]),
            (serde_json::json!({"optimization_level": 6}), vec!["`optimization_level`", "0 to 5"]),
            (serde_json::json!({"cuda_graphs": 1}), vec!["`cuda_graphs`", "boolean"]),
            (serde_json::json!({"profiles": {"x": {"min": [1]}}}), vec!["`profiles.x`", "`max`"]),
            (
                serde_json::json!({"profiles": {"x": {"min": [1], "max": [2], "top": 1}}}),
                vec!["`profiles.x.top`", "`max`"],
            ),
            (serde_json::json!({"slots": 0}), vec!["`slots`"]),
        ];
        for (json, wanted) in cases {
            let message = parse(json.clone()).unwrap_err();
            for word in wanted {
                assert!(message.contains(word), "{json}: {message}");
            }
        }
    }
}
