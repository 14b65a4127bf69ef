//! The behaviours. Each loads a model of its own.

use pajamas_plugin_api::{ErrorKind, Finish, GenerateParams, Grammar, Model, Part, Request, Task};
use serde_json::json;

use crate::Load;
use crate::support::{Answer, fail, generate, greedy, run, start};

const FILLER: &str = "It was a long day and nobody knew what would come next. ";

/// Prompts of 30 to 500 tokens, so that they are read in one step, in several, and beside running streams.
fn prompts() -> Vec<String> {
    let topics = ["a cat", "the sea", "prime numbers", "a lost key", "bread", "the moon", "a robot", "rain"];
    (0..16)
        .map(|i| {
            format!("{}Tell me about {}, number {i}.", FILLER.repeat([0, 1, 6, 30][i % 4]), topics[i % 8])
        })
        .collect()
}

fn without_cache(params: GenerateParams) -> GenerateParams {
    GenerateParams { cache_prompt: false, ..params }
}

fn all(model: &dyn Model, requests: Vec<Request>) -> Vec<Answer> {
    let running: Vec<_> = requests.into_iter().map(|request| start(model, request)).collect();
    running.into_iter().map(crate::support::Running::wait).collect()
}

/// A question gets its answer, and the counts fit.
pub fn a_question_is_answered(load: Load) {
    let Some(model) = load(json!({"slots": 2})) else { return };
    let answer = run(&*model, generate("What is the capital of France?", &greedy(40)));
    assert!(answer.text().contains("Paris"), "{}", answer.text());
    assert_eq!(answer.finish, Some(Finish::Stop));
    assert_eq!(answer.usage.completion_tokens as usize, answer.tokens.len());
    assert_eq!(answer.terminals, 1);
}

/// Greedy streams are the same together and alone, with and without reuse of prefixes.
pub fn sixteen_streams_give_what_each_gives_alone(load: Load) {
    let Some(model) = load(json!({})) else { return };
    let params = without_cache(greedy(24));
    let alone: Vec<_> =
        prompts().iter().map(|prompt| run(&*model, generate(prompt, &params)).tokens).collect();
    for params in [params, greedy(24)] {
        let together = all(&*model, prompts().iter().map(|prompt| generate(prompt, &params)).collect());
        for ((prompt, alone), together) in prompts().iter().zip(&alone).zip(together) {
            assert_eq!(&together.tokens, alone, "cache {}: {prompt}", params.cache_prompt);
        }
    }
}

/// A prefix is reused in place and from another slot, with the same tokens.
pub fn a_cached_prefix_changes_nothing_but_the_time(load: Load) {
    let Some(model) = load(json!({"slots": 3})) else { return };
    let story = FILLER.repeat(10);
    let fresh = run(&*model, generate(&story, &without_cache(greedy(16))));
    assert_eq!(fresh.usage.cached_tokens, 0);
    let first = run(&*model, generate(&story, &greedy(16)));
    let again = run(&*model, generate(&story, &greedy(16)));
    assert_eq!(again.usage.cached_tokens, again.usage.prompt_tokens - 1);
    assert_eq!((&first.tokens, &again.tokens), (&fresh.tokens, &fresh.tokens));
    // While one stream holds the prefix, another slot gets a copy of it.
    let longer = format!("{story} And then?");
    let alone = run(&*model, generate(&longer, &without_cache(greedy(16))));
    let holder = start(&*model, generate(&story, &greedy(200)));
    holder.wait_tokens(1);
    let copied = run(&*model, generate(&longer, &greedy(16)));
    holder.cancel();
    assert_eq!(holder.wait().finish, Some(Finish::Cancelled));
    assert!(copied.usage.cached_tokens > 100, "{:?}", copied.usage);
    assert_eq!(copied.tokens, alone.tokens);
}

/// A stream that is resumed anywhere is the uninterrupted one.
pub fn a_resumed_stream_continues_token_by_token(load: Load) {
    let Some(model) = load(json!({"slots": 2})) else { return };
    let schema = json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer"}}, "required": ["name", "age"], "additionalProperties": false});
    let sampled = GenerateParams {
        seed: 42,
        top_p: 0.95,
        top_k: 50,
        repeat_penalty: 1.1,
        frequency_penalty: 0.2,
        max_tokens: Some(32),
        ..Default::default()
    };
    let cases = [
        greedy(32),
        sampled.clone(),
        GenerateParams { grammar: Some(Grammar::JsonSchema { schema: schema.clone() }), ..greedy(60) },
        GenerateParams { grammar: Some(Grammar::JsonSchema { schema }), max_tokens: Some(60), ..sampled },
    ];
    for params in cases {
        let whole = run(&*model, generate("Describe a person named Anna.", &params));
        for cut in [0, 1, 7, whole.tokens.len() - 1, whole.tokens.len()] {
            let resumed = GenerateParams { resume: whole.tokens[..cut].to_vec(), ..params.clone() };
            let rest = run(&*model, generate("Describe a person named Anna.", &resumed));
            assert_eq!(rest.tokens, whole.tokens[cut..], "{cut}: {params:?}");
            assert_eq!(
                (rest.finish, rest.usage.completion_tokens),
                (whole.finish, whole.usage.completion_tokens)
            );
        }
    }
}

/// Equal seeds draw equal tokens, others do not.
pub fn the_seed_decides_a_sampled_stream(load: Load) {
    let Some(model) = load(json!({"slots": 4})) else { return };
    let params = |seed| GenerateParams { seed, max_tokens: Some(16), ..Default::default() };
    let answers = all(&*model, [1, 1, 2, 3].map(|seed| generate("Tell me a story.", &params(seed))).into());
    assert_eq!(answers[0].tokens, answers[1].tokens);
    assert!(answers[1].tokens != answers[2].tokens && answers[2].tokens != answers[3].tokens);
}

/// Constrained output always parses, and a wrong grammar is refused.
pub fn grammars_hold(load: Load) {
    let Some(model) = load(json!({"slots": 4})) else { return };
    let schema = json!({"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "big": {"type": "boolean"}},
        "required": ["city", "big"], "additionalProperties": false});
    let with = |grammar, seed| {
        let params =
            GenerateParams { grammar: Some(grammar), seed, max_tokens: Some(200), ..Default::default() };
        generate("Which city do you like? Answer in JSON.", &params)
    };
    let requests = (0..4).map(|seed| with(Grammar::JsonSchema { schema: schema.clone() }, seed)).collect();
    for answer in all(&*model, requests) {
        let value: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
        assert!(value["city"].is_string() && value["big"].is_boolean(), "{value}");
        assert_eq!(answer.finish, Some(Finish::Stop));
    }
    let lark = Grammar::Lark { text: "start: \"yes\" | \"no\"".to_owned() };
    assert!(["yes", "no"].contains(&run(&*model, with(lark, 0)).text().as_str()));
    let object = run(
        &*model,
        generate(
            "Write JSON about a cat.",
            &GenerateParams { grammar: Some(Grammar::JsonObject), ..greedy(200) },
        ),
    );
    if object.finish == Some(Finish::Stop) {
        assert!(serde_json::from_str::<serde_json::Value>(&object.text()).unwrap().is_object());
    }
    for (grammar, word) in [
        (Grammar::JsonSchema { schema: json!({"type": "nothing"}) }, "nothing"),
        (Grammar::Lark { text: "start: oops".to_owned() }, "oops"),
    ] {
        let (kind, message) = fail(&*model, with(grammar, 0));
        assert_eq!(kind, ErrorKind::Invalid);
        assert!(message.contains(word), "{message}");
    }
}

/// Log-probabilities fit the tokens, and a banned token does not come.
pub fn logprobs_are_ordered_and_fit_the_choice(load: Load) {
    let Some(model) = load(json!({"slots": 1})) else { return };
    let params = GenerateParams { top_logprobs: Some(5), ..greedy(8) };
    let answer = run(&*model, generate("Count to five.", &params));
    for (token, (logprob, top)) in answer.tokens.iter().zip(&answer.logprobs) {
        assert_eq!((top.len(), top[0].0, top[0].1), (5, *token, *logprob));
        assert!(top.is_sorted_by(|a, b| a.1 >= b.1) && top.iter().all(|t| t.1 <= 0.0));
        assert!(top.iter().map(|t| t.1.exp()).sum::<f32>() <= 1.0001);
    }
    let plain = run(&*model, generate("Count to five.", &greedy(8)));
    assert_eq!(plain.tokens, answer.tokens);
    assert!(plain.logprobs.iter().all(|(logprob, top)| *logprob == 0.0 && top.is_empty()));
    let banned = GenerateParams { logit_bias: [(answer.tokens[0], -100.0)].into(), ..greedy(1) };
    assert_ne!(run(&*model, generate("Count to five.", &banned)).tokens[0], answer.tokens[0]);
}

/// Limits end a stream, and impossible requests are refused in words.
pub fn streams_end_where_they_are_told(load: Load) {
    let Some(model) = load(json!({"slots": 1, "context": 256})) else { return };
    assert_eq!(model.info().context_length, Some(256));
    let none = run(&*model, generate("Hi", &greedy(0)));
    assert_eq!((none.finish, none.tokens.len()), (Some(Finish::Length), 0));
    // The context ends the stream; its last token needs no cell.
    let endless = GenerateParams { max_tokens: None, ignore_eos: true, ..greedy(0) };
    let full = run(&*model, generate("Hi", &endless));
    assert_eq!(full.finish, Some(Finish::Length));
    assert_eq!(full.usage.prompt_tokens + full.usage.completion_tokens, 257);
    let (kind, message) = fail(&*model, generate(&FILLER.repeat(30), &greedy(1)));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(message.contains("256") && message.contains("`context`"), "{message}");
    for (request, word) in [
        (Request { parts: vec![], ..generate("", &greedy(1)) }, "empty"),
        (Request { parts: vec![Part::Tokens(vec![1 << 20])], ..generate("", &greedy(1)) }, "1048576"),
        (Request { parts: vec![Part::Pcm(vec![])], ..generate("", &greedy(1)) }, "text"),
        (generate("", &GenerateParams { top_p: 3.0, ..greedy(1) }), "`top_p`"),
        (Request { params: json!({"temperature": "hot"}).into(), ..generate("", &greedy(1)) }, "generate"),
    ] {
        let (kind, message) = fail(&*model, request);
        assert_eq!(kind, ErrorKind::Invalid);
        assert!(message.contains(word), "{message}");
    }
    let (kind, message) = fail(&*model, Request { task: Task::Detect, ..generate("", &greedy(1)) });
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(message.contains("detect") && message.contains("generate"), "{message}");
}

/// The queue and the deadline are kept.
pub fn a_full_queue_refuses_and_a_deadline_ends_a_stream(load: Load) {
    let Some(model) = load(json!({"slots": 1, "queue": 1})) else { return };
    let endless = GenerateParams { ignore_eos: true, ..greedy(2000) };
    let running = start(&*model, generate("Hi", &endless));
    running.wait_tokens(1);
    let waiting = start(&*model, generate("Hi", &greedy(1)));
    assert_eq!(fail(&*model, generate("Hi", &greedy(1))).0, ErrorKind::Overloaded);
    running.cancel();
    assert_eq!(running.wait().finish, Some(Finish::Cancelled));
    assert_eq!(waiting.wait().finish, Some(Finish::Length));
    let late = Request { deadline_ms: Some(100), ..generate("Hi", &endless) };
    assert_eq!(fail(&*model, late).0, ErrorKind::Deadline);
}

/// Cancelling while a prompt is read ends that stream alone.
pub fn a_cancelled_prompt_stops_at_once_and_disturbs_nobody(load: Load) {
    let Some(model) = load(json!({"slots": 2})) else { return };
    let expected = run(&*model, generate("Tell me about bread.", &greedy(16))).tokens;
    let long = FILLER.repeat(250);
    let lone = start(&*model, generate(&long, &greedy(16)));
    lone.cancel();
    let lone = lone.wait();
    assert_eq!((lone.finish, lone.tokens.len()), (Some(Finish::Cancelled), 0));
    let long = start(&*model, generate(&long, &greedy(16)));
    let short = start(&*model, generate("Tell me about bread.", &greedy(16)));
    long.cancel();
    assert_eq!(long.wait().finish, Some(Finish::Cancelled));
    assert_eq!(short.wait().tokens, expected);
}

/// After many cancels every slot is free, and answers are what they were.
pub fn random_cancels_leave_nothing_behind(load: Load) {
    let Some(model) = load(json!({"slots": 4, "queue": 1000})) else { return };
    let expected = run(&*model, generate("Tell me about rain.", &greedy(8))).tokens;
    let running: Vec<_> = (0..100usize)
        .map(|i| {
            (
                i,
                start(
                    &*model,
                    generate(&format!("Question {i}: {}", FILLER.repeat(i % 3)), &greedy(4 + i as u32 % 5)),
                ),
            )
        })
        .collect();
    for (i, job) in running {
        if i % 3 != 0 {
            job.cancel();
        }
        let answer = job.wait();
        assert_eq!((answer.terminals, answer.error), (1, None));
    }
    assert_eq!(run(&*model, generate("Tell me about rain.", &greedy(8))).tokens, expected);
    let stats = model.stats();
    assert_eq!((stats.slots_busy, stats.jobs_waiting, stats.slots_total), (0, 0, 4));
    assert!(stats.bytes["cpu"] > 50 << 20, "{:?}", stats.bytes);
    assert!(stats.counters["generated_tokens"] > 0.0 && stats.counters["cached_tokens"] > 0.0);
}
