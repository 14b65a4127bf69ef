//! Version 0.1 of the WIT package `pajamas:hook`: its types as they cross the border, and its functions in the host's
//! terms. Bulk data is lent on the way in and copied once on the way out: when a call is over, the guest has freed it.

use pajamas_plugin_api::{Dtype, shape_bytes};
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use super::error::Fault;
use super::instance::Instance;
use super::state::State;
use super::value::{self, NamedTensor, Placement, TensorSource, Verdict};

/// The package and version that this file speaks.
pub(super) const PACKAGE: &str = "pajamas:hook";
/// Its interfaces at their version.
pub(super) const INFO: &str = "pajamas:hook/info@0.1.0";
pub(super) const TEXT: &str = "pajamas:hook/text@0.1.0";
pub(super) const IMAGE: &str = "pajamas:hook/image@0.1.0";
pub(super) const AUDIO: &str = "pajamas:hook/audio@0.1.0";
pub(super) const TENSOR: &str = "pajamas:hook/tensor@0.1.0";

mod function;

pub(super) use function::Function;

#[derive(ComponentType, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "guests make the values")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

/// Adds what hooks import: `log` and `config`.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.instance("pajamas:hook/log@0.1.0")?.func_wrap(
        "write",
        |mut store, (level, message): (Level, String)| {
            let level = match level {
                Level::Trace => tracing::Level::TRACE,
                Level::Debug => tracing::Level::DEBUG,
                Level::Info => tracing::Level::INFO,
                Level::Warn => tracing::Level::WARN,
                Level::Error => tracing::Level::ERROR,
            };
            store.data_mut().log(level, &message);
            Ok(())
        },
    )?;
    linker
        .instance("pajamas:hook/config@0.1.0")?
        .func_wrap("get", |store, (): ()| Ok((store.data().config().to_owned(),)))
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
struct Context<'a> {
    task: &'a str,
    model: &'a str,
    #[component(name = "request-id")]
    request_id: &'a str,
    caller: &'a str,
}

impl<'a> From<&'a value::CallContext> for Context<'a> {
    fn from(context: &'a value::CallContext) -> Self {
        Self {
            task: &context.task,
            model: &context.model,
            request_id: &context.request_id,
            caller: &context.caller,
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Description {
    name: String,
    version: String,
    summary: String,
}

/// What a hook says of itself, or what it dislikes about its configuration.
pub(super) fn describe(instance: &mut Instance) -> Result<Result<value::Description, String>, Fault> {
    type Answer = (Result<Description, String>,);
    let (answer,) = instance.call::<(), Answer>(Function::Describe, ())?;
    Ok(answer.map(|d| value::Description { name: d.name, version: d.version, summary: d.summary }))
}

/// Whether the functions that the hook exports have the types of the package.
pub(super) fn check_types(instance: &mut Instance) -> Result<(), String> {
    let functions: Vec<Function> = instance.functions().collect();
    for function in functions {
        let outcome = match function {
            Function::Describe => instance.check::<(), (Result<Description, String>,)>(function),
            Function::TextInput => {
                instance.check::<(Context<'_>, &[MessageIn<'_>]), (TextVerdict,)>(function)
            }
            Function::TextOutput => instance.check::<(Context<'_>, u32, &str, bool), (Piece,)>(function),
            Function::ImageInput => instance.check::<(Context<'_>, PictureIn<'_>), (ImageVerdict,)>(function),
            Function::AudioInput => instance.check::<(Context<'_>, SoundIn<'_>), (AudioVerdict,)>(function),
            Function::TensorConvert => {
                instance.check::<(Context<'_>, &str, Source<'_>), (TensorVerdict,)>(function)
            }
        };
        outcome.map_err(|error| {
            let (interface, name) = function.path();
            format!("its {interface}#{name} has another type: {error}")
        })?;
    }
    Ok(())
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct MessageIn<'a> {
    source: Option<u32>,
    role: &'a str,
    content: &'a str,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct MessageOut {
    source: Option<u32>,
    role: String,
    content: String,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum TextVerdict {
    #[component(name = "pass")]
    Pass,
    #[component(name = "change")]
    Change(Vec<MessageOut>),
    #[component(name = "reject")]
    Reject(String),
}

/// `text.input`.
pub(super) fn text_input(
    instance: &mut Instance,
    context: &value::CallContext,
    messages: &[value::Message],
) -> Result<Verdict<Vec<value::Message>>, Fault> {
    let messages: Vec<MessageIn<'_>> =
        messages.iter().map(|m| MessageIn { source: m.source, role: &m.role, content: &m.content }).collect();
    type Input<'a> = (Context<'a>, &'a [MessageIn<'a>]);
    let (verdict,) =
        instance.call::<Input<'_>, (TextVerdict,)>(Function::TextInput, (context.into(), &messages))?;
    Ok(match verdict {
        TextVerdict::Pass => Verdict::Pass,
        TextVerdict::Reject(message) => Verdict::Reject(message),
        TextVerdict::Change(messages) => {
            let messages = messages.into_iter();
            Verdict::Change(
                messages
                    .map(|m| value::Message { source: m.source, role: m.role, content: m.content })
                    .collect(),
            )
        }
    })
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum Piece {
    #[component(name = "pass")]
    Pass,
    #[component(name = "change")]
    Change(String),
    #[component(name = "reject")]
    Reject(String),
}

/// `text.output`.
pub(super) fn text_output(
    instance: &mut Instance,
    context: &value::CallContext,
    answer: u32,
    text: &str,
    last: bool,
) -> Result<Verdict<String>, Fault> {
    type Input<'a> = (Context<'a>, u32, &'a str, bool);
    let input = (context.into(), answer, text, last);
    let (piece,) = instance.call::<Input<'_>, (Piece,)>(Function::TextOutput, input)?;
    Ok(match piece {
        Piece::Pass => Verdict::Pass,
        Piece::Change(text) => Verdict::Change(text),
        Piece::Reject(message) => Verdict::Reject(message),
    })
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
struct PictureIn<'a> {
    width: u32,
    height: u32,
    pixels: &'a [u8],
}

impl<'a> From<&'a value::Picture> for PictureIn<'a> {
    fn from(picture: &'a value::Picture) -> Self {
        Self { width: picture.width, height: picture.height, pixels: &picture.pixels }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct PictureOut {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct PlacementOut {
    xx: f64,
    xy: f64,
    x0: f64,
    yx: f64,
    yy: f64,
    y0: f64,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct ImageChange {
    picture: PictureOut,
    placement: Option<PlacementOut>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum ImageVerdict {
    #[component(name = "pass")]
    Pass,
    #[component(name = "change")]
    Change(ImageChange),
    #[component(name = "reject")]
    Reject(String),
}

/// `image.input`.
pub(super) fn image_input(
    instance: &mut Instance,
    context: &value::CallContext,
    picture: &value::Picture,
) -> Result<Verdict<(value::Picture, Option<Placement>)>, Fault> {
    type Input<'a> = (Context<'a>, PictureIn<'a>);
    let input = (context.into(), picture.into());
    let (verdict,) = instance.call::<Input<'_>, (ImageVerdict,)>(Function::ImageInput, input)?;
    let change = match verdict {
        ImageVerdict::Pass => return Ok(Verdict::Pass),
        ImageVerdict::Reject(message) => return Ok(Verdict::Reject(message)),
        ImageVerdict::Change(change) => change,
    };
    let PictureOut { width, height, pixels } = change.picture;
    let expected = u64::from(width) * u64::from(height) * 3;
    if expected == 0 || pixels.len() as u64 != expected {
        return Err(Fault::Malformed(format!(
            "a picture of {width}x{height} pixels has {} bytes instead of {expected}",
            pixels.len()
        )));
    }
    let placement =
        change.placement.map(|p| Placement { xx: p.xx, xy: p.xy, x0: p.x0, yx: p.yx, yy: p.yy, y0: p.y0 });
    if placement.is_some_and(|placement| !placement.is_finite()) {
        return Err(Fault::Malformed("a placement with a number that is not finite".to_owned()));
    }
    Ok(Verdict::Change((value::Picture { width, height, pixels }, placement)))
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
struct SoundIn<'a> {
    #[component(name = "sample-rate-hz")]
    sample_rate_hz: u32,
    samples: &'a [u8],
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct SoundOut {
    #[component(name = "sample-rate-hz")]
    sample_rate_hz: u32,
    samples: Vec<u8>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct AudioChange {
    sound: SoundOut,
    #[component(name = "starts-at-s")]
    starts_at_s: f64,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum AudioVerdict {
    #[component(name = "pass")]
    Pass,
    #[component(name = "change")]
    Change(AudioChange),
    #[component(name = "reject")]
    Reject(String),
}

/// `audio.input`; the second part of a change is where it begins, in seconds.
pub(super) fn audio_input(
    instance: &mut Instance,
    context: &value::CallContext,
    sound: &value::Sound,
) -> Result<Verdict<(value::Sound, f64)>, Fault> {
    type Input<'a> = (Context<'a>, SoundIn<'a>);
    let samples = samples_bytes(sound);
    let sound = SoundIn { sample_rate_hz: sound.sample_rate_hz, samples: &samples };
    let (verdict,) =
        instance.call::<Input<'_>, (AudioVerdict,)>(Function::AudioInput, (context.into(), sound))?;
    let change = match verdict {
        AudioVerdict::Pass => return Ok(Verdict::Pass),
        AudioVerdict::Reject(message) => return Ok(Verdict::Reject(message)),
        AudioVerdict::Change(change) => change,
    };
    let (samples, rest) = change.sound.samples.as_chunks::<4>();
    let rate = change.sound.sample_rate_hz;
    if rate != sound.sample_rate_hz {
        let problem = format!("sound of {rate} Hz instead of {}", sound.sample_rate_hz);
        return Err(Fault::Malformed(problem));
    }
    if !rest.is_empty() || samples.is_empty() {
        return Err(Fault::Malformed("sound that is not one or more samples of 4 bytes".to_owned()));
    }
    if !(change.starts_at_s.is_finite() && change.starts_at_s >= 0.0) {
        return Err(Fault::Malformed(format!("sound that starts at {} s", change.starts_at_s)));
    }
    let samples: Vec<f32> = samples.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    if samples.iter().any(|sample| !sample.is_finite()) {
        return Err(Fault::Malformed("a sample that is not a finite number".to_owned()));
    }
    Ok(Verdict::Change((value::Sound { sample_rate_hz: rate, samples }, change.starts_at_s)))
}

fn samples_bytes(sound: &value::Sound) -> Vec<u8> {
    sound.samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum Source<'a> {
    #[component(name = "picture")]
    Picture(PictureIn<'a>),
    #[component(name = "sound")]
    Sound(SoundIn<'a>),
}

#[derive(ComponentType, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "guests make the values")]
enum DtypeOut {
    #[component(name = "i8")]
    I8,
    #[component(name = "i16")]
    I16,
    #[component(name = "i32")]
    I32,
    #[component(name = "i64")]
    I64,
    #[component(name = "u8")]
    U8,
    #[component(name = "u16")]
    U16,
    #[component(name = "u32")]
    U32,
    #[component(name = "u64")]
    U64,
    #[component(name = "f16")]
    F16,
    #[component(name = "bf16")]
    Bf16,
    #[component(name = "f32")]
    F32,
    #[component(name = "f64")]
    F64,
    #[component(name = "boolean")]
    Boolean,
}

impl From<DtypeOut> for Dtype {
    fn from(dtype: DtypeOut) -> Self {
        match dtype {
            DtypeOut::I8 => Self::I8,
            DtypeOut::I16 => Self::I16,
            DtypeOut::I32 => Self::I32,
            DtypeOut::I64 => Self::I64,
            DtypeOut::U8 => Self::U8,
            DtypeOut::U16 => Self::U16,
            DtypeOut::U32 => Self::U32,
            DtypeOut::U64 => Self::U64,
            DtypeOut::F16 => Self::F16,
            DtypeOut::Bf16 => Self::Bf16,
            DtypeOut::F32 => Self::F32,
            DtypeOut::F64 => Self::F64,
            DtypeOut::Boolean => Self::Bool,
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct TensorOut {
    name: String,
    dtype: DtypeOut,
    shape: Vec<u64>,
    data: Vec<u8>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum TensorVerdict {
    #[component(name = "pass")]
    Pass,
    #[component(name = "tensors")]
    Tensors(Vec<TensorOut>),
    #[component(name = "reject")]
    Reject(String),
}

/// `tensor.convert`.
pub(super) fn tensor_convert(
    instance: &mut Instance,
    context: &value::CallContext,
    name: &str,
    source: &TensorSource,
) -> Result<Verdict<Vec<NamedTensor>>, Fault> {
    type Input<'a> = (Context<'a>, &'a str, Source<'a>);
    let samples;
    let source = match source {
        TensorSource::Picture(picture) => Source::Picture(picture.into()),
        TensorSource::Sound(sound) => {
            samples = samples_bytes(sound);
            Source::Sound(SoundIn { sample_rate_hz: sound.sample_rate_hz, samples: &samples })
        }
    };
    let input = (context.into(), name, source);
    let (verdict,) = instance.call::<Input<'_>, (TensorVerdict,)>(Function::TensorConvert, input)?;
    let tensors = match verdict {
        TensorVerdict::Pass => return Ok(Verdict::Pass),
        TensorVerdict::Reject(message) => return Ok(Verdict::Reject(message)),
        TensorVerdict::Tensors(tensors) => tensors,
    };
    Ok(Verdict::Change(tensors.into_iter().map(checked_tensor).collect::<Result<_, _>>()?))
}

fn checked_tensor(tensor: TensorOut) -> Result<NamedTensor, Fault> {
    let TensorOut { name, dtype, shape, data } = tensor;
    let dtype = dtype.into();
    let dimensions: Option<Vec<i64>> = shape.iter().map(|&dimension| i64::try_from(dimension).ok()).collect();
    let expected = dimensions.as_ref().and_then(|shape| shape_bytes(dtype, shape));
    match dimensions {
        Some(shape) if expected == Some(data.len()) => Ok(NamedTensor { name, dtype, shape, data }),
        _ => Err(Fault::Malformed(format!(
            "the tensor {name:?} of shape {shape:?} and type {dtype:?} has {} bytes",
            data.len()
        ))),
    }
}
