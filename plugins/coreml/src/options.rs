//! The options of a model, as written in `model.toml` or given at load.

use std::time::Duration;

use pajamas_plugin_api::{Error, options};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Requests at the same time when nothing else is asked for.
pub const SLOTS_DEFAULT: u32 = 8;

/// Options of one model. Every field has a default. What is not listed here belongs to the model's pipeline, which
/// refuses what it does not know either.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Options {
    /// What computes.
    pub compute_units: ComputeUnits,
    /// The function of a package with several; default: the one that the package names.
    pub function: Option<String>,
    /// What becomes of the states of a network that has some.
    pub state: StatePolicy,
    /// The GPU may add up in half precision.
    pub low_precision_on_gpu: bool,
    /// Most rows (pictures, texts) that are given to CoreML at once; 1 runs every request alone.
    pub batch_max: u32,
    /// How long a request that has waited for another one's run waits on, in µs, for more to fill the batch.
    pub batch_delay_us: u32,
    /// Run each network once with zeros when it is loaded, where its shapes allow it.
    pub warm_up: bool,
    /// Size of all compiled models that are kept for the next load, in MiB; 0 keeps none.
    pub cache_mib: u32,
    /// Requests that are worked on at the same time.
    pub slots: u32,
    /// Requests that may wait for a slot; one more is refused as overloaded.
    pub queue: u32,
    /// The options of the model's pipeline.
    #[serde(flatten)]
    pub pipeline: Map<String, Value>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            compute_units: ComputeUnits::All,
            function: None,
            state: StatePolicy::Fresh,
            low_precision_on_gpu: false,
            batch_max: 8,
            batch_delay_us: 0,
            warm_up: true,
            cache_mib: 8192,
            slots: SLOTS_DEFAULT,
            queue: 256,
            pipeline: Map::new(),
        }
    }
}

/// What computes; CoreML chooses among these for each operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputeUnits {
    /// All that the machine has.
    All,
    /// The CPU and the Neural Engine.
    CpuAndNe,
    /// The CPU and the GPU.
    CpuAndGpu,
    /// The CPU alone.
    Cpu,
}

/// What becomes of a network's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatePolicy {
    /// Each run begins with zeros, so that requests do not change one another's results.
    Fresh,
    /// One state goes through all runs, in their order, from the load on.
    Kept,
}

impl Options {
    /// Reads options and checks their ranges.
    ///
    /// # Errors
    /// An option has a wrong type or is out of range; the message names it and what is allowed.
    pub fn parse(map: &Map<String, Value>) -> Result<Self, Error> {
        let options: Self = options::parse(map)?;
        options::check_ranges([
            ("batch_max", Some(options.batch_max), 1..=4096),
            ("batch_delay_us", Some(options.batch_delay_us), 0..=1_000_000),
            ("cache_mib", Some(options.cache_mib), 0..=1 << 20),
            ("slots", Some(options.slots), 1..=1024),
            ("queue", Some(options.queue), 0..=1024),
        ])?;
        Ok(options)
    }

    /// [`Options::batch_delay_us`] as a duration.
    #[must_use]
    pub fn batch_delay(&self) -> Duration {
        Duration::from_micros(u64::from(self.batch_delay_us))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: &Value) -> Result<Options, String> {
        Options::parse(value.as_object().unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_valid_and_the_rest_is_the_pipelines() {
        assert_eq!(parse(&json!({})).unwrap(), Options::default());
        let options =
            parse(&json!({"compute_units": "cpu_and_ne", "state": "kept", "image_size": 320})).unwrap();
        assert_eq!((options.compute_units, options.state), (ComputeUnits::CpuAndNe, StatePolicy::Kept));
        assert_eq!(Value::Object(options.pipeline), json!({"image_size": 320}));
    }

    #[test]
    fn wrong_options_are_named_with_what_is_allowed() {
        for (json, wanted) in [
            (json!({"compute_units": "gpu"}), vec!["`compute_units`", "`cpu_and_gpu`", "`cpu`"]),
            (json!({"state": true}), vec!["`state`"]),
            (json!({"batch_max": 0}), vec!["`batch_max`", "1 to 4096"]),
            (json!({"slots": "many"}), vec!["`slots`", "u32"]),
            (json!({"warm_up": 1}), vec!["`warm_up`", "boolean"]),
        ] {
            let message = parse(&json).unwrap_err();
            for word in wanted {
                assert!(message.contains(word), "{json}: {message}");
            }
        }
    }
}
