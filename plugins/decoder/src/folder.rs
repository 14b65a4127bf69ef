//! A decoder's folder: the network, and the JSON files that say what its tokens mean.

use std::path::{Path, PathBuf};

use pajamas_generation::Vocabulary;
use pajamas_generation::checkpoint::{CheckpointVocabulary, Ids, TextFiles, read_json};
use pajamas_pipelines::{Header, NetworkFiles, network_file};
use pajamas_plugin_api::{Error, ErrorKind, ModelInfo, Task};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::layout::Layout;
use crate::options::DecoderOptions;

/// Tokens that a model was trained for when its files do not say.
const CONTEXT_UNSAID: u32 = 2048;

/// The files of a decoder, read but for the network.
#[derive(Clone, Debug)]
pub struct DecoderFolder {
    path: PathBuf,
    network: PathBuf,
    config: Config,
    texts: TextFiles,
}

/// The fields of `config.json` that matter here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    model_type: Option<String>,
    vocab_size: Option<u32>,
    max_position_embeddings: Option<u32>,
    /// What GPT-2 and its relatives call the same.
    n_positions: Option<u32>,
    eos_token_id: Ids,
}

impl DecoderFolder {
    /// Reads what lies at `path`, a folder or a network with the files beside it. `options` may choose among several
    /// networks (`variant`).
    ///
    /// # Errors
    /// A file is missing or damaged; the message names it.
    pub fn open(path: &Path, options: &Map<String, Value>, files: NetworkFiles) -> Result<Self, Error> {
        let network = network_file(path, options, files)?;
        let folder = if path == network { path.parent().unwrap_or(path) } else { path };
        for name in ["config.json", "tokenizer.json"] {
            if !folder.join(name).is_file() {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "{} has no {name}: text is generated from a folder with config.json, tokenizer.json and the network",
                        folder.display()
                    ),
                ));
            }
        }
        let config: Config = read_json(&folder.join("config.json"))?.unwrap_or_default();
        let texts = TextFiles::open(folder, &config.eos_token_id)?;
        Ok(Self { path: folder.to_owned(), network, config, texts })
    }

    /// The file of the network.
    #[must_use]
    pub fn network(&self) -> &Path {
        &self.network
    }

    /// The longest sequence with these options.
    #[must_use]
    pub fn context(&self, options: &DecoderOptions) -> u32 {
        options.context(self.context_trained())
    }

    /// Tokens that the model was trained for.
    fn context_trained(&self) -> u32 {
        let Config { max_position_embeddings, n_positions, .. } = self.config;
        max_position_embeddings.or(n_positions).unwrap_or(CONTEXT_UNSAID)
    }

    /// The layout of its network.
    ///
    /// # Errors
    /// The network is no decoder with a cache, or nothing says how many tokens there are.
    pub(crate) fn layout(&self, header: &Header) -> Result<Layout, Error> {
        let vocabulary = self.config.vocab_size.and_then(|len| usize::try_from(len).ok());
        let vocabulary = vocabulary.ok_or_else(|| {
            Error::bad_model(format!("{} has no `vocab_size`", self.path.join("config.json").display()))
        })?;
        Layout::of(&header.inputs, &header.outputs, vocabulary).map_err(|error| {
            Error::new(error.kind(), format!("{}: {}", self.network.display(), error.message()))
        })
    }

    pub(crate) fn vocabulary(&self, layout: &Layout) -> Result<CheckpointVocabulary, Error> {
        CheckpointVocabulary::open(&self.path, layout.vocabulary, &self.texts)
    }

    /// What `inspect` answers: adds to what the engine says, for each device that it estimates the network's bytes on, the
    /// cells of all `slots`.
    ///
    /// # Errors
    /// The network is no decoder with a cache, or the tokenizer is damaged.
    pub fn describe(
        &self,
        header: &Header,
        options: &DecoderOptions,
        slots: u32,
        info: &mut ModelInfo,
    ) -> Result<(), Error> {
        let layout = self.layout(header)?;
        let vocabulary = self.vocabulary(&layout)?;
        let cells = u64::from(self.context(options)) * u64::from(slots);
        self.tell(&layout, &vocabulary, cells, info);
        Ok(())
    }

    /// `cells` are those of all sequences at their longest.
    pub(crate) fn tell(
        &self,
        layout: &Layout,
        vocabulary: &CheckpointVocabulary,
        cells: u64,
        info: &mut ModelInfo,
    ) {
        let text = |id: Option<i32>| id.and_then(|id| vocabulary.text(id.cast_unsigned()));
        info.architecture = self.config.model_type.clone().unwrap_or_else(|| "decoder".to_owned());
        info.tasks = vec![Task::Generate, Task::Tokenize];
        info.context_length = Some(self.context_trained());
        info.vocab_size = u32::try_from(layout.vocabulary).ok();
        info.chat_template.clone_from(&self.texts.chat_template);
        info.bos_token = self.texts.bos_token.clone().or_else(|| text(vocabulary.begin()));
        info.eos_token.clone_from(&self.texts.eos_token);
        info.control_tokens = vocabulary.control_tokens().into_iter().map(|token| token.text).collect();
        for bytes in info.estimated_bytes.values_mut() {
            *bytes += cells * layout.cell_bytes() as u64;
        }
    }
}
