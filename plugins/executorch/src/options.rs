//! The options of a model, as written in `model.toml` or given at load.

use std::time::Duration;

use pajamas_plugin_api::{Error, options};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Requests at the same time when nothing else is asked for.
pub const SLOTS_DEFAULT: u32 = 8;
/// Rows of one run when nothing else is asked for.
pub const BATCH_DEFAULT: u32 = 8;

/// Options of one model. Every field has a default. What is not listed here belongs to the model's pipeline, which
/// refuses what it does not know either.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Threads of the pool that all models of the worker share, as the first of them wants it; default: the physical cores
    /// that this process may use.
    pub threads: Option<u32>,
    /// The method of the program that is run; default: `forward`, or the only one that has inputs.
    pub method: Option<String>,
    /// Copies of the method that run beside one another, each with its own memory.
    pub streams: u32,
    /// Which dimensions of a tensor of dynamic shape may differ from their upper bounds.
    pub dynamic_dims: DynamicDims,
    /// Names of the inputs, in their order; default: those of the program, or `input_0` and so on.
    pub input_names: Vec<String>,
    /// Names of the outputs, in their order; default: those of the program, or `output_0` and so on.
    pub output_names: Vec<String>,
    /// Most rows (pictures, texts) of one run; 1 runs every request alone. Default: 8, but 1 for pictures.
    pub batch_max: Option<u32>,
    /// How long a request that has waited for another one's run waits on, in µs, for more to fill the batch.
    pub batch_delay_us: u32,
    /// Run the method once with zeros when it is loaded, where its inputs allow it.
    pub warm_up: bool,
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
            threads: None,
            method: None,
            streams: 1,
            dynamic_dims: DynamicDims::Auto,
            input_names: Vec::new(),
            output_names: Vec::new(),
            batch_max: None,
            batch_delay_us: 0,
            warm_up: true,
            slots: SLOTS_DEFAULT,
            queue: 256,
            pipeline: Map::new(),
        }
    }
}

/// Which dimensions of a tensor of dynamic shape may differ from their upper bounds: a program tells only that some may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DynamicDims {
    /// The first one of methods that take pictures (an input of four dimensions), and all of others.
    Auto,
    /// Any, but for the channels of pictures.
    All,
    /// The first one, which counts rows.
    First,
}

impl Options {
    /// Reads options and checks their ranges.
    ///
    /// # Errors
    /// An option has a wrong type or is out of range; the message names it and what is allowed.
    pub fn parse(map: &Map<String, Value>) -> Result<Self, Error> {
        let options: Self = options::parse(map)?;
        options::check_ranges([
            ("threads", options.threads, 1..=1024),
            ("streams", Some(options.streams), 1..=64),
            ("batch_max", options.batch_max, 1..=4096),
            ("batch_delay_us", Some(options.batch_delay_us), 0..=1_000_000),
            ("slots", Some(options.slots), 1..=1024),
            ("queue", Some(options.queue), 0..=1024),
        ])?;
        Ok(options)
    }

    /// The threads of the pool.
    #[must_use]
    pub fn threads(&self) -> u32 {
        self.threads.unwrap_or_else(|| {
            // A second thread on the same core takes its caches away; a container may allow fewer than the machine has.
            let allowed = std::thread::available_parallelism().map_or(1, usize::from);
            u32::try_from(num_cpus::get_physical().clamp(1, allowed)).unwrap_or(1)
        })
    }

    /// Most rows of one run of a network that takes pictures, or of another.
    #[must_use]
    pub fn batch_max(&self, takes_pictures: bool) -> usize {
        // A picture keeps all of a CPU's units busy by itself, and several fall out of its caches.
        let own = if takes_pictures { 1 } else { BATCH_DEFAULT };
        usize::try_from(self.batch_max.unwrap_or(own)).unwrap_or(usize::MAX)
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
            parse(&json!({"threads": 2, "method": "encode", "dynamic_dims": "first", "image_size": 320}))
                .unwrap();
        assert_eq!((options.threads(), options.method.as_deref()), (2, Some("encode")));
        assert_eq!(options.dynamic_dims, DynamicDims::First);
        assert_eq!(Value::Object(options.pipeline.clone()), json!({"image_size": 320}));
        assert!(Options::default().threads() >= 1);
        assert_eq!([true, false].map(|pictures| options.batch_max(pictures)), [1, 8]);
        assert_eq!(parse(&json!({"batch_max": 3})).unwrap().batch_max(true), 3);
    }

    #[test]
    fn wrong_options_are_named_with_what_is_allowed() {
        for (json, wanted) in [
            (json!({"threads": "many"}), vec!["`threads`", "u32"]),
            (json!({"threads": 0}), vec!["`threads`", "1 to 1024"]),
            (json!({"method": 1}), vec!["`method`", "string"]),
            (json!({"streams": 0}), vec!["`streams`", "1 to 64"]),
            (json!({"dynamic_dims": "last"}), vec!["`dynamic_dims`", "`all`", "`first`"]),
            (json!({"input_names": "x"}), vec!["`input_names`"]),
            (json!({"batch_max": 0}), vec!["`batch_max`", "1 to 4096"]),
            (json!({"slots": 0}), vec!["`slots`"]),
            (json!({"warm_up": 1}), vec!["`warm_up`", "boolean"]),
        ] {
            let message = parse(&json).unwrap_err();
            for word in wanted {
                assert!(message.contains(word), "{json}: {message}");
            }
        }
    }
}
