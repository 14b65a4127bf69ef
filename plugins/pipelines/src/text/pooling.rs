//! How the vectors of a text's tokens become one.

use pajamas_plugin_api::Error;
use serde::Deserialize;

use crate::files::Folder;

/// The poolings of `sentence-transformers` that are common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pooling {
    /// The mean of all tokens.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
}

/// An entry of `modules.json`.
#[derive(Debug, Deserialize)]
struct Module {
    #[serde(rename = "type")]
    class: String,
    path: String,
}

/// The configuration of the pooling module.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_lasttoken: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
}

impl Pooling {
    /// What the folder's `modules.json` and its pooling module say; the mean if it has neither, as
    /// `sentence-transformers` does it.
    ///
    /// # Errors
    /// A file is malformed, or the model has a pooling or a layer behind it that this pipeline does not have.
    pub(crate) fn of_folder(folder: &Folder) -> Result<Self, Error> {
        let modules: Vec<Module> = folder.json("modules.json")?.unwrap_or_default();
        if let Some(dense) = modules.iter().find(|module| module.class.ends_with(".Dense")) {
            return Err(Error::bad_model(format!(
                "modules.json has the layer {} behind the pooling, which this pipeline does not have; export the network \
                 with the output sentence_embedding, which has it inside",
                dense.path
            )));
        }
        let pooling = modules.iter().find(|module| module.class.ends_with(".Pooling"));
        let file = format!("{}/config.json", pooling.map_or("1_Pooling", |module| module.path.as_str()));
        // A folder comes from strangers, and its files stay inside it.
        if file.contains("..") || file.starts_with('/') {
            return Err(Error::bad_model(format!("modules.json: {file} is outside the model's folder")));
        }
        match folder.json::<Config>(&file)? {
            Some(config) => config.pooling().ok_or_else(|| {
                Error::bad_model(format!(
                    "{file}: this pipeline has the poolings mean, cls and last, one at a time"
                ))
            }),
            None => Ok(Self::Mean),
        }
    }

    /// The vector of a sequence of `len` tokens from those of its tokens, `width` numbers each.
    pub(crate) fn pool(self, tokens: &[f32], len: usize, width: usize) -> Vec<f32> {
        let token = |index: usize| tokens.get(index * width..(index + 1) * width).unwrap_or_default();
        match self {
            Self::Cls => token(0).to_vec(),
            Self::Last => token(len.saturating_sub(1)).to_vec(),
            Self::Mean => {
                let mut sum = vec![0.0; width];
                for index in 0..len {
                    for (sum, number) in sum.iter_mut().zip(token(index)) {
                        *sum += number;
                    }
                }
                sum.iter().map(|sum| sum / len.max(1) as f32).collect()
            }
        }
    }
}

impl Config {
    fn pooling(&self) -> Option<Pooling> {
        let others = self.pooling_mode_max_tokens
            || self.pooling_mode_mean_sqrt_len_tokens
            || self.pooling_mode_weightedmean_tokens;
        match (self.pooling_mode_mean_tokens, self.pooling_mode_cls_token, self.pooling_mode_lasttoken) {
            _ if others => None,
            (true, false, false) => Some(Pooling::Mean),
            (false, true, false) => Some(Pooling::Cls),
            (false, false, true) => Some(Pooling::Last),
            _ => None,
        }
    }
}

/// Scales a vector to length 1; one of length 0 stays.
pub(crate) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|number| *number /= length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_become_one_vector_without_their_padding() {
        let tokens = [1.0, 2.0, 3.0, 6.0, 100.0, 100.0];
        for (pooling, expected) in
            [(Pooling::Mean, [2.0, 4.0]), (Pooling::Cls, [1.0, 2.0]), (Pooling::Last, [3.0, 6.0])]
        {
            assert_eq!(pooling.pool(&tokens, 2, 2), expected, "{pooling:?}");
        }
    }

    #[test]
    fn vectors_get_length_1() {
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        let mut zero = [0.0; 3];
        normalize(&mut zero);
        assert_eq!(zero, [0.0; 3]);
    }

    #[test]
    fn the_pooling_module_decides() {
        let cases = [
            (None, None, Ok(Pooling::Mean)),
            (None, Some(r#"{"pooling_mode_cls_token": true}"#), Ok(Pooling::Cls)),
            (
                None,
                Some(r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#),
                Err("one at a time"),
            ),
            (None, Some(r#"{"pooling_mode_max_tokens": true}"#), Err("one at a time")),
            (
                Some(r#"[{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]"#),
                None,
                Err("the layer 2_Dense behind the pooling"),
            ),
            (
                Some(r#"[{"type": "sentence_transformers.models.Pooling", "path": "../1_Pooling"}]"#),
                None,
                Err("outside the model's folder"),
            ),
        ];
        for (modules, pooling, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
            for (file, text) in [("modules.json", modules), ("1_Pooling/config.json", pooling)] {
                if let Some(text) = text {
                    std::fs::write(folder.path().join(file), text).unwrap();
                }
            }
            let found = Pooling::of_folder(&Folder::new(folder.path(), None, crate::NetworkFiles::ONNX));
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(expected)) => assert!(error.message().contains(expected), "{error}"),
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            }
        }
    }
}
