//! What every answer says about itself, and how the model for it is found.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pajamas_plugin_api::Task;
use uuid::Uuid;

use super::ApiState;
use super::access::AccessRecord;
use super::error::ApiError;
use crate::engine::LoadedModel;

/// The head of an answer.
#[derive(Debug, Clone)]
pub(super) struct Meta {
    /// Identifier of the answer.
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// The model's name as the client wrote it.
    pub(super) model: String,
    /// Which plugin and version answered.
    pub(super) fingerprint: Arc<str>,
}

/// The fingerprint of a loaded model, made once.
struct Fingerprint(Arc<str>);

impl Meta {
    /// The head of an answer by `model`, which the client called `name`; `prefix` tells the kind of answer.
    pub(super) fn new(prefix: &str, name: String, model: &LoadedModel) -> Self {
        let fingerprint = model.extension(|| {
            Fingerprint(format!("pajamas-{}-{}", model.plugin(), model.plugin_version()).into())
        });
        Self { id: random_id(prefix), created: unix_now(), model: name, fingerprint: fingerprint.0.clone() }
    }
}

/// Loads the model that a request names, if need be, and makes sure that it can do `task`.
///
/// # Cancellation
/// A load goes on for others when the client goes away.
pub(super) async fn acquire(
    state: &ApiState,
    record: &AccessRecord,
    name: &str,
    task: &Task,
) -> Result<LoadedModel, ApiError> {
    record.set_model(name);
    let model = state.engine.acquire(name).await?;
    record.set_served_by(model.id());
    model.require(task)?;
    Ok(model)
}

/// The model that a request names.
///
/// # Errors
/// When it names none.
pub(super) fn model_name(model: Option<String>) -> Result<String, ApiError> {
    let model = model.filter(|model| !model.is_empty());
    model.ok_or_else(|| ApiError::missing("model", "the name of a model; GET /v1/models lists them"))
}

/// `prefix` and 24 random hexadecimal digits.
pub(super) fn random_id(prefix: &str) -> String {
    format!("{prefix}{:.24}", Uuid::new_v4().simple().to_string())
}

/// Seconds since 1970.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
