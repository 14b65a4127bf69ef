//! Steps of a model that counts.

use std::sync::atomic::AtomicBool;

use pajamas_plugin_api::{EventSink, Flow, GenerateParams, Job};
use parking_lot::Mutex;
use toktrie::TokEnv;

use super::*;
use crate::counters::Ticket;
use crate::runner::AbortCheck;
use crate::sampling::Sampler;
use crate::vocabulary::{ControlToken, Vocabulary};

/// Ends a text.
const END: u32 = 9;

/// What happened, in order.
type Log = Arc<Mutex<Vec<String>>>;

/// Tokens that are written as their numbers.
struct Numbers(usize);

impl Vocabulary for Numbers {
    fn len(&self) -> usize {
        self.0
    }

    fn encode(&self, _text: &str, _tokens: &mut Vec<i32>) {}

    fn control_tokens(&self) -> Vec<ControlToken> {
        Vec::new()
    }

    fn begin(&self) -> Option<i32> {
        None
    }

    fn end(&self) -> Option<i32> {
        None
    }

    fn is_end(&self, token: u32) -> bool {
        token == END
    }

    fn piece_into(&self, token: u32, _control: bool, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(token.to_string().as_bytes());
    }

    fn trie(&self) -> Result<TokEnv, Error> {
        Err(Error::internal("no grammars"))
    }
}

/// The likeliest token after a number is the next one; the others are less likely the further they are from it.
struct Counting {
    log: Log,
    computes_elsewhere: bool,
    vocabulary: usize,
    logits: Vec<Vec<f32>>,
}

impl LmRunner for Counting {
    fn sequence_len_max(&self) -> usize {
        64
    }

    fn computes_elsewhere(&self) -> bool {
        self.computes_elsewhere
    }

    fn decode(&mut self, batch: &mut Batch, _abort: AbortCheck<'_>) -> Result<(), DecodeError> {
        self.log.lock().push("decode".to_owned());
        let logit = |last: i32, token: usize| -((token as f32 - (last + 1) as f32).abs());
        let row = |last: &i32| (0..self.vocabulary).map(|token| logit(*last, token)).collect();
        self.logits = batch.tokens.iter().map(row).collect();
        Ok(())
    }

    fn logits(&mut self, rows: &[usize]) -> Vec<Option<&[f32]>> {
        rows.iter().map(|row| self.logits.get(*row).map(Vec::as_slice)).collect()
    }

    fn remove(&mut self, _sequence: usize, _from: usize) -> bool {
        true
    }

    fn copy(&mut self, _source: usize, _target: usize) {}
}

/// Writes events into the log; refuses all after so many tokens.
struct Listener {
    log: Log,
    takes: Mutex<usize>,
}

impl EventSink for Listener {
    fn push(&self, event: &Event<'_>) -> Flow {
        let text = match event {
            Event::Token { text, .. } => String::from_utf8_lossy(text).into_owned(),
            Event::Done { finish, .. } => format!("{finish:?}"),
            _ => return Flow::Continue,
        };
        self.log.lock().push(text);
        let mut takes = self.takes.lock();
        *takes = takes.saturating_sub(1);
        if *takes > 0 { Flow::Continue } else { Flow::Cancelled }
    }

    fn cancelled(&self) -> bool {
        false
    }
}

struct Asked {
    prompt: Vec<i32>,
    params: GenerateParams,
    /// Events after which the client is gone.
    takes: usize,
}

impl Asked {
    fn greedy(prompt: i32) -> Self {
        let params = GenerateParams { temperature: 0.0, ..Default::default() };
        Self { prompt: vec![prompt], params, takes: usize::MAX }
    }
}

/// What happens when a model with this vocabulary answers all of these at once, on so many choosing threads.
fn run(computes_elsewhere: bool, vocabulary: usize, threads: usize, asked: Vec<Asked>) -> Vec<String> {
    let log = Log::default();
    let counters = Arc::<Counters>::default();
    let queue = Arc::new(Queue::new());
    let count = asked.len();
    for Asked { prompt, params, takes } in asked {
        let sink = Listener { log: Arc::clone(&log), takes: Mutex::new(takes) };
        let stream = Stream {
            job: Job::new(Arc::new(sink), Arc::<AtomicBool>::default()),
            prompt_len: prompt.len(),
            cached: 0,
            sampler: Sampler::new(&params, None, &prompt, vocabulary).unwrap(),
            tokens: prompt,
            output_max: params.max_tokens.map_or(u64::MAX, u64::from),
            ignore_eos: params.ignore_eos,
            control_tokens: false,
            announced: false,
            unsaid: None,
            refused: false,
            reuse: false,
            deadline: None,
            ticket: Ticket::take(&counters, u32::MAX).unwrap(),
            started: None,
        };
        queue.push(stream).unwrap();
    }
    let mut scheduler = Scheduler::new(Setup {
        runner: Box::new(Counting {
            log: Arc::clone(&log),
            computes_elsewhere,
            vocabulary,
            logits: Vec::new(),
        }),
        slots: count,
        batch: 64,
        prefill_chunk: 64,
        tokenizer: Arc::new(Tokenizer::new(Arc::new(Numbers(vocabulary))).unwrap()),
        queue,
        counters: Arc::clone(&counters),
    });
    scheduler.chooser = Chooser::with_threads(threads);
    while counters.jobs.load(Ordering::Relaxed) > 0 && scheduler.has_work() {
        scheduler.step();
    }
    drop(scheduler);
    Arc::try_unwrap(log).unwrap().into_inner()
}

#[test]
fn tokens_are_sent_before_the_next_step_or_while_another_device_computes_it() {
    let limited = || {
        let params = GenerateParams { max_tokens: Some(2), temperature: 0.0, ..Default::default() };
        Asked { params, ..Asked::greedy(3) }
    };
    let gone = || Asked { takes: 1, ..Asked::greedy(2) };
    let longer = || Asked { prompt: vec![5, 6], ..Asked::greedy(6) };
    let table: [(bool, Asked, &[&str]); 8] = [
        (false, Asked::greedy(6), &["decode", "7", "decode", "8", "decode", "Stop"]),
        (true, Asked::greedy(6), &["decode", "decode", "7", "decode", "8", "Stop"]),
        // The step after a prompt is of another shape.
        (false, longer(), &["decode", "7", "decode", "8", "decode", "Stop"]),
        (true, longer(), &["decode", "7", "decode", "decode", "8", "Stop"]),
        (false, limited(), &["decode", "4", "decode", "5", "Length"]),
        (true, limited(), &["decode", "decode", "4", "5", "Length"]),
        (false, gone(), &["decode", "3", "Cancelled"]),
        (true, gone(), &["decode", "decode", "3", "4", "Cancelled"]),
    ];
    for (computes_elsewhere, asked, expected) in table {
        let prompt = asked.prompt.clone();
        let happened = run(computes_elsewhere, 12, 1, vec![asked]);
        assert_eq!(happened, expected, "elsewhere: {computes_elsewhere}, after {prompt:?}");
    }
}

#[test]
fn any_number_of_threads_chooses_the_same() {
    let asked = || {
        let draws = |seed: u64| Asked {
            params: GenerateParams { seed, max_tokens: Some(5), ignore_eos: true, ..Default::default() },
            ..Asked::greedy(100 * seed as i32)
        };
        (1..=9).map(draws).collect::<Vec<_>>()
    };
    let one = run(true, 40_000, 1, asked());
    assert_eq!(one.iter().filter(|text| text.parse::<u32>().is_ok()).count(), 45);
    for threads in [2, 4, 20] {
        assert_eq!(run(true, 40_000, threads, asked()), one, "{threads} threads");
    }
}
