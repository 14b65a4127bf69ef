//! What the pipelines that speak have in common: reading a request, and knowing when to end.

use std::time::{Duration, Instant};

use pajamas_plugin_api::{Error, ErrorKind, Part, Request, SpeakParams, Task};

/// A request to speak, checked.
#[derive(Clone, Debug)]
pub struct SpeakRequest {
    /// What to say: not blank.
    pub text: String,
    /// Whose voice; `None`: the model's first.
    pub voice: Option<String>,
    /// How fast, as a multiple of the voice's own speed: finite, above 0.
    pub speed: f32,
    deadline: Option<Deadline>,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    after_ms: u64,
}

impl SpeakRequest {
    /// Reads a request. Its deadline counts from `arrived`.
    ///
    /// # Errors
    /// It is for another task, has other inputs than text, no text, or a parameter of a wrong type.
    pub fn new(request: &Request, arrived: Instant) -> Result<Self, Error> {
        if request.task != Task::Speak {
            return Err(Error::unsupported(format!(
                "this model cannot do `{}`; it offers speak",
                request.task
            )));
        }
        let params: SpeakParams = request.params()?;
        if !(params.speed.is_finite() && params.speed > 0.0) {
            return Err(Error::invalid(format!("parameter \"speed\" is {}, expected above 0", params.speed)));
        }
        if let Some(other) = request.parts.iter().position(|part| !matches!(part, Part::Text { .. })) {
            return Err(Error::invalid(format!("input {other} is not text, which is all that speak takes")));
        }
        let text: String = request.texts().collect();
        if text.trim().is_empty() {
            return Err(Error::invalid("the text to speak is empty"));
        }
        let after = |after_ms| {
            let at = arrived.checked_add(Duration::from_millis(after_ms))?;
            Some(Deadline { at, after_ms })
        };
        let deadline = request.deadline_ms.filter(|ms| *ms > 0).and_then(after);
        Ok(Self { text, voice: params.voice, speed: params.speed, deadline })
    }

    /// To be called between steps.
    ///
    /// # Errors
    /// The deadline has passed.
    pub fn check_deadline(&self) -> Result<(), Error> {
        match self.deadline {
            Some(Deadline { at, after_ms }) if Instant::now() >= at => Err(Error::new(
                ErrorKind::Deadline,
                format!("the speech was not complete within the deadline of {after_ms} ms"),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::Params;

    use super::*;

    fn request(params: &str, parts: Vec<Part>) -> Request {
        Request { task: Task::Speak, params: Params::from_json(params).unwrap(), parts, deadline_ms: None }
    }

    #[test]
    fn texts_are_joined() {
        let parts = vec![Part::text("one "), Part::text("two")];
        let speech = SpeakRequest::new(&request(r#"{"voice": "amy"}"#, parts), Instant::now()).unwrap();
        assert_eq!(
            (speech.text.as_str(), speech.voice.as_deref(), speech.speed),
            ("one two", Some("amy"), 1.0)
        );
        speech.check_deadline().unwrap();
    }

    #[test]
    fn what_cannot_be_spoken_is_refused() {
        let text = || vec![Part::text("hi")];
        let cases = [
            (request("{}", vec![]), "the text to speak is empty"),
            (request("{}", vec![Part::text(" \n")]), "the text to speak is empty"),
            (request("{}", vec![Part::text("a"), Part::Tokens(vec![1])]), "input 1 is not text"),
            (request(r#"{"speed": "fast"}"#, text()), "parameters of speak: invalid type: string \"fast\""),
            (request(r#"{"speed": 0}"#, text()), "parameter \"speed\" is 0, expected above 0"),
            (Request { task: Task::Embed, ..request("{}", text()) }, "this model cannot do `embed`"),
        ];
        for (request, expected) in cases {
            let message = SpeakRequest::new(&request, Instant::now()).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn a_deadline_counts_from_the_arrival() {
        let request = Request { deadline_ms: Some(5), ..request("{}", vec![Part::text("hi")]) };
        let Some(arrived) = Instant::now().checked_sub(Duration::from_millis(6)) else { return };
        let error = SpeakRequest::new(&request, arrived).unwrap().check_deadline().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadline);
    }
}
