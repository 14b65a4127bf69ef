//! What has been said so far, and the prompts made of it.

use std::time::SystemTime;

use pajamas_plugin_api::{GenerateParams, ModelInfo, Params, Part, Request, Task};
use serde_json::Map;

use super::Error;
use crate::chat::{CHATML, ChatMessage, ChatTemplate, RenderInput, Role, SpecialTokens, TemplateError};
use crate::engine::EngineError;

/// A conversation with one model.
#[derive(Debug)]
pub(super) struct Conversation {
    template: ChatTemplate,
    params: GenerateParams,
    messages: Vec<ChatMessage>,
}

impl Conversation {
    /// An empty conversation, after the instructions if there are any. A model without a template of its own gets
    /// [`CHATML`].
    pub(super) fn new(
        info: &ModelInfo,
        system: Option<&str>,
        params: GenerateParams,
    ) -> Result<Self, TemplateError> {
        let tokens = SpecialTokens {
            bos_token: info.bos_token.clone(),
            eos_token: info.eos_token.clone(),
            control: info.control_tokens.clone(),
            ..SpecialTokens::default()
        };
        let template = ChatTemplate::parse(info.chat_template.as_deref().unwrap_or(CHATML), tokens)?;
        let messages = system.map(|text| ChatMessage::new(Role::System, text)).into_iter().collect();
        Ok(Self { template, params, messages })
    }

    /// The seed of every answer.
    pub(super) fn seed(&self) -> u64 {
        self.params.seed
    }

    /// The request that asks `question` after all that has been said.
    pub(super) fn request(&self, question: &str) -> Result<Request, Error> {
        let mut messages = self.messages.clone();
        messages.push(ChatMessage::new(Role::User, question));
        let segments = self.template.render(&RenderInput {
            messages: &messages,
            tools: &[],
            add_generation_prompt: true,
            extra: &Map::new(),
            now: SystemTime::now(),
        })?;
        let params = Params::new(&self.params).map_err(EngineError::Plugin)?;
        let part =
            |segment: crate::chat::Segment| Part::Text { text: segment.text, trusted: segment.trusted };
        let parts = segments.into_iter().map(part).collect();
        Ok(Request { task: Task::Generate, params, parts, deadline_ms: None })
    }

    /// Keeps a question and its answer for the questions that follow.
    pub(super) fn add(&mut self, question: String, answer: String) {
        self.messages.push(ChatMessage::new(Role::User, question));
        self.messages.push(ChatMessage::new(Role::Assistant, answer));
    }

    /// Forgets everything but the instructions.
    pub(super) fn clear(&mut self) {
        self.messages.retain(|message| message.role == Role::System);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(conversation: &Conversation, question: &str) -> String {
        let request = conversation.request(question).unwrap();
        request.texts().collect()
    }

    #[test]
    fn each_question_follows_what_was_said_before() {
        let info = ModelInfo { control_tokens: vec!["<|im_end|>".into()], ..ModelInfo::default() };
        let mut conversation =
            Conversation::new(&info, Some("Be brief."), GenerateParams::default()).unwrap();
        let system = "<|im_start|>system\nBe brief.<|im_end|>\n";
        let first = format!("{system}<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
        assert_eq!(prompt(&conversation, "Hi"), first);

        conversation.add("Hi".into(), "Hello".into());
        let second =
            format!("{first}Hello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n");
        assert_eq!(prompt(&conversation, "Bye"), second);

        conversation.clear();
        assert_eq!(prompt(&conversation, "Hi"), first);
    }

    #[test]
    fn control_tokens_in_a_question_are_not_trusted() {
        let info = ModelInfo { control_tokens: vec!["<|im_end|>".into()], ..ModelInfo::default() };
        let conversation = Conversation::new(&info, None, GenerateParams::default()).unwrap();
        let request = conversation.request("a<|im_end|>b").unwrap();
        let untrusted = Part::Text { text: "a<|im_end|>b".into(), trusted: false };
        assert!(request.parts.contains(&untrusted), "{:?}", request.parts);
    }
}
