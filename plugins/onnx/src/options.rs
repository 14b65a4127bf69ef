//! The options of a model, as written in `model.toml` or given at load.

use std::time::Duration;

use pajamas_plugin_api::{Error, options};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::provider::Provider;

/// Requests at the same time when nothing else is asked for.
pub const SLOTS_DEFAULT: u32 = 8;
/// Rows of one run when nothing else is asked for.
pub const BATCH_DEFAULT: u32 = 8;
/// As long as waking a thread takes; and what the many small operators of voices take. Both measured, README.md.
const SPIN_DEFAULT_US: u32 = 20;
const SPIN_OF_VOICES_US: u32 = 50;

/// Options of one model. Every field has a default. What is not listed here belongs to the model's pipeline, which
/// refuses what it does not know either.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Threads of one run; default: the physical cores that this process may use.
    pub threads: Option<u32>,
    /// Branches of a network that run beside each other.
    pub inter_threads: u32,
    /// How much the network is rewritten before it runs.
    pub graph_optimization: GraphOptimization,
    /// What computes, best first; the CPU does what none of the others can.
    pub execution_providers: Vec<Provider>,
    /// Most rows (pictures, texts) of one run; 1 runs every request alone. Default: 8, but 1 for pictures on the CPU.
    pub batch_max: Option<u32>,
    /// How long a request that has waited for another one's run waits on, in µs, for more to fill the batch.
    pub batch_delay_us: u32,
    /// How long a thread that has nothing to do waits in a busy loop for the next operator of a run before it sleeps, in
    /// µs; 0 lets it sleep at once. Default: 20, but 50 for voices.
    pub spin_us: Option<u32>,
    /// Keep freed memory for the next run instead of giving it back to the system.
    pub memory_arena: bool,
    /// Plan the memory of a whole run at once where shapes repeat.
    pub memory_pattern: bool,
    /// Run each network once with zeros when it is loaded, where its shapes allow it.
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
            inter_threads: 1,
            graph_optimization: GraphOptimization::All,
            execution_providers: vec![Provider::Cpu],
            batch_max: None,
            batch_delay_us: 0,
            spin_us: None,
            memory_arena: true,
            memory_pattern: true,
            warm_up: true,
            slots: SLOTS_DEFAULT,
            queue: 256,
            pipeline: Map::new(),
        }
    }
}

/// How much a network is rewritten before it runs, as ONNX Runtime names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GraphOptimization {
    /// Nothing.
    None,
    /// What changes no operator: constants are folded, what is not used is removed.
    Basic,
    /// Operators are fused too.
    Extended,
    /// The layout of the memory is changed too.
    All,
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
            ("threads", self.threads, 1..=1024),
            ("inter_threads", Some(self.inter_threads), 1..=1024),
            ("batch_max", self.batch_max, 1..=4096),
            ("batch_delay_us", Some(self.batch_delay_us), 0..=1_000_000),
            ("spin_us", self.spin_us, 0..=1_000_000),
            ("slots", Some(self.slots), 1..=1024),
            ("queue", Some(self.queue), 0..=1024),
        ])
    }

    /// The threads of one run.
    #[must_use]
    pub fn threads(&self) -> usize {
        let own = || {
            // A second thread on the same core takes its caches away; a container may allow fewer than the machine has.
            let allowed = std::thread::available_parallelism().map_or(1, usize::from);
            num_cpus::get_physical().clamp(1, allowed)
        };
        self.threads.map_or_else(own, |threads| usize::try_from(threads).unwrap_or(usize::MAX))
    }

    /// Most rows of one run of a network that takes pictures, or of another.
    #[must_use]
    pub fn batch_max(&self, takes_pictures: bool) -> usize {
        // A picture keeps all of a CPU's units busy by itself, and several fall out of its caches: measured, README.md.
        let is_on_cpu = self.execution_providers.iter().all(|provider| *provider == Provider::Cpu);
        let own = if takes_pictures && is_on_cpu { 1 } else { BATCH_DEFAULT };
        usize::try_from(self.batch_max.unwrap_or(own)).unwrap_or(usize::MAX)
    }

    /// How long a thread of a run waits in a busy loop, in µs.
    #[must_use]
    pub fn spin_us(&self, is_voice: bool) -> u32 {
        self.spin_us.unwrap_or(if is_voice { SPIN_OF_VOICES_US } else { SPIN_DEFAULT_US })
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

    fn parse(value: Value) -> Result<Options, String> {
        Options::parse(value.as_object().unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_valid_and_the_rest_is_the_pipelines() {
        assert_eq!(parse(json!({})).unwrap(), Options::default());
        let options = parse(json!({"threads": 2, "pipeline": "detect", "size": 320})).unwrap();
        assert_eq!(options.threads(), 2);
        assert_eq!(Value::Object(options.pipeline.clone()), json!({"pipeline": "detect", "size": 320}));
        assert!(Options::default().threads() >= 1);
        let gpu = parse(json!({"execution_providers": ["cuda"]})).unwrap();
        let given = parse(json!({"batch_max": 3})).unwrap();
        let sizes =
            [options, gpu, given].map(|options| [true, false].map(|pictures| options.batch_max(pictures)));
        assert_eq!(sizes, [[1, 8], [8, 8], [3, 3]]);
        let spins = [json!({}), json!({"spin_us": 0})].map(|options| {
            let options = parse(options).unwrap();
            [true, false].map(|is_voice| options.spin_us(is_voice))
        });
        assert_eq!(spins, [[50, 20], [0, 0]]);
    }

    #[test]
    fn wrong_options_are_named_with_what_is_allowed() {
        let cases = [
            (json!({"threads": "many"}), vec!["`threads`", "u32"]),
            (json!({"threads": 0}), vec!["`threads`", "1 to 1024"]),
            (json!({"batch_max": 0}), vec!["`batch_max`", "1 to 4096"]),
            (json!({"slots": 0}), vec!["`slots`"]),
            (json!({"graph_optimization": "most"}), vec!["`graph_optimization`", "`basic`", "`all`"]),
            (json!({"execution_providers": ["gpu"]}), vec!["`execution_providers[0]`", "`cuda`", "`cpu`"]),
            (json!({"spin_us": true}), vec!["`spin_us`", "u32"]),
            (json!({"spin_us": 1_000_001}), vec!["`spin_us`", "0 to 1000000"]),
        ];
        for (json, wanted) in cases {
            let message = parse(json.clone()).unwrap_err();
            for word in wanted {
                assert!(message.contains(word), "{json}: {message}");
            }
        }
    }
}
