//! Chat templates: Hugging Face's `apply_chat_template`, with untrusted text kept apart.

mod clock;
mod context;
mod environment;
mod probe;

use std::time::SystemTime;
use std::{io, thread};

use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value};

use self::context::Context;
use self::environment::RaisedError;
use self::probe::Abilities;
use super::message::{ChatMessage, Content};
use super::tools::{self, Tool, ToolSyntax};
use super::trust::{self, Marker, Segment};

/// The longest template source, in bytes; a longer one is [`TemplateError::SourceTooLong`].
pub const SOURCE_BYTES_MAX: usize = 1 << 20;
/// The longest rendered prompt, in bytes; a longer one is [`TemplateError::OutputTooLong`].
pub const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// The work one rendering may cost, about one unit for each instruction of the template and for 64 bytes handled; a
/// rendering that needs more ends as [`TemplateError::OutOfFuel`], after about a tenth of a second.
pub const FUEL: u64 = 1_000_000;

/// The work that is tried on the caller's stack; it does for conversations of some dozens of messages, and for probes.
///
/// Jinja can nest a list in a list with every two units of fuel, and printing or dropping such a value recurses. What
/// this much fuel can nest fits into the 2 MiB of a thread's stack, also without optimisation.
const QUICK_FUEL: u64 = 2_000;
/// The stack on which everything else is rendered: enough for what [`FUEL`] can nest. Memory that is not used, which is
/// all but some pages of it unless a template means harm, is never allocated.
const STACK_BYTES: usize = 512 << 20;

/// The template for models that bring none: ChatML, the most widespread of all formats.
pub const CHATML: &str = "{% for message in messages %}\
    {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
    {% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// The name under which the one template of an environment is stored, as it appears in messages about it.
const TEMPLATE_NAME: &str = "chat template";

/// A model's chat template, compiled once and rendered for each request; any number of threads may do so at a time.
#[derive(Debug)]
pub struct ChatTemplate {
    /// Gives up after [`QUICK_FUEL`].
    quick: Environment<'static>,
    /// The same, but gives up after [`FUEL`].
    patient: Environment<'static>,
    tokens: SpecialTokens,
    marker: Marker,
    abilities: Abilities,
    syntax: ToolSyntax,
}

/// The special tokens of a model, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text; `bos_token` in templates.
    pub bos_token: Option<String>,
    /// Ends a text; `eos_token` in templates.
    pub eos_token: Option<String>,
    /// Stands for what the vocabulary lacks; `unk_token` in templates.
    pub unk_token: Option<String>,
    /// Fills batches; `pad_token` in templates.
    pub pad_token: Option<String>,
    /// Every text that the tokenizer reads as one control token; requests cannot use them as such.
    pub control: Vec<String>,
}

/// What a prompt is made of.
#[derive(Debug, Clone, Copy)]
pub struct RenderInput<'a> {
    /// The conversation, oldest first.
    pub messages: &'a [ChatMessage],
    /// The tools on offer. A template that knows no tools gets them described in the system message, in the format of
    /// [`ToolSyntax::Hermes`].
    pub tools: &'a [Tool],
    /// Whether the prompt ends with the beginning of the assistant's answer.
    pub add_generation_prompt: bool,
    /// Further variables for the template, such as `enable_thinking`; those of the same name as a variable above or as
    /// a special token have no effect.
    pub extra: &'a Map<String, Value>,
    /// The time that `strftime_now` tells, in UTC.
    pub now: SystemTime,
}

/// Why a template gave no prompt.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template is not valid Jinja, or uses something that does not exist.
    #[error("the model's chat template cannot be compiled")]
    Parse(#[source] minijinja::Error),
    /// The source is longer than [`SOURCE_BYTES_MAX`].
    #[error("the model's chat template has {len} bytes, at most {SOURCE_BYTES_MAX} are allowed")]
    SourceTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The list of control tokens is too large to search for.
    #[error("the model's control tokens cannot be indexed")]
    ControlTokens(#[source] aho_corasick::BuildError),
    /// The template called `raise_exception`: the conversation is not one that the model was made for.
    #[error("the model's chat template rejects this conversation: {0}")]
    Rejected(String),
    /// An image was sent to a template that can only handle text.
    #[error("this model's chat template takes text only; remove the image parts")]
    ImagesUnsupported,
    /// The rendering would cost more than [`FUEL`].
    #[error("the conversation is too long for the model's chat template: rendering it takes too much work")]
    OutOfFuel,
    /// The prompt would be longer than [`OUTPUT_BYTES_MAX`].
    #[error("the conversation is too long: its prompt would have more than {OUTPUT_BYTES_MAX} bytes")]
    OutputTooLong,
    /// The system gave no thread for a long conversation.
    #[error("no thread could be started to render the conversation")]
    Thread(#[source] io::Error),
    /// The template failed on this conversation.
    #[error("the model's chat template failed on this conversation")]
    Render(#[source] minijinja::Error),
}

impl ChatTemplate {
    /// Compiles `source`, and tries it on small conversations to learn what it can handle.
    ///
    /// # Errors
    /// When the source is too long or not a valid template.
    pub fn parse(source: &str, tokens: SpecialTokens) -> Result<Self, TemplateError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(TemplateError::SourceTooLong { len: source.len() });
        }
        let marker = Marker::new(&tokens.control).map_err(TemplateError::ControlTokens)?;
        let mut quick = environment::compile(source).map_err(TemplateError::Parse)?;
        let mut patient = quick.clone();
        quick.set_fuel(Some(QUICK_FUEL));
        patient.set_fuel(Some(FUEL));
        let syntax = ToolSyntax::detect(source);
        let mut template = Self { quick, patient, tokens, marker, abilities: Abilities::default(), syntax };
        template.abilities = probe::probe(&template, source);
        Ok(template)
    }

    /// Renders a prompt.
    ///
    /// # Errors
    /// [`TemplateError::Rejected`] and [`TemplateError::ImagesUnsupported`] when the conversation is at fault,
    /// [`TemplateError::OutOfFuel`] and [`TemplateError::OutputTooLong`] when it is too long,
    /// [`TemplateError::Render`] when the template is at fault, and [`TemplateError::Thread`] when the system is.
    pub fn render(&self, input: &RenderInput<'_>) -> Result<Vec<Segment>, TemplateError> {
        let has_images = input.messages.iter().filter_map(|m| m.content.as_ref()).any(Content::has_image);
        if has_images && !self.abilities.part_content {
            return Err(TemplateError::ImagesUnsupported);
        }
        let described;
        let mut input = *input;
        if !self.abilities.tools && tools::need_description(input.messages, input.tools) {
            described = tools::describe(input.messages, input.tools, self.abilities.system_role);
            input = RenderInput { messages: &described, tools: &[], ..input };
        }
        let context = self.context(&input, &self.abilities);
        let rendered = match run(&self.quick, context.clone()) {
            Err(TemplateError::OutOfFuel) => on_large_stack(|| run(&self.patient, context)),
            outcome => outcome,
        };
        rendered.map(|rendered| trust::split(&rendered))
    }

    /// The syntax in which this model calls tools.
    #[must_use]
    pub fn tool_syntax(&self) -> ToolSyntax {
        if self.abilities.tools { self.syntax } else { ToolSyntax::Hermes }
    }

    /// Whether the template itself presents tools; otherwise they are described in the system message.
    #[must_use]
    pub fn presents_tools(&self) -> bool {
        self.abilities.tools
    }

    /// Whether messages may contain images.
    #[must_use]
    pub fn accepts_images(&self) -> bool {
        self.abilities.part_content
    }

    /// The variables for a template of these abilities.
    fn context(&self, input: &RenderInput<'_>, abilities: &Abilities) -> minijinja::Value {
        Context { marker: &self.marker, tokens: &self.tokens, abilities }.build(input)
    }
}

fn run(environment: &Environment<'_>, context: minijinja::Value) -> Result<String, TemplateError> {
    let template = environment.get_template(TEMPLATE_NAME).map_err(TemplateError::Parse)?;
    let mut prompt = Prompt::default();
    match template.render_captured_to(context, &mut prompt) {
        Ok(_) => Ok(String::from_utf8_lossy(&prompt.bytes).into_owned()),
        Err(_) if prompt.overflowed => Err(TemplateError::OutputTooLong),
        Err(error) => Err(classify(error)),
    }
}

/// Does `work` on a thread of its own with [`STACK_BYTES`] of stack, and waits for it.
fn on_large_stack<T: Send>(
    work: impl FnOnce() -> Result<T, TemplateError> + Send,
) -> Result<T, TemplateError> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("chat-template".to_owned()).stack_size(STACK_BYTES);
        let worker = builder.spawn_scoped(scope, work).map_err(TemplateError::Thread)?;
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Tells a conversation that was turned down from a template that is broken.
fn classify(error: minijinja::Error) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(RaisedError(message)) = current.downcast_ref() {
            return TemplateError::Rejected(trust::without_marks(message));
        }
        if current.downcast_ref().is_some_and(|e: &minijinja::Error| e.kind() == ErrorKind::OutOfFuel) {
            return TemplateError::OutOfFuel;
        }
        cause = current.source();
    }
    TemplateError::Render(error)
}

/// Collects what is rendered, up to [`OUTPUT_BYTES_MAX`].
#[derive(Default)]
struct Prompt {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl io::Write for Prompt {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > OUTPUT_BYTES_MAX {
            self.overflowed = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
