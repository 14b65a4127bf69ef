//! Golden requests: what a plugin or a model must still answer before a new version of it gets the route.

use std::sync::Arc;
use std::time::Duration;

use pajamas_plugin_api::manifest::SelfTest;
use pajamas_plugin_api::{Params, Part, Request};
use serde_json::Value;

use super::error::EngineError;
use super::job::JobEvent;
use super::loaded::Loaded;

/// How long one test may take.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a test failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SelfTestError {
    /// The job failed.
    #[error("{0}")]
    Job(EngineError),
    /// It took too long.
    #[error("it took longer than {} s", TEST_TIMEOUT.as_secs())]
    Timeout,
    /// Something else came back.
    #[error("it answered {answer:?}, which does not contain {expected:?}")]
    Answer {
        /// The text that came back.
        answer: String,
        /// What should be in it.
        expected: String,
    },
}

/// Runs the tests that a loaded model can do; those for other tasks are passed over.
pub(super) async fn run(model: &Arc<Loaded>, tests: &[SelfTest]) -> Result<(), SelfTestError> {
    for test in tests.iter().filter(|test| model.info.tasks.contains(&test.task)) {
        match tokio::time::timeout(TEST_TIMEOUT, one(model, test)).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(SelfTestError::Timeout),
        }
    }
    Ok(())
}

async fn one(model: &Arc<Loaded>, test: &SelfTest) -> Result<(), SelfTestError> {
    let request = Request {
        task: test.task.clone(),
        params: Params::from(Value::Object(test.params.clone())),
        parts: vec![Part::text(test.input.as_str())],
        deadline_ms: u64::try_from(TEST_TIMEOUT.as_millis()).ok(),
    };
    let mut job = model.handle.submit(&request).map_err(SelfTestError::Job)?;
    let mut text = Vec::new();
    while let Some(event) = job.next().await {
        match event {
            JobEvent::Token { token, .. } => text.extend_from_slice(&token.text),
            JobEvent::Segment(json) | JobEvent::Detections(json) | JobEvent::Result { json, .. } => {
                text.extend_from_slice(json.as_bytes());
            }
            JobEvent::Failed(error) => return Err(SelfTestError::Job(error)),
            _ => {}
        }
    }
    let answer = String::from_utf8_lossy(&text).into_owned();
    match &test.contains {
        Some(expected) if !answer.contains(expected) => {
            Err(SelfTestError::Answer { answer, expected: expected.clone() })
        }
        _ => Ok(()),
    }
}
