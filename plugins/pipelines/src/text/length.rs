//! How long a text may be, which is written in up to three files of a model.

use pajamas_plugin_api::Error;
use serde::Deserialize;

use crate::files::Folder;

/// Longest sequence where no file says it, in tokens: that of BERT.
const CONTEXT_DEFAULT: usize = 512;

/// Models whose first position is the padding's number plus one, so that two positions are never used.
const POSITIONS_FROM_2: &[&str] =
    &["camembert", "longformer", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl"];

/// What a model's files say about lengths.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lengths {
    /// Positions that the network has.
    positions: Option<usize>,
    /// Longest sequence that the model is used with.
    usual: Option<usize>,
    hidden_size: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    model_type: Option<String>,
    max_position_embeddings: Option<usize>,
    hidden_size: Option<usize>,
    dim: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    /// "No limit" is written as 10^30.
    model_max_length: Option<f64>,
}

impl Lengths {
    /// What the files of `folder` say.
    ///
    /// # Errors
    /// One of them is malformed.
    pub(crate) fn read(folder: &Folder) -> Result<Self, Error> {
        let config: Config = folder.json("config.json")?.unwrap_or_default();
        let sentence: SentenceConfig = folder.json("sentence_bert_config.json")?.unwrap_or_default();
        let tokenizer: TokenizerConfig = folder.json("tokenizer_config.json")?.unwrap_or_default();
        let is_from_2 = config.model_type.is_some_and(|name| POSITIONS_FROM_2.contains(&name.as_str()));
        let skipped = if is_from_2 { 2 } else { 0 };
        let of_tokenizer = tokenizer.model_max_length.filter(|length| (1.0..1e9).contains(length));
        Ok(Self {
            positions: config.max_position_embeddings.map(|positions| positions.saturating_sub(skipped)),
            usual: sentence.max_seq_length.or(of_tokenizer.map(|length| length as usize)),
            hidden_size: config.hidden_size.or(config.dim),
        })
    }

    /// Numbers of a token's vector.
    pub(crate) fn hidden_size(&self) -> Option<usize> {
        self.hidden_size
    }

    /// The longest sequence in tokens: what is asked for, or what the model is used with (`max_seq_length` of
    /// `sentence-transformers`, or the tokenizer's), at most the positions that the network has.
    ///
    /// # Errors
    /// More is asked for than the network has positions, or 0.
    pub(crate) fn context(&self, asked: Option<usize>, fixed: Option<usize>) -> Result<usize, Error> {
        let most = [self.positions, fixed].into_iter().flatten().min();
        match (asked, most) {
            (Some(0), _) => Err(Error::invalid("option `context` is 0")),
            (Some(asked), Some(most)) if asked > most => Err(Error::invalid(format!(
                "option `context` is {asked}, and the network has {most} positions"
            ))),
            (Some(asked), _) => Ok(asked),
            (None, most) => {
                let usual = self.usual.or(most).unwrap_or(CONTEXT_DEFAULT);
                Ok(usual.min(most.unwrap_or(usize::MAX)))
            }
        }
    }
}

/// A length, for a model's info.
pub(crate) fn to_u32(length: usize) -> Option<u32> {
    u32::try_from(length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_of_what_is_written_counts() {
        // positions, usual, asked, fixed by the network, context
        let cases = [
            (Some(512), Some(256), None, None, Some(256)),
            (Some(512), None, None, None, Some(512)),
            (Some(512), Some(8192), None, None, Some(512)),
            (None, None, None, None, Some(512)),
            (None, Some(77), None, None, Some(77)),
            (Some(512), Some(256), None, Some(128), Some(128)),
            (Some(512), Some(256), Some(400), None, Some(400)),
            (Some(512), Some(256), Some(513), None, None),
            (None, None, Some(0), None, None),
        ];
        for (positions, usual, asked, fixed, expected) in cases {
            let lengths = Lengths { positions, usual, hidden_size: None };
            assert_eq!(lengths.context(asked, fixed).ok(), expected, "{lengths:?} {asked:?} {fixed:?}");
        }
    }

    #[test]
    fn the_files_of_a_model_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
        write(
            "config.json",
            r#"{"model_type": "roberta", "max_position_embeddings": 514, "hidden_size": 768}"#,
        );
        write("tokenizer_config.json", r#"{"model_max_length": 1000000000000000019884624838656}"#);
        let lengths = Lengths::read(&Folder::new(folder.path(), None, crate::NetworkFiles::ONNX)).unwrap();
        assert_eq!(lengths.context(None, None).unwrap(), 512);
        assert_eq!(lengths.hidden_size(), Some(768));
        write("sentence_bert_config.json", r#"{"max_seq_length": 128}"#);
        assert_eq!(
            Lengths::read(&Folder::new(folder.path(), None, crate::NetworkFiles::ONNX))
                .unwrap()
                .context(None, None)
                .unwrap(),
            128
        );
    }
}
