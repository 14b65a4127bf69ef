//! Every kind of file decodes to what `testdata/make.py` put in, no file makes a decoder panic, and what is encoded is
//! what was there before.

mod encoding;
mod pictures;
mod sounds;

use std::path::Path;

use futures_util::FutureExt as _;

use super::*;

/// A file of `testdata`.
fn file(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/media/testdata").join(name)).unwrap()
}

/// `seconds` of a sine at half of the full scale.
fn sine(frequency_hz: f64, rate_hz: u32, seconds: f64) -> Vec<f32> {
    let sample = |index| (std::f64::consts::TAU * frequency_hz * f64::from(index) / f64::from(rate_hz)).sin();
    (0..(f64::from(rate_hz) * seconds) as u32).map(|index| (0.5 * sample(index)) as f32).collect()
}

/// How much stronger `expected` is than the difference between it and `samples`, in decibels; the first and the last
/// `edge` samples are left out.
fn signal_to_noise_db(expected: &[f32], samples: &[f32], edge: usize) -> f64 {
    let power = |samples: &mut dyn Iterator<Item = f64>| samples.map(|sample| sample * sample).sum::<f64>();
    let range = edge..expected.len().min(samples.len()) - edge;
    let pairs = || expected[range.clone()].iter().zip(&samples[range.clone()]);
    let signal = power(&mut pairs().map(|(expected, _)| f64::from(*expected)));
    let noise = power(&mut pairs().map(|(expected, sample)| f64::from(expected - sample)));
    10.0 * (signal / noise.max(1e-30)).log10()
}

#[test]
fn a_decoder_that_panics_costs_one_request() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let decoder = MediaDecoder::new(MediaLimits::default());
    runtime.block_on(async {
        let cores = std::thread::available_parallelism().unwrap().get();
        for _ in 0..=cores {
            assert_eq!(decoder.run::<(), _>(|| panic!("on purpose")).await, Err(MediaError::Failed));
        }
        let picture = decoder.image(file("rgb.png").into(), u64::MAX).await.unwrap();
        assert_eq!((picture.width, picture.height), (24, 16));
        let error = decoder.image(file("rgb.png").into(), 100).await.unwrap_err();
        assert_eq!(error, MediaError::TooManyPixels { width: 24, height: 16, pixels_max: 100 });
        assert_eq!(decoder.audio(Bytes::new()).await, Err(MediaError::Empty));
    });
}

#[test]
fn files_wait_for_their_turn() {
    let decoder = MediaDecoder::new(MediaLimits::default());
    let all = u32::try_from(decoder.permits.available_permits()).unwrap();
    let _busy = Arc::clone(&decoder.permits).try_acquire_many_owned(all).unwrap();
    assert_eq!(decoder.audio(Bytes::new()).now_or_never(), None);
}
