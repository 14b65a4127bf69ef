//! What the components of the pictures' hooks compute is what their sources compute on this machine: the former use vectors
//! that no test of the latter reaches.
#![expect(clippy::unwrap_used, reason = "what a helper of a test cannot do fails the test")]

use std::path::Path;

use hook_common::picture::Rgb;
use pajamas_host::config::HookConfig;
use pajamas_host::hooks::{CallContext, HookChain, Hooks, Picture, TensorSource};
use pajamas_plugin_api::Task;
use tempfile::TempDir;

/// Sizes with and without a rest beside the vectors, and with the edges at either side.
const SIZES: [(u32, u32); 7] = [(64, 64), (63, 41), (1, 1), (2, 70), (5, 3), (131, 97), (300, 20)];

/// A hook of the repository by itself.
struct Shipped {
    hooks: Hooks,
    _cache: TempDir,
}

impl Shipped {
    async fn new(name: &str, config: &str) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let hooks = Hooks::new(cache.path().to_owned(), cache.path().join("none"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/hooks");
        let component = root.join(name).join(name).with_extension("wasm");
        let config = serde_json::from_str(config).unwrap();
        hooks.set(HookConfig { config, ..HookConfig::of_file(component) }).await.unwrap();
        Self { hooks, _cache: cache }
    }

    async fn chain(&self) -> HookChain {
        self.hooks.chain(&["m"], &Task::Infer, CallContext::default).await.unwrap()
    }
}

/// Noise, the same each time.
fn picture(width: u32, height: u32) -> Picture {
    let mut state = width * 31 + height;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    Picture { width, height, pixels: (0..width * height * 3).map(|_| byte()).collect() }
}

#[tokio::test]
async fn letterbox_makes_the_same_tensors() {
    for config in [
        r#"{"width": 64, "height": 64}"#,
        r#"{"width": 37, "height": 50, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "pad": [1, 2, 3]}"#,
        r#"{"width": 64, "height": 70, "dtype": "f16"}"#,
        r#"{"width": 64, "height": 64, "dtype": "u8"}"#,
        r#"{"width": 63, "height": 41, "layout": "nhwc", "pad": [1, 2, 3]}"#,
    ] {
        let shipped = Shipped::new("letterbox", config).await;
        let rules = hook_letterbox::Rules::parse(config).unwrap();
        for (width, height) in SIZES {
            let picture = picture(width, height);
            let source = TensorSource::Picture(picture.clone());
            let tensors = shipped.chain().await.tensors("x", source).await.unwrap().unwrap();
            let expected = rules.tensor(width, height, picture.pixels).unwrap();
            assert!(tensors[0].data == expected, "{width}x{height}, {config}");
        }
    }
}

#[tokio::test]
async fn auto_orient_resize_makes_the_same_pictures() {
    let config = r#"{"side_max": 50, "filter": "bilinear"}"#;
    let shipped = Shipped::new("auto-orient-resize", config).await;
    let rules = hook_auto_orient_resize::Rules::parse(config).unwrap();
    for (width, height) in SIZES {
        let picture = picture(width, height);
        let expected = rules.apply(Rgb::new(width, height, &picture.pixels).unwrap());
        let expected = expected.map_or(picture.pixels.clone(), |changed| changed.pixels);
        let (made, _) = shipped.chain().await.picture(picture).await.unwrap();
        assert!(made.pixels == expected, "{width}x{height}");
    }
}
