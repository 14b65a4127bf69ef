//! `tokenizer_config.json`, `generation_config.json` and the chat template.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use pajamas_plugin_api::{Error, ErrorKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Largest file of metadata or tokens; a larger one is refused.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What a folder says about a model's texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextFiles {
    /// The template in Jinja that makes a prompt of a conversation.
    pub chat_template: Option<String>,
    /// The text of the token that begins a sequence.
    pub bos_token: Option<String>,
    /// The text of the token that ends one.
    pub eos_token: Option<String>,
    /// Tokens that end a text.
    pub ends: Vec<u32>,
}

impl TextFiles {
    /// Reads the files of `folder`, each of which may be missing: `chat_template.jinja`, `tokenizer_config.json` and
    /// `generation_config.json`. `ends` are the tokens that end a text by the model's `config.json`.
    ///
    /// # Errors
    /// A file is too large or damaged; the message names it.
    pub fn open(folder: &Path, ends: &Ids) -> Result<Self, Error> {
        let tokenizer: TokenizerConfig =
            read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let generation: GenerationConfig =
            read_json(&folder.join("generation_config.json"))?.unwrap_or_default();
        let template_file = folder.join("chat_template.jinja");
        let chat_template = if template_file.is_file() {
            Some(read_text(&template_file)?)
        } else {
            tokenizer.chat_template.and_then(ChatTemplate::text)
        };
        Ok(Self {
            chat_template,
            bos_token: tokenizer.bos_token.and_then(token_text),
            eos_token: tokenizer.eos_token.and_then(token_text),
            ends: [ends.list(), generation.eos_token_id.list()].concat(),
        })
    }
}

/// Token ids: a file has none, one, or a list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged)]
pub enum Ids {
    /// The file does not say.
    #[default]
    None,
    /// One id.
    One(u32),
    /// Several.
    Many(Vec<u32>),
}

impl Ids {
    /// The ids as a list.
    #[must_use]
    pub fn list(&self) -> Vec<u32> {
        match self {
            Self::None => Vec::new(),
            Self::One(id) => vec![*id],
            Self::Many(ids) => ids.clone(),
        }
    }
}

/// The fields of `tokenizer_config.json` that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    chat_template: Option<ChatTemplate>,
    bos_token: Option<Value>,
    eos_token: Option<Value>,
}

/// The fields of `generation_config.json` that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GenerationConfig {
    eos_token_id: Ids,
}

/// One template, or several with names.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ChatTemplate {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl ChatTemplate {
    fn text(self) -> Option<String> {
        match self {
            Self::One(text) => Some(text),
            Self::Named(list) => {
                list.into_iter().find(|entry| entry.name == "default").map(|entry| entry.template)
            }
        }
    }
}

/// A token is a text, or an object with its text.
fn token_text(token: Value) -> Option<String> {
    let text = token.get("content").unwrap_or(&token);
    text.as_str().map(str::to_owned)
}

/// The bytes of a file of at most 256 MiB.
///
/// # Errors
/// It is missing, cannot be read, or is larger; the message names it.
pub fn read_bounded(path: &Path) -> Result<Vec<u8>, Error> {
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, format!("{} does not exist", path.display()))
        }
        _ => Error::bad_model(format!("could not read {}: {error}", path.display())),
    };
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::bad_model(format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display())));
    }
    Ok(bytes)
}

/// The text of a file of at most 256 MiB.
///
/// # Errors
/// As [`read_bounded`], or it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, Error> {
    String::from_utf8(read_bounded(path)?)
        .map_err(|_| Error::bad_model(format!("{} is no UTF-8 text", path.display())))
}

/// The content of a JSON file of at most 256 MiB; `None` where it is not there.
///
/// # Errors
/// As [`read_text`], or it has other content than `T`; the message names the field.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = read_text(path)?;
    let mut reader = serde_json::Deserializer::from_str(&text);
    let value = serde_path_to_error::deserialize(&mut reader);
    value.map(Some).map_err(|error| Error::bad_model(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_wherever_the_files_have_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(TextFiles::open(folder.path(), &Ids::None).unwrap(), TextFiles::default());
        write(
            "tokenizer_config.json",
            r#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "special": true},
                "chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]}"#,
        );
        write("generation_config.json", r#"{"eos_token_id": [2, 5]}"#);
        let files = TextFiles::open(folder.path(), &Ids::One(7)).unwrap();
        assert_eq!(files.ends, [7, 2, 5]);
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            (files.bos_token, files.eos_token, files.chat_template),
            (text("<s>"), text("</s>"), text("d"))
        );
        write("chat_template.jinja", "own");
        let files = TextFiles::open(folder.path(), &Ids::None).unwrap();
        assert_eq!(files.chat_template, text("own"));
        write("generation_config.json", r#"{"eos_token_id": "two"}"#);
        let error = TextFiles::open(folder.path(), &Ids::None).unwrap_err().to_string();
        assert!(error.contains("generation_config.json: eos_token_id"), "{error}");
    }
}
