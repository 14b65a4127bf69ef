//! `models inspect`: what a plugin reads in a model's file, without loading it.

use std::io::Write;
use std::time::Duration;

use pajamas_plugin_api::{ModelInfo, TensorInfo};
use serde_json::json;

use super::print::{Printer, bytes, list};
use super::{Error, block_on, models_list, resolve};
use crate::config::Config;
use crate::engine::Engine;
use crate::models::ModelSpec;

/// Characters of one entry of a model's metadata that are printed.
const METADATA_CHARS_MAX: usize = 80;

#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// A model's name, or the path of its file or folder
    #[arg(value_name = "NAME|PATH")]
    model: String,
}

pub(super) fn run(mut config: Config, args: &InspectArgs, json: bool) -> Result<(), Error> {
    let spec = resolve::model(&args.model, &mut config)?;
    let (plugin, info) = block_on(async {
        let engine = Engine::start(&config)?;
        let answer = engine.inspect(&spec).await;
        engine.shutdown(Duration::ZERO).await;
        Ok(answer?)
    })?;
    print(&mut Printer::stdout(), &Inspection { spec: &spec, plugin: &plugin, info: &info }, json)
}

struct Inspection<'a> {
    spec: &'a ModelSpec,
    /// Who read it.
    plugin: &'a str,
    info: &'a ModelInfo,
}

fn print<W: Write>(printer: &mut Printer<W>, inspection: &Inspection<'_>, json: bool) -> Result<(), Error> {
    let Inspection { spec, plugin, info } = inspection;
    if json {
        return printer.json(&json!({"model": models_list::document(spec), "plugin": plugin, "info": info}));
    }
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let estimates: Vec<_> =
        info.estimated_bytes.iter().map(|(device, size)| format!("{} on {device}", bytes(*size))).collect();
    printer.fields(&[
        ("name", text(&spec.id)),
        ("aliases", text(&spec.aliases.join(", "))),
        ("path", Some(spec.path.display().to_string())),
        ("format", text(&spec.format)),
        ("size", Some(bytes(spec.size_bytes))),
        ("read by", text(plugin)),
        ("architecture", text(&info.architecture)),
        ("tasks", Some(list(&info.tasks))),
        ("parameters", info.parameters.map(count)),
        ("quantization", info.quantization.clone()),
        ("context", info.context_length.map(|tokens| format!("{tokens} tokens"))),
        ("embedding", number(info.embedding_length)),
        ("vocabulary", number(info.vocab_size)),
        ("chat template", info.chat_template.as_ref().map(|template| bytes(template.len() as u64))),
        ("inputs", text(&tensors(&info.inputs))),
        ("outputs", text(&tensors(&info.outputs))),
        ("labels", (!info.labels.is_empty()).then(|| info.labels.len().to_string())),
        ("memory", text(&estimates.join(", "))),
        ("says of itself", text(&metadata(info))),
    ])
}

/// `images f32 [1, 3, 640, 640], …`; a dimension that each request chooses is a question mark.
fn tensors(tensors: &[TensorInfo]) -> String {
    let side = |side: &i64| if *side < 0 { "?".to_owned() } else { side.to_string() };
    let tensor = |TensorInfo { name, dtype, shape }: &TensorInfo| {
        format!("{name} {dtype} [{}]", shape.iter().map(side).collect::<Vec<_>>().join(", "))
    };
    tensors.iter().map(tensor).collect::<Vec<_>>().join(", ")
}

/// What the file says about itself; long texts are cut here, and whole in JSON.
fn metadata(info: &ModelInfo) -> String {
    let entry = |(name, text): (&String, &String)| match text.char_indices().nth(METADATA_CHARS_MAX) {
        Some((end, _)) => format!("{name} = {}…", text[..end].escape_debug()),
        None => format!("{name} = {}", text.escape_debug()),
    };
    info.metadata.iter().map(entry).collect::<Vec<_>>().join("; ")
}

/// A number of parameters as people say it: `134.5 M`.
fn count(number: u64) -> String {
    match number {
        1_000_000_000.. => format!("{:.1} B", number as f64 / 1e9),
        1_000_000.. => format!("{:.1} M", number as f64 / 1e6),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use pajamas_plugin_api::{Dtype, Task};

    use super::*;

    #[test]
    fn what_is_unknown_is_left_out() {
        let spec = ModelSpec {
            id: "tiny".into(),
            aliases: vec![],
            path: "/m/tiny.gguf".into(),
            files: vec!["/m/tiny.gguf".into()],
            format: "gguf".into(),
            size_bytes: 2048,
            modified: SystemTime::UNIX_EPOCH,
            plugin_pin: None,
            options: serde_json::Map::new(),
            tasks_override: None,
            labels: vec![],
            pin: false,
            preload: false,
            idle_timeout: None,
            golden: vec![],
        };
        let info = ModelInfo {
            architecture: "llama".into(),
            tasks: vec![Task::Generate],
            parameters: Some(134_515_008),
            context_length: Some(8192),
            inputs: vec![
                TensorInfo { name: "x".into(), dtype: Dtype::F32, shape: vec![-1, 3] },
                TensorInfo { name: "n".into(), dtype: Dtype::I64, shape: vec![] },
            ],
            ..ModelInfo::default()
        };
        let mut text = Vec::new();
        print(&mut Printer::new(&mut text), &Inspection { spec: &spec, plugin: "gguf", info: &info }, false)
            .unwrap();
        let expected = "\
name          tiny
path          /m/tiny.gguf
format        gguf
size          2.0 KiB
read by       gguf
architecture  llama
tasks         generate
parameters    134.5 M
context       8192 tokens
inputs        x f32 [?, 3], n i64 []
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
