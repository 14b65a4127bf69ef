//! What the host counts and measures, for Prometheus. `docs/metrics.md` explains each; [`Metric`] names them all.
//!
//! One registry for the process: what is counted happens in places that have nothing else in common.

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::hardware::GpuReading;

/// Everything that is counted or measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Requests that have ended.
    Requests,
    /// From a job's submission to its turn.
    QueueSeconds,
    /// From a job's submission to its first token.
    TimeToFirstTokenSeconds,
    /// Between two tokens of a job.
    InterTokenSeconds,
    /// Tokens of prompts and answers.
    Tokens,
    /// Jobs that were given up.
    Cancels,
    /// From giving a job up to its end in the plugin.
    CancelStopSeconds,
    /// Workers that have ended.
    WorkerEnds,
    /// Swaps of plugins.
    Swaps,
    /// Jobs whose worker ended under them.
    Recoveries,
    /// Copies of requests for shadow models.
    Shadows,
    /// Calls of hooks.
    HookCalls,
    /// How long calls of hooks take.
    HookSeconds,
    /// Memory of loaded models.
    MemoryBytes,
    /// Memory that new processes could have.
    MachineMemoryAvailableBytes,
    /// Memory of a GPU that is taken.
    GpuMemoryUsedBytes,
    /// Share of time in which a GPU computes.
    GpuUtilizationRatio,
    /// Temperature of a GPU.
    GpuTemperatureCelsius,
    /// Power of a GPU.
    GpuPowerWatts,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Requests,
        Self::QueueSeconds,
        Self::TimeToFirstTokenSeconds,
        Self::InterTokenSeconds,
        Self::Tokens,
        Self::Cancels,
        Self::CancelStopSeconds,
        Self::WorkerEnds,
        Self::Swaps,
        Self::Recoveries,
        Self::Shadows,
        Self::HookCalls,
        Self::HookSeconds,
        Self::MemoryBytes,
        Self::MachineMemoryAvailableBytes,
        Self::GpuMemoryUsedBytes,
        Self::GpuUtilizationRatio,
        Self::GpuTemperatureCelsius,
        Self::GpuPowerWatts,
    ];

    /// The name that Prometheus sees, without `_total`, which counters get.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "pajamas_requests",
            Self::QueueSeconds => "pajamas_queue_seconds",
            Self::TimeToFirstTokenSeconds => "pajamas_time_to_first_token_seconds",
            Self::InterTokenSeconds => "pajamas_inter_token_seconds",
            Self::Tokens => "pajamas_tokens",
            Self::Cancels => "pajamas_cancels",
            Self::CancelStopSeconds => "pajamas_cancel_stop_seconds",
            Self::WorkerEnds => "pajamas_worker_ends",
            Self::Swaps => "pajamas_swaps",
            Self::Recoveries => "pajamas_recoveries",
            Self::Shadows => "pajamas_shadows",
            Self::HookCalls => "pajamas_hook_calls",
            Self::HookSeconds => "pajamas_hook_seconds",
            Self::MemoryBytes => "pajamas_memory_bytes",
            Self::MachineMemoryAvailableBytes => "pajamas_machine_memory_available_bytes",
            Self::GpuMemoryUsedBytes => "pajamas_gpu_memory_used_bytes",
            Self::GpuUtilizationRatio => "pajamas_gpu_utilization_ratio",
            Self::GpuTemperatureCelsius => "pajamas_gpu_temperature_celsius",
            Self::GpuPowerWatts => "pajamas_gpu_power_watts",
        }
    }

    /// One line for whoever looks at the numbers.
    fn help(self) -> &'static str {
        match self {
            Self::Requests => "HTTP requests that have ended",
            Self::QueueSeconds => "time from the submission of a job to its turn",
            Self::TimeToFirstTokenSeconds => "time from the submission of a job to its first token",
            Self::InterTokenSeconds => "time between two tokens of a job",
            Self::Tokens => "tokens of prompts and answers",
            Self::Cancels => "jobs that were given up, most often because the client went away",
            Self::CancelStopSeconds => "time from giving a job up to its end in the plugin",
            Self::WorkerEnds => "worker processes that have ended",
            Self::Swaps => "swaps of plugins",
            Self::Recoveries => "jobs whose worker ended under them",
            Self::Shadows => "copies of requests for shadow models",
            Self::HookCalls => "calls of hooks",
            Self::HookSeconds => {
                "time that a call of a hook takes, its start and its way to another thread included"
            }
            Self::MemoryBytes => "measured memory of the loaded models",
            Self::MachineMemoryAvailableBytes => "memory of the machine that new processes could have",
            Self::GpuMemoryUsedBytes => "memory of the GPU that is taken, by whomever",
            Self::GpuUtilizationRatio => "share of the last moments in which the GPU computed",
            Self::GpuTemperatureCelsius => "temperature of the GPU",
            Self::GpuPowerWatts => "what the GPU draws",
        }
    }
}

/// Labels of a request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route, or `other`.
    pub route: String,
    /// The answer's status.
    pub status: u16,
}

/// Labels of what happens to a model.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ModelLabels {
    /// The model's id.
    pub model: String,
}

/// Labels of tokens.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TokenLabels {
    /// `prompt` or `completion`.
    pub kind: &'static str,
}

/// Labels of what happens to a plugin.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PluginLabels {
    /// The plugin.
    pub plugin: String,
    /// What became of it.
    pub outcome: &'static str,
}

/// Labels of recoveries.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RecoveryLabels {
    /// The model's id.
    pub model: String,
    /// `moved`, `lost` or `poison`.
    pub outcome: &'static str,
}

/// Labels of shadow requests.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ShadowLabels {
    /// The model's id.
    pub model: String,
    /// `answered`, `failed` or `skipped`.
    pub outcome: &'static str,
}

/// Labels of calls of hooks.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct HookLabels {
    /// The hook.
    pub hook: String,
    /// `passed`, `changed`, `rejected` or `failed`.
    pub outcome: &'static str,
}

/// Labels of a hook.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HookLabel {
    hook: String,
}

/// Labels of memory.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DeviceLabels {
    device: String,
}

type Seconds = Family<ModelLabels, Histogram, fn() -> Histogram>;

/// The process's counters and histograms.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    queue: Seconds,
    first_token: Seconds,
    inter_token: Seconds,
    tokens: Family<TokenLabels, Counter>,
    cancels: Counter,
    cancel_stop: Histogram,
    worker_ends: Family<PluginLabels, Counter>,
    swaps: Family<PluginLabels, Counter>,
    recoveries: Family<RecoveryLabels, Counter>,
    shadows: Family<ShadowLabels, Counter>,
    hook_calls: Family<HookLabels, Counter>,
    hook_seconds: Family<HookLabel, Histogram, fn() -> Histogram>,
    memory: Family<DeviceLabels, Gauge<u64, AtomicU64>>,
    machine_memory_available: Gauge<u64, AtomicU64>,
    gpus: GpuGauges,
}

/// What the GPUs are doing.
#[derive(Debug, Default)]
struct GpuGauges {
    memory_used: Family<DeviceLabels, Gauge<u64, AtomicU64>>,
    utilization: Readings,
    temperature: Readings,
    power: Readings,
}

type Readings = Family<DeviceLabels, Gauge<f64, AtomicU64>>;

/// What holds at the moment somebody asks for the metrics.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// What models take, by device, in bytes.
    pub models: Vec<(String, u64)>,
    /// Memory of the machine that new processes could have, in bytes.
    pub available_bytes: Option<u64>,
    /// What the GPUs are doing.
    pub gpus: Vec<GpuReading>,
}

/// The one instance.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// From a tenth of a millisecond to a hundred seconds.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 21))
}

/// From five microseconds to five seconds.
fn call_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_005, 2.0, 21))
}

impl Metrics {
    fn new() -> Self {
        let by_model = || Seconds::new_with_constructor(seconds as fn() -> Histogram);
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            queue: by_model(),
            first_token: by_model(),
            inter_token: by_model(),
            tokens: Family::default(),
            cancels: Counter::default(),
            cancel_stop: seconds(),
            worker_ends: Family::default(),
            swaps: Family::default(),
            recoveries: Family::default(),
            shadows: Family::default(),
            hook_calls: Family::default(),
            hook_seconds: Family::new_with_constructor(call_seconds as fn() -> Histogram),
            memory: Family::default(),
            machine_memory_available: Gauge::default(),
            gpus: GpuGauges::default(),
        };
        for metric in Metric::ALL {
            metrics.register(metric);
        }
        metrics
    }

    fn register(&mut self, metric: Metric) {
        let (name, help, registry) = (metric.name(), metric.help(), &mut self.registry);
        match metric {
            Metric::Requests => registry.register(name, help, self.requests.clone()),
            Metric::QueueSeconds => registry.register(name, help, self.queue.clone()),
            Metric::TimeToFirstTokenSeconds => registry.register(name, help, self.first_token.clone()),
            Metric::InterTokenSeconds => registry.register(name, help, self.inter_token.clone()),
            Metric::Tokens => registry.register(name, help, self.tokens.clone()),
            Metric::Cancels => registry.register(name, help, self.cancels.clone()),
            Metric::CancelStopSeconds => registry.register(name, help, self.cancel_stop.clone()),
            Metric::WorkerEnds => registry.register(name, help, self.worker_ends.clone()),
            Metric::Swaps => registry.register(name, help, self.swaps.clone()),
            Metric::Recoveries => registry.register(name, help, self.recoveries.clone()),
            Metric::Shadows => registry.register(name, help, self.shadows.clone()),
            Metric::HookCalls => registry.register(name, help, self.hook_calls.clone()),
            Metric::HookSeconds => registry.register(name, help, self.hook_seconds.clone()),
            Metric::MemoryBytes => registry.register(name, help, self.memory.clone()),
            Metric::MachineMemoryAvailableBytes => {
                registry.register(name, help, self.machine_memory_available.clone());
            }
            Metric::GpuMemoryUsedBytes => registry.register(name, help, self.gpus.memory_used.clone()),
            Metric::GpuUtilizationRatio => registry.register(name, help, self.gpus.utilization.clone()),
            Metric::GpuTemperatureCelsius => registry.register(name, help, self.gpus.temperature.clone()),
            Metric::GpuPowerWatts => registry.register(name, help, self.gpus.power.clone()),
        }
    }

    /// A request has ended.
    pub fn request(&self, route: &str, status: u16, prompt_tokens: u64, completion_tokens: u64) {
        self.requests.get_or_create(&RequestLabels { route: route.to_owned(), status }).inc();
        for (kind, count) in [("prompt", prompt_tokens), ("completion", completion_tokens)] {
            if count > 0 {
                self.tokens.get_or_create(&TokenLabels { kind }).inc_by(count);
            }
        }
    }

    /// A job's turn has come.
    pub fn queued(&self, model: &str, time: Duration) {
        self.queue.get_or_create(&of(model)).observe(time.as_secs_f64());
    }

    /// A job's first token has come.
    pub fn first_token(&self, model: &str, time: Duration) {
        self.first_token.get_or_create(&of(model)).observe(time.as_secs_f64());
    }

    /// A further token has come.
    pub fn inter_token(&self, model: &str, time: Duration) {
        self.inter_token.get_or_create(&of(model)).observe(time.as_secs_f64());
    }

    /// A job was given up.
    pub fn cancelled(&self) {
        self.cancels.inc();
    }

    /// A job that was given up has ended in the plugin.
    pub fn stopped(&self, time: Duration) {
        self.cancel_stop.observe(time.as_secs_f64());
    }

    /// A worker has ended: `crashed`, `killed` or `retired`.
    pub fn worker_ended(&self, plugin: &str, outcome: &'static str) {
        self.worker_ends.get_or_create(&PluginLabels { plugin: plugin.to_owned(), outcome }).inc();
    }

    /// A swap has ended: `done`, `refused` or `rolled_back`.
    pub fn swapped(&self, plugin: &str, outcome: &'static str) {
        self.swaps.get_or_create(&PluginLabels { plugin: plugin.to_owned(), outcome }).inc();
    }

    /// A job's worker has ended under it: `moved`, `lost` or `poison`.
    pub fn recovered(&self, model: &str, outcome: &'static str) {
        self.recoveries.get_or_create(&RecoveryLabels { model: model.to_owned(), outcome }).inc();
    }

    /// A copy of a request for a shadow model was `answered`, `failed` or `skipped`.
    pub fn shadowed(&self, model: &str, outcome: &'static str) {
        self.shadows.get_or_create(&ShadowLabels { model: model.to_owned(), outcome }).inc();
    }

    /// A call of a hook `passed`, `changed`, `rejected` or `failed`.
    pub fn hook_call(&self, hook: &str, outcome: &'static str, time: Duration) {
        self.hook_calls.get_or_create(&HookLabels { hook: hook.to_owned(), outcome }).inc();
        self.hook_seconds.get_or_create(&HookLabel { hook: hook.to_owned() }).observe(time.as_secs_f64());
    }

    /// All of it, in the text format of OpenMetrics, with what holds at the moment.
    ///
    /// # Errors
    /// Never: writing to a string does not fail.
    pub fn text(&self, moment: &Moment) -> Result<String, std::fmt::Error> {
        self.memory.clear();
        for (device, bytes) in &moment.models {
            self.memory.get_or_create(&device_labels(device)).inc_by(*bytes);
        }
        self.machine_memory_available.set(moment.available_bytes.unwrap_or_default());
        self.gpus.set(&moment.gpus);
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl GpuGauges {
    /// A GPU that does not tell something has no line for it.
    fn set(&self, readings: &[GpuReading]) {
        self.memory_used.clear();
        [&self.utilization, &self.temperature, &self.power].into_iter().for_each(Family::clear);
        for reading in readings {
            let labels = device_labels(&reading.id);
            if let Some(bytes) = reading.memory_used_bytes {
                self.memory_used.get_or_create(&labels).set(bytes);
            }
            for (family, value) in [
                (&self.utilization, reading.utilization),
                (&self.temperature, reading.temperature_celsius),
                (&self.power, reading.power_watts),
            ] {
                if let Some(value) = value {
                    family.get_or_create(&labels).set(value);
                }
            }
        }
    }
}

fn device_labels(device: &str) -> DeviceLabels {
    DeviceLabels { device: device.to_owned() }
}

fn of(model: &str) -> ModelLabels {
    ModelLabels { model: model.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_explains_every_metric_and_all_are_in_the_text() {
        let documentation = include_str!("../../docs/metrics.md");
        let (metrics, second) = (Metrics::new(), Duration::from_secs(1));
        metrics.request("/v1/models", 200, 1, 1);
        metrics.queued("m", second);
        metrics.first_token("m", second);
        metrics.inter_token("m", second);
        metrics.cancelled();
        metrics.stopped(second);
        metrics.worker_ended("p", "crashed");
        metrics.swapped("p", "done");
        metrics.recovered("m", "moved");
        metrics.shadowed("m", "answered");
        metrics.hook_call("h", "passed", second);
        let reading = GpuReading {
            id: "cuda:0".to_owned(),
            memory_used_bytes: Some(1024),
            utilization: Some(0.5),
            temperature_celsius: Some(41.0),
            power_watts: Some(80.5),
        };
        let silent = GpuReading {
            id: "cuda:1".to_owned(),
            memory_used_bytes: None,
            utilization: None,
            temperature_celsius: None,
            power_watts: None,
        };
        let (models, gpus) = (vec![("cpu".to_owned(), 7)], vec![reading, silent]);
        let moment = Moment { models, available_bytes: Some(9), gpus };
        let text = metrics.text(&moment).unwrap();
        for metric in Metric::ALL {
            let name = metric.name();
            assert!(documentation.contains(&format!("| `{name}")), "docs/metrics.md lacks {name}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}: {text}");
        }
        for line in [
            "pajamas_memory_bytes{device=\"cpu\"} 7\n",
            "pajamas_machine_memory_available_bytes 9\n",
            "pajamas_gpu_memory_used_bytes{device=\"cuda:0\"} 1024\n",
            "pajamas_gpu_utilization_ratio{device=\"cuda:0\"} 0.5\n",
            "pajamas_gpu_temperature_celsius{device=\"cuda:0\"} 41.0\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("cuda:1"), "{text}");
    }
}
