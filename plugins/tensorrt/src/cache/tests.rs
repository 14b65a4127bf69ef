//! Keys, and what a folder of engines does.

use std::collections::BTreeMap;
use std::time::Duration;

use pajamas_plugin_api::ComputeCapability;

use super::*;
use crate::profile::Range;

fn key(request: &BuildRequest<'_>) -> EngineKey {
    EngineKey::of(request).unwrap()
}

#[test]
fn whatever_changes_the_engine_changes_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let (model, same, other) = (file("a.onnx", "model"), file("b.onnx", "model"), file("c.onnx", "mode"));
    let (weights, split) = (file("w", "l"), file("v", "ll"));
    let range =
        |max: i64| BTreeMap::from([("x".to_owned(), Range { min: vec![1], opt: vec![1], max: vec![max] })]);
    let base = BuildRequest {
        file: &model,
        weight_files: Vec::new(),
        ranges: range(8),
        compute: Some(ComputeCapability { major: 8, minor: 6 }),
        optimization_level: None,
        workspace_max_mb: None,
    };
    assert_eq!(key(&base), key(&BuildRequest { file: &same, ..base.clone() }), "the name does not count");
    assert_eq!(key(&base).as_str().len(), 64);
    let changed = [
        BuildRequest { file: &other, ..base.clone() },
        BuildRequest { weight_files: vec![weights.clone()], ..base.clone() },
        // The same bytes, cut into files elsewhere.
        BuildRequest { file: &other, weight_files: vec![weights], ..base.clone() },
        BuildRequest { file: &other, weight_files: vec![split], ..base.clone() },
        BuildRequest { ranges: range(9), ..base.clone() },
        BuildRequest { ranges: BTreeMap::new(), ..base.clone() },
        BuildRequest { compute: None, ..base.clone() },
        BuildRequest { compute: Some(ComputeCapability { major: 8, minor: 9 }), ..base.clone() },
        BuildRequest { optimization_level: Some(3), ..base.clone() },
        BuildRequest { workspace_max_mb: Some(3), ..base.clone() },
    ];
    let mut keys: Vec<_> = changed.iter().map(key).chain([key(&base)]).map(|key| key.0).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), changed.len() + 1);
    let gone = folder.path().join("gone.onnx");
    let error = EngineKey::of(&BuildRequest { file: &gone, ..base }).unwrap_err();
    assert!(error.message().contains("gone.onnx"), "{error}");
}

fn named(name: &str) -> EngineKey {
    EngineKey(name.to_owned())
}

#[test]
fn what_is_kept_comes_back_and_what_was_damaged_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let cache = EngineCache::new(folder.path(), 1 << 20);
    assert_eq!(cache.engine(&named("a")), None, "nothing is there yet");
    cache.keep_engine(&named("a"), b"engine");
    assert_eq!(cache.engine(&named("a")).as_deref(), Some(&b"engine"[..]));
    assert_eq!(cache.engine(&named("b")), None);
    let path = cache.path(&named("a"), "engine");
    let whole = fs::read(&path).unwrap();
    let damaged = |at: usize| {
        let mut content = whole.clone();
        content[at] ^= 1;
        content
    };
    let contents =
        [damaged(0), damaged(MAGIC.len()), damaged(whole.len() - 1), whole[..9].to_vec(), Vec::new()];
    for content in contents {
        fs::write(&path, content).unwrap();
        assert_eq!(cache.engine(&named("a")), None);
        assert!(!path.exists(), "it is out of the way");
    }
    assert_eq!(fs::read_dir(folder.path().join(FOLDER)).unwrap().count(), 0, "no unfinished file is left");
}

#[test]
fn the_least_recently_used_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let head = MAGIC.len() + HASH_BYTES;
    let cache = EngineCache::new(folder.path(), 3 * (head as u64 + 100));
    let age = |name: &str, seconds: u64| {
        let file = File::options().append(true).open(cache.path(&named(name), "engine")).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    };
    for (name, seconds) in [("a", 30), ("b", 20), ("c", 10)] {
        cache.keep_engine(&named(name), &[0; 100]);
        age(name, seconds);
    }
    assert!(cache.engine(&named("a")).is_some(), "used now");
    cache.keep_engine(&named("d"), &[0; 100]);
    let there = ["a", "b", "c", "d"].map(|name| cache.path(&named(name), "engine").exists());
    assert_eq!(there, [true, false, true, true]);
    cache.keep_engine(&named("huge"), &[0; 1000]);
    assert_eq!(cache.engine(&named("huge")), None, "larger than all that may be kept");
    let there = ["a", "c", "d"].map(|name| cache.path(&named(name), "engine").exists());
    assert_eq!(there, [true; 3], "and it pushed nothing out");
    EngineCache::new(folder.path(), 0).keep_engine(&named("none"), b"");
    assert_eq!(cache.engine(&named("none")), None);
}

#[cfg(not(feature = "enterprise"))]
#[test]
fn kernels_are_kept_by_gpu() {
    let folder = tempfile::tempdir().unwrap();
    let cache = EngineCache::new(folder.path(), 1 << 20);
    cache.keep_kernels(&named("a"), "NVIDIA GeForce RTX 4090, 8.9", b"kernels");
    assert_eq!(cache.kernels(&named("a"), "NVIDIA GeForce RTX 4090, 8.9").as_deref(), Some(&b"kernels"[..]));
    assert_eq!(cache.kernels(&named("a"), "../../NVIDIA A100, 8.0"), None);
    assert_eq!(kernels_of("../x"), ".._x.kernels");
}
