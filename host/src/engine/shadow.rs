//! Copies of requests for shadow models: they cost nobody an answer, and their own are thrown away.

use std::sync::Arc;

use pajamas_plugin_api::Request;
use tokio::sync::Semaphore;

use super::admission::{Caller, Priority};
use super::job::JobEvent;
use super::lifecycle::ModelEntry;
use super::{LoadedModel, Shared, lifecycle};
use crate::metrics::METRICS;

/// Copies that run or wait at the same time; further ones are left out.
pub(super) const SHADOWS_MAX: usize = 32;

/// What shadow requests share.
#[derive(Debug)]
pub(super) struct Shadows {
    permits: Arc<Semaphore>,
}

impl Default for Shadows {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(SHADOWS_MAX)) }
    }
}

/// Sends copies of a request to these models, with the lowest priority. Returns at once.
pub(super) fn send(shared: &Arc<Shared>, models: &[Arc<ModelEntry>], request: &Request) {
    for entry in models {
        let Ok(permit) = Arc::clone(&shared.shadows.permits).try_acquire_owned() else {
            METRICS.shadowed(&entry.spec().id, "skipped");
            continue;
        };
        let (shared, entry, request) = (Arc::clone(shared), Arc::clone(entry), request.clone());
        tokio::spawn(async move {
            let outcome = if answer(&shared, &entry, request).await { "answered" } else { "failed" };
            METRICS.shadowed(&entry.spec().id, outcome);
            drop(permit);
        });
    }
}

/// Whether the model did the job.
async fn answer(shared: &Arc<Shared>, entry: &Arc<ModelEntry>, request: Request) -> bool {
    let caller = Caller { name: "shadow", priority: Priority::Low, weight: 1 };
    let job = match lifecycle::acquire(shared, entry).await {
        Ok(loaded) => {
            let model = LoadedModel::new(loaded, Arc::clone(entry), Arc::clone(shared));
            model.require(&request.task).and_then(|()| model.submit(request, caller))
        }
        Err(error) => Err(error),
    };
    let mut job = match job {
        Ok(job) => job,
        Err(error) => {
            tracing::debug!(model = entry.spec().id, "a shadow request was refused: {error}");
            return false;
        }
    };
    while let Some(event) = job.next().await {
        match event {
            JobEvent::Failed(error) => {
                tracing::debug!(model = entry.spec().id, "a shadow request failed: {error}");
                return false;
            }
            event if event.is_terminal() => return true,
            _ => {}
        }
    }
    false
}
