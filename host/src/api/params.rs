//! The options that chat and legacy completions share, checked and translated to the parameters of `generate`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use pajamas_plugin_api::GenerateParams;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use uuid::Uuid;

use super::error::ApiError;
use super::json::{Object, Present};
use super::limits::{CHOICES_PER_PROMPT_MAX, LOGIT_BIAS_MAX};
use super::meta::model_name;
use crate::text::{StopError, StopMatcher};

/// The shared options as they stand in the body. `null` is the same as absent, as for OpenAI.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GenerateOptions {
    model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<Object<StreamOptions>>,
    n: Option<u32>,
    stop: Option<Stops>,
    seed: Option<i64>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    repeat_penalty: Option<f32>,
    repetition_penalty: Option<f32>,
    repeat_last_n: Option<u32>,
    logit_bias: Option<BTreeMap<String, f32>>,
    ignore_eos: Option<bool>,
    cache_prompt: Option<bool>,
    store: Option<bool>,
    service_tier: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// The shared options, valid.
#[derive(Debug, Clone)]
pub(super) struct GenerateSpec {
    /// The model's name as the client wrote it.
    pub(super) model: String,
    /// How to stream; `None` for one document.
    pub(super) stream: Option<Streaming>,
    /// Answers per prompt. The seed of answer i is `params.seed + i`.
    pub(super) n: u32,
    /// The stop strings.
    pub(super) stops: StopMatcher,
    /// What the plugin is told.
    pub(super) params: GenerateParams,
}

/// How an answer is streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Streaming {
    /// Whether a last chunk tells the usage.
    pub(super) include_usage: bool,
}

impl GenerateOptions {
    /// Checks the options; `max_tokens_default` applies where the client sets no number.
    pub(super) fn check(self, max_tokens_default: Option<u32>) -> Result<GenerateSpec, ApiError> {
        if self.store == Some(true) {
            return Err(ApiError::unsupported(
                "store",
                "answers are never stored; leave it out or set it to false",
            ));
        }
        if !matches!(self.service_tier.as_deref(), None | Some("auto" | "default")) {
            return Err(ApiError::unsupported("service_tier", "leave it out or set it to \"auto\""));
        }
        let n = in_range("n", self.n, 1..=CHOICES_PER_PROMPT_MAX, 1)?;
        let stops = self.stop.as_ref().map(|stops| &*stops.0).unwrap_or_default();
        let stops = StopMatcher::new(stops).map_err(|error| match error {
            StopError::TooMany { .. } => ApiError::invalid("stop", error),
            StopError::Empty { index } | StopError::TooLong { index, .. } => {
                ApiError::invalid(format!("stop[{index}]"), error)
            }
        })?;
        let params = self.params(max_tokens_default)?;
        let stream = streaming(self.stream, self.stream_options)?;
        Ok(GenerateSpec { model: model_name(self.model)?, stream, n, stops, params })
    }

    fn params(&self, max_tokens_default: Option<u32>) -> Result<GenerateParams, ApiError> {
        let defaults = GenerateParams::default();
        let repeat_penalty =
            either(("repeat_penalty", self.repeat_penalty), ("repetition_penalty", self.repetition_penalty))?;
        let (name, repeat_penalty) = repeat_penalty.unwrap_or(("repeat_penalty", defaults.repeat_penalty));
        Ok(GenerateParams {
            max_tokens: self.max_tokens(max_tokens_default)?,
            temperature: in_range("temperature", self.temperature, 0.0..=2.0, defaults.temperature)?,
            top_p: in_range("top_p", self.top_p, 0.0..=1.0, defaults.top_p)?,
            top_k: top_k(self.top_k)?,
            min_p: in_range("min_p", self.min_p, 0.0..=1.0, defaults.min_p)?,
            repeat_penalty: in_range(name, Some(repeat_penalty), 0.01..=10.0, repeat_penalty)?,
            repeat_last_n: self.repeat_last_n.unwrap_or(defaults.repeat_last_n),
            frequency_penalty: in_range("frequency_penalty", self.frequency_penalty, -2.0..=2.0, 0.0)?,
            presence_penalty: in_range("presence_penalty", self.presence_penalty, -2.0..=2.0, 0.0)?,
            seed: self.seed.map_or_else(random_seed, i64::cast_unsigned),
            logit_bias: self.logit_bias.as_ref().map_or_else(|| Ok(BTreeMap::new()), logit_bias)?,
            ignore_eos: self.ignore_eos.unwrap_or(defaults.ignore_eos),
            cache_prompt: self.cache_prompt.unwrap_or(defaults.cache_prompt),
            ..defaults
        })
    }

    /// The newer name and the older one. -1 means no limit, as for llama-server and LM Studio.
    fn max_tokens(&self, default: Option<u32>) -> Result<Option<u32>, ApiError> {
        let given =
            either(("max_tokens", self.max_tokens), ("max_completion_tokens", self.max_completion_tokens))?;
        match given {
            None => Ok(default),
            Some((_, -1)) => Ok(None),
            Some((name, count)) => {
                u32::try_from(count).ok().filter(|count| *count > 0).map(Some).ok_or_else(|| {
                    ApiError::invalid(
                        name,
                        format_args!("expected a whole number from 1, or -1 for no limit, got {count}"),
                    )
                })
            }
        }
    }
}

/// Stop strings: one, or an array of them.
#[derive(Debug)]
struct Stops(Vec<String>);

impl<'de> Deserialize<'de> for Stops {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StopsVisitor)
    }
}

struct StopsVisitor;

impl<'de> Visitor<'de> for StopsVisitor {
    type Value = Stops;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string or an array of strings")
    }

    fn visit_str<E>(self, text: &str) -> Result<Stops, E> {
        Ok(Stops(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Stops, A::Error> {
        let mut stops = Vec::new();
        while let Some(stop) = seq.next_element()? {
            stops.push(stop);
        }
        Ok(Stops(stops))
    }
}

/// Refuses the first option of `options` that is there; each comes with what to do instead.
pub(super) fn refuse(options: &[(&str, &Option<Present>, &str)]) -> Result<(), ApiError> {
    match options.iter().find(|(_, value, _)| value.is_some()) {
        Some((name, _, hint)) => Err(ApiError::unsupported(*name, hint)),
        None => Ok(()),
    }
}

/// `value`, which must lie in `range`, or `default`.
pub(super) fn in_range<T>(
    name: &str,
    value: Option<T>,
    range: RangeInclusive<T>,
    default: T,
) -> Result<T, ApiError>
where
    T: PartialOrd + Display,
{
    match value {
        None => Ok(default),
        Some(value) if range.contains(&value) => Ok(value),
        Some(value) => {
            let (low, high) = range.into_inner();
            Err(ApiError::invalid(name, format_args!("expected a number from {low} to {high}, got {value}")))
        }
    }
}

type Named<T> = (&'static str, Option<T>);

/// The value of an option that has two names.
fn either<T: PartialEq>(one: Named<T>, other: Named<T>) -> Result<Option<(&'static str, T)>, ApiError> {
    match (one, other) {
        ((_, Some(one)), (name, Some(other))) if one != other => {
            Err(ApiError::invalid(name, "this option was given under two names with different values"))
        }
        ((name, Some(value)), _) | (_, (name, Some(value))) => Ok(Some((name, value))),
        _ => Ok(None),
    }
}

fn streaming(
    stream: Option<bool>,
    options: Option<Object<StreamOptions>>,
) -> Result<Option<Streaming>, ApiError> {
    match (stream, options) {
        (Some(true), options) => {
            let include_usage = options.and_then(|options| options.0.include_usage).unwrap_or(false);
            Ok(Some(Streaming { include_usage }))
        }
        (_, Some(_)) => {
            Err(ApiError::invalid("stream_options", "only allowed together with \"stream\": true"))
        }
        (_, None) => Ok(None),
    }
}

/// 0 and -1 keep all tokens.
fn top_k(top_k: Option<i64>) -> Result<u32, ApiError> {
    let top_k = top_k.unwrap_or(0);
    u32::try_from(top_k.max(0)).ok().filter(|_| top_k >= -1).ok_or_else(|| {
        ApiError::invalid(
            "top_k",
            format_args!("expected a whole number from -1 to {}, got {top_k}", u32::MAX),
        )
    })
}

fn logit_bias(given: &BTreeMap<String, f32>) -> Result<BTreeMap<u32, f32>, ApiError> {
    if given.len() > LOGIT_BIAS_MAX {
        let problem = format_args!("at most {LOGIT_BIAS_MAX} tokens are allowed, got {}", given.len());
        return Err(ApiError::invalid("logit_bias", problem));
    }
    let entries = given.iter().map(|(token, bias)| {
        let id = token.parse().map_err(|_| {
            ApiError::invalid("logit_bias", format_args!("expected token ids as keys, got \"{token:.40}\""))
        })?;
        Ok((id, in_range(&format!("logit_bias.{id}"), Some(*bias), -100.0..=100.0, 0.0)?))
    });
    entries.collect()
}

fn random_seed() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // Each half has a few fixed bits, at different places.
    high ^ low.rotate_left(32)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::json::JsonBody;

    fn check(mut options: Value) -> Result<GenerateSpec, ApiError> {
        options.as_object_mut().unwrap().entry("model").or_insert("m".into());
        JsonBody::from(options).read::<GenerateOptions>()?.check(None)
    }

    #[test]
    fn options_become_parameters() {
        let defaults = || GenerateParams { seed: 7, ..GenerateParams::default() };
        let table: &[(Value, GenerateParams)] = &[
            (json!({"unknown": {"x": 1}, "user": "u", "metadata": {}, "store": false}), defaults()),
            (
                json!({"temperature": 0, "top_p": 0.5, "min_p": null}),
                GenerateParams { temperature: 0.0, top_p: 0.5, ..defaults() },
            ),
            (json!({"top_k": -1}), defaults()),
            (json!({"top_k": 40}), GenerateParams { top_k: 40, ..defaults() }),
            (json!({"max_tokens": 5}), GenerateParams { max_tokens: Some(5), ..defaults() }),
            (
                json!({"max_completion_tokens": 6, "max_tokens": 6}),
                GenerateParams { max_tokens: Some(6), ..defaults() },
            ),
            (json!({"max_tokens": -1}), defaults()),
            (
                json!({"frequency_penalty": -2, "presence_penalty": 1.5, "repetition_penalty": 1.1}),
                GenerateParams {
                    frequency_penalty: -2.0,
                    presence_penalty: 1.5,
                    repeat_penalty: 1.1,
                    ..defaults()
                },
            ),
            (
                json!({"logit_bias": {"15": -100, "3": 2.5}}),
                GenerateParams { logit_bias: BTreeMap::from([(3, 2.5), (15, -100.0)]), ..defaults() },
            ),
            (
                json!({"ignore_eos": true, "cache_prompt": false, "repeat_last_n": 8}),
                GenerateParams { ignore_eos: true, cache_prompt: false, repeat_last_n: 8, ..defaults() },
            ),
        ];
        for (options, expected) in table {
            let mut options = options.clone();
            options["seed"] = 7.into();
            assert_eq!(check(options.clone()).unwrap().params, *expected, "{options}");
        }
        assert_eq!(check(json!({"seed": -1})).unwrap().params.seed, u64::MAX);
        assert_ne!(check(json!({})).unwrap().params.seed, check(json!({})).unwrap().params.seed);
    }

    #[test]
    fn wrong_options_are_named() {
        let table = [
            (json!({"model": ""}), "model", "the name of a model"),
            (json!({"model": 1}), "model", "expected a string"),
            (json!({"temperature": 2.5}), "temperature", "expected a number from 0 to 2, got 2.5"),
            (json!({"temperature": "hot"}), "temperature", "expected a number, got string \"hot\""),
            (json!({"top_p": -0.1}), "top_p", "from 0 to 1"),
            (json!({"min_p": 1e30}), "min_p", "from 0 to 1"),
            (json!({"top_k": -2}), "top_k", "from -1"),
            (json!({"n": 0}), "n", "from 1 to 8"),
            (json!({"n": 9}), "n", "from 1 to 8"),
            (json!({"n": 1.5}), "n", "expected a whole number"),
            (json!({"seed": 1e30}), "seed", "expected a whole number"),
            (json!({"max_tokens": 0}), "max_tokens", "from 1"),
            (json!({"max_completion_tokens": -2}), "max_completion_tokens", "from 1"),
            (json!({"max_tokens": 1, "max_completion_tokens": 2}), "max_completion_tokens", "two names"),
            (json!({"repeat_penalty": 0}), "repeat_penalty", "from 0.01 to 10"),
            (json!({"presence_penalty": 2.1}), "presence_penalty", "from -2 to 2"),
            (json!({"logit_bias": {"the": 1}}), "logit_bias", "token ids as keys"),
            (json!({"logit_bias": {"5": 101}}), "logit_bias.5", "from -100 to 100"),
            (json!({"logit_bias": {"5": "a"}}), "logit_bias.5", "expected a number"),
            (json!({"logit_bias": []}), "logit_bias", "expected an object"),
            (json!({"stop": 5}), "stop", "expected a string or an array of strings"),
            (json!({"stop": ["a", 5]}), "stop[1]", "expected a string"),
            (json!({"stop": ["a", ""]}), "stop[1]", "is empty"),
            (json!({"stop": vec!["a"; 17]}), "stop", "at most 16"),
            (json!({"stream": "yes"}), "stream", "expected true or false"),
            (json!({"stream_options": {}}), "stream_options", "only allowed together"),
            (
                json!({"stream": true, "stream_options": {"include_usage": 1}}),
                "stream_options.include_usage",
                "true or",
            ),
            (json!({"store": true}), "store", "not supported"),
            (json!({"service_tier": "flex"}), "service_tier", "not supported"),
        ];
        for (options, param, message) in table {
            let error = check(options.clone()).unwrap_err();
            assert_eq!(error.param(), Some(param), "{options}: {error}");
            assert_eq!(error.status(), 400);
            assert!(error.to_string().contains(message), "{options}: {error}");
        }
    }

    #[test]
    fn streaming_is_asked_for() {
        let table = [
            (json!({}), None),
            (json!({"stream": false, "stream_options": null}), None),
            (json!({"stream": true}), Some(Streaming { include_usage: false })),
            (
                json!({"stream": true, "stream_options": {"include_usage": true}}),
                Some(Streaming { include_usage: true }),
            ),
        ];
        for (options, expected) in table {
            assert_eq!(check(options.clone()).unwrap().stream, expected, "{options}");
        }
    }

    #[test]
    fn stop_is_a_string_or_several() {
        for stop in [json!("END"), json!(["x", "END"])] {
            let mut stops = check(json!({ "stop": stop })).unwrap().stops;
            assert_eq!(stops.push("a END").emit, "a ");
        }
    }
}
