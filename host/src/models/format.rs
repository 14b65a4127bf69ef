//! Which format a path has, told by its name and, for a folder, by what it contains.

use std::path::Path;

/// The formats that the host knows by extension. An MLX model is a folder with `config.json` and safetensors instead, and
/// an ONNX, CoreML or ExecuTorch model may be a folder with `config.json` and the networks that belong together.
pub const FORMATS: &[(&str, &str)] = &[
    ("gguf", "gguf"),
    ("onnx", "onnx"),
    ("engine", "tensorrt"),
    ("plan", "tensorrt"),
    ("mlpackage", "coreml"),
    ("mlmodelc", "coreml"),
    ("mlmodel", "coreml"),
    ("pte", "executorch"),
];

/// Extensions of [`FORMATS`] that end the name of a folder.
const FOLDER_EXTENSIONS: [&str; 2] = ["mlpackage", "mlmodelc"];

/// The format of a file.
pub(super) fn of_file(path: &Path, plugin_formats: &[String]) -> Option<String> {
    let extension = extension(path)?;
    let known = FORMATS.iter().find(|(known, _)| *known == extension);
    match known {
        Some((extension, _)) if FOLDER_EXTENSIONS.contains(extension) => None,
        Some((_, format)) => Some((*format).to_owned()),
        None => plugin_formats.contains(&extension).then_some(extension),
    }
}

/// Whether a folder is named as a model that is a folder.
pub(super) fn is_package(path: &Path) -> bool {
    extension(path).is_some_and(|extension| FOLDER_EXTENSIONS.contains(&extension.as_str()))
}

/// The subfolder in which exporters put the networks of a model whose other files lie in its folder.
pub(super) const ONNX_FOLDER: &str = "onnx";

/// What tells that a folder is one model, in Hugging Face's layout.
pub(super) const CONFIG_FILE: &str = "config.json";

/// The format of a folder that contains files and packages of these names, those of its [`ONNX_FOLDER`] included. `config.json` beside
/// safetensors is what MLX loads; where networks were exported from these, they are the model.
pub(super) fn of_folder<'a>(path: &Path, files: impl Iterator<Item = &'a Path>) -> Option<&'static str> {
    if is_package(path) {
        return Some("coreml");
    }
    let (mut has_config, mut has_weights, mut has_networks) = (false, false, false);
    let (mut has_packages, mut has_programs) = (false, false);
    for file in files {
        has_config |= file.file_name().is_some_and(|name| name == CONFIG_FILE);
        let extension = extension(file);
        has_weights |= extension.as_deref() == Some("safetensors");
        has_networks |= extension.as_deref() == Some("onnx");
        has_packages |= is_package(file);
        has_programs |= extension.as_deref() == Some("pte");
    }
    let kinds = [
        (has_networks, "onnx"),
        (has_packages, "coreml"),
        (has_programs, "executorch"),
        // What networks were exported from lies beside them.
        (has_weights, "mlx"),
    ];
    kinds.into_iter().find(|(is_there, _)| has_config && *is_there).map(|(_, format)| format)
}

/// One part of a model in several files: `base-00001-of-00003.gguf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// What the names of all parts begin with.
    pub(super) base: &'a str,
    /// Its number, from 1.
    pub(super) number: u32,
    /// How many parts there are.
    pub(super) count: u32,
}

impl<'a> Part<'a> {
    /// Reads the stem of a file's name; `None` when it does not have the form of a part's.
    pub(super) fn of(stem: &'a str) -> Option<Self> {
        let number = |text: &str| {
            let is_number = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse().ok()).flatten()
        };
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (base, part) = rest.rsplit_once('-')?;
        let part = Self { base, number: number(part)?, count: number(count)? };
        (!base.is_empty() && (1..=part.count).contains(&part.number)).then_some(part)
    }

    /// The file name of the part with this number.
    pub(super) fn file_name(&self, number: u32, extension: &str) -> String {
        format!("{}-{number:05}-of-{:05}.{extension}", self.base, self.count)
    }
}

fn extension(path: &Path) -> Option<String> {
    path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_extension() {
        let own = ["echo".to_owned()];
        let cases = [
            ("a.gguf", Some("gguf")),
            ("a.GGUF", Some("gguf")),
            ("a.b.onnx", Some("onnx")),
            ("a.engine", Some("tensorrt")),
            ("a.plan", Some("tensorrt")),
            ("a.pte", Some("executorch")),
            ("a.echo", Some("echo")),
            ("a.mlpackage", None),
            ("a.mlmodel", Some("coreml")),
            ("a.safetensors", None),
            ("gguf", None),
        ];
        for (name, expected) in cases {
            assert_eq!(of_file(Path::new(name), &own).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn folders_are_told_by_extension_or_content() {
        let cases: [(&str, &[&str], Option<&str>); 12] = [
            ("a.mlpackage", &["Manifest.json"], Some("coreml")),
            ("a.mlmodelc", &[], Some("coreml")),
            ("clip", &["config.json", "text_model.mlpackage", "model.safetensors"], Some("coreml")),
            ("bert", &["config.json", "model.pte", "model.safetensors"], Some("executorch")),
            ("loose", &["model.pte"], None),
            ("both", &["text_model.mlpackage", "vision_model.mlpackage"], None),
            ("llama", &["config.json", "model-00001-of-00002.safetensors"], Some("mlx")),
            ("bert", &["config.json", "model.onnx"], Some("onnx")),
            ("bert", &["config.json", "model.safetensors", "onnx/model.onnx"], Some("onnx")),
            ("voice", &["joe.onnx", "joe.onnx.json"], None),
            ("whisper", &["config.json", "model.bin"], None),
            ("llama", &["model.safetensors"], None),
        ];
        for (name, files, expected) in cases {
            assert_eq!(of_folder(Path::new(name), files.iter().map(Path::new)), expected, "{name} {files:?}");
        }
    }

    #[test]
    fn parts_are_told_from_names_that_merely_look_alike() {
        let part = Part::of("big-Q4-00002-of-00003").unwrap();
        assert_eq!(part, Part { base: "big-Q4", number: 2, count: 3 });
        assert_eq!(part.file_name(1, "gguf"), "big-Q4-00001-of-00003.gguf");
        for stem in
            ["big", "big-1-of-3", "big-00000-of-00003", "big-00004-of-00003", "-00001-of-00001", "a-of-b"]
        {
            assert_eq!(Part::of(stem), None, "{stem}");
        }
    }
}
