//! The task `generate`.

use pajamas_plugin_api::{ErrorKind, Finish, GenerateParams, Part, Task, Usage};
use serde_json::json;

use crate::bench::{
    Bench, Checked, Loaded, PROMPT, Recording, ensure, fail, finish, generate, greedy, request, run, skip,
};
use crate::raw::Seen;

/// Longest context, in tokens, for which a prompt beyond it is made.
const CONTEXT_LENGTH_MAX: u32 = 300_000;
/// Longest incomplete code point, in bytes, that may be cut off at the end of an answer.
const CUT_BYTES_MAX: usize = 3;

fn load(bench: &Bench<'_>) -> Checked<Loaded> {
    bench.load_for(&Task::Generate)
}

fn run_with(loaded: &Loaded, params: &GenerateParams) -> Checked<Recording> {
    let recording = run(&loaded.model, &generate(PROMPT, params))?;
    recording.done()?;
    Ok(recording)
}

pub(super) fn max_tokens(bench: &Bench<'_>) -> Checked {
    let loaded = load(bench)?;
    for max_tokens in [1, 3] {
        let recording = run_with(&loaded, &GenerateParams { max_tokens: Some(max_tokens), ..greedy() })?;
        let (finish, _) = recording.done()?;
        let tokens = recording.tokens().len() as u32;
        ensure!(tokens <= max_tokens, "{tokens} tokens came where at most {max_tokens} were asked for");
        // After exactly as many the text may also have been at its end.
        ensure!(
            finish == Finish::Stop || (tokens == max_tokens && finish == Finish::Length),
            "a job that ended after {tokens} of at most {max_tokens} tokens has the finish reason {finish:?}"
        );
    }
    Ok(())
}

pub(super) fn counts(bench: &Bench<'_>) -> Checked {
    let loaded = load(bench)?;
    let recording = run_with(&loaded, &greedy())?;
    let (_, usage) = recording.done()?;
    let tokens = recording.tokens().len() as u32;
    // The token that ends a text is counted by some engines and never sent.
    ensure!(
        (tokens..=tokens + 1).contains(&usage.completion_tokens),
        "{tokens} tokens came, the usage says {}",
        usage.completion_tokens
    );
    ensure!(usage.prompt_tokens > 0, "the usage says that the prompt has no tokens");
    ensure!(
        usage.cached_tokens <= usage.prompt_tokens,
        "the usage says that {} of {} prompt tokens were reused",
        usage.cached_tokens,
        usage.prompt_tokens
    );
    let before = recording.events.iter().take_while(|event| !matches!(event, Seen::Token { .. }));
    let announced: Vec<&Usage> = before
        .filter_map(|event| match event {
            Seen::Usage(usage) => Some(usage),
            _ => None,
        })
        .collect();
    ensure!(
        matches!(announced[..], [first] if first.prompt_tokens == usage.prompt_tokens
            && first.cached_tokens == usage.cached_tokens),
        "before the first token came the counts {announced:?}, one event with those of the prompt is needed"
    );
    let again = run_with(&loaded, &greedy())?.done()?.1;
    ensure!(
        again.prompt_tokens == usage.prompt_tokens,
        "the same prompt has {} tokens, then {}",
        usage.prompt_tokens,
        again.prompt_tokens
    );
    Ok(())
}

pub(super) fn seed(bench: &Bench<'_>) -> Checked {
    let loaded = load(bench)?;
    let params = GenerateParams { temperature: 1.0, seed: 42, ..greedy() };
    let first = run_with(&loaded, &params)?.tokens();
    let second = run_with(&loaded, &params)?.tokens();
    ensure!(first == second, "seed 42 gave the tokens {first:?}, then {second:?}");
    Ok(())
}

pub(super) fn resumes(bench: &Bench<'_>) -> Checked {
    let loaded = load(bench)?;
    for params in [greedy(), GenerateParams { temperature: 1.0, seed: 7, ..greedy() }] {
        let whole = run_with(&loaded, &params)?;
        let tokens = whole.tokens();
        if tokens.len() < 4 {
            return skip("the model's answer is too short to be interrupted");
        }
        for kept in [1, tokens.len() / 2, tokens.len() - 1] {
            let resume = tokens[..kept].to_vec();
            let rest = run_with(&loaded, &GenerateParams { resume, ..params.clone() })?;
            ensure!(
                rest.tokens() == tokens[kept..],
                "after {kept} of the tokens {tokens:?} the resumed job continues with {:?}",
                rest.tokens()
            );
            let (expected, found) = (whole.done()?, rest.done()?);
            ensure!(
                expected.0 == found.0 && expected.1.completion_tokens == found.1.completion_tokens,
                "the whole job ended with {expected:?}, the resumed one with {found:?}"
            );
        }
    }
    Ok(())
}

pub(super) fn text(bench: &Bench<'_>) -> Checked {
    let recording = run_with(&load(bench)?, &greedy())?;
    let mut bytes = Vec::new();
    for event in &recording.events {
        if let Seen::Token { text, .. } = event {
            bytes.extend_from_slice(text);
        }
    }
    match std::str::from_utf8(&bytes) {
        Ok(_) => Ok(()),
        // Ended by max_tokens inside a code point.
        Err(e) if e.error_len().is_none() && bytes.len() - e.valid_up_to() <= CUT_BYTES_MAX => Ok(()),
        Err(e) => {
            fail(format!("the joined text of the tokens is not UTF-8 from byte {} on", e.valid_up_to()))
        }
    }
}

pub(super) fn logprobs(bench: &Bench<'_>) -> Checked {
    let loaded = load(bench)?;
    let params = GenerateParams { top_logprobs: Some(3), ..greedy() };
    let recording = run(&loaded.model, &generate(PROMPT, &params))?;
    if recording.error().is_ok_and(|(kind, _)| kind == ErrorKind::Unsupported) {
        return skip("the plugin does not report log-probabilities");
    }
    recording.done()?;
    for event in &recording.events {
        let Seen::Token { logprob, top, .. } = event else { continue };
        ensure!(*logprob <= 0.0 && logprob.is_finite(), "a token has the log-probability {logprob}");
        ensure!(top.len() <= 3, "{} alternatives came where 3 were asked for", top.len());
        ensure!(top.is_sorted_by(|a, b| a >= b), "the alternatives are not sorted, best first: {top:?}");
    }
    Ok(())
}

pub(super) fn long_prompt(bench: &Bench<'_>) -> Checked {
    let loaded = load(bench)?;
    let Some(context) = loaded.info.context_length.filter(|length| *length <= CONTEXT_LENGTH_MAX) else {
        return skip("the model's context is unknown or too long for this");
    };
    let prompt = "one two three four ".repeat(context as usize / 2);
    let recording = finish(loaded.model.submit(&generate(&prompt, &greedy()))?)?;
    let (kind, message) = recording.error()?;
    ensure!(
        kind == ErrorKind::Invalid,
        "a prompt of more than {context} tokens is refused with {kind:?}, not Invalid: {message}"
    );
    run_with(&loaded, &greedy()).map(drop)
}

pub(super) fn token_prompt(bench: &Bench<'_>) -> Checked {
    let loaded = load(bench)?;
    let tokens = run_with(&loaded, &greedy())?.tokens();
    let parts = vec![Part::text(PROMPT), Part::Tokens(tokens)];
    // A plugin may support only one kind of prompt.
    let recording = finish(loaded.model.submit(&request(Task::Generate, json!(greedy()), parts))?)?;
    match recording.events.last() {
        Some(Seen::Done(..)) => Ok(()),
        Some(Seen::Error(ErrorKind::Unsupported, _)) => skip("the plugin takes no token ids"),
        other => fail(format!("a prompt of text and token ids ended with {other:?}")),
    }
}
