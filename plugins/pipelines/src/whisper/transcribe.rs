//! A whole sound: window by window, each beginning where the last whole segment ended.
//!
//! Source: `transcribe` of openai/whisper, `transcribe.py`. What was understood is the prompt of the next window, unless
//! it was drawn at a high temperature.

use pajamas_plugin_api as api;
use pajamas_plugin_api::{Error, Event, Finish, Job, Request, TranscribeParams, Usage};

use super::Model;
use super::decode::{Choice, Decoded, Prompt, decode};
use super::mel::{FRAMES_PER_S, LogMel, WINDOW_FRAMES};
use super::numeric::{argmax, decimal};
use super::params;
use super::windows::{Slice, seconds, slice};
use super::words::{self, TimedSegment, add_words, find_words};
use crate::runner::TensorRunner;
use crate::vad::Speech;

/// Text that was drawn at a higher temperature than this is no good prompt.
const PROMPT_TEMPERATURE_MAX: f32 = 0.5;

/// Does one request.
pub(super) fn transcribe<R: TensorRunner>(
    model: &Model<R>,
    request: &Request,
    job: &Job,
) -> Result<(Finish, Usage), Error> {
    let (params, samples) = params::read(request, &model.vocabulary)?;
    let prompt = params.prompt.as_deref().filter(|prompt| !prompt.trim().is_empty());
    let prompt = prompt.map(|prompt| model.vocabulary.encode_prompt(prompt)).transpose()?.unwrap_or_default();
    let language = match params.language.as_deref() {
        Some(code) => model.vocabulary.languages.iter().position(|known| known.eq_ignore_ascii_case(code)),
        None => None,
    };
    let language = language.or(model.vocabulary.languages.is_empty().then_some(0));
    let usage = Usage { prompt_tokens: prompt.len() as u32, ..Usage::default() };
    let Some(speech) = model.find_speech(samples, job)? else { return Ok((Finish::Cancelled, usage)) };
    let mel = model.mel.log_mel(&speech.samples)?;
    let mut transcription = Transcription {
        model,
        job,
        params: &params,
        mel: &mel,
        speech: &speech,
        duration_s: seconds(samples.len() / super::mel::HOP_SAMPLES),
        language,
        tokens: prompt,
        prompt_begin: 0,
        last_speech_s: 0.0,
        last_start_s: 0.0,
        usage,
    };
    let mut seek = 0;
    while seek < mel.frames() {
        match transcription.window(seek)? {
            Some(next) => seek = next,
            None => return Ok((Finish::Cancelled, transcription.usage)),
        }
        job.push(&Event::Progress {
            fraction: seek.min(mel.frames()) as f32 / mel.frames() as f32,
            text: "",
        });
    }
    Ok((Finish::Stop, transcription.usage))
}

/// One request under way.
struct Transcription<'a, R> {
    model: &'a Model<R>,
    job: &'a Job,
    params: &'a TranscribeParams,
    mel: &'a LogMel,
    speech: &'a Speech<'a>,
    /// Length of the sound.
    duration_s: f64,
    /// Index among the model's languages, once it is known.
    language: Option<usize>,
    /// Everything that was understood, after the caller's prompt.
    tokens: Vec<u32>,
    /// Where in `tokens` the prompt of the next window begins.
    prompt_begin: usize,
    /// Until when somebody spoke, by the times of words.
    last_speech_s: f64,
    /// Beginning of the last segment that was sent.
    last_start_s: f64,
    usage: Usage,
}

/// A segment of a window.
struct Segment {
    slice: Slice,
    text: String,
    timed: TimedSegment,
}

impl<R: TensorRunner> Transcription<'_, R> {
    /// Does the window that begins at frame `seek`; returns the beginning of the next, or `None` if cancelled.
    fn window(&mut self, seek: usize) -> Result<Option<usize>, Error> {
        let model = self.model;
        let frames = WINDOW_FRAMES.min(self.mel.frames() - seek);
        let audio = model.network.encode(&self.mel.window(seek, frames))?;
        let language = match self.language {
            Some(language) => language,
            None => *self.language.insert(detect_language(model, &audio)?),
        };
        let start = model.vocabulary.start_sequence(language, self.params.translate);
        let prompt = self.prompt(&start);
        let choice = Choice {
            temperature: self.params.temperature,
            // Each window draws numbers of its own: the multiplier, 2^64 by the golden ratio, spreads the bits of `seek`.
            seed: self.params.seed ^ (seek as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            done: seek as f32 / self.mel.frames() as f32,
        };
        let Some(decoded) = decode(model, &audio, &prompt, choice, self.job)? else { return Ok(None) };
        self.usage.completion_tokens += decoded.tokens.len() as u32;
        if decoded.is_silence() {
            return Ok(Some(seek + frames));
        }

        let sliced = slice(&decoded.tokens, frames, model.vocabulary.specials);
        let mut segments = self.segments(sliced.slices, &decoded, seek)?;
        let mut next = seek + sliced.advance;
        if self.params.word_times {
            let window = words::Window { audio: &audio, start: &start, language: self.code(), frames };
            let text: Vec<u32> =
                segments.iter().flat_map(|segment| self.text_tokens(segment, &decoded)).collect();
            let words = find_words(model, &window, &text)?;
            let mut timed: Vec<_> = segments.iter_mut().map(|s| std::mem::take(&mut s.timed)).collect();
            self.last_speech_s = add_words(&mut timed, words, seconds(seek), self.last_speech_s);
            let last_word_s = timed.iter().rev().find_map(|s| s.words.last()).map(|word| word.end_s);
            segments.iter_mut().zip(timed).for_each(|(segment, timed)| segment.timed = timed);
            if let Some(end_s) = last_word_s.filter(|end_s| !sliced.is_finished && *end_s > seconds(seek)) {
                next = (end_s * FRAMES_PER_S as f64).round() as usize;
            }
        }
        for segment in &segments {
            self.finish(segment, &decoded, seek)?;
        }
        if decoded.temperature > PROMPT_TEMPERATURE_MAX {
            self.prompt_begin = self.tokens.len();
        }
        // A last word of no length would repeat the window for ever.
        Ok(Some(if next > seek { next } else { seek + frames }))
    }

    /// The end of what came before, and the start of the transcript.
    fn prompt(&self, start: &[u32]) -> Prompt {
        let before = &self.tokens[self.prompt_begin..];
        let before = &before[before.len().saturating_sub(self.model.config.context / 2 - 1)..];
        let mut tokens = Vec::with_capacity(before.len() + 1 + start.len());
        if !before.is_empty() {
            tokens.push(self.model.vocabulary.specials.sot_prev);
            tokens.extend_from_slice(before);
        }
        let begin = tokens.len();
        tokens.extend_from_slice(start);
        Prompt { tokens, start: begin }
    }

    fn segments(&self, slices: Vec<Slice>, decoded: &Decoded, seek: usize) -> Result<Vec<Segment>, Error> {
        let segment = |slice: Slice| {
            let tokens = &decoded.tokens[slice.tokens.clone()];
            let text_tokens =
                tokens.iter().filter(|token| self.model.vocabulary.specials.is_text(**token)).count();
            let (start_s, end_s) = (seconds(seek + slice.begin), seconds(seek + slice.end));
            let timed = TimedSegment { start_s, end_s, text_tokens, words: Vec::new() };
            Ok(Segment { text: self.model.vocabulary.decode(tokens)?, timed, slice })
        };
        slices.into_iter().map(segment).collect()
    }

    fn text_tokens(&self, segment: &Segment, decoded: &Decoded) -> Vec<u32> {
        let tokens = decoded.tokens[segment.slice.tokens.clone()].iter().copied();
        tokens.filter(|token| self.model.vocabulary.specials.is_text(*token)).collect()
    }

    /// The language's code.
    fn code(&self) -> &str {
        let languages = &self.model.vocabulary.languages;
        self.language.and_then(|language| languages.get(language)).map_or("en", String::as_str)
    }

    /// Sends a segment, unless it is empty, and remembers it for the next prompt.
    fn finish(&mut self, segment: &Segment, decoded: &Decoded, seek: usize) -> Result<(), Error> {
        let timed = &segment.timed;
        if timed.start_s == timed.end_s || segment.text.trim().is_empty() {
            return Ok(());
        }
        let tokens = &decoded.tokens[segment.slice.tokens.clone()];
        self.tokens.extend_from_slice(tokens);
        let words =
            timed.words.iter().filter(|_| self.params.word_times).map(|word| self.word(word)).collect();
        let start_span =
            timed.words.first().map_or_else(|| self.speech.span_at(timed.start_s, false), |w| self.span(w));
        let end_span =
            timed.words.last().map_or_else(|| self.speech.span_at(timed.end_s, true), |w| self.span(w));
        let start_s = self.sound_time(timed.start_s, start_span);
        let end_s = self.sound_time(timed.end_s, end_span);
        // Corrected times of words may reach back into the segment before.
        let start_s = start_s.max(self.last_start_s);
        self.last_start_s = start_s;
        let message = api::Segment {
            start_s,
            end_s: end_s.max(start_s),
            text: segment.text.clone(),
            language: Some(self.code().to_owned()),
            tokens: tokens.to_vec(),
            avg_logprob: Some(decimal(decoded.avg_logprob)),
            no_speech_probability: Some(decimal(decoded.no_speech)),
            compression_ratio: Some(decimal(decoded.compression_ratio)),
            temperature: Some(decimal(decoded.temperature)),
            seek: Some(seek as u64),
            words,
        };
        let json = serde_json::to_string(&message)
            .map_err(|e| Error::internal(format!("a segment cannot be written as JSON: {e}")))?;
        self.job.push(&Event::Segment { json: &json });
        Ok(())
    }

    fn word(&self, word: &words::Word) -> api::Word {
        let span = self.span(word);
        api::Word {
            text: word.text.trim().to_owned(),
            start_s: self.sound_time(word.start_s, span),
            end_s: self.sound_time(word.end_s, span),
            probability: Some(decimal(word.probability)),
        }
    }

    /// Both ends of a word are in the span of its middle, so that no word is stretched over a silence.
    fn span(&self, word: &words::Word) -> usize {
        self.speech.span_at((word.start_s + word.end_s) / 2.0, false)
    }

    /// The time in the sound of a time in what was transcribed: in steps of 10 ms, and inside the sound, past whose end the
    /// model may hear.
    fn sound_time(&self, speech_s: f64, span: usize) -> f64 {
        (self.speech.sound_time(speech_s, span).min(self.duration_s) * 100.0).round() / 100.0
    }
}

/// The most probable language of a window, as an index (`detect_language` of openai/whisper, `decoding.py`).
fn detect_language<R: TensorRunner>(model: &Model<R>, audio: &R::Value) -> Result<usize, Error> {
    let sot = model.vocabulary.specials.sot;
    let prefilled = model.network.prefill(&[sot], audio)?;
    let mut row = Vec::new();
    prefilled.logits.copy_row(0, &mut row)?;
    let first = sot as usize + 1;
    Ok(argmax(&row[first..first + model.vocabulary.languages.len()]))
}
