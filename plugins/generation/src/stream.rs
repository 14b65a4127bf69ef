//! One generation: its tokens, its sampler and its way to the client.

use std::time::Instant;

use pajamas_plugin_api::{Error, ErrorKind, Event, Finish, Flow, Job, TopLogprob, Usage};

use crate::counters::Ticket;
use crate::sampling::{Choice, Sampler, Scratch};
use crate::vocabulary::Vocabulary;

/// A generation job, ready to be computed.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Where the events go.
    pub job: Job,
    /// Prompt, resumed and generated tokens.
    pub tokens: Vec<i32>,
    /// How many of `tokens` are the prompt.
    pub prompt_len: usize,
    /// Prompt tokens whose computation was reused.
    pub cached: usize,
    /// Chooses the tokens.
    pub sampler: Sampler,
    /// Most tokens of output, resumed ones included.
    pub output_max: u64,
    /// Go on after an end-of-text token.
    pub ignore_eos: bool,
    /// Report the texts of control tokens.
    pub control_tokens: bool,
    /// The counts of the prompt were sent, which happens before the first token.
    pub announced: bool,
    /// The last token, while it was not sent.
    pub unsaid: Option<Choice>,
    /// Nobody takes its events any more.
    pub refused: bool,
    /// Look for a computed prefix.
    pub reuse: bool,
    /// When the answer is useless.
    pub deadline: Option<Instant>,
    /// Its place among the jobs, until it ends.
    pub ticket: Ticket,
    /// Step at which it got its slot, if it ever had one; orders the reading of prompts.
    pub started: Option<u64>,
}

/// What a stream does after a token.
#[derive(Debug)]
pub(crate) enum Next {
    /// Goes on.
    Continue,
    /// Has ended well.
    Finish(Finish),
    /// Has failed.
    Fail(Error),
}

impl Stream {
    /// Samples the next token, which is then to be [said](Self::say), and tells how to go on. `room` is how many more tokens
    /// the context can hold after those that are computed.
    pub(crate) fn advance(
        &mut self,
        logits: &[f32],
        room: usize,
        vocabulary: &dyn Vocabulary,
        scratch: &mut Scratch,
    ) -> Next {
        if !std::mem::replace(&mut self.announced, true) {
            self.job.push(&Event::Usage(self.usage()));
        }
        let choice = match self.sampler.sample(logits, scratch) {
            Ok(choice) => choice,
            Err(error) => return Next::Fail(error.into()),
        };
        if !self.ignore_eos && vocabulary.is_end(choice.token) {
            return Next::Finish(Finish::Stop);
        }
        if let Err(error) = self.sampler.accept(choice.token) {
            return Next::Fail(error.into());
        }
        self.tokens.push(choice.token.cast_signed());
        self.unsaid = Some(choice);
        match self.end() {
            Some(finish) => Next::Finish(finish),
            None if room == 0 => Next::Finish(Finish::Length),
            None => Next::Continue,
        }
    }

    /// Whether the output is complete.
    pub(crate) fn end(&self) -> Option<Finish> {
        if self.sampler.is_complete() {
            Some(Finish::Stop)
        } else if self.sampler.position() >= self.output_max {
            Some(Finish::Length)
        } else {
            None
        }
    }

    /// Whether the stream is to be given up, and how that is reported.
    pub(crate) fn interrupted(&self, now: Instant) -> Option<Next> {
        if self.refused || self.job.is_cancelled() {
            Some(Next::Finish(Finish::Cancelled))
        } else if self.deadline.is_some_and(|deadline| now >= deadline) {
            Some(Next::Fail(Error::new(ErrorKind::Deadline, "the deadline of the request has passed")))
        } else {
            None
        }
    }

    /// The counts so far.
    fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: u32::try_from(self.prompt_len).unwrap_or(u32::MAX),
            cached_tokens: u32::try_from(self.cached).unwrap_or(u32::MAX),
            completion_tokens: u32::try_from(self.sampler.position()).unwrap_or(u32::MAX),
        }
    }

    /// Sends the terminal event.
    pub(crate) fn finish(self, how: Next) {
        let usage = self.usage();
        // Whoever sees the end finds the place free.
        drop(self.ticket);
        match how {
            Next::Fail(error) => self.job.fail(&error),
            Next::Finish(finish) => self.job.done(finish, usage),
            Next::Continue => self.job.done(Finish::Length, usage),
        }
    }

    /// Sends the last token, unless that was done. `text` is a buffer.
    pub(crate) fn say(&mut self, vocabulary: &dyn Vocabulary, text: &mut Vec<u8>) {
        let Some(choice) = self.unsaid.take() else { return };
        text.clear();
        vocabulary.piece_into(choice.token, self.control_tokens, text);
        let own_len = text.len();
        let ends: Vec<(usize, usize)> = choice
            .top
            .iter()
            .map(|&(token, _)| {
                let begin = text.len();
                vocabulary.piece_into(token, self.control_tokens, text);
                (begin, text.len())
            })
            .collect();
        let alternatives = choice.top.iter().zip(ends);
        let top: Vec<TopLogprob<'_>> = alternatives
            .map(|(&(token, logprob), (begin, end))| TopLogprob { token, logprob, text: &text[begin..end] })
            .collect();
        let event =
            Event::Token { token: choice.token, text: &text[..own_len], logprob: choice.logprob, top: &top };
        self.refused |= self.job.push(&event) == Flow::Cancelled;
    }
}
