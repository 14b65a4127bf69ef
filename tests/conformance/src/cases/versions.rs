//! Versions and the sizes of structs.

use pajamas_plugin_api::abi::PJ_ABI_MINOR;
use pajamas_plugin_api::{Part, Task};
use serde_json::Value;

use crate::bench::{Bench, Checked, Stop, ensure, finish, offered, run, skip};
use crate::raw::{self, Shape};

pub(super) fn handshake(bench: &Bench<'_>) -> Checked {
    let library = bench.open()?;
    let build_json = &raw::handshake(&library).build_json;
    if !build_json.is_empty() {
        serde_json::from_str::<serde_json::Map<String, Value>>(build_json)
            .map_err(|e| Stop::Fail(format!("build_json is not a JSON object: {e}")))?;
    }
    Ok(())
}

pub(super) fn entry_repeats(bench: &Bench<'_>) -> Checked {
    let (first, second) = (bench.open()?, bench.open()?);
    let (first, second) = (raw::handshake(&first), raw::handshake(&second));
    ensure!(first == second, "the entry answered {first:?}, then {second:?}");
    Ok(())
}

pub(super) fn newer_host(bench: &Bench<'_>) -> Checked {
    let versions = bench.open()?.handshake().versions;
    for host_minor in [PJ_ABI_MINOR + 1, versions.abi_minor + 1, 1_000_000] {
        let library = raw::open(&bench.subject.library, host_minor, bench.limits().call())?;
        let negotiated = library.handshake().negotiated_minor;
        ensure!(negotiated == versions.abi_minor, "a host of ABI 1.{host_minor} negotiated 1.{negotiated}");
    }
    Ok(())
}

pub(super) fn manifest_agrees(bench: &Bench<'_>) -> Checked {
    let library = bench.open()?;
    let (handshake, manifest) = (raw::handshake(&library), &bench.subject.manifest);
    ensure!(
        handshake.id == manifest.name,
        "the library calls itself \"{}\", plugin.toml says \"{}\"",
        handshake.id,
        manifest.name
    );
    let version = manifest.version.to_string();
    ensure!(
        handshake.version == version,
        "the library is version {}, plugin.toml says {version}",
        handshake.version
    );
    Ok(())
}

pub(super) fn larger_structs(bench: &Bench<'_>) -> Checked {
    one_life(bench, Shape::Larger)
}

pub(super) fn smaller_structs(bench: &Bench<'_>) -> Checked {
    one_life(bench, Shape::Smaller)
}

/// Every call once; as much of it as there is a model for.
fn one_life(bench: &Bench<'_>, shape: Shape) -> Checked {
    if bench.subject.model.is_none() {
        let plugin = bench.init_as(shape)?;
        if let Some(answer) = plugin.probe()? {
            answer.success()?;
        }
        return plugin.shutdown();
    }
    let loaded = bench.load_as(shape)?;
    if let Some(answer) = loaded.plugin.probe()? {
        answer.success()?;
    }
    if let Ok(request) = loaded.any_request() {
        run(&loaded.model, &request)?.done()?;
    }
    if let Some(answer) = loaded.model.stats()? {
        answer.success()?;
    }
    loaded.model.unload()?;
    loaded.plugin.shutdown()
}

pub(super) fn unknown_kinds(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let mut request = loaded.any_request()?;
    if request.task != Task::Generate {
        return skip("only generate has inputs to which another can be added");
    }
    // A kind that no task of this version has; whether it is ignored or refused is the plugin's choice.
    request.parts.push(Part::Bytes(vec![0xA5; 100]));
    finish(loaded.model.submit(&request)?)?;
    run(&loaded.model, &loaded.any_request()?)?.done()?;
    Ok(())
}

pub(super) fn unknown_extension(bench: &Bench<'_>) -> Checked {
    let has_it = offered(bench.init()?.has_extension("pj.no-such-extension/1")?, "get_extension")?;
    ensure!(!has_it, "get_extension claims to have \"pj.no-such-extension/1\"");
    Ok(())
}
