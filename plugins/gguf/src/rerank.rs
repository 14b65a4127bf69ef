//! How a reranking model wants a query and a document to be joined.

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use pajamas_plugin_api::{Error, Request};

use crate::vocabulary::{first_token, last_token};

/// The format of a pair, read from the model once.
#[derive(Debug)]
pub(crate) struct PairFormat {
    /// A template with `{query}` and `{document}`, as newer models carry.
    template: Option<String>,
}

impl PairFormat {
    /// The model's format.
    pub(crate) fn of(model: &LlamaModel) -> Self {
        let template =
            model.chat_template(Some("rerank")).ok().and_then(|template| template.to_string().ok());
        Self { template }
    }

    /// The token sequences of a request: its first text is the query, each other one a document.
    ///
    /// # Errors
    /// There is no document, a part is not text, or a pair is too long.
    pub(crate) fn texts(
        &self,
        model: &LlamaModel,
        request: &Request,
        len_max: usize,
    ) -> Result<Vec<Vec<i32>>, Error> {
        let texts: Vec<&str> = request.texts().collect();
        let [query, documents @ ..] = texts.as_slice() else {
            return Err(Error::invalid("the first part must be the query, as text"));
        };
        if documents.is_empty() || texts.len() != request.parts.len() {
            return Err(Error::invalid("the parts after the query must be the documents, as text"));
        }
        documents
            .iter()
            .enumerate()
            .map(|(index, document)| {
                let tokens = match &self.template {
                    Some(template) => from_template(model, template, query, document),
                    None => plain(model, query, document),
                };
                if tokens.len() > len_max {
                    return Err(Error::invalid(format!(
                        "query and document {index} have {} tokens together and this model takes {len_max}",
                        tokens.len()
                    )));
                }
                Ok(tokens)
            })
            .collect()
    }
}

/// `[BOS] query [EOS] [SEP] document [EOS]`, each special token where the vocabulary asks for it; in BERT's words
/// `[CLS] query [SEP] document [SEP]`.
fn plain(model: &LlamaModel, query: &str, document: &str) -> Vec<i32> {
    let vocab = model.vocab();
    let exists = |token: LlamaToken| (token.0 >= 0).then_some(token.0);
    let ids = |text: &str| vocab.tokenize(text.as_bytes(), false, false).into_iter().map(|token| token.0);
    let mut tokens: Vec<i32> = first_token(&vocab).into_iter().collect();
    tokens.extend(ids(query));
    tokens.extend(exists(vocab.eos()).filter(|_| vocab.should_add_eos()));
    tokens.extend(exists(vocab.sep()).filter(|_| vocab.should_add_sep()));
    tokens.extend(ids(document));
    tokens.extend(last_token(&vocab));
    tokens
}

/// The template's own text may hold control tokens, the query and the document may not.
fn from_template(model: &LlamaModel, template: &str, query: &str, document: &str) -> Vec<i32> {
    let vocab = model.vocab();
    let mut tokens = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let next =
            ["{query}", "{document}"].into_iter().filter_map(|mark| Some((rest.find(mark)?, mark))).min();
        let (own, mark) = next.map_or((rest, ""), |(at, mark)| (&rest[..at], mark));
        tokens.extend(vocab.tokenize(own.as_bytes(), tokens.is_empty(), true));
        let filled = match mark {
            "{query}" => query,
            "{document}" => document,
            _ => "",
        };
        tokens.extend(vocab.tokenize(filled.as_bytes(), false, false));
        rest = &rest[own.len() + mark.len()..];
    }
    tokens.into_iter().map(|token| token.0).collect()
}
