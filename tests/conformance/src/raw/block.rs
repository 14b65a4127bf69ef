//! Copies of C structs whose size is not what this library was built with.
#![expect(unsafe_code, reason = "lays structs out byte by byte")]

/// Bytes that an enlarged struct has behind its last field.
const TAIL_BYTES: usize = 64;
/// What is in bytes that a plugin must not read: as an address, not mapped; as a number, not plausible.
const POISON: u8 = 0xA5;

/// How the host's structs compare with those that the plugin was built against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Of this library's version.
    #[default]
    Exact,
    /// As of a newer minor: with further fields at the end.
    Larger,
    /// As of a host that has nothing optional.
    Smaller,
}

/// One struct, or several of the same size one after the other, aligned to 8 bytes.
#[derive(Debug)]
pub(crate) struct Block {
    words: Vec<u64>,
    stride: usize,
}

impl Block {
    /// Copies of `items`. Each declares `size`, which is at most the size of `T` unless the shape is larger; what is
    /// behind it is poison.
    pub(crate) fn new<T: Copy>(items: &[T], size: usize, shape: Shape) -> Self {
        let declared = if shape == Shape::Larger { size_of::<T>() + TAIL_BYTES } else { size };
        let stride = size_of::<T>().max(declared).next_multiple_of(8);
        let mut block =
            Self { words: vec![u64::from_ne_bytes([POISON; 8]); stride / 8 * items.len()], stride };
        for (i, item) in items.iter().enumerate() {
            // SAFETY: `stride` bytes per item are there, `T` is plain data of no more than that, and its alignment is
            // at most 8, as for all structs of the ABI.
            unsafe {
                let to = block.words.as_mut_ptr().cast::<u8>().add(i * stride);
                let copied = size_of::<T>().min(declared);
                std::ptr::copy_nonoverlapping(std::ptr::from_ref(item).cast::<u8>(), to, copied);
                to.cast::<u32>().write(declared as u32);
            }
        }
        block
    }

    /// The first struct.
    pub(crate) fn as_ptr<T>(&self) -> *const T {
        self.words.as_ptr().cast()
    }

    /// Bytes from one struct to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Overwrites everything, as a host does that uses the memory again.
    pub(crate) fn poison(&mut self) {
        self.words.fill(u64::from_ne_bytes([POISON; 8]));
    }
}

/// A buffer that can be overwritten like a [`Block`].
#[derive(Debug)]
pub(crate) struct Buffer(Vec<u64>);

impl Buffer {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let words = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        });
        Self(words.collect())
    }

    pub(crate) fn as_ptr<T>(&self) -> *const T {
        self.0.as_ptr().cast()
    }

    pub(crate) fn poison(&mut self) {
        self.0.fill(u64::from_ne_bytes([POISON; 8]));
    }
}
