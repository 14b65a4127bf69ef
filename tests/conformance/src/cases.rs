//! The cases: each checks one promise that `SPEC.md` makes, under the numbers of the rules that contain it.

use std::fmt;

use crate::bench::{Bench, Checked};

mod cancel;
mod generate;
mod jobs;
mod lifecycle;
mod load;
mod process;
mod tasks;
mod versions;

/// One case.
pub struct Case {
    /// Name, in kebab-case.
    pub name: &'static str,
    /// The rules of `SPEC.md` that it checks.
    pub rules: &'static [&'static str],
    /// What it checks, in one sentence.
    pub description: &'static str,
    /// Most bytes that the plugin may print meanwhile.
    pub(crate) output_bytes_max: u64,
    pub(crate) run: fn(&Bench<'_>) -> Checked,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// All cases, in the order of a plugin's life.
#[must_use]
pub fn cases() -> &'static [Case] {
    CASES
}

/// The case of this name.
#[must_use]
pub fn find_case(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

const fn case(
    name: &'static str,
    rules: &'static [&'static str],
    description: &'static str,
    run: fn(&Bench<'_>) -> Checked,
) -> Case {
    Case { name, rules, description, output_bytes_max: u64::MAX, run }
}

const CASES: &[Case] = &[
    case(
        "handshake",
        &["V-1", "V-3", "V-5", "V-6", "L-1"],
        "the library loads and shakes hands",
        versions::handshake,
    ),
    case("entry-repeats", &["V-2"], "the entry answers the same every time", versions::entry_repeats),
    case("newer-host", &["V-5"], "a host of a newer minor is accepted", versions::newer_host),
    case("manifest-agrees", &["V-7"], "id and version are the manifest's", versions::manifest_agrees),
    case(
        "larger-structs",
        &["V-4", "V-9"],
        "structs with unknown fields at the end work",
        versions::larger_structs,
    ),
    case(
        "smaller-structs",
        &["V-4", "H-2", "S-1"],
        "a host with nothing optional works",
        versions::smaller_structs,
    ),
    case("unknown-kinds", &["V-8"], "an unknown kind of part does no harm", versions::unknown_kinds),
    case("unknown-extension", &["V-10"], "an unknown extension is NULL", versions::unknown_extension),
    case("init", &["L-2", "T-1"], "init makes a context", lifecycle::init),
    case("probe", &["L-3"], "probe names devices, or why there are none, within 10 s", lifecycle::probe),
    case("finds-device", &["L-3"], "probe finds a device on this machine", lifecycle::finds_device),
    case(
        "inspect-missing-file",
        &["L-4"],
        "inspect of a missing file is an error",
        lifecycle::inspect_missing,
    ),
    case("inspect-damaged-files", &["L-4"], "inspect survives damaged files", lifecycle::inspect_damaged),
    case("inspect-model", &["L-4"], "inspect knows what load knows", lifecycle::inspect_model),
    case("load-missing-file", &["L-5", "L-12"], "load of a missing file is an error", load::missing),
    case("load-damaged-files", &["L-5"], "load survives damaged files", load::damaged),
    case(
        "load-malformed-spec",
        &["L-5", "L-12"],
        "load refuses a malformed specification",
        load::malformed_spec,
    ),
    case("load-unknown-option", &["L-9"], "load names an option that it does not know", load::unknown_option),
    case("load-model", &["L-5", "M-2"], "load makes a model and describes it", load::model),
    case("load-cancelled", &["L-10"], "load gives up when it is cancelled", load::cancelled),
    case(
        "load-unload-cycles",
        &["L-7", "M-1"],
        "twenty loads leave no thread and no file behind",
        load::cycles,
    ),
    case("two-models", &["L-5", "T-1"], "two models of one plugin work side by side", load::two_models),
    case("stats", &["L-6"], "stats measures memory", lifecycle::stats),
    case(
        "unload-and-shutdown",
        &["L-7", "L-8"],
        "unload and shutdown end a plugin's life",
        lifecycle::whole_life,
    ),
    case("self-tests", &["L-11"], "the manifest's self tests succeed", lifecycle::self_tests),
    case("unknown-task", &["J-9", "L-12"], "an unknown task is refused", jobs::unknown_task),
    case("malformed-params", &["J-10"], "malformed parameters are refused", jobs::malformed_params),
    case(
        "submit-returns-at-once",
        &["J-2", "T-2"],
        "submit does not wait for the work",
        jobs::returns_at_once,
    ),
    case("one-terminal-event", &["J-3", "J-4", "E-2", "S-2"], "a job ends once", jobs::one_terminal),
    case(
        "events-fit-the-task",
        &["E-1", "E-3", "E-5", "E-6", "E-7", "S-1"],
        "events are as SPEC says",
        jobs::events_fit,
    ),
    case("request-is-copied", &["J-1"], "the request's memory is free after submit", jobs::request_is_copied),
    case("concurrent-jobs", &["J-8", "T-1"], "16 jobs at the same time end once each", jobs::concurrent),
    case(
        "release-at-once",
        &["J-6"],
        "a job can be released as soon as its end is known",
        jobs::release_at_once,
    ),
    case("deadline", &["J-7"], "a job ends by its deadline", jobs::deadline),
    case("cancel-at-once", &["J-5"], "cancel before the first event", cancel::at_once),
    case(
        "cancel-midway",
        &["J-5", "T-1"],
        "cancel between events, twice, from another thread",
        cancel::midway,
    ),
    case(
        "cancel-after-the-end",
        &["J-5"],
        "cancel after the terminal event does nothing",
        cancel::after_the_end,
    ),
    case("cancel-by-push", &["S-3"], "a job stops when push says so", cancel::by_push),
    case("cancel-by-sink", &["S-4"], "a job stops when the sink is cancelled", cancel::by_sink),
    case(
        "cancelled-among-others",
        &["J-5", "J-8"],
        "cancelling some jobs leaves others alone",
        cancel::among_others,
    ),
    case("generate-max-tokens", &["G-1"], "max_tokens is honoured", generate::max_tokens),
    case("generate-counts", &["E-4", "G-2"], "the counts are those of the tokens", generate::counts),
    case("generate-seed", &["G-3"], "the same seed gives the same tokens", generate::seed),
    case("generate-resumes", &["G-4"], "a resumed job continues the interrupted one", generate::resumes),
    case("generate-text", &["G-5"], "the tokens' texts join to UTF-8", generate::text),
    case("generate-logprobs", &["G-6"], "log-probabilities are sorted and negative", generate::logprobs),
    case("generate-long-prompt", &["G-7"], "a prompt beyond the context is refused", generate::long_prompt),
    case(
        "generate-token-prompt",
        &["G-8"],
        "token ids and texts make the same prompt",
        generate::token_prompt,
    ),
    case("embed", &["K-1"], "one vector per text, of length 1", tasks::embed),
    case("rerank", &["K-2"], "one score per document", tasks::rerank),
    case("tokenize", &["K-3", "M-3"], "one tensor of token ids", tasks::tokenize),
    case("detect", &["K-4"], "boxes inside the picture", tasks::detect),
    case("classify", &["K-5"], "labels with scores", tasks::classify),
    case("embed-image", &["K-6"], "one vector per picture", tasks::embed_image),
    case("transcribe", &["K-7"], "timed segments in order", tasks::transcribe),
    case("speak", &["K-8"], "sound that is not empty", tasks::speak),
    case("log", &["H-1", "H-3"], "log messages reach the host and are text", process::log),
    case(
        "leaves-the-process-alone",
        &["W-1", "W-3"],
        "signal handlers, folder and environment stay",
        process::is_left_alone,
    ),
    Case {
        output_bytes_max: 1 << 20,
        ..case("output-is-modest", &["W-2"], "at most 1 MiB is printed", process::output_is_modest)
    },
];
