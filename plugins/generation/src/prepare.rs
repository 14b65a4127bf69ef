//! Turns requests into streams, away from the engine's thread: tokenising a long text or compiling a large schema must
//! not hold up running streams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pajamas_plugin_api::{Error, Finish, GenerateParams, Job, Request, Task, Usage};

use crate::counters::Ticket;
use crate::grammar::GrammarCompiler;
use crate::queue::Queue;
use crate::sampling::Sampler;
use crate::stream::{Next, Stream};
use crate::tokenizer::Tokenizer;

/// A job as it was submitted.
#[derive(Debug)]
pub(crate) struct Submission {
    /// What to do.
    pub request: Request,
    /// Where the events go.
    pub job: Job,
    /// Its place among the jobs.
    pub ticket: Ticket,
    /// When it came.
    pub at: Instant,
}

/// The preparing thread's state.
#[derive(Debug)]
pub(crate) struct Preparer {
    /// Turns text into tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// Longest sequence.
    pub context_len: usize,
    /// Where submissions come from.
    pub submissions: Arc<Queue<Submission>>,
    /// Where streams go.
    pub streams: Arc<Queue<Stream>>,
    /// Made when the first grammar comes.
    pub grammars: Option<GrammarCompiler>,
}

impl Preparer {
    /// Runs until the queue of submissions is closed.
    pub(crate) fn run(&mut self) {
        while let Some(submission) = self.submissions.pop() {
            let Submission { request, job, ticket, at } = submission;
            if job.is_cancelled() {
                job.done(Finish::Cancelled, Usage::default());
                continue;
            }
            if request.task == Task::Tokenize {
                self.tokenizer.answer(&request, job);
                continue;
            }
            match self.parts_of_stream(&request) {
                Err(error) => {
                    drop(ticket);
                    job.fail(&error);
                }
                Ok((params, tokens, prompt_len, sampler)) => {
                    let deadline =
                        request.deadline_ms.and_then(|ms| at.checked_add(Duration::from_millis(ms)));
                    self.submit(Stream {
                        job,
                        tokens,
                        prompt_len,
                        cached: 0,
                        sampler,
                        output_max: params.max_tokens.map_or(u64::MAX, u64::from),
                        ignore_eos: params.ignore_eos,
                        control_tokens: params.control_tokens,
                        announced: false,
                        unsaid: None,
                        refused: false,
                        reuse: params.cache_prompt,
                        deadline,
                        ticket,
                        started: None,
                    });
                }
            }
        }
    }

    fn submit(&self, stream: Stream) {
        // A resumed stream may have been complete already.
        match stream.end() {
            Some(finish) => stream.finish(Next::Finish(finish)),
            None => {
                if let Err(stream) = self.streams.push(stream) {
                    stream.finish(Next::Fail(Error::internal("the model was unloaded")));
                }
            }
        }
    }

    fn parts_of_stream(
        &mut self,
        request: &Request,
    ) -> Result<(GenerateParams, Vec<i32>, usize, Sampler), Error> {
        let params: GenerateParams = request.params()?;
        let mut tokens = self.tokenizer.prompt(&request.parts)?;
        let prompt_len = tokens.len();
        if tokens.is_empty() {
            return Err(Error::invalid("the prompt is empty"));
        }
        self.tokenizer.check(&params.resume)?;
        if prompt_len + params.resume.len() > self.context_len {
            return Err(Error::invalid(format!(
                "the prompt has {} tokens and the context of this model holds {}: shorten the prompt or load the model \
                 with a larger `context`",
                prompt_len + params.resume.len(),
                self.context_len
            )));
        }
        let grammar = match &params.grammar {
            None => None,
            Some(grammar) => Some(self.grammars()?.compile(grammar)?),
        };
        let vocabulary = self.tokenizer.vocabulary().len();
        let sampler = Sampler::new(&params, grammar, &tokens, vocabulary)?;
        tokens.extend(params.resume.iter().map(|token| token.cast_signed()));
        Ok((params, tokens, prompt_len, sampler))
    }

    fn grammars(&mut self) -> Result<&GrammarCompiler, Error> {
        let compiler = match self.grammars.take() {
            Some(compiler) => compiler,
            None => GrammarCompiler::new(self.tokenizer.vocabulary())?,
        };
        Ok(self.grammars.insert(compiler))
    }
}
