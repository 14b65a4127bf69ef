//! The next tokens of the streams of a step, chosen side by side where that pays.

use pajamas_plugin_api::Error;
use rayon_core::{ThreadPool, ThreadPoolBuilder};

use crate::sampling::Scratch;
use crate::stream::{Next, Stream};
use crate::vocabulary::Vocabulary;

/// Logits of a step from which on several threads choose. Handing work to a thread takes about ten microseconds; one thread
/// reads about so many in a hundred, where another device has just written them.
const SHARED_MIN: usize = 256 * 1024;
/// Most threads; so many read as fast as the memory gives.
const THREADS_MAX: usize = 8;

/// What one stream needs to go on.
pub(crate) struct Turn<'a> {
    /// Its slot.
    pub slot: usize,
    /// The stream.
    pub stream: &'a mut Stream,
    /// The logits of its last token.
    pub logits: Option<&'a [f32]>,
    /// How many more tokens the context can hold.
    pub room: usize,
    /// What the stream does then.
    pub next: Next,
}

impl Turn<'_> {
    fn take(&mut self, vocabulary: &dyn Vocabulary, scratch: &mut Scratch) {
        self.next = match self.logits {
            Some(logits) => self.stream.advance(logits, self.room, vocabulary, scratch),
            None => Next::Fail(Error::internal("the engine returned no logits")),
        };
    }
}

/// The threads that choose, and their buffers.
#[derive(Debug)]
pub(crate) struct Chooser {
    /// One for each thread, the caller's first.
    scratch: Vec<Scratch>,
    pool: Option<ThreadPool>,
}

impl Chooser {
    /// A chooser that uses half of this process's cores where another device computes the model; else they are the model's.
    pub(crate) fn new(computes_elsewhere: bool) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if computes_elsewhere { (cores / 2).clamp(1, THREADS_MAX) } else { 1 };
        Self::with_threads(threads)
    }

    /// A chooser on so many threads, the caller's included, or on that one where the system refuses more.
    pub(crate) fn with_threads(threads: usize) -> Self {
        let others = threads.saturating_sub(1);
        let builder = ThreadPoolBuilder::new().num_threads(others).thread_name(|_| "choose".to_owned());
        let warn = |error: &_| tracing::warn!("tokens are chosen one after the other: {error}");
        let pool = (others > 0).then(|| builder.build().inspect_err(warn).ok()).flatten();
        let threads = if pool.is_some() { threads } else { 1 };
        Self { scratch: (0..threads).map(|_| Scratch::default()).collect(), pool }
    }

    /// Lets every stream choose.
    pub(crate) fn choose(&mut self, turns: &mut [Turn<'_>], vocabulary: &dyn Vocabulary) {
        let logits: usize = turns.iter().filter_map(|turn| turn.logits).map(<[f32]>::len).sum();
        let each = turns.len().div_ceil(self.scratch.len()).max(1);
        let take = |turns: &mut [Turn<'_>], scratch: &mut Scratch| {
            turns.iter_mut().for_each(|turn| turn.take(vocabulary, scratch));
        };
        match &self.pool {
            Some(pool) if logits >= SHARED_MIN => pool.in_place_scope(|scope| {
                let mut pieces = turns.chunks_mut(each).zip(&mut self.scratch);
                let own = pieces.next();
                for (turns, scratch) in pieces {
                    scope.spawn(move |_| take(turns, scratch));
                }
                if let Some((turns, scratch)) = own {
                    take(turns, scratch);
                }
            }),
            _ => take(turns, &mut self.scratch[0]),
        }
    }
}
