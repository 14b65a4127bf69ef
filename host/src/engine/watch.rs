//! Watching the folders: a plugin that points to another version or was replaced is swapped, a model whose file was
//! replaced is loaded again. A change is acted on when it has stood still for one look, so that a copy can finish.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use super::Shared;
use super::swap::{self, SwapRequest};
use crate::plugins::discover;

/// How often the folders are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long streams may finish in what is replaced.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What a plugin or a model is made of: where it is and when it was changed last.
type Stamp = Vec<(PathBuf, Option<SystemTime>)>;

/// A plugin or a model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Watched {
    Plugin(String),
    Model(String),
}

#[derive(Debug)]
struct State {
    /// What is in use.
    used: Stamp,
    /// What was there at the last look.
    seen: Stamp,
}

/// Looks until the engine is gone.
pub(super) async fn run(shared: Weak<Shared>) {
    let mut states: HashMap<Watched, State> = HashMap::new();
    loop {
        {
            let Some(shared) = shared.upgrade() else { return };
            for (watched, stamp) in stamps(&shared) {
                let state = states
                    .entry(watched.clone())
                    .or_insert_with(|| State { used: stamp.clone(), seen: stamp.clone() });
                let is_settled = state.seen == stamp;
                state.seen.clone_from(&stamp);
                if is_settled && state.used != stamp {
                    // Also after a failure: the same files are not tried again.
                    state.used = stamp;
                    act(&shared, &watched).await;
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn stamps(shared: &Shared) -> Vec<(Watched, Stamp)> {
    let plugins = shared.pool.plugins().into_iter().filter_map(|version| {
        let found = discover::version(&shared.plugins_dir, version.name(), None).ok()?;
        let files = [found.library(), found.dir.join(pajamas_plugin_api::manifest::MANIFEST_FILE)];
        Some((Watched::Plugin(version.name().to_owned()), files.iter().map(|path| stamp(path)).collect()))
    });
    let models = shared.models.iter().map(|entry| {
        let files = entry.spec().files.iter().map(|path| stamp(path)).collect();
        (Watched::Model(entry.spec().id.clone()), files)
    });
    plugins.chain(models).collect()
}

fn stamp(path: &Path) -> (PathBuf, Option<SystemTime>) {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let changed = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
    (path, changed)
}

/// Replaces what has changed. Failures leave the old one serving, and are logged.
async fn act(shared: &Arc<Shared>, watched: &Watched) {
    match watched {
        Watched::Plugin(name) => {
            tracing::info!(plugin = name, "the plugin's files have changed: swapping");
            let request = SwapRequest { version: None, mode: None, drain_timeout: DRAIN_TIMEOUT };
            if let Err(error) = swap::swap(shared, name, &request).await {
                tracing::error!(plugin = name, "the swap failed: {}", crate::error_chain(&error));
            }
        }
        Watched::Model(id) => {
            let Some(entry) = shared.models.iter().find(|entry| entry.spec().id == *id) else { return };
            tracing::info!(model = id, "the model's files have changed: loading them beside the old ones");
            if let Err(error) = swap::swap_model(shared, entry, DRAIN_TIMEOUT).await {
                tracing::error!(model = id, "the swap failed: {}", crate::error_chain(&error));
            }
        }
    }
}
