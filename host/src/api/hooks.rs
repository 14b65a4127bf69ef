//! Where hooks meet requests: before a job is made of a body, and before its events become an answer.

use futures_util::stream::{self, BoxStream, StreamExt as _};
use futures_util::{Stream, TryStreamExt as _};
use pajamas_plugin_api::{Segment, Task, Tensor};

use super::ApiState;
use super::access::AccessRecord;
use super::decoder::{Ending, FinishReason, Update};
use super::error::ApiError;
use super::generation::Generation;
use super::prompts::Prompt;
use crate::chat::{ChatMessage, Content, ContentPart, Role};
use crate::engine::{JobEvent, LoadedModel};
use crate::hooks::{CallContext, HookChain, HookError, Message, Picture, Placement, Sound, TensorSource};
use crate::media;

/// The hooks of a request for `task` to `model`, which the client called `name`.
///
/// # Errors
/// Too many requests use hooks.
pub(super) async fn begin(
    state: &ApiState,
    record: &AccessRecord,
    model: &LoadedModel,
    name: &str,
    task: &Task,
) -> Result<HookChain, ApiError> {
    let context = || CallContext {
        task: task.name().to_owned(),
        model: name.to_owned(),
        request_id: record.id().to_owned(),
        caller: record.caller().name.to_owned(),
    };
    Ok(state.hooks.chain(&[name, model.id()], task, context).await?)
}

/// Shows a conversation to the hooks.
///
/// # Errors
/// A hook rejects it or fails.
pub(super) async fn conversation(
    hooks: &mut HookChain,
    messages: &mut Vec<ChatMessage>,
) -> Result<(), ApiError> {
    if !hooks.sees_text() {
        return Ok(());
    }
    let shown = messages.iter().zip(0..).map(|(message, source)| Message {
        source: Some(source),
        role: message.role.as_str().to_owned(),
        content: text_of(message),
    });
    if let Some(changed) = hooks.text_input(shown.collect(), check_roles).await? {
        *messages = changed.into_iter().filter_map(|new| apply(messages, new)).collect();
    }
    Ok(())
}

fn text_of(message: &ChatMessage) -> String {
    message.content.as_ref().map(Content::text).unwrap_or_default()
}

/// The conversation's message that a hook's stands for.
fn apply(old: &[ChatMessage], new: Message) -> Option<ChatMessage> {
    let role = Role::from_name(&new.role)?;
    let source = new.source.and_then(|source| old.get(source as usize));
    let Some(source) = source else { return Some(ChatMessage::new(role, new.content)) };
    let mut message = ChatMessage { role, ..source.clone() };
    if new.content != text_of(source) {
        message.content = Some(match message.content.take() {
            // The pictures stay, behind the text.
            Some(Content::Parts(parts)) => {
                let images = parts.into_iter().filter(|part| matches!(part, ContentPart::Image));
                Content::Parts(std::iter::once(ContentPart::Text(new.content)).chain(images).collect())
            }
            _ => Content::Text(new.content),
        });
    }
    Some(message)
}

/// In a conversation roles are those of OpenAI's API.
fn check_roles(_: &[Message], new: &[Message]) -> Result<(), String> {
    match new.iter().find(|message| Role::from_name(&message.role).is_none()) {
        Some(message) => Err(format!("a message of the role {:?}", message.role)),
        None if new.is_empty() => Err("a conversation without messages".to_owned()),
        None => Ok(()),
    }
}

/// Elsewhere there are as many texts afterwards as before, for the same purposes.
fn check_texts(old: &[Message], new: &[Message]) -> Result<(), String> {
    let is_same = |(old, new): (&Message, &Message)| old.role == new.role && !new.content.is_empty();
    if old.len() == new.len() && old.iter().zip(new).all(is_same) {
        Ok(())
    } else {
        Err(format!("{} texts of these roles, none of them empty, were expected", old.len()))
    }
}

/// Shows texts to the hooks, each with what it is for.
///
/// # Errors
/// A hook rejects them or fails.
pub(super) async fn texts(
    hooks: &mut HookChain,
    texts: Vec<(&'static str, &mut String)>,
) -> Result<(), ApiError> {
    if !hooks.sees_text() || texts.is_empty() {
        return Ok(());
    }
    let shown = texts.iter().zip(0..).map(|((role, text), source)| Message {
        source: Some(source),
        role: (*role).to_owned(),
        content: (**text).clone(),
    });
    if let Some(changed) = hooks.text_input(shown.collect(), check_texts).await? {
        for ((_, text), new) in texts.into_iter().zip(changed) {
            *text = new.content;
        }
    }
    Ok(())
}

/// Shows inputs that are text to the hooks; token ids are not shown.
///
/// # Errors
/// As for [`texts`].
pub(super) async fn prompts(
    hooks: &mut HookChain,
    role: &'static str,
    prompts: &mut [Prompt],
) -> Result<(), ApiError> {
    let shown = prompts.iter_mut().filter_map(|prompt| match prompt {
        Prompt::Text(text) => Some((role, text)),
        Prompt::Tokens(_) => None,
    });
    texts(hooks, shown.collect()).await
}

/// Answers whose text hooks change cannot tell the tokens that it was made of.
///
/// # Errors
/// They are asked to.
pub(super) fn refuse_logprobs(hooks: &HookChain, logprobs: bool) -> Result<(), ApiError> {
    match hooks.changes_output() {
        Some(hook) if logprobs => {
            let hint = format_args!("the hook {hook} sees the text of answers: leave it out");
            Err(ApiError::unsupported("logprobs", hint))
        }
        _ => Ok(()),
    }
}

/// The updates of answers, with their text as the hooks want it.
pub(super) fn answers<S>(
    generation: Generation<S>,
    hooks: HookChain,
) -> BoxStream<'static, Result<Update, ApiError>>
where
    S: Stream<Item = JobEvent> + Unpin + Send + 'static,
{
    if hooks.changes_output().is_none() {
        return generation.boxed();
    }
    let next = async |state: Option<(Generation<S>, HookChain)>| {
        let (mut generation, mut hooks) = state?;
        loop {
            let update = match generation.next().await? {
                Ok(update) => update,
                Err(error) => return Some((Err(error), None)),
            };
            match shown(&mut generation, &mut hooks, update).await {
                Ok(Some(update)) => return Some((Ok(update), Some((generation, hooks)))),
                Ok(None) => {}
                Err(error) => return Some((Err(error), None)),
            }
        }
    };
    stream::unfold(Some((generation, hooks)), next).boxed()
}

/// An update as the client may see it; `None` when nothing of it is left for now.
async fn shown<S>(
    generation: &mut Generation<S>,
    hooks: &mut HookChain,
    mut update: Update,
) -> Result<Option<Update>, ApiError>
where
    S: Stream<Item = JobEvent> + Unpin,
{
    let answer = u32::try_from(update.index).unwrap_or(u32::MAX);
    let text = std::mem::take(&mut update.text);
    match hooks.text_output(answer, text, update.end.is_some()).await {
        Ok(text) => update.text = text,
        Err(HookError::Rejected { .. }) => {
            update.calls.clear();
            let usage = generation.stop(update.index);
            let usage = update.end.map_or(usage, |end| end.usage);
            update.end = Some(Ending { reason: FinishReason::ContentFilter, usage });
        }
        Err(error) => return Err(error.into()),
    }
    let is_news = update.end.is_some() || !update.text.is_empty() || !update.calls.is_empty();
    Ok(is_news.then_some(update))
}

/// Shows a segment of a transcript to the hooks, and moves it by where the sound that they left begins.
///
/// # Errors
/// A hook rejects it or fails.
pub(super) async fn segment(
    hooks: &mut HookChain,
    number: u32,
    starts_at_s: f64,
    mut segment: Segment,
) -> Result<Segment, ApiError> {
    segment.start_s += starts_at_s;
    segment.end_s += starts_at_s;
    for word in &mut segment.words {
        word.start_s += starts_at_s;
        word.end_s += starts_at_s;
    }
    if hooks.changes_output().is_some() {
        let text = hooks.text_output(number, segment.text.clone(), true).await?;
        if text != segment.text {
            // They would tell what the text does not.
            segment.words.clear();
            segment.tokens.clear();
            segment.text = text;
        }
    }
    Ok(segment)
}

/// Shows a picture to the hooks. Returns it with the size in whose pixels places in it are told, and how they are moved.
///
/// # Errors
/// A hook rejects it or fails.
pub(super) async fn picture(
    hooks: &mut HookChain,
    picture: media::Picture,
) -> Result<(media::Picture, [u32; 2], Option<Placement>), ApiError> {
    let old = [picture.width, picture.height];
    let shown = Picture { width: picture.width, height: picture.height, pixels: picture.data };
    let (new, placement) = hooks.picture(shown).await?;
    let size = if placement.is_some() { old } else { [new.width, new.height] };
    Ok((media::Picture { width: new.width, height: new.height, data: new.pixels }, size, placement))
}

/// Shows sound to the hooks. Returns it with where it begins in what was shown, in seconds.
///
/// # Errors
/// A hook rejects it or fails.
pub(super) async fn sound(
    hooks: &mut HookChain,
    sound: media::Sound,
) -> Result<(media::Sound, f64), ApiError> {
    let shown = Sound { sample_rate_hz: media::SAMPLE_RATE_HZ, samples: sound.samples };
    let (new, starts_at_s) = hooks.sound(shown).await?;
    Ok((media::Sound { samples: new.samples }, starts_at_s))
}

/// The inputs of a model that the hooks make of a file with a picture or sound.
///
/// # Errors
/// The file cannot be decoded, no hook makes tensors of it, or one rejects it or fails.
pub(super) async fn tensors(
    state: &ApiState,
    hooks: &mut HookChain,
    name: &str,
    file: bytes::Bytes,
) -> Result<Vec<Tensor>, ApiError> {
    let place = format!("input \"{name}\"");
    if !hooks.makes_tensors() {
        let hint = "no hook makes tensors of files for this model: send numbers";
        return Err(ApiError::unsupported(format!("{place}: datatype BYTES"), hint));
    }
    let invalid = |error| ApiError::invalid(place.clone(), error);
    let source = if media::is_image(&file) {
        let picture = state.media.image(file, state.media.limits().image_pixels).await.map_err(invalid)?;
        let (width, height) = (picture.width, picture.height);
        TensorSource::Picture(Picture { width, height, pixels: picture.data })
    } else {
        let samples = state.media.audio(file).await.map_err(invalid)?.samples;
        TensorSource::Sound(Sound { sample_rate_hz: media::SAMPLE_RATE_HZ, samples })
    };
    let tensors = hooks.tensors(name, source).await?;
    let tensors = tensors.ok_or_else(|| {
        ApiError::unsupported(format!("{place}: datatype BYTES"), "no hook took the file: send numbers")
    })?;
    let tensors = tensors.into_iter();
    Ok(tensors.map(|t| Tensor { name: t.name, dtype: t.dtype, shape: t.shape, data: t.data }).collect())
}

/// The transcript's segments as the hooks want them.
pub(super) fn segments<'a>(
    heard: impl Stream<Item = Result<super::audio::Heard, ApiError>> + Send + 'a,
    hooks: HookChain,
    starts_at_s: f64,
) -> impl Stream<Item = Result<super::audio::Heard, ApiError>> + Send + 'a {
    use super::audio::Heard;
    let state = (Box::pin(heard), hooks, starts_at_s, 0_u32);
    stream::try_unfold(state, async |(mut heard, mut hooks, starts_at_s, number)| {
        let heard_now = match heard.try_next().await? {
            None => return Ok(None),
            Some(Heard::Segment(next)) => {
                Heard::Segment(segment(&mut hooks, number, starts_at_s, next).await?)
            }
            Some(end @ Heard::End(_)) => end,
        };
        Ok(Some((heard_now, (heard, hooks, starts_at_s, number + 1))))
    })
}
