//! Protobuf's wire format, as much of it as it takes to skip what is not wanted
//! (<https://protobuf.dev/programming-guides/encoding/>).
//!
//! Models in ONNX's and CoreML's formats are protobuf messages. A crate that generates types would read the weights, which
//! are most of a model's file, into memory.

use std::io::{BufReader, ErrorKind, Read, Seek};

/// Most fields that are looked at; a file with more is refused. Models have some ten thousands.
const FIELDS_MAX: u64 = 20_000_000;

/// Why a file cannot be read. Said of the file, whose name comes before it.
#[derive(Debug, thiserror::Error)]
pub enum ProtobufError {
    /// The system could not read it.
    #[error("cannot be read: {0}")]
    Io(std::io::Error),
    /// Something reaches over the end of what encloses it.
    #[error("is cut off or damaged at byte {0}")]
    Cut(u64),
    /// The bytes are no protobuf message.
    #[error("is damaged or no model: byte {0} fits no protobuf message")]
    Malformed(u64),
    /// It is a message, but not the expected one.
    #[error("{0}")]
    Content(String),
}

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// An integer.
    Varint(u64),
    /// A text, bytes or a message, from here up to this position.
    Bytes(u64),
    /// A number of fixed width, already skipped.
    Fixed,
}

/// A file of protobuf messages with a position. Everything is bounded: a message by what encloses it, a text by its reader,
/// and all fields together by their number.
pub struct Wire<S> {
    source: BufReader<S>,
    position: u64,
    len: u64,
    fields: u64,
}

impl<S: Read + Seek> Wire<S> {
    /// Reads from the beginning of a source of `len` bytes.
    pub fn new(source: S, len: u64) -> Self {
        Self { source: BufReader::new(source), position: 0, len, fields: 0 }
    }

    /// Visits the fields of the message that ends at `end`. What a visit does not read of a field is skipped.
    ///
    /// # Errors
    /// The message is malformed, or a visit failed.
    pub fn message(
        &mut self,
        end: u64,
        mut visit: impl FnMut(&mut Self, u64, Field) -> Result<(), ProtobufError>,
    ) -> Result<(), ProtobufError> {
        while self.position < end {
            let (number, field) = self.field(end)?;
            visit(self, number, field)?;
            if let Field::Bytes(end) = field {
                self.skip_to(end)?;
            }
        }
        Ok(())
    }

    /// Visits the integers of a packed field that ends at `end`.
    ///
    /// # Errors
    /// It ends within an integer, or there are too many.
    pub fn packed(&mut self, end: u64, mut visit: impl FnMut(u64)) -> Result<(), ProtobufError> {
        while self.position < end {
            self.count()?;
            visit(self.varint(end)?);
        }
        Ok(())
    }

    /// The text up to `end`; what is not UTF-8 in it is replaced.
    ///
    /// # Errors
    /// It is longer than `len_max`.
    pub fn text(&mut self, end: u64, len_max: u64) -> Result<String, ProtobufError> {
        let len = end.saturating_sub(self.position);
        if len > len_max {
            return Err(ProtobufError::Content(format!(
                "has a text of {len} bytes, at most {len_max} are allowed"
            )));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.read(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn field(&mut self, end: u64) -> Result<(u64, Field), ProtobufError> {
        self.count()?;
        let start = self.position;
        let tag = self.varint(end)?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint(end)?),
            1 => self.fixed(8, end)?,
            2 => {
                let len = self.varint(end)?;
                Field::Bytes(self.within(len, end)?)
            }
            5 => self.fixed(4, end)?,
            // Groups are used by neither format, and the other two do not exist.
            _ => return Err(ProtobufError::Malformed(start)),
        };
        match tag >> 3 {
            0 => Err(ProtobufError::Malformed(start)),
            number => Ok((number, field)),
        }
    }

    fn fixed(&mut self, len: u64, end: u64) -> Result<Field, ProtobufError> {
        let next = self.within(len, end)?;
        self.skip_to(next)?;
        Ok(Field::Fixed)
    }

    /// The position `len` bytes on, unless it is beyond `end`.
    fn within(&self, len: u64, end: u64) -> Result<u64, ProtobufError> {
        let next = self.position.checked_add(len).filter(|next| *next <= end.min(self.len));
        next.ok_or(ProtobufError::Cut(self.position))
    }

    fn varint(&mut self, end: u64) -> Result<u64, ProtobufError> {
        let start = self.position;
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            self.within(1, end)?;
            let mut byte = [0];
            self.read(&mut byte)?;
            // Bits beyond the 64th are dropped, as by every reader of protobuf.
            value |= u64::from(byte[0] & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Malformed(start))
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), ProtobufError> {
        self.source.read_exact(bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => ProtobufError::Cut(self.position),
            _ => ProtobufError::Io(error),
        })?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn skip_to(&mut self, end: u64) -> Result<(), ProtobufError> {
        let distance = end.saturating_sub(self.position);
        let distance = i64::try_from(distance).map_err(|_| ProtobufError::Cut(self.position))?;
        self.source.seek_relative(distance).map_err(ProtobufError::Io)?;
        self.position = end;
        Ok(())
    }

    fn count(&mut self) -> Result<(), ProtobufError> {
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(ProtobufError::Content(format!("has more than {FIELDS_MAX} fields")));
        }
        Ok(())
    }
}
