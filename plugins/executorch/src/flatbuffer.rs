//! Reading FlatBuffers whose offsets nobody has checked: every access is bounded, and nothing is built for what is not read.
//!
//! Layout: <https://flatbuffers.dev/internals/>. A table begins with a signed offset back to its vtable, which has the place
//! of each field; what is left out there has its default.

use std::fmt;

/// An offset or a length that points outside of the file, or a text that is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an offset in it points to nothing sensible")
    }
}

/// Bytes of a length that is known, at a place.
fn array<const N: usize>(data: &[u8], at: usize) -> Result<[u8; N], Damaged> {
    let end = at.checked_add(N).ok_or(Damaged)?;
    data.get(at..end).and_then(|bytes| bytes.try_into().ok()).ok_or(Damaged)
}

fn u32_at(data: &[u8], at: usize) -> Result<u32, Damaged> {
    array(data, at).map(u32::from_le_bytes)
}

/// Where an offset, which is counted from its own place, points.
fn follow(data: &[u8], at: usize) -> Result<usize, Damaged> {
    let offset = usize::try_from(u32_at(data, at)?).map_err(|_| Damaged)?;
    at.checked_add(offset).filter(|place| *place < data.len()).ok_or(Damaged)
}

/// A table. Its fields are counted from 0 in the order of the schema; a union has two, its type and its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    data: &'a [u8],
    at: usize,
    vtable: usize,
    vtable_len: usize,
}

impl<'a> Table<'a> {
    /// The table that the buffer begins with an offset to.
    pub(crate) fn root(data: &'a [u8]) -> Result<Self, Damaged> {
        Self::new(data, follow(data, 0)?)
    }

    fn new(data: &'a [u8], at: usize) -> Result<Self, Damaged> {
        let back = i64::from(i32::from_le_bytes(array(data, at)?));
        let vtable = i64::try_from(at).map_err(|_| Damaged)? - back;
        let vtable = usize::try_from(vtable).map_err(|_| Damaged)?;
        let vtable_len = usize::from(u16::from_le_bytes(array(data, vtable)?));
        if vtable_len < 4 || vtable.checked_add(vtable_len).is_none_or(|end| end > data.len()) {
            return Err(Damaged);
        }
        Ok(Self { data, at, vtable, vtable_len })
    }

    /// Where a field is; `None` if it is left out.
    fn field(&self, index: usize) -> Result<Option<usize>, Damaged> {
        let slot = 4 + 2 * index;
        if slot + 2 > self.vtable_len {
            return Ok(None);
        }
        let offset = usize::from(u16::from_le_bytes(array(self.data, self.vtable + slot)?));
        Ok((offset != 0).then_some(self.at + offset))
    }

    fn scalar<const N: usize>(&self, index: usize) -> Result<[u8; N], Damaged> {
        match self.field(index)? {
            Some(at) => array(self.data, at),
            None => Ok([0; N]),
        }
    }

    /// A `byte`, `ubyte`, `bool` or the type of a union; 0 if it is left out, like all numbers here.
    pub(crate) fn u8(&self, index: usize) -> Result<u8, Damaged> {
        self.scalar::<1>(index).map(|[byte]| byte)
    }

    /// An `int`.
    pub(crate) fn i32(&self, index: usize) -> Result<i32, Damaged> {
        self.scalar(index).map(i32::from_le_bytes)
    }

    /// A `uint`.
    pub(crate) fn u32(&self, index: usize) -> Result<u32, Damaged> {
        self.scalar(index).map(u32::from_le_bytes)
    }

    /// A `ulong`.
    pub(crate) fn u64(&self, index: usize) -> Result<u64, Damaged> {
        self.scalar(index).map(u64::from_le_bytes)
    }

    /// A `long`.
    pub(crate) fn i64(&self, index: usize) -> Result<i64, Damaged> {
        self.scalar(index).map(i64::from_le_bytes)
    }

    /// A `double`.
    pub(crate) fn f64(&self, index: usize) -> Result<f64, Damaged> {
        self.scalar(index).map(f64::from_le_bytes)
    }

    /// Another table.
    pub(crate) fn table(&self, index: usize) -> Result<Option<Table<'a>>, Damaged> {
        self.field(index)?.map(|at| Table::new(self.data, follow(self.data, at)?)).transpose()
    }

    /// A text; empty if it is left out.
    pub(crate) fn text(&self, index: usize) -> Result<&'a str, Damaged> {
        let bytes = self.vector(index, 1)?;
        std::str::from_utf8(bytes).map_err(|_| Damaged)
    }

    /// The bytes of a vector whose elements have a size; empty if it is left out.
    fn vector(&self, index: usize, element: usize) -> Result<&'a [u8], Damaged> {
        let Some(at) = self.field(index)? else { return Ok(&[]) };
        let begin = follow(self.data, at)?;
        let count = usize::try_from(u32_at(self.data, begin)?).map_err(|_| Damaged)?;
        let len = count.checked_mul(element).ok_or(Damaged)?;
        let end = begin.checked_add(4).and_then(|begin| begin.checked_add(len)).ok_or(Damaged)?;
        self.data.get(begin + 4..end).ok_or(Damaged)
    }

    /// A `[ubyte]`.
    pub(crate) fn bytes(&self, index: usize) -> Result<&'a [u8], Damaged> {
        self.vector(index, 1)
    }

    /// An `[int]`.
    pub(crate) fn i32s(&self, index: usize) -> Result<impl ExactSizeIterator<Item = i32> + use<'a>, Damaged> {
        let (words, _) = self.vector(index, 4)?.as_chunks::<4>();
        Ok(words.iter().map(|word| i32::from_le_bytes(*word)))
    }

    /// A `[long]`.
    pub(crate) fn i64s(&self, index: usize) -> Result<impl ExactSizeIterator<Item = i64> + use<'a>, Damaged> {
        let (words, _) = self.vector(index, 8)?.as_chunks::<8>();
        Ok(words.iter().map(|word| i64::from_le_bytes(*word)))
    }

    /// A vector of tables.
    pub(crate) fn tables(&self, index: usize) -> Result<Tables<'a>, Damaged> {
        let Some(at) = self.field(index)? else { return Ok(Tables { data: self.data, begin: 0, len: 0 }) };
        let begin = follow(self.data, at)? + 4;
        Ok(Tables { data: self.data, begin, len: self.vector(index, 4)?.len() / 4 })
    }
}

/// A vector of tables, each of which is read when it is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables<'a> {
    data: &'a [u8],
    begin: usize,
    len: usize,
}

impl<'a> Tables<'a> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// One of them.
    pub(crate) fn get(&self, index: usize) -> Result<Table<'a>, Damaged> {
        if index >= self.len {
            return Err(Damaged);
        }
        Table::new(self.data, follow(self.data, self.begin + 4 * index)?)
    }

    /// All of them.
    pub(crate) fn iter(self) -> impl Iterator<Item = Result<Table<'a>, Damaged>> {
        (0..self.len).map(move |index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with the fields 7 (`uint`) and "ab" (`string`), written by hand.
    fn sample() -> Vec<u8> {
        let mut data = Vec::new();
        data.extend(12_u32.to_le_bytes()); // the root table is at 12
        data.extend([8, 0, 12, 0, 4, 0, 8, 0]); // the vtable, at 4: its length, the table's, two fields
        data.extend(8_i32.to_le_bytes()); // the table: back to its vtable
        data.extend(7_u32.to_le_bytes());
        data.extend(4_u32.to_le_bytes()); // the text is at 24
        data.extend(2_u32.to_le_bytes());
        data.extend(b"ab\0");
        data
    }

    #[test]
    fn fields_are_found_and_missing_ones_have_defaults() {
        let data = sample();
        let table = Table::root(&data).unwrap();
        assert_eq!((table.u32(0), table.text(1)), (Ok(7), Ok("ab")));
        assert_eq!((table.u64(2), table.text(3)), (Ok(0), Ok("")));
        assert!(table.table(2).unwrap().is_none());
        assert_eq!(table.tables(5).unwrap().len(), 0);
        assert!(table.tables(5).unwrap().get(0).is_err());
    }

    #[test]
    fn no_offset_leads_out_of_the_buffer() {
        let good = sample();
        for at in 0..good.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut data = good.clone();
                data[at] = byte;
                read_everything(&data);
            }
            read_everything(&good[..at]);
        }
    }

    fn read_everything(data: &[u8]) {
        let Ok(table) = Table::root(data) else { return };
        for index in 0..8 {
            let _ = (table.u8(index), table.u64(index), table.f64(index), table.text(index));
            let _ = (table.i32s(index).map(Iterator::count), table.i64s(index).map(Iterator::count));
            let _ = table.table(index);
            if let Ok(tables) = table.tables(index) {
                tables.iter().take(9).for_each(drop);
            }
        }
    }
}
