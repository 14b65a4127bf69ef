//! The official `openai` client for Python against the real host and a real model.

use crate::harness::{Setup, check_with_python};

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_is_satisfied() {
    let Some(setup) = Setup::real("smollm2") else { return };
    check_with_python("openai_client.py", &setup.start().url);
}
