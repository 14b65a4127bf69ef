//! The plugin's backend: finds what speaks, reads `.voice` files.

use std::path::Path;

use pajamas_pipelines::espeak;
use pajamas_plugin_api::{Accel, Backend, Device, Error, LoadSpec, ModelInfo, ProbeReport, Progress, Task};

use crate::model::SystemVoice;
use crate::options::Options;
use crate::synthesizer::Synthesizer;
use crate::voice_file::VoiceFile;

/// The system's voices as a backend of pajamas-host.
#[derive(Debug)]
pub struct SystemTts;

impl Backend for SystemTts {
    type Model = SystemVoice;

    fn init(plugin_dir: &Path) -> Result<Self, Error> {
        espeak::search_in(&plugin_dir.join("lib/espeak-ng"));
        Ok(Self)
    }

    fn probe(&self) -> Result<ProbeReport, Error> {
        let synthesizer = match Synthesizer::open(&Options::default()) {
            Ok(synthesizer) => synthesizer,
            Err(error) => {
                let reason = Some(error.message().to_owned());
                return Ok(ProbeReport { reason, ..ProbeReport::default() });
            }
        };
        let engine = synthesizer.name();
        let name = format!("{engine}, {} voices", synthesizer.voices().len());
        let cpu = Device {
            id: "cpu".to_owned(),
            accel: Accel::Cpu,
            name,
            memory_total_bytes: None,
            memory_free_bytes: None,
        };
        Ok(ProbeReport { devices: vec![cpu], reason: None, engine: Some(engine) })
    }

    fn inspect(&self, path: &Path) -> Result<ModelInfo, Error> {
        let file = VoiceFile::read(path)?;
        Ok(info(&file.voice, &Synthesizer::open(&Options::default())?))
    }

    fn load(&self, spec: &LoadSpec, _progress: &Progress) -> Result<SystemVoice, Error> {
        let options = Options::parse(&spec.options)?;
        let file = VoiceFile::read(&spec.path)?;
        let synthesizer = Synthesizer::open(&options)?;
        synthesizer.check(&file.voice)?;
        let info = info(&file.voice, &synthesizer);
        SystemVoice::start(synthesizer, file.voice, info)
    }
}

/// What both `inspect` and `load` say: the file's voice, then all others.
fn info(voice: &str, synthesizer: &Synthesizer) -> ModelInfo {
    let others = synthesizer.voices().into_iter().filter(|known| known != voice);
    ModelInfo {
        format: "voice".to_owned(),
        architecture: synthesizer.architecture().to_owned(),
        tasks: vec![Task::Speak],
        voices: std::iter::once(voice.to_owned()).chain(others).collect(),
        slots: Some(1),
        ..ModelInfo::default()
    }
}
