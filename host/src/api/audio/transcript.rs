//! What was heard, in the formats of OpenAI's API.

use std::fmt::Write as _;

use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use pajamas_plugin_api::Segment;
use serde::Serialize;

/// How a transcript is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TranscriptFormat {
    /// The text as JSON.
    Json,
    /// The text alone.
    Text,
    /// SubRip subtitles.
    Srt,
    /// Subtitles of the web, <https://www.w3.org/TR/webvtt1/>.
    Vtt,
    /// Segments or words with their times, as JSON.
    Verbose(Granularities),
}

/// What has times in verbose JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Granularities {
    pub(super) segments: bool,
    pub(super) words: bool,
}

/// A complete transcript.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Transcript {
    /// In order; what they say joined is the text.
    pub(super) segments: Vec<Segment>,
    /// Length of the sound.
    pub(super) seconds: f64,
    /// Whether it is a translation.
    pub(super) is_translation: bool,
    /// What the request said.
    pub(super) temperature: f32,
}

impl Transcript {
    /// All that was said.
    pub(super) fn text(&self) -> String {
        let mut joiner = Joiner::default();
        self.segments.iter().map(|segment| joiner.next(&segment.text)).collect()
    }

    /// The answer.
    pub(super) fn respond(&self, format: TranscriptFormat) -> Response {
        let plain = |kind, text: String| ([(header::CONTENT_TYPE, kind)], text).into_response();
        match format {
            TranscriptFormat::Json => Json(Brief { text: self.text(), usage: self.usage() }).into_response(),
            TranscriptFormat::Text => plain("text/plain; charset=utf-8", self.text() + "\n"),
            TranscriptFormat::Srt => plain("application/x-subrip; charset=utf-8", self.srt()),
            TranscriptFormat::Vtt => plain("text/vtt; charset=utf-8", self.vtt()),
            TranscriptFormat::Verbose(granularities) => Json(self.verbose(granularities)).into_response(),
        }
    }

    /// What it cost.
    pub(super) fn usage(&self) -> DurationUsage {
        DurationUsage { kind: "duration", seconds: self.seconds.ceil() as u64 }
    }

    fn srt(&self) -> String {
        let mut text = String::new();
        for (number, segment) in (1..).zip(&self.segments) {
            let (start, end) = (Timestamp(segment.start_s, ','), Timestamp(segment.end_s, ','));
            let _ = write!(text, "{number}\n{start} --> {end}\n{}\n\n", one_line(&segment.text));
        }
        text
    }

    fn vtt(&self) -> String {
        let mut text = "WEBVTT\n\n".to_owned();
        for segment in &self.segments {
            let (start, end) = (Timestamp(segment.start_s, '.'), Timestamp(segment.end_s, '.'));
            let said =
                one_line(&segment.text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let _ = write!(text, "{start} --> {end}\n{said}\n\n");
        }
        text
    }

    fn verbose(&self, granularities: Granularities) -> Verbose<'_> {
        let segments =
            || self.segments.iter().enumerate().map(|(id, segment)| self.verbose_segment(id, segment));
        let words = || self.segments.iter().flat_map(|segment| &segment.words);
        let word = |word: &'_ pajamas_plugin_api::Word| VerboseWord {
            word: word.text.trim().to_owned(),
            start: word.start_s,
            end: word.end_s,
        };
        Verbose {
            task: if self.is_translation { "translate" } else { "transcribe" },
            language: self.segments.iter().find_map(|segment| segment.language.as_deref()),
            duration: self.seconds,
            text: self.text(),
            segments: granularities.segments.then(|| segments().collect()),
            words: granularities.words.then(|| words().map(word).collect()),
            usage: self.usage(),
        }
    }

    fn verbose_segment<'a>(&self, id: usize, segment: &'a Segment) -> VerboseSegment<'a> {
        VerboseSegment {
            id,
            start: segment.start_s,
            end: segment.end_s,
            text: &segment.text,
            seek: segment.seek,
            tokens: &segment.tokens,
            temperature: segment.temperature.unwrap_or_else(|| self.temperature.into()),
            avg_logprob: segment.avg_logprob,
            compression_ratio: segment.compression_ratio,
            no_speech_prob: segment.no_speech_probability,
        }
    }
}

/// Puts the texts of segments together: with a space between them, where their script has spaces.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    has_begun: bool,
}

impl Joiner {
    /// The text of the next segment, with the space before it.
    pub(super) fn next(&mut self, text: &str) -> String {
        let text = text.trim();
        // Thai, Lao, Myanmar and Khmer, and what is written in China, Japan and Korea but Hangul.
        let has_no_spaces = |c: char| {
            matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
                | '\u{2e80}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ffef}' | '\u{20000}'..='\u{3ffff}')
        };
        let Some(first) = text.chars().next() else { return String::new() };
        let needs_space = std::mem::replace(&mut self.has_begun, true) && !has_no_spaces(first);
        if needs_space { format!(" {text}") } else { text.to_owned() }
    }
}

/// Seconds as `01:02:03.004`, with this mark before the milliseconds.
struct Timestamp(f64, char);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast saturates")]
        let ms = (self.0 * 1000.0).round() as u64;
        let (s, mark) = (ms / 1000, self.1);
        write!(f, "{:02}:{:02}:{:02}{mark}{:03}", s / 3600, s / 60 % 60, s % 60, ms % 1000)
    }
}

/// An empty line would end a subtitle.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// OpenAI's `usage` of a request that is paid by the length of its sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct DurationUsage {
    #[serde(rename = "type")]
    kind: &'static str,
    seconds: u64,
}

#[derive(Serialize)]
struct Brief {
    text: String,
    usage: DurationUsage,
}

#[derive(Serialize)]
struct Verbose<'a> {
    task: &'static str,
    language: Option<&'a str>,
    duration: f64,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<Vec<VerboseSegment<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Vec<VerboseWord>>,
    usage: DurationUsage,
}

/// OpenAI's segment; what the model does not tell is null, or empty.
#[derive(Serialize)]
struct VerboseSegment<'a> {
    id: usize,
    start: f64,
    end: f64,
    text: &'a str,
    seek: Option<u64>,
    tokens: &'a [u32],
    temperature: f64,
    avg_logprob: Option<f64>,
    compression_ratio: Option<f64>,
    no_speech_prob: Option<f64>,
}

#[derive(Serialize)]
struct VerboseWord {
    word: String,
    start: f64,
    end: f64,
}

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::Word;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::testing::text;

    fn transcript() -> Transcript {
        let segment =
            |start_s, end_s, text: &str| Segment { start_s, end_s, text: text.into(), ..Segment::default() };
        let word = |text: &str| Word { text: text.into(), start_s: 0.1, end_s: 0.5, probability: None };
        let mut first = segment(0.0, 1.84, "Good morning.");
        first.language = Some("en".into());
        first.avg_logprob = Some(-0.2);
        first.words = vec![word("Good"), word(" morning.")];
        Transcript {
            segments: vec![first, segment(3661.0005, 3662.0, " a <b> &\n\n--> c ")],
            seconds: 3662.4,
            ..Transcript::default()
        }
    }

    fn written(format: TranscriptFormat) -> String {
        text(transcript().respond(format))
    }

    #[test]
    fn text_and_subtitles() {
        assert_eq!(written(TranscriptFormat::Text), "Good morning. a <b> &\n\n--> c\n");
        assert_eq!(
            written(TranscriptFormat::Srt),
            "1\n00:00:00,000 --> 00:00:01,840\nGood morning.\n\n2\n01:01:01,001 --> 01:01:02,000\na <b> & --> c\n\n"
        );
        assert_eq!(
            written(TranscriptFormat::Vtt),
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.840\nGood morning.\n\n\
             01:01:01.001 --> 01:01:02.000\na &lt;b&gt; &amp; --&gt; c\n\n"
        );
    }

    #[test]
    fn json_is_brief_or_verbose() {
        let json = |format| serde_json::from_str::<Value>(&written(format)).unwrap();
        let brief = json(TranscriptFormat::Json);
        assert_eq!(brief["usage"], json!({"type": "duration", "seconds": 3663}));
        assert_eq!(brief.as_object().unwrap().len(), 2);
        let verbose = |segments, words| json(TranscriptFormat::Verbose(Granularities { segments, words }));
        let both = verbose(true, true);
        assert_eq!(both["task"], "transcribe");
        assert_eq!((&both["language"], &both["duration"]), (&json!("en"), &json!(3662.4)));
        assert_eq!(both["words"][1], json!({"word": "morning.", "start": 0.1, "end": 0.5}));
        assert_eq!(both["segments"][0]["avg_logprob"], -0.2);
        assert_eq!(both["segments"][1]["id"], 1);
        assert!(verbose(true, false).get("words").is_none());
        assert!(verbose(false, true).get("segments").is_none());
    }

    #[test]
    fn texts_are_joined_as_their_script_wants_it() {
        for (texts, joined) in [
            (vec!["Hello.", " How are you? ", "", "Fine."], "Hello. How are you? Fine."),
            (vec!["你好。", "今天"], "你好。今天"),
            (vec!["こんにちは", "世界"], "こんにちは世界"),
            (vec!["안녕", "하세요"], "안녕 하세요"),
            (vec![], ""),
        ] {
            let mut joiner = Joiner::default();
            assert_eq!(texts.iter().map(|text| joiner.next(text)).collect::<String>(), joined);
        }
    }
}
