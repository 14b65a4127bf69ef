//! The WIT packages of hooks are frozen: a component that was built once works for ever. What is new comes in a new folder.

use std::path::Path;

use sha2::{Digest as _, Sha256};

const FROZEN: [(&str, &str); 1] =
    [("wit/since_v0.1.0/hook.wit", "527f68b6d256bdc50231597b915e6db5993d71d7b43001a7528c270460157e12")];

#[test]
fn published_interfaces_stay_as_they_are() {
    for (path, expected) in FROZEN {
        let text = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let hash: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hash, expected,
            "{path} has changed: hooks in use were built for it, so make a new version"
        );
    }
}
