//! Where in a sound somebody speaks: Silero VAD, versions 5 and 6.
//!
//! Sources: `OnnxWrapper` of snakers4/silero-vad, `utils_vad.py`, for `silero_vad.onnx`, and `SileroVADModel` of
//! SYSTRAN/faster-whisper, `vad.py`, for `silero_vad_16k_sequence.onnx`; `get_speech_timestamps` and
//! `SpeechTimestampsMap` there for making spans of the probabilities that suit Whisper.

use std::borrow::Cow;
use std::ops::Range;

use pajamas_plugin_api::{Dtype, Error, TensorView};

use crate::numbers::{from_f32s, to_f32s};
use crate::runner::{TensorRunner, TensorSpec};
use crate::tensors::list;

const SAMPLE_RATE_HZ: usize = 16_000;
/// Samples that one probability is for.
const CHUNK_SAMPLES: usize = 512;
/// Samples before the chunk that the network sees, too.
const CONTEXT_SAMPLES: usize = 64;
const WINDOW_SAMPLES: usize = CONTEXT_SAMPLES + CHUNK_SAMPLES;
const SOUND_INPUT: &str = "input";
const RATE_INPUT: &str = "sr";
/// Speech begins at this probability.
const BEGIN_PROBABILITY: f32 = 0.5;
/// It goes on until the probability falls below this.
const END_PROBABILITY: f32 = 0.35;
/// Shorter speech is none: 250 ms, as in silero-vad.
const SPEECH_SAMPLES_MIN: usize = SAMPLE_RATE_HZ / 4;
/// Shorter silence belongs to the speech: 2 s, as in faster-whisper, since Whisper wants whole sentences.
const SILENCE_SAMPLES_MIN: usize = 2 * SAMPLE_RATE_HZ;
/// Sound around speech that is kept: 400 ms, as in faster-whisper.
const PADDING_SAMPLES: usize = SAMPLE_RATE_HZ * 2 / 5;

/// How a network of the detector is called.
#[derive(Debug)]
struct Layout {
    /// Chunks that it reads in one run.
    chunks: usize,
    /// Its output of one probability for each chunk.
    output: &'static str,
    /// Inputs that carry what it remembers, outputs that they come from, and shapes.
    states: &'static [(&'static str, &'static str, [i64; 3])],
    /// Whether it wants to be told the sample rate.
    has_rate: bool,
}

/// Both give the same probabilities; a sequence takes a third of the time.
const LAYOUTS: [Layout; 2] = [
    Layout { chunks: 1, output: "output", states: &[("state", "stateN", [2, 1, 128])], has_rate: true },
    Layout {
        chunks: 256,
        output: "speech_probs",
        states: &[("h", "hn", [1, 1, 128]), ("c", "cn", [1, 1, 128])],
        has_rate: false,
    },
];

/// A voice activity detector. Any thread may use it, also at the same time.
pub(crate) struct Vad<R> {
    network: R,
    layout: &'static Layout,
}

impl<R: TensorRunner> Vad<R> {
    /// The detector of the network `silero_vad.onnx` or `silero_vad_16k_sequence.onnx`.
    ///
    /// # Errors
    /// The network is another one.
    pub(crate) fn open(network: R) -> Result<Self, Error> {
        let layout = LAYOUTS.iter().find(|layout| {
            let rate = layout.has_rate.then_some(RATE_INPUT);
            let mut inputs =
                [SOUND_INPUT].into_iter().chain(layout.states.iter().map(|state| state.0)).chain(rate);
            inputs.all(|name| network.inputs().iter().any(|spec| spec.name == name))
        });
        let Some(layout) = layout else {
            return Err(Error::bad_model(format!(
                "the voice activity detector has the inputs {}; silero_vad.onnx or silero_vad_16k_sequence.onnx of \
                 Silero VAD 5 or 6 is expected",
                list(network.inputs())
            )));
        };
        Ok(Self { network, layout })
    }

    /// The probability of speech in each 512 samples of mono sound at 16 kHz; `None` if `is_cancelled`, which is asked
    /// before each run with the number of chunks done.
    ///
    /// # Errors
    /// The engine failed.
    pub(crate) fn probabilities(
        &self,
        samples: &[f32],
        is_cancelled: impl Fn(usize) -> bool,
    ) -> Result<Option<Vec<f32>>, Error> {
        let Layout { chunks, output, states, has_rate } = *self.layout;
        let rate = (SAMPLE_RATE_HZ as i64).to_ne_bytes();
        let rate = TensorView { name: RATE_INPUT, dtype: Dtype::I64, shape: &[], data: &rate };
        let rate = has_rate.then(|| self.network.value(&rate)).transpose()?;
        let zeros = |(name, _, shape): &(&str, &str, [i64; 3])| {
            let count = shape.iter().product::<i64>() as usize;
            from_f32s(&self.network, self.input(name)?, shape, &vec![0.0; count])
        };
        let mut memory: Vec<R::Value> = states.iter().map(zeros).collect::<Result<_, _>>()?;
        let outputs: Vec<&str> = [output].into_iter().chain(states.iter().map(|state| state.1)).collect();
        let mut probabilities = Vec::with_capacity(samples.len().div_ceil(CHUNK_SAMPLES));
        let mut windows = Vec::with_capacity(chunks * WINDOW_SAMPLES);
        for begin in (0..samples.len()).step_by(chunks * CHUNK_SAMPLES) {
            if is_cancelled(probabilities.len()) {
                return Ok(None);
            }
            fill_windows(samples, begin, chunks, &mut windows);
            let shape = [(windows.len() / WINDOW_SAMPLES) as i64, WINDOW_SAMPLES as i64];
            let sound = from_f32s(&self.network, self.input(SOUND_INPUT)?, &shape, &windows)?;
            let mut inputs = vec![(SOUND_INPUT, &sound)];
            inputs.extend(states.iter().map(|state| state.0).zip(&memory));
            inputs.extend(rate.as_ref().map(|rate| (RATE_INPUT, rate)));
            let mut results = self.network.run(&inputs, &outputs)?.into_iter();
            let found = results.next().map(|value| to_f32s(&value)).transpose()?.unwrap_or_default();
            if found.len() as i64 != shape[0] {
                let (found, expected) = (found.len(), shape[0]);
                let message =
                    format!("the voice activity detector gave {found} probabilities for {expected} chunks");
                return Err(Error::bad_model(message));
            }
            probabilities.extend(found);
            memory = results.collect();
        }
        Ok(Some(probabilities))
    }

    fn input(&self, name: &str) -> Result<&TensorSpec, Error> {
        let found = self.network.inputs().iter().find(|spec| spec.name == name);
        found.ok_or_else(|| Error::internal(format!("the detector lost its input `{name}`")))
    }
}

/// The chunks from `begin` on, at most `chunks` of them, each behind the samples before it; zeros before the sound and
/// behind it.
fn fill_windows(samples: &[f32], begin: usize, chunks: usize, windows: &mut Vec<f32>) {
    windows.clear();
    for start in (begin..samples.len()).step_by(CHUNK_SAMPLES).take(chunks) {
        let before = &samples[start.saturating_sub(CONTEXT_SAMPLES)..start];
        let chunk = &samples[start..samples.len().min(start + CHUNK_SAMPLES)];
        windows.resize(windows.len() + CONTEXT_SAMPLES - before.len(), 0.0);
        windows.extend_from_slice(before);
        windows.extend_from_slice(chunk);
        windows.resize(windows.len() + CHUNK_SAMPLES - chunk.len(), 0.0);
    }
}

/// Spans of samples with speech in them, in order, from the probabilities of a sound of `samples` samples.
pub(crate) fn speech_spans(probabilities: &[f32], samples: usize) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    // Where speech began, and where it paused.
    let mut begin: Option<usize> = None;
    let mut pause: Option<usize> = None;
    let is_long = |span: &Range<usize>| span.len() > SPEECH_SAMPLES_MIN;
    for (i, probability) in probabilities.iter().enumerate() {
        let at = i * CHUNK_SAMPLES;
        if *probability >= BEGIN_PROBABILITY {
            pause = None;
            begin.get_or_insert(at);
        } else if let Some(speech) = begin
            && *probability < END_PROBABILITY
        {
            let silence = *pause.get_or_insert(at);
            if at - silence >= SILENCE_SAMPLES_MIN {
                spans.extend(Some(speech..silence).filter(is_long));
                (begin, pause) = (None, None);
            }
        }
    }
    spans.extend(begin.map(|begin| begin..samples).filter(is_long));
    pad(&mut spans, samples);
    spans
}

/// Widens spans by the padding, or by half the silence between two where that is shorter.
fn pad(spans: &mut [Range<usize>], samples: usize) {
    if let Some(first) = spans.first_mut() {
        first.start = first.start.saturating_sub(PADDING_SAMPLES);
    }
    if let Some(last) = spans.last_mut() {
        last.end = (last.end + PADDING_SAMPLES).min(samples);
    }
    for i in 1..spans.len() {
        let padding = PADDING_SAMPLES.min((spans[i].start - spans[i - 1].end) / 2);
        spans[i - 1].end += padding;
        spans[i].start -= padding;
    }
}

/// The speech of a sound without the silence between, and the way back to the sound's own times.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Speech<'a> {
    /// The samples of all spans.
    pub(crate) samples: Cow<'a, [f32]>,
    /// Where each span ends among them, and the samples that were left out before it.
    spans: Vec<(usize, usize)>,
}

impl<'a> Speech<'a> {
    /// All of a sound.
    pub(crate) fn all(samples: &'a [f32]) -> Self {
        Self { samples: Cow::Borrowed(samples), spans: vec![(samples.len(), 0)] }
    }

    /// The spans of a sound, in order and apart.
    pub(crate) fn of(samples: &[f32], spans: &[Range<usize>]) -> Self {
        let mut speech = Vec::with_capacity(spans.iter().map(Range::len).sum());
        let mut ends = Vec::with_capacity(spans.len());
        for span in spans {
            let left_out = span.start - speech.len();
            speech.extend_from_slice(&samples[span.clone()]);
            ends.push((speech.len(), left_out));
        }
        Self { samples: Cow::Owned(speech), spans: ends }
    }

    /// The span that a time in the speech belongs to. An end at the border of two spans belongs to the first.
    pub(crate) fn span_at(&self, speech_s: f64, is_end: bool) -> usize {
        let sample = (speech_s * SAMPLE_RATE_HZ as f64).round() as usize;
        let is_before = |(end, _): &(usize, usize)| if is_end { *end < sample } else { *end <= sample };
        self.spans.partition_point(is_before).min(self.spans.len().saturating_sub(1))
    }

    /// The sound's time of a time in the speech, which lies in `span`.
    pub(crate) fn sound_time(&self, speech_s: f64, span: usize) -> f64 {
        let left_out = self.spans.get(span).map_or(0, |(_, left_out)| *left_out);
        speech_s + left_out as f64 / SAMPLE_RATE_HZ as f64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::runner::Value;

    #[derive(Clone)]
    struct Numbers(Vec<i64>, Vec<f32>);

    impl Value for Numbers {
        fn dtype(&self) -> Dtype {
            Dtype::F32
        }

        fn shape(&self) -> &[i64] {
            &self.0
        }

        fn bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
            Ok(Cow::Borrowed(bytemuck::cast_slice(&self.1)))
        }
    }

    /// A detector whose probability is the sum of the chunk with its context and of everything before.
    struct Summing(&'static Layout, Vec<TensorSpec>);

    impl Summing {
        fn new(layout: &'static Layout) -> Self {
            let states = layout.states.iter().map(|state| state.0);
            let names = states.chain([SOUND_INPUT]).chain(layout.has_rate.then_some(RATE_INPUT));
            let spec = |name: &str| TensorSpec { name: name.to_owned(), dtype: Dtype::F32, shape: vec![] };
            Self(layout, names.map(spec).collect())
        }
    }

    impl TensorRunner for Summing {
        type Value = Numbers;

        fn inputs(&self) -> &[TensorSpec] {
            &self.1
        }

        fn outputs(&self) -> &[TensorSpec] {
            &[]
        }

        fn metadata(&self) -> &BTreeMap<String, String> {
            const { &BTreeMap::new() }
        }

        fn value(&self, tensor: &TensorView<'_>) -> Result<Numbers, Error> {
            Ok(Numbers(
                tensor.shape.to_vec(),
                tensor.data.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect(),
            ))
        }

        fn run(&self, inputs: &[(&str, &Numbers)], _: &[&str]) -> Result<Vec<Numbers>, Error> {
            let find = |name: &str| inputs.iter().find(|input| input.0 == name).unwrap().1;
            assert_eq!(inputs.len(), self.1.len());
            let mut states: Vec<Numbers> = self.0.states.iter().map(|state| find(state.0).clone()).collect();
            let windows = find(SOUND_INPUT).1.chunks_exact(WINDOW_SAMPLES);
            let sums = windows.map(|window| {
                states.iter_mut().for_each(|state| state.1[0] += window.iter().sum::<f32>());
                states[0].1[0]
            });
            let sums = Numbers(vec![], sums.collect());
            Ok([vec![sums], states].concat())
        }
    }

    #[test]
    fn both_layouts_see_the_same() {
        // Whole numbers, so that sums are exact.
        let samples: Vec<f32> = (0..300 * CHUNK_SAMPLES + 100).map(|i| (i % 7) as f32).collect();
        let mut expected = 0.0;
        let chunks = samples.chunks(CHUNK_SAMPLES).enumerate().map(|(i, chunk)| {
            let context = &samples[(i * CHUNK_SAMPLES).saturating_sub(CONTEXT_SAMPLES)..i * CHUNK_SAMPLES];
            expected += context.iter().chain(chunk).sum::<f32>();
            expected
        });
        let expected: Vec<f32> = chunks.collect();
        for layout in &LAYOUTS {
            let vad = Vad::open(Summing::new(layout)).unwrap();
            assert_eq!(vad.layout.chunks, layout.chunks);
            assert_eq!(vad.probabilities(&samples, |_| false).unwrap().unwrap(), expected);
            assert_eq!(vad.probabilities(&samples, |chunks| chunks > 0).unwrap(), None);
            assert_eq!(vad.probabilities(&[], |_| false).unwrap().unwrap(), [0.0; 0]);
        }
        let mut other = Summing::new(&LAYOUTS[0]);
        other.1.retain(|spec| spec.name != "state");
        let message = Vad::open(other).err().unwrap().to_string();
        assert!(message.contains("silero_vad.onnx") && message.contains("`input`"), "{message}");
    }

    /// Probabilities, each for so many chunks.
    fn probabilities(runs: &[(f32, usize)]) -> Vec<f32> {
        runs.iter().flat_map(|(probability, chunks)| vec![*probability; *chunks]).collect()
    }

    /// Name, runs of probabilities, and first sample and end of each span.
    type Case<'a> = (&'a str, &'a [(f32, usize)], &'a [(usize, usize)]);

    #[test]
    fn spans_of_speech() {
        // 2 s of silence are 63 chunks, 250 ms of speech 8; the padding is 6400 samples.
        const fn chunk(chunks: usize) -> usize {
            chunks * CHUNK_SAMPLES
        }
        let cases: [Case<'_>; 7] = [
            ("nobody speaks", &[(0.1, 100)], &[]),
            ("somebody speaks all the time", &[(0.9, 100)], &[(0, chunk(100))]),
            ("too short", &[(0.1, 50), (0.9, 7), (0.1, 100)], &[]),
            ("a short pause", &[(0.9, 50), (0.1, 40), (0.9, 50)], &[(0, chunk(140))]),
            ("a doubtful pause", &[(0.9, 50), (0.4, 200), (0.9, 50)], &[(0, chunk(300))]),
            (
                "a long pause",
                &[(0.1, 100), (0.9, 50), (0.1, 100), (0.9, 50), (0.1, 100)],
                &[
                    (chunk(100) - 6400, chunk(150) + 6400),
                    // The end was not long enough ago when the sound ended.
                    (chunk(250) - 6400, chunk(300) + 6400),
                ],
            ),
            ("speech at the end", &[(0.1, 100), (0.9, 50), (0.1, 20)], &[(chunk(100) - 6400, chunk(170))]),
        ];
        for (name, runs, expected) in cases {
            let probabilities = probabilities(runs);
            let spans = speech_spans(&probabilities, chunk(probabilities.len()));
            let spans: Vec<_> = spans.iter().map(|span| (span.start, span.end)).collect();
            assert_eq!(spans, expected, "{name}");
        }
    }

    #[test]
    fn spans_do_not_overlap() {
        let mut spans = [10_000..20_000, 21_000..30_000];
        pad(&mut spans, 31_000);
        assert_eq!(spans, [3_600..20_500, 20_500..31_000]);
    }

    #[test]
    fn times_find_their_way_back() {
        let samples: Vec<f32> = (0..10 * 16_000u16 as usize).map(|i| i as f32).collect();
        let speech = Speech::of(&samples, &[16_000..32_000, 80_000..112_000]);
        assert_eq!(speech.samples.len(), 3 * 16_000);
        assert_eq!(speech.samples[16_000], 80_000.0);
        let cases =
            [(0.5, false, 1.5), (1.0, true, 2.0), (1.0, false, 5.0), (2.5, false, 6.5), (3.5, true, 7.5)];
        for (speech_s, is_end, expected) in cases {
            let span = speech.span_at(speech_s, is_end);
            assert_eq!(speech.sound_time(speech_s, span), expected, "{speech_s}");
        }
        assert_eq!(Speech::default().sound_time(1.0, Speech::default().span_at(1.0, false)), 1.0);
    }

    proptest::proptest! {
        #[test]
        fn spans_are_in_order_and_inside(
            probabilities in proptest::collection::vec(0f32..1.0, 0..500),
            cut in 0usize..CHUNK_SAMPLES,
        ) {
            let samples = (probabilities.len() * CHUNK_SAMPLES).saturating_sub(cut);
            let spans = speech_spans(&probabilities, samples);
            proptest::prop_assert!(spans.is_sorted_by(|a, b| a.end <= b.start));
            proptest::prop_assert!(spans.iter().all(|span| span.start < span.end && span.end <= samples));
        }
    }
}
