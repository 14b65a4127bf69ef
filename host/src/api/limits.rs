//! Every bound of the HTTP interface in one place. What exceeds one is refused with a 400 that names the field and the
//! bound, unless said otherwise.

use std::time::Duration;

/// Bounds that the operator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest request body, in bytes; a larger one is refused with 413.
    pub body_bytes: usize,
    /// The longest that one request may take once its model is loaded, in milliseconds; the plugin then ends it with
    /// 504.
    pub deadline_ms: u64,
}

impl Default for Limits {
    /// 32 MiB, and an hour.
    fn default() -> Self {
        Self { body_bytes: 32 << 20, deadline_ms: 60 * 60 * 1000 }
    }
}

/// The most messages of a conversation.
pub(super) const MESSAGES_MAX: usize = 4096;
/// The most parts of one message's content.
pub(super) const PARTS_MAX: usize = 256;
/// The most tools on offer, and the most calls in one message; OpenAI allows as many.
pub(super) const TOOLS_MAX: usize = 128;
/// The most answers to one prompt.
pub(super) const CHOICES_PER_PROMPT_MAX: u32 = 8;
/// The most answers to all prompts of one request.
pub(super) const CHOICES_MAX: usize = 128;
/// The most alternatives that are reported per token; OpenAI allows as many.
pub(super) const TOP_LOGPROBS_MAX: u32 = 20;
/// The most tokens with a bias.
pub(super) const LOGIT_BIAS_MAX: usize = 1024;
/// The most texts of one embeddings request; OpenAI allows as many.
pub(super) const EMBEDDING_INPUTS_MAX: usize = 2048;
/// The most documents of one rerank request.
pub(super) const DOCUMENTS_MAX: usize = 1000;
/// The most inputs, and the most outputs, of one inference request.
pub(super) const TENSORS_MAX: usize = 64;
/// The most dimensions of an input; a plugin gets no more.
pub(super) const TENSOR_DIMENSIONS_MAX: usize = 16;
/// The longest text of one speech request, in bytes.
pub(super) const SPEECH_BYTES_MAX: usize = 64 << 10;
/// How many chunks of sound, about a sentence each, a plugin may be ahead of a client that reads as fast as it plays; then
/// the plugin is not read any more, and after a while (`worker.stall_timeout_ms`) its job is cancelled.
pub(super) const SOUND_CHUNKS_WAITING_MAX: usize = 256;
/// The most fields of a form.
pub(super) const FORM_FIELDS_MAX: usize = 128;
/// The longest name of a form's field, in bytes.
pub(super) const FORM_NAME_BYTES_MAX: usize = 256;
/// The longest text in a form's field, in bytes; files are bounded by the body's limit.
pub(super) const FORM_TEXT_BYTES_MAX: usize = 64 << 10;
/// The most pictures of one request.
pub(super) const IMAGES_MAX: usize = 64;
/// The most objects or classes that may be asked for in one picture.
pub(super) const FINDINGS_MAX: u32 = 1000;
/// The tokens of a legacy completion that asks for no number; OpenAI's default.
pub(super) const COMPLETION_TOKENS_DEFAULT: u32 = 16;
/// The longest request id that is taken from a client, in bytes; a longer one is replaced.
pub(super) const REQUEST_ID_BYTES_MAX: usize = 128;
/// How much of a stream is put into one write when events are ready faster than the client reads, in bytes.
pub(super) const WRITE_BYTES: usize = 16 << 10;
/// How long a stream may be silent before a comment is sent, shorter than the minute after which common proxies give up.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How much of a client's value is repeated in an error message, in characters.
pub(super) const QUOTED_CHARS_MAX: usize = 80;
/// The most characters of a message about a wrong field.
pub(super) const MESSAGE_CHARS_MAX: usize = 400;
/// The largest request, or answer in one piece, that is read, rendered or written where answers are streamed, in bytes; that
/// takes less than a millisecond or two, while a longer one would hold up other streams.
pub(super) const WORK_HERE_BYTES_MAX: usize = 64 << 10;
