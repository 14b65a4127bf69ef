//! The hooks of one request, in their order, each with an instance of its own.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Span;

use super::component::Hook;
use super::error::{Fault, HookError};
use super::instance::Instance;
use super::runtime::{INSTANCE_TIMEOUT, Runtime};
use super::v0_1::{self, Function};
use super::value::{CallContext, Message, NamedTensor, Picture, Placement, Sound, TensorSource, Verdict};
use crate::config::{HookPhase, OnError};
use crate::metrics::METRICS;

/// Memory of an instance from which on it is ended on another thread: cleaning the memory takes as long as copying it, and
/// the thread that drops a chain has an answer to give.
const LARGE_BYTES: usize = 4 * 1024 * 1024;

/// The hooks of one request. Dropping it ends their instances.
#[derive(Default)]
pub struct HookChain {
    links: Vec<Link>,
    context: Arc<CallContext>,
    /// Keeps the places of the instances.
    places: Option<OwnedSemaphorePermit>,
}

impl Drop for HookChain {
    fn drop(&mut self) {
        if self.links.iter().any(Link::is_large)
            && let Ok(runtime) = Handle::try_current()
        {
            let (links, places) = (std::mem::take(&mut self.links), self.places.take());
            // In this order: the places are free when the instances have ended.
            runtime.spawn_blocking(move || drop((links, places)));
        }
    }
}

/// A hook that applies to the request.
pub(super) struct Link {
    pub(super) name: Arc<str>,
    pub(super) hook: Arc<Hook>,
    pub(super) phases: Vec<HookPhase>,
    pub(super) on_error: OnError,
    pub(super) state: LinkState,
}

pub(super) enum LinkState {
    /// It has not been called.
    Fresh,
    /// It has.
    Running(Box<Instance>),
    /// It failed, and the request goes on without it.
    Failed,
}

impl Link {
    fn applies(&self, function: Function, phase: HookPhase) -> bool {
        self.phases.contains(&phase) && self.hook.function(function).is_some()
    }

    fn is_large(&self) -> bool {
        matches!(&self.state, LinkState::Running(instance) if instance.memory_bytes() >= LARGE_BYTES)
    }
}

impl HookChain {
    /// Takes places for the instances of `links`.
    ///
    /// # Errors
    /// There are none for some seconds.
    pub(super) async fn new(
        runtime: &Runtime,
        links: Vec<Link>,
        context: CallContext,
    ) -> Result<Self, HookError> {
        let count = u32::try_from(links.len()).unwrap_or(u32::MAX);
        // All at once: requests that hold some and wait for more could wait for each other.
        let places = Arc::clone(&runtime.instances).acquire_many_owned(count);
        let places = tokio::time::timeout(INSTANCE_TIMEOUT, places).await;
        let Ok(Ok(places)) = places else { return Err(HookError::Busy) };
        Ok(Self { links, context: Arc::new(context), places: Some(places) })
    }

    /// Whether a hook sees the text of requests.
    #[must_use]
    pub fn sees_text(&self) -> bool {
        !self.with(Function::TextInput, HookPhase::Input).is_empty()
    }

    /// The first hook that sees the text of answers, by its name.
    #[must_use]
    pub fn changes_output(&self) -> Option<&str> {
        let sees = |link: &&Link| link.applies(Function::TextOutput, HookPhase::Output);
        self.links.iter().find(sees).map(|link| &*link.name)
    }

    fn with(&self, function: Function, phase: HookPhase) -> Vec<usize> {
        let applies = |(index, link): (usize, &Link)| link.applies(function, phase).then_some(index);
        self.links.iter().enumerate().filter_map(applies).collect()
    }

    /// The messages as the hooks want them, or `None` when all stay. What a message says of its source is about the
    /// messages that were passed here. `check` compares what a hook got with what it returns; what it finds is the hook's
    /// failure.
    ///
    /// # Errors
    /// See [`HookError`].
    ///
    /// # Cancellation
    /// A call that runs goes on until it ends or its time is up, and its result is thrown away.
    pub async fn text_input(
        &mut self,
        messages: Vec<Message>,
        check: fn(&[Message], &[Message]) -> Result<(), String>,
    ) -> Result<Option<Vec<Message>>, HookError> {
        let (mut current, mut changed) = (Arc::new(messages), false);
        for index in self.with(Function::TextInput, HookPhase::Input) {
            let (context, messages) = (Arc::clone(&self.context), Arc::clone(&current));
            let call = move |instance: &mut Instance| {
                let verdict = v0_1::text_input(instance, &context, &messages)?;
                if let Verdict::Change(new) = &verdict {
                    check_sources(new, messages.len())?;
                    check(&messages, new).map_err(Fault::Malformed)?;
                }
                Ok(verdict)
            };
            if let Some(new) = self.call(index, call).await? {
                current = Arc::new(compose(&current, new));
                changed = true;
            }
        }
        Ok(changed.then(|| Arc::unwrap_or_clone(current)))
    }

    /// The text of an answer as the hooks want it; empty when they hold it back.
    ///
    /// # Errors
    /// See [`HookError`]. After [`HookError::Rejected`] the answer is to end.
    ///
    /// # Cancellation
    /// As for [`HookChain::text_input`].
    pub async fn text_output(&mut self, answer: u32, text: String, last: bool) -> Result<String, HookError> {
        let mut current = text;
        for index in self.with(Function::TextOutput, HookPhase::Output) {
            if current.is_empty() && !last {
                break;
            }
            let (context, text) = (Arc::clone(&self.context), current.clone());
            let call =
                move |instance: &mut Instance| v0_1::text_output(instance, &context, answer, &text, last);
            if let Some(new) = self.call(index, call).await? {
                current = new;
            }
        }
        Ok(current)
    }

    /// The picture as the hooks want it, and where it lies in the one that was passed, if that is known and not where it
    /// was.
    ///
    /// # Errors
    /// See [`HookError`].
    ///
    /// # Cancellation
    /// As for [`HookChain::text_input`].
    pub async fn picture(&mut self, picture: Picture) -> Result<(Picture, Option<Placement>), HookError> {
        let (mut current, mut placement) = (Arc::new(picture), None::<Placement>);
        for index in self.with(Function::ImageInput, HookPhase::Input) {
            let (context, picture) = (Arc::clone(&self.context), Arc::clone(&current));
            let call = move |instance: &mut Instance| v0_1::image_input(instance, &context, &picture);
            if let Some((new, placed)) = self.call(index, call).await? {
                current = Arc::new(new);
                placement = match (placed, placement) {
                    (Some(newer), Some(older)) => Some(newer.then(&older)),
                    (newer, older) => newer.or(older),
                };
            }
        }
        Ok((Arc::unwrap_or_clone(current), placement))
    }

    /// The sound as the hooks want it, and where it begins in the one that was passed, in seconds.
    ///
    /// # Errors
    /// See [`HookError`].
    ///
    /// # Cancellation
    /// As for [`HookChain::text_input`].
    pub async fn sound(&mut self, sound: Sound) -> Result<(Sound, f64), HookError> {
        let (mut current, mut starts_at_s) = (Arc::new(sound), 0.0);
        for index in self.with(Function::AudioInput, HookPhase::Input) {
            let (context, sound) = (Arc::clone(&self.context), Arc::clone(&current));
            let call = move |instance: &mut Instance| v0_1::audio_input(instance, &context, &sound);
            if let Some((new, offset_s)) = self.call(index, call).await? {
                current = Arc::new(new);
                starts_at_s += offset_s;
            }
        }
        Ok((Arc::unwrap_or_clone(current), starts_at_s))
    }

    /// Whether a hook makes tensors.
    #[must_use]
    pub fn makes_tensors(&self) -> bool {
        !self.with(Function::TensorConvert, HookPhase::Input).is_empty()
    }

    /// The tensors that the first hook makes that does not pass; `None` when all do.
    ///
    /// # Errors
    /// See [`HookError`].
    ///
    /// # Cancellation
    /// As for [`HookChain::text_input`].
    pub async fn tensors(
        &mut self,
        name: &str,
        source: TensorSource,
    ) -> Result<Option<Vec<NamedTensor>>, HookError> {
        let source = Arc::new(source);
        for index in self.with(Function::TensorConvert, HookPhase::Input) {
            let (context, source, name) = (Arc::clone(&self.context), Arc::clone(&source), name.to_owned());
            let call =
                move |instance: &mut Instance| v0_1::tensor_convert(instance, &context, &name, &source);
            if let Some(tensors) = self.call(index, call).await? {
                return Ok(Some(tensors));
            }
        }
        Ok(None)
    }

    /// Calls a hook on a thread where nobody else waits. `None` means that nothing changes.
    async fn call<T: Send + 'static>(
        &mut self,
        index: usize,
        body: impl FnOnce(&mut Instance) -> Result<Verdict<T>, Fault> + Send + 'static,
    ) -> Result<Option<T>, HookError> {
        let Some(link) = self.links.get_mut(index) else { return Ok(None) };
        if matches!(link.state, LinkState::Failed) {
            return Ok(None);
        }
        let state = std::mem::replace(&mut link.state, LinkState::Failed);
        let hook = Arc::clone(&link.hook);
        let span = tracing::info_span!(parent: &Span::current(), "hook", hook = &*link.name);
        let turn = Arc::clone(&hook.runtime.calls).acquire_owned().await;
        let begun = Instant::now();
        let call = move || {
            // Until the end of the call, also when nobody waits for it any more.
            let _turn = turn;
            span.in_scope(|| {
                let mut instance = match state {
                    LinkState::Fresh => Box::new(Instance::start(&hook)?),
                    LinkState::Running(instance) => instance,
                    LinkState::Failed => return Ok(None),
                };
                let verdict = body(&mut instance)?;
                Ok(Some((instance, verdict)))
            })
        };
        let outcome = tokio::task::spawn_blocking(call).await.unwrap_or(Err(Fault::Lost));
        let seconds = begun.elapsed();
        match outcome {
            Ok(None) => Ok(None),
            Ok(Some((instance, verdict))) => {
                link.state = LinkState::Running(instance);
                let (outcome, result) = match verdict {
                    Verdict::Pass => ("passed", Ok(None)),
                    Verdict::Change(new) => ("changed", Ok(Some(new))),
                    Verdict::Reject(message) => {
                        tracing::info!(hook = &*link.name, "a hook rejects the request: {message}");
                        ("rejected", Err(HookError::Rejected { hook: link.name.to_string(), message }))
                    }
                };
                METRICS.hook_call(&link.name, outcome, seconds);
                result
            }
            Err(fault) => {
                METRICS.hook_call(&link.name, "failed", seconds);
                tracing::warn!(hook = &*link.name, "a hook failed: {fault}");
                match link.on_error {
                    OnError::Pass => Ok(None),
                    OnError::Reject => Err(HookError::Failed { hook: link.name.to_string(), fault }),
                }
            }
        }
    }
}

/// A source must be one of the messages that the hook got.
fn check_sources(messages: &[Message], count: usize) -> Result<(), Fault> {
    match messages.iter().filter_map(|message| message.source).find(|source| *source as usize >= count) {
        Some(source) => Err(Fault::Malformed(format!("message {source} of {count}"))),
        None => Ok(()),
    }
}

/// Messages that say which of the first ones they replace, where the hook says which of the last ones.
fn compose(last: &[Message], new: Vec<Message>) -> Vec<Message> {
    let original = |source: u32| last.get(source as usize).and_then(|message| message.source);
    new.into_iter().map(|message| Message { source: message.source.and_then(original), ..message }).collect()
}
