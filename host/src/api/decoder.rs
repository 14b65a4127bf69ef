//! Turns the events of one job into updates of one answer: text that ends on code point borders and before stop
//! strings, tool calls, log-probabilities and, at last, why it ended and what it cost.

use pajamas_plugin_api::{Error as PluginError, ErrorKind, Finish, Usage};
use serde::Serialize;

use super::error::ApiError;
use super::logprobs::{TokenInfo, TokenLedger};
use crate::chat::{ToolCallParser, ToolEvent};
use crate::engine::{EngineError, JobEvent, TokenLogprob};
use crate::text::{StopMatcher, Utf8Assembler};

/// What is new in an answer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Update {
    /// The answer's number, from 0.
    pub(super) index: usize,
    /// More text.
    pub(super) text: String,
    /// More of tool calls; at most one entry per call.
    pub(super) calls: Vec<CallDelta>,
    /// The tokens whose text is complete with this update; empty unless asked for.
    pub(super) tokens: Vec<TokenInfo>,
    /// Tokens generated since the last update, also those that are not sent.
    pub(super) token_count: u32,
    /// Set in the last update.
    pub(super) end: Option<Ending>,
}

/// More of a tool call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CallDelta {
    /// The call's number, from 0.
    pub(super) index: usize,
    /// Identifier and function, when the call begins.
    pub(super) start: Option<(String, String)>,
    /// More of the arguments.
    pub(super) arguments: String,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ending {
    /// Why.
    pub(super) reason: FinishReason,
    /// What it cost.
    pub(super) usage: Usage,
}

/// OpenAI's `finish_reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FinishReason {
    Stop,
    Length,
    ToolCalls,
    /// A hook ended the answer.
    ContentFilter,
}

/// The state of one answer.
pub(super) struct Decoder {
    utf8: Utf8Assembler,
    stops: StopMatcher,
    tools: Option<ToolCalls>,
    ledger: Option<TokenLedger>,
    usage: Usage,
    /// Tokens that no update has told of.
    uncounted: u32,
}

/// Recognises tool calls in an answer.
pub(super) struct ToolCalls {
    /// Finds the calls.
    pub(super) parser: ToolCallParser,
    /// Whether there may be more than one.
    pub(super) parallel: bool,
}

impl Decoder {
    /// A decoder for one answer; `logprobs` asks for the tokens.
    pub(super) fn new(stops: StopMatcher, tools: Option<ToolCalls>, logprobs: bool) -> Self {
        Self {
            utf8: Utf8Assembler::new(),
            stops,
            tools,
            ledger: logprobs.then(TokenLedger::default),
            usage: Usage::default(),
            uncounted: 0,
        }
    }

    /// Takes the next event. `None` means that there is nothing new to send. After an error or an update with an
    /// ending there is nothing more to decode, and the job is to be dropped.
    pub(super) fn event(&mut self, event: JobEvent) -> Result<Option<Update>, ApiError> {
        match event {
            JobEvent::Token { token, top } => Ok(self.token(token, top)),
            JobEvent::Usage(usage) => {
                // The tokens that arrived are counted here; those in the pipe would be counted twice.
                self.usage = Usage { completion_tokens: self.usage.completion_tokens, ..usage };
                Ok(None)
            }
            JobEvent::Done { finish: Finish::Cancelled, .. } => {
                let error = PluginError::new(ErrorKind::Cancelled, "the server cancelled this request");
                Err(EngineError::Plugin(error).into())
            }
            JobEvent::Done { finish, usage } => Ok(Some(self.done(finish, usage))),
            JobEvent::Failed(error) => Err(error.into()),
            // Events of other tasks mean nothing in a text.
            _ => Ok(None),
        }
    }

    /// What the answer has cost so far.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    fn token(&mut self, token: TokenLogprob, top: Vec<TokenLogprob>) -> Option<Update> {
        self.usage.completion_tokens = self.usage.completion_tokens.saturating_add(1);
        self.uncounted += 1;
        let text = self.utf8.push(&token.text);
        if let Some(ledger) = &mut self.ledger {
            ledger.add(token, top, &text);
        }
        let outcome = self.stops.push(&text);
        let stopped = outcome.stopped.is_some();
        let (mut update, too_many_calls) = self.route(outcome.emit, stopped);
        if stopped || too_many_calls {
            update.tokens.extend(self.ledger.as_mut().map(TokenLedger::close).unwrap_or_default());
            update.end = Some(self.ending(Finish::Stop));
        }
        let is_news = update.end.is_some()
            || !update.text.is_empty()
            || !update.calls.is_empty()
            || !update.tokens.is_empty();
        is_news.then(|| self.counted(update))
    }

    fn done(&mut self, finish: Finish, usage: Usage) -> Update {
        self.usage = usage;
        let rest = self.utf8.finish();
        let outcome = self.stops.push(&rest);
        let text = outcome.emit + &self.stops.finish();
        let (mut update, _) = self.route(text, true);
        update.tokens.extend(self.ledger.as_mut().map(TokenLedger::finish).unwrap_or_default());
        update.end = Some(self.ending(finish));
        self.counted(update)
    }

    /// Divides `text` into words and tool calls; with `last` it is the end of the answer. Also tells whether a call
    /// began that is one too many.
    fn route(&mut self, text: String, last: bool) -> (Update, bool) {
        let mut update = Update::default();
        let mut too_many = false;
        let Some(tools) = &mut self.tools else {
            update.tokens = self.ledger.as_mut().map(|ledger| ledger.send(text.len())).unwrap_or_default();
            update.text = text;
            return (update, false);
        };
        let mut events = tools.parser.push(&text);
        if last {
            events.extend(tools.parser.finish());
        }
        for event in events {
            let (index, start, arguments) = match event {
                ToolEvent::Content(text) => {
                    update
                        .tokens
                        .extend(self.ledger.as_mut().map(|l| l.send(text.len())).unwrap_or_default());
                    update.text += &text;
                    continue;
                }
                ToolEvent::CallStart { index, id, name } => (index, Some((id, name)), String::new()),
                ToolEvent::CallArguments { index, delta } => (index, None, delta),
            };
            if index > 0 && !tools.parallel {
                too_many = true;
                break;
            }
            // From the first call on, text no longer tells which token it came from.
            update.tokens.extend(self.ledger.as_mut().map(TokenLedger::close).unwrap_or_default());
            match update.calls.last_mut() {
                Some(last) if last.index == index => last.arguments += &arguments,
                _ => update.calls.push(CallDelta { index, start, arguments }),
            }
        }
        (update, too_many)
    }

    fn ending(&self, finish: Finish) -> Ending {
        let called = self.tools.as_ref().is_some_and(|tools| tools.parser.calls() > 0);
        let reason = match finish {
            Finish::Length => FinishReason::Length,
            _ if called => FinishReason::ToolCalls,
            _ => FinishReason::Stop,
        };
        Ending { reason, usage: self.usage }
    }

    fn counted(&mut self, update: Update) -> Update {
        Update { token_count: std::mem::take(&mut self.uncounted), ..update }
    }
}

#[cfg(test)]
mod tests;
