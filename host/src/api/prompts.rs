//! Inputs of legacy completions and embeddings: a text, token ids, or an array of either.

use pajamas_plugin_api::Part;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};

use super::error::ApiError;

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Prompt {
    /// Text.
    Text(String),
    /// Token ids.
    Tokens(Vec<u32>),
}

/// One or more inputs as they stand in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prompts(Vec<Prompt>);

impl Prompts {
    /// The inputs of the field `param`: at least one, at most `max`, none of them empty.
    pub(super) fn check(prompts: Option<Self>, param: &str, max: usize) -> Result<Vec<Prompt>, ApiError> {
        let Self(prompts) = prompts.ok_or_else(|| ApiError::missing(param, EXPECTED))?;
        if prompts.is_empty() || prompts.len() > max {
            let problem = format_args!("expected 1 to {max} inputs, got {}", prompts.len());
            return Err(ApiError::invalid(param, problem));
        }
        match prompts.iter().position(Prompt::is_empty) {
            Some(0) if prompts.len() == 1 => Err(ApiError::invalid(param, "must not be empty")),
            Some(index) => Err(ApiError::invalid(format!("{param}[{index}]"), "must not be empty")),
            None => Ok(prompts),
        }
    }
}

impl Prompt {
    /// The input as a part of a request. With `trusted`, control tokens in a text are control tokens.
    pub(super) fn into_part(self, trusted: bool) -> Part {
        match self {
            Self::Text(text) => Part::Text { text, trusted },
            Self::Tokens(tokens) => Part::Tokens(tokens),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Tokens(tokens) => tokens.is_empty(),
        }
    }
}

const EXPECTED: &str =
    "a string, an array of strings, an array of token ids or an array of arrays of token ids";

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PromptsVisitor)
    }
}

struct PromptsVisitor;

impl<'de> Visitor<'de> for PromptsVisitor {
    type Value = Prompts;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E>(self, text: &str) -> Result<Prompts, E> {
        Ok(Prompts(vec![Prompt::Text(text.to_owned())]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompts, A::Error> {
        let mut prompts: Vec<Prompt> = Vec::new();
        let mut tokens = Vec::new();
        while let Some(element) = seq.next_element()? {
            let fits = match (&element, prompts.first()) {
                (Element::Token(_), first) => first.is_none(),
                (Element::Prompt(_), _) if !tokens.is_empty() => false,
                (Element::Prompt(prompt), Some(first)) => {
                    std::mem::discriminant(prompt) == std::mem::discriminant(first)
                }
                (Element::Prompt(_), None) => true,
            };
            match element {
                _ if !fits => {
                    return Err(A::Error::custom(format_args!("expected {EXPECTED}, got a mixture of them")));
                }
                Element::Prompt(prompt) => prompts.push(prompt),
                Element::Token(token) => tokens.push(token),
            }
        }
        if !tokens.is_empty() {
            prompts.push(Prompt::Tokens(tokens));
        }
        Ok(Prompts(prompts))
    }
}

/// What an array of inputs may contain.
enum Element {
    Prompt(Prompt),
    Token(u32),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string, a token id or an array of token ids")
    }

    fn visit_str<E>(self, text: &str) -> Result<Element, E> {
        Ok(Element::Prompt(Prompt::Text(text.to_owned())))
    }

    fn visit_u64<E: serde::de::Error>(self, token: u64) -> Result<Element, E> {
        let token = u32::try_from(token).map_err(|_| E::custom(format_args!("{token} is no token id")))?;
        Ok(Element::Token(token))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
        let mut tokens = Vec::new();
        while let Some(token) = seq.next_element()? {
            tokens.push(token);
        }
        Ok(Element::Prompt(Prompt::Tokens(tokens)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::json::JsonBody;

    #[derive(Debug, Deserialize)]
    struct Sample {
        prompt: Option<Prompts>,
    }

    fn check(prompt: &Value) -> Result<Vec<Prompt>, ApiError> {
        let sample = JsonBody::from(json!({ "prompt": prompt })).read::<Sample>()?;
        Prompts::check(sample.prompt, "prompt", 3)
    }

    #[test]
    fn all_four_forms_are_read() {
        let text = |text: &str| Prompt::Text(text.to_owned());
        let table = [
            (json!("a"), vec![text("a")]),
            (json!(["a", "b"]), vec![text("a"), text("b")]),
            (json!([1, 2]), vec![Prompt::Tokens(vec![1, 2])]),
            (json!([[1, 2], [3]]), vec![Prompt::Tokens(vec![1, 2]), Prompt::Tokens(vec![3])]),
        ];
        for (prompt, expected) in table {
            assert_eq!(check(&prompt).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_no_input_is_named() {
        let table = [
            (json!(null), "prompt", "missing"),
            (json!([]), "prompt", "expected 1 to 3 inputs, got 0"),
            (json!(["a", "b", "c", "d"]), "prompt", "got 4"),
            (json!(""), "prompt", "must not be empty"),
            (json!(["a", ""]), "prompt[1]", "must not be empty"),
            (json!([[1], []]), "prompt[1]", "must not be empty"),
            (json!(["a", 1]), "prompt", "mixture"),
            (json!([1, "a"]), "prompt", "mixture"),
            (json!(["a", [1]]), "prompt", "mixture"),
            (json!([[1], "a"]), "prompt", "mixture"),
            (json!(7), "prompt", "expected a string"),
            (json!([-1]), "prompt[0]", "expected a string, a token id"),
            (json!([[1, "a"]]), "prompt[0][1]", "expected a whole number"),
            (json!([5_000_000_000_u64]), "prompt[0]", "is no token id"),
            (json!({"text": "a"}), "prompt", "expected a string"),
        ];
        for (prompt, param, message) in table {
            let error = check(&prompt).unwrap_err();
            assert_eq!(error.param(), Some(param), "{prompt}: {error}");
            assert!(error.to_string().contains(message), "{prompt}: {error}");
        }
    }
}
