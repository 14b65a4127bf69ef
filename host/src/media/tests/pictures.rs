//! Pictures.

use proptest::prelude::*;

use super::file;
use crate::media::*;

const FILES: &[&str] = &[
    "rgb.png",
    "rgb.bmp",
    "rgb.gif",
    "lossless.webp",
    "lossy.webp",
    "baseline.jpg",
    "progressive.jpg",
    "cmyk.jpg",
    "palette.png",
    "grey.png",
    "grey.jpg",
    "grey16.png",
    "alpha.png",
    "alpha.webp",
    "animated.gif",
    "animated.webp",
    "orientation2.jpg",
    "orientation3.jpg",
    "orientation6.jpg",
    "orientation8.jpg",
];

fn decode(bytes: &[u8]) -> Result<Picture, MediaError> {
    decode_image(bytes, &MediaLimits::default())
}

/// What a pixel of a picture is, by column and row.
type Expected = fn(u32, u32) -> [u8; 3];

/// The picture of `make.py`.
fn usual(x: u32, y: u32) -> [u8; 3] {
    [(x * 10) as u8, (y * 15) as u8, 64]
}

/// As pillow makes it of the usual picture: ITU-R 601.
fn grey(x: u32, y: u32) -> [u8; 3] {
    let [r, g, b] = usual(x, y).map(u32::from);
    [((r * 299 + g * 587 + b * 114) / 1000) as u8; 3]
}

/// The left half was transparent red.
fn half(x: u32, y: u32) -> [u8; 3] {
    if x < 12 { [255; 3] } else { usual(x, y) }
}

/// The greatest difference in any channel.
fn difference(picture: &Picture, expected: Expected) -> u8 {
    let pixels = (0..picture.height).flat_map(|y| (0..picture.width).map(move |x| (x, y)));
    let expected: Vec<u8> = pixels.flat_map(|(x, y)| expected(x, y)).collect();
    picture.data.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn every_kind_decodes_to_the_same_picture() {
    let table: [(&str, Expected, u8); 20] = [
        ("rgb.png", usual, 0),
        ("rgb.bmp", usual, 0),
        ("rgb.gif", usual, 8),
        ("lossless.webp", usual, 0),
        ("lossy.webp", usual, 24),
        ("baseline.jpg", usual, 6),
        ("progressive.jpg", usual, 6),
        ("cmyk.jpg", usual, 12),
        ("palette.png", usual, 8),
        ("grey.png", grey, 1),
        ("grey.jpg", grey, 4),
        ("grey16.png", grey, 1),
        ("alpha.png", half, 0),
        ("alpha.webp", half, 0),
        ("animated.gif", usual, 8),
        ("animated.webp", usual, 0),
        ("orientation2.jpg", usual, 6),
        ("orientation3.jpg", usual, 6),
        ("orientation6.jpg", usual, 6),
        ("orientation8.jpg", usual, 6),
    ];
    assert_eq!(table.map(|(name, ..)| name).as_slice(), FILES);
    for (name, expected, tolerance) in table {
        let picture = decode(&file(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((picture.width, picture.height), (24, 16), "{name}");
        assert_eq!(picture.data.len(), 24 * 16 * 3, "{name}");
        let difference = difference(&picture, expected);
        assert!(difference <= tolerance, "{name}: a channel differs by {difference}");
    }
}

#[test]
fn half_transparent_pixels_are_mixed_with_white() {
    let rgba = ::image::RgbaImage::from_raw(2, 1, vec![0, 0, 0, 128, 200, 100, 0, 51]).unwrap();
    let mut bytes = std::io::Cursor::new(Vec::new());
    rgba.write_to(&mut bytes, ::image::ImageFormat::Png).unwrap();
    assert_eq!(decode(bytes.get_ref()).unwrap().data, [127, 127, 127, 244, 224, 204]);
}

/// A PNG whose header claims these dimensions, without pixels.
fn claim(width: u32, height: u32) -> Vec<u8> {
    let mut png = file("rgb.png");
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    // The checksum of the header, which decoders compare.
    let crc = png[12..29].iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    });
    png[29..33].copy_from_slice(&(!crc).to_be_bytes());
    png
}

#[test]
fn what_cannot_be_read_is_said_in_a_sentence() {
    let truncated = |name: &str| {
        let bytes = file(name);
        bytes[..bytes.len() * 2 / 3].to_vec()
    };
    let unknown = "the file is of no known kind, expected JPEG, PNG, WebP, BMP or GIF";
    let table: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "the file is empty"),
        (b"hello".to_vec(), unknown),
        (b"<svg/>".to_vec(), unknown),
        (b"II*\0\x08\0\0\0".to_vec(), unknown),
        (file("pcm_16.wav"), unknown),
        (truncated("baseline.jpg"), "the JPEG file is damaged or ends too early: it has no end marker"),
        (truncated("progressive.jpg"), "the JPEG file is damaged or ends too early: it has no end marker"),
        (vec![0xff, 0xd8, 0xff], "the JPEG file is damaged or ends too early: "),
        (truncated("rgb.png"), "the PNG file is damaged or ends too early: "),
        (truncated("palette.png"), "the PNG file is damaged or ends too early: "),
        (truncated("lossy.webp"), "the WebP file is damaged or ends too early: "),
        (truncated("rgb.bmp"), "the BMP file is damaged or ends too early: "),
        (truncated("rgb.gif"), "the GIF file is damaged or ends too early: "),
        (
            claim(100_000, 100_000),
            "the picture has 100000 × 100000 pixels, at most 50000000 pixels are allowed",
        ),
        (
            claim(u32::MAX >> 1, u32::MAX >> 1),
            "the PNG file takes more memory than a picture of 50000000 pixels, the most that are allowed",
        ),
        (claim(0, 16), "the PNG file is damaged or ends too early: "),
        (claim(7000, 7000), "the PNG file is damaged or ends too early: "),
    ];
    for (bytes, expected) in table {
        let message = decode(&bytes).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}, expected {expected}");
        assert!(message.len() < 250, "{message}");
    }
}

#[test]
fn what_is_encoded_as_png_comes_back() {
    let picture = decode(&file("baseline.jpg")).unwrap();
    assert_eq!(decode(&encode_png(&picture).unwrap()).unwrap(), picture);
    let wrong = Picture { width: 2, height: 2, data: vec![0; 3] };
    let message = encode_png(&wrong).unwrap_err().to_string();
    assert_eq!(message, "cannot encode: 3 bytes are not 2 × 2 pixels");
}

#[test]
fn boxes_have_sides_and_labels() {
    let mut picture = Picture { width: 100, height: 80, data: vec![0; 100 * 80 * 3] };
    let mark = Mark { x: 10.0, y: 30.0, width: 40.0, height: 20.0, label: "dög".to_owned(), group: 1 };
    draw_boxes(&mut picture, &[mark]);
    let at = |x: usize, y: usize| picture.data[(y * 100 + x) * 3..][..3].to_vec();
    let colour = vec![0, 95, 150];
    for (x, y) in [(10, 30), (49, 30), (10, 49), (49, 49), (11, 40), (30, 48), (11, 15)] {
        assert_eq!(at(x, y), colour, "{x} {y}");
    }
    for (x, y) in [(9, 40), (50, 40), (30, 40), (30, 50), (9, 29), (80, 20)] {
        assert_eq!(at(x, y), [0, 0, 0], "{x} {y}");
    }
    // Some letter is there, in white.
    assert!((10..40).any(|x| (14..30).any(|y| at(x, y) == [255; 3])));
}

/// How files begin, so that what follows gets past the first look.
const STARTS: &[&[u8]] = &[
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF89a",
    b"BM",
    b"RIFF\xff\0\0\0WEBPVP8 ",
    b"RIFF\xff\0\0\0WEBPVP8L",
    b"RIFF\xff\0\0\0WEBPVP8X",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_make_a_decoder_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        start in proptest::sample::select(STARTS),
    ) {
        let _ = decode(&[start, &bytes].concat());
    }

    #[test]
    fn no_damage_makes_a_decoder_panic(
        name in proptest::sample::select(FILES),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        end in any::<proptest::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = file(name);
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        let limits = MediaLimits { image_pixels: 1 << 20, ..MediaLimits::default() };
        if let Ok(picture) = decode_image(&bytes, &limits) {
            let pixels = u64::from(picture.width) * u64::from(picture.height);
            prop_assert!(pixels <= limits.image_pixels);
            prop_assert_eq!(picture.data.len() as u64, pixels * 3);
        }
    }

    #[test]
    fn marks_anywhere_stay_in_the_picture(
        x in any::<f32>(), y in any::<f32>(), width in any::<f32>(), height in any::<f32>(),
        label in ".{0,20}", group in any::<usize>(),
        (columns, rows) in (1u32..40, 1u32..40),
    ) {
        let mut picture = Picture { width: columns, height: rows, data: vec![0; (columns * rows * 3) as usize] };
        draw_boxes(&mut picture, &[Mark { x, y, width, height, label, group }]);
        prop_assert_eq!(picture.data.len(), (columns * rows * 3) as usize);
    }
}
