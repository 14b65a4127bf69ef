//! Log-probabilities of tokens, kept until the text of the token is sent.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::engine::TokenLogprob;

/// Stands for minus infinity, which JSON cannot express; OpenAI's API uses the same number.
const LOGPROB_MIN: f32 = -9999.0;

/// A generated token with its alternatives.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TokenInfo {
    token: TokenLogprob,
    top: Vec<TokenLogprob>,
    /// Where the token begins, in characters of the generated text.
    offset_chars: usize,
}

/// Matches tokens with the text that is sent: a stop string or a tool call may hold text back or swallow it, and the
/// log-probabilities of a token belong to the piece in which its text is sent.
#[derive(Debug, Default)]
pub(super) struct TokenLedger {
    waiting: VecDeque<Entry>,
    text_bytes: usize,
    text_chars: usize,
    sent_bytes: usize,
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    info: TokenInfo,
    /// Where the token's text begins, in bytes of the generated text.
    start: usize,
    /// How much text must be sent before the token is.
    end: usize,
}

impl TokenLedger {
    /// Notes a token that completed `text`.
    pub(super) fn add(&mut self, token: TokenLogprob, top: Vec<TokenLogprob>, text: &str) {
        if self.closed {
            return;
        }
        let start = self.text_bytes;
        self.text_bytes += text.len();
        // A token inside a code point is sent with the one that completes it.
        let is_fragment = text.is_empty() && !token.text.is_empty();
        let end = self.text_bytes + usize::from(is_fragment);
        self.waiting.push_back(Entry {
            info: TokenInfo { token, top, offset_chars: self.text_chars },
            start,
            end,
        });
        self.text_chars += text.chars().count();
    }

    /// The tokens whose text is sent completely once `bytes` more are sent.
    pub(super) fn send(&mut self, bytes: usize) -> Vec<TokenInfo> {
        self.sent_bytes += bytes;
        let sent_bytes = self.sent_bytes;
        self.take_while(|entry| entry.end <= sent_bytes)
    }

    /// The tokens of which at least a part was sent, when no more text follows.
    pub(super) fn close(&mut self) -> Vec<TokenInfo> {
        let sent_bytes = self.sent_bytes;
        let infos = self.take_while(|entry| entry.start < sent_bytes);
        self.closed = true;
        self.waiting.clear();
        infos
    }

    /// All tokens that are left, when the text ended by itself.
    pub(super) fn finish(&mut self) -> Vec<TokenInfo> {
        self.closed = true;
        self.take_while(|_| true)
    }

    fn take_while(&mut self, is_sent: impl Fn(&Entry) -> bool) -> Vec<TokenInfo> {
        let count = self.waiting.iter().take_while(|entry| is_sent(entry)).count();
        self.waiting.drain(..count).map(|entry| entry.info).collect()
    }
}

/// The log-probabilities of a chat answer.
#[derive(Debug, Serialize)]
pub(super) struct ChatLogprobs {
    content: Vec<ChatToken>,
    /// Refusals are not told apart here.
    refusal: Option<()>,
}

#[derive(Debug, Serialize)]
struct ChatToken {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
    top_logprobs: Vec<ChatAlternative>,
}

#[derive(Debug, Serialize)]
struct ChatAlternative {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl ChatLogprobs {
    pub(super) fn new(tokens: &[TokenInfo]) -> Self {
        let content = tokens.iter().map(|info| ChatToken {
            token: lossy(&info.token.text),
            logprob: finite(info.token.logprob),
            bytes: info.token.text.to_vec(),
            top_logprobs: info.top.iter().map(ChatAlternative::new).collect(),
        });
        Self { content: content.collect(), refusal: None }
    }
}

impl ChatAlternative {
    fn new(token: &TokenLogprob) -> Self {
        Self { token: lossy(&token.text), logprob: finite(token.logprob), bytes: token.text.to_vec() }
    }
}

/// The log-probabilities of a legacy completion.
#[derive(Debug, Serialize)]
pub(super) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    /// By token. The chosen one is among them even when it is not one of the most probable.
    top_logprobs: Vec<Alternatives>,
    text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    pub(super) fn new(tokens: &[TokenInfo]) -> Self {
        Self {
            tokens: tokens.iter().map(|info| lossy(&info.token.text)).collect(),
            token_logprobs: tokens.iter().map(|info| finite(info.token.logprob)).collect(),
            top_logprobs: tokens.iter().map(Alternatives::new).collect(),
            text_offset: tokens.iter().map(|info| info.offset_chars).collect(),
        }
    }
}

/// The most probable tokens and the chosen one, as an object.
#[derive(Debug)]
struct Alternatives(Vec<(String, f32)>);

impl Alternatives {
    fn new(info: &TokenInfo) -> Self {
        let mut list: Vec<(String, f32)> = Vec::with_capacity(info.top.len() + 1);
        for token in info.top.iter().chain([&info.token]) {
            let text = lossy(&token.text);
            // Fragments of different code points look the same; the most probable one is kept.
            if list.iter().all(|(other, _)| *other != text) {
                list.push((text, finite(token.logprob)));
            }
        }
        Self(list)
    }
}

impl Serialize for Alternatives {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(text, logprob)| (text, logprob)))
    }
}

fn lossy(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { LOGPROB_MIN }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &[u8]) -> TokenLogprob {
        TokenLogprob { token: 1, logprob: -0.5, text: Bytes::copy_from_slice(text) }
    }

    fn texts(infos: &[TokenInfo]) -> Vec<Vec<u8>> {
        infos.iter().map(|info| info.token.text.to_vec()).collect()
    }

    #[test]
    fn tokens_are_sent_with_their_text() {
        let mut ledger = TokenLedger::default();
        ledger.add(token(b"ab"), vec![], "ab");
        assert!(ledger.send(1).is_empty());
        assert_eq!(texts(&ledger.send(1)), [b"ab"]);
        ledger.add(token(b"\xe2\x82"), vec![], "");
        assert!(ledger.send(0).is_empty());
        ledger.add(token(b"\xac"), vec![], "\u{20ac}");
        assert_eq!(texts(&ledger.send(3)), [b"\xe2\x82".to_vec(), b"\xac".to_vec()]);
        ledger.add(token(b""), vec![], "");
        assert_eq!(texts(&ledger.send(0)), [b""]);
    }

    #[test]
    fn tokens_that_were_cut_off_are_not_sent() {
        let mut ledger = TokenLedger::default();
        ledger.add(token(b"a E"), vec![], "a E");
        ledger.add(token(b"ND"), vec![], "ND");
        assert!(ledger.send(2).is_empty());
        assert_eq!(texts(&ledger.close()), [b"a E"]);
        assert!(ledger.finish().is_empty());
    }

    #[test]
    fn impossible_tokens_have_a_number() {
        let info = TokenInfo {
            token: TokenLogprob { logprob: f32::NEG_INFINITY, ..token(b"a") },
            top: vec![],
            offset_chars: 0,
        };
        let json = serde_json::to_string(&ChatLogprobs::new(&[info])).unwrap();
        let expected =
            r#"{"content":[{"token":"a","logprob":-9999.0,"bytes":[97],"top_logprobs":[]}],"refusal":null}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn legacy_offsets_count_characters_and_the_chosen_token_is_an_alternative() {
        let mut ledger = TokenLedger::default();
        ledger.add(token("é".as_bytes()), vec![TokenLogprob { logprob: -0.1, ..token(b"x") }], "é");
        ledger.add(token(b"b"), vec![], "b");
        let json = serde_json::to_string(&CompletionLogprobs::new(&ledger.finish())).unwrap();
        let expected = r#"{"tokens":["é","b"],"token_logprobs":[-0.5,-0.5],"top_logprobs":[{"x":-0.1,"é":-0.5},{"b":-0.5}],"text_offset":[0,1]}"#;
        assert_eq!(json, expected);
    }
}
