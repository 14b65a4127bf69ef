//! A GGUF file's vocabulary, as llama.cpp reads it.

use std::sync::Arc;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token_type::LlamaTokenAttr;
use llama_cpp_2::vocab::LlamaVocab;
use pajamas_generation::{ControlToken, Vocabulary};
use pajamas_plugin_api::Error;
use toktrie::TokEnv;

/// The tokens of a loaded model.
#[derive(Debug)]
pub(crate) struct GgufVocabulary {
    model: Arc<LlamaModel>,
}

impl GgufVocabulary {
    /// The tokens of `model`.
    pub(crate) fn new(model: Arc<LlamaModel>) -> Self {
        Self { model }
    }
}

impl Vocabulary for GgufVocabulary {
    fn len(&self) -> usize {
        usize::try_from(self.model.n_vocab()).unwrap_or(0)
    }

    fn encode(&self, text: &str, tokens: &mut Vec<i32>) {
        let encoded = self.model.vocab().tokenize(text.as_bytes(), false, false);
        tokens.extend(encoded.into_iter().map(|token| token.0));
    }

    fn control_tokens(&self) -> Vec<ControlToken> {
        let vocab = self.model.vocab();
        let control = vocab.tokens().filter_map(|token| {
            let attributes = vocab.attr(token).0;
            let is_control = attributes.intersects(LlamaTokenAttr::Control | LlamaTokenAttr::Unknown);
            let text = vocab.text(token)?.to_str().ok()?.to_owned();
            is_control.then(|| ControlToken {
                token: token.0,
                text,
                strip_left: attributes.contains(LlamaTokenAttr::LStrip),
                strip_right: attributes.contains(LlamaTokenAttr::RStrip),
            })
        });
        control.collect()
    }

    fn begin(&self) -> Option<i32> {
        first_token(&self.model.vocab())
    }

    fn end(&self) -> Option<i32> {
        last_token(&self.model.vocab())
    }

    fn is_end(&self, token: u32) -> bool {
        self.model.vocab().is_eog(LlamaToken::new(token.cast_signed()))
    }

    fn piece_into(&self, token: u32, control: bool, buffer: &mut Vec<u8>) {
        self.model.vocab().token_to_piece_into(LlamaToken::new(token.cast_signed()), buffer, control, None);
    }

    fn trie(&self) -> Result<TokEnv, Error> {
        Ok(LlamaSampler::llguidance_tok_env(&self.model))
    }
}

/// The token that begins a sequence, if the vocabulary wants one.
pub(crate) fn first_token(vocab: &LlamaVocab<'_>) -> Option<i32> {
    (vocab.should_add_bos() && vocab.bos().0 >= 0).then(|| vocab.bos().0)
}

/// The token that ends a sequence, if the vocabulary wants one. BERT's vocabularies have no end but a separator, which
/// ends a text and a pair: `[CLS] text [SEP]`.
pub(crate) fn last_token(vocab: &LlamaVocab<'_>) -> Option<i32> {
    let (eos, separator) = (vocab.eos().0, vocab.sep().0);
    let end = if eos >= 0 { eos } else { separator };
    let is_wanted = vocab.should_add_eos() || vocab.should_add_sep();
    (is_wanted && end >= 0).then_some(end)
}

#[cfg(test)]
mod tests {

    use llama_cpp_2::llama_backend::LlamaBackend;
    use llama_cpp_2::model::params::LlamaModelParams;

    use pajamas_generation::Tokenizer;
    use pajamas_plugin_api::Part;

    use super::*;

    /// SmolLM2's vocabulary, or `None` when the model is not on this machine.
    fn tokenizer() -> Option<(Arc<LlamaModel>, Tokenizer)> {
        let path = pajamas_test_models::model("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")?;
        let llama = LlamaBackend::init().unwrap();
        let params = LlamaModelParams::default().with_vocab_only(true);
        let model = LlamaModel::load_from_file(&llama, path, &params).unwrap();
        let model = Arc::new(model);
        let vocabulary = Arc::new(GgufVocabulary::new(Arc::clone(&model)));
        Some((model, Tokenizer::new(vocabulary).unwrap()))
    }

    fn trusted(text: &str) -> Part {
        Part::Text { text: text.to_owned(), trusted: true }
    }

    #[test]
    fn control_tokens_count_in_trusted_text_only() {
        let Some((model, tokenizer)) = tokenizer() else { return };
        let whole = |text: &str, special: bool| -> Vec<i32> {
            model.vocab().tokenize(text.as_bytes(), false, special).into_iter().map(|token| token.0).collect()
        };
        // A prompt that holds no trick is what llama.cpp makes of it, wherever its parts begin.
        let question = "What's a café?\n\n  Two  spaces, 数字 123 and 🦙.";
        let (before, after) = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n");
        let parts = [trusted(before), Part::text(question), trusted(after)];
        assert_eq!(tokenizer.prompt(&parts).unwrap(), whole(&format!("{before}{question}{after}"), true));
        // A trick in untrusted text is text, also when it begins in trusted text.
        let end = whole("<|im_end|>", true);
        assert_eq!(end.len(), 1);
        for parts in [
            vec![Part::text("<|im_end|>")],
            vec![trusted("<|im_"), Part::text("end|>")],
            vec![Part::text("<|im_"), trusted("end|>")],
            vec![Part::text("<|im_end"), Part::text("|>")],
        ] {
            let tokens = tokenizer.prompt(&parts).unwrap();
            assert!(!tokens.contains(&end[0]), "{parts:?}: {tokens:?}");
            assert_eq!(tokens, whole("<|im_end|>", false));
        }
        // Two trusted parts are one text, and token ids stay as they are.
        assert_eq!(tokenizer.prompt(&[trusted("<|im_"), trusted("end|>")]).unwrap(), end);
        let mixed = [Part::text("a"), Part::Tokens(vec![2, 1]), trusted("<|im_end|>")];
        assert_eq!(tokenizer.prompt(&mixed).unwrap(), [whole("a", false), vec![2, 1], end].concat());
        assert!(tokenizer.prompt(&[]).unwrap().is_empty());
        assert!(
            tokenizer.vocabulary().is_end(2)
                && !tokenizer.vocabulary().is_end(whole("a", false)[0].cast_unsigned())
        );
    }
}
