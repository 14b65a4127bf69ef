//! What a hook adds to a request: through the chain that requests go through, its way to another thread included,
//! beside the same work in the host's own code.
#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to say")]

use std::path::{Path, PathBuf};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hook_letterbox::Rules;
use pajamas_host::config::HookConfig;
use pajamas_host::hooks::{CallContext, HookChain, Hooks, Message, Picture, TensorSource};
use pajamas_plugin_api::Task;
use tokio::runtime::Runtime;

criterion_group!(benches, no_op, redact, letterboxes);
criterion_main!(benches);

/// Hooks in which the component at `path` is the only one.
fn hooks(runtime: &Runtime, path: &str, config: &str) -> Hooks {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let hooks = Hooks::new(std::env::temp_dir().join("pajamas-bench-hooks"), PathBuf::new());
    let config = serde_json::from_str(config).expect("JSON");
    let config = HookConfig { config, ..HookConfig::of_file(root.join(path)) };
    runtime.block_on(hooks.set(config)).expect("hook");
    hooks
}

async fn chain(hooks: &Hooks) -> HookChain {
    hooks.chain(&["m"], &Task::Generate, CallContext::default).await.expect("chain")
}

fn messages(text: &str) -> Vec<Message> {
    vec![Message { source: Some(0), role: "user".to_owned(), content: text.to_owned() }]
}

fn no_op(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("runtime");
    let hooks = hooks(&runtime, "tests/fixtures/hooks/rogue/rogue.wasm", r#"{"fault": "noop"}"#);
    criterion.bench_function("a thread's turn alone", |bencher| {
        bencher.to_async(&runtime).iter(|| async { tokio::task::spawn_blocking(|| 1).await });
    });
    criterion.bench_function("no-op, started and called", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            chain(&hooks).await.text_input(messages("hello"), |_, _| Ok(())).await.expect("call")
        });
    });
    criterion.bench_function("no-op, called again", |bencher| {
        let mut chain = runtime.block_on(chain(&hooks));
        bencher.iter(|| runtime.block_on(chain.text_output(0, "hello".to_owned(), false)).expect("call"));
    });
}

fn redact(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("runtime");
    let hooks = hooks(&runtime, "plugins/hooks/redact/redact.wasm", "{}");
    // About a thousand tokens.
    let prompt =
        "Please write to jane.doe@example.com before noon, and tell her that all is well. ".repeat(50);
    criterion.bench_function("redact a prompt of 4 kB", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            chain(&hooks).await.text_input(messages(&prompt), |_, _| Ok(())).await.expect("call")
        });
    });
    criterion.bench_function("redact a piece of an answer", |bencher| {
        let mut chain = runtime.block_on(chain(&hooks));
        bencher.iter(|| runtime.block_on(chain.text_output(0, " word".to_owned(), false)).expect("call"));
    });
}

fn letterboxes(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("runtime");
    let hooks = hooks(&runtime, "plugins/hooks/letterbox/letterbox.wasm", "{}");
    for (width, height) in [(640, 640), (1920, 1080)] {
        let pixels = (0..width * height * 3).map(|byte| (byte % 251) as u8).collect();
        let picture = Picture { width, height, pixels };
        let mut group = criterion.benchmark_group(format!("letterbox {width}x{height}"));
        let rules = Rules::parse("{}").expect("rules");
        // Each call is given a picture of its own, as by a decoder: copying it is no part of the work.
        let size = BatchSize::PerIteration;
        let native = |picture: Picture| rules.tensor(width, height, picture.pixels);
        group.bench_function("native", |bencher| bencher.iter_batched(|| picture.clone(), native, size));
        let convert = async |picture: Picture| {
            let source = TensorSource::Picture(picture);
            chain(&hooks).await.tensors("images", source).await.expect("call")
        };
        group.bench_function("hook", |bencher| {
            bencher.to_async(&runtime).iter_batched(|| picture.clone(), convert, size);
        });
        group.bench_function("hook, 16 at once", |bencher| {
            let pictures = || vec![picture.clone(); 16];
            let all = async |pictures: Vec<Picture>| {
                futures_util::future::join_all(pictures.into_iter().map(convert)).await
            };
            bencher.to_async(&runtime).iter_batched(pictures, all, size);
        });
        group.finish();
    }
}
