//! What a `.pte` says about its methods, read off the file without the engine (`program.fbs` of ExecuTorch 1.5).
//!
//! The file is an extended header, a FlatBuffer and, behind it, segments of weights and of what delegates run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{Dtype, Error, ErrorKind};

use crate::flatbuffer::{Damaged, Table};
use crate::instructions::{self, Counts};

/// Longest FlatBuffer that is read; exporters put weights into segments behind it.
const PROGRAM_BYTES_MAX: u64 = 512 << 20;
/// Most methods, inputs or outputs of a method, and operators or delegates that are looked at; more is refused.
const METHODS_MAX: usize = 1024;
const PORTS_MAX: usize = 1024;
const NAMES_MAX: usize = 1 << 16;
/// Longest name of an operator with its overload.
const OPERATOR_BYTES_MAX: usize = 99;
/// Most dimensions of a tensor.
pub(crate) const DIMS_MAX: usize = 16;
/// What the interpretation of the bytes begins with: offset of the root, identifier, extended header.
const HEAD_BYTES: usize = 40;

/// A program's file.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// Bytes of the file.
    pub bytes: u64,
    /// Its methods, in the file's order.
    pub methods: Vec<MethodInfo>,
}

/// What a program says about one of its methods.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodInfo {
    /// Its name, such as `forward`.
    pub name: String,
    /// Its inputs.
    pub inputs: Vec<Slot>,
    /// Its outputs.
    pub outputs: Vec<Slot>,
    /// The backends that parts of it were compiled for, such as `XnnpackBackend`.
    pub delegates: BTreeSet<String>,
    /// The operators that it calls itself, such as `aten::add.out`.
    pub operators: BTreeSet<String>,
    /// Bytes that its memory plan asks for.
    pub planned_bytes: u64,
    /// Numbers in weights that are not inside of a delegate.
    pub parameters: u64,
    /// Whether a tensor of it keeps its content from run to run.
    pub has_state: bool,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq)]
pub enum Slot {
    /// A tensor.
    Tensor(Port),
    /// A number or text that the program fixes, as in what exporters call constant methods.
    Constant(String),
    /// Anything else, in the format's words.
    Other(&'static str),
}

/// A tensor that goes in or comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name, if the program has one.
    pub name: Option<String>,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions; upper bounds if they are dynamic.
    pub sizes: Vec<usize>,
    /// The dimensions from the outermost in memory to the innermost.
    pub dim_order: Vec<u8>,
    /// Whether a run may have smaller dimensions. The format does not tell which.
    pub is_dynamic: bool,
}

impl Program {
    /// Reads what a file says.
    ///
    /// # Errors
    /// The file is missing, cut, damaged or no program; the message names it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let bad = |reason: String| Error::bad_model(format!("{} {reason}", path.display()));
        let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let bytes = file.metadata().map_err(|error| unreadable(path, &error))?.len();
        let mut head = [0; HEAD_BYTES];
        let head_len = bytes.min(HEAD_BYTES as u64) as usize;
        file.read_exact(&mut head[..head_len]).map_err(|error| unreadable(path, &error))?;
        let header = Header::read(&head, bytes).map_err(bad)?;
        let mut data = head[..head_len].to_vec();
        let rest = header.program_bytes.saturating_sub(data.len() as u64);
        file.take(rest).read_to_end(&mut data).map_err(|error| unreadable(path, &error))?;
        // A cut file was refused; one that shrinks meanwhile is found by the bounds of every access.
        let root = Table::root(&data).map_err(|error| bad(format!("is damaged: {error}")))?;
        header.check_segments(&root, bytes).map_err(bad)?;
        let methods = methods(&root).map_err(bad)?;
        Ok(Self { path: path.to_owned(), bytes, methods })
    }

    /// The method of this name; without one `forward`, or else the only one that has inputs.
    ///
    /// # Errors
    /// There is no such method; the message has those that are there.
    pub fn method(&self, name: Option<&str>) -> Result<&MethodInfo, Error> {
        let wanted = name.unwrap_or("forward");
        if let Some(method) = self.methods.iter().find(|method| method.name == wanted) {
            return Ok(method);
        }
        let with_inputs: Vec<_> = self.methods.iter().filter(|method| !method.inputs.is_empty()).collect();
        if let ([only], None) = (with_inputs.as_slice(), name) {
            return Ok(only);
        }
        let names: Vec<_> = self.methods.iter().map(|method| format!("`{}`", method.name)).collect();
        let (file, names) = (self.path.display(), names.join(", "));
        Err(match name {
            Some(name) => Error::invalid(format!("option `method` is `{name}`, and {file} has {names}")),
            None => Error::invalid(format!(
                "{file} has no method `forward` but {names}: choose one with the option `method`"
            )),
        })
    }

    /// What the program says about itself: the names and values of its methods that only return a constant.
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let constants = self.methods.iter().filter(|method| method.inputs.is_empty());
        let entry = |method: &MethodInfo| match method.outputs.as_slice() {
            [Slot::Constant(value)] => Some((method.name.clone(), value.clone())),
            _ => None,
        };
        constants.filter_map(entry).collect()
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::BadModel,
    };
    Error::new(kind, format!("cannot read {}: {error}", path.display()))
}

/// What the file begins with.
struct Header {
    program_bytes: u64,
    segments_at: u64,
}

impl Header {
    fn read(head: &[u8; HEAD_BYTES], bytes: u64) -> Result<Self, String> {
        match &head[4..8] {
            b"ET12" => {}
            b"BP08" => {
                return Err("is a bundled program, which has test inputs beside the program: export it \
                            with `to_executorch().buffer` instead"
                    .to_owned());
            }
            _ => return Err("is no program of ExecuTorch: it does not begin as a .pte does".to_owned()),
        }
        let number = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let header = match &head[8..12] {
            b"eh00" => Self { program_bytes: number(16), segments_at: number(24) },
            _ => Self { program_bytes: bytes, segments_at: 0 },
        };
        if header.program_bytes > bytes || header.segments_at > bytes {
            let wanted = header.program_bytes.max(header.segments_at);
            return Err(format!("is cut: it has {bytes} bytes, and its header speaks of {wanted}"));
        }
        if header.program_bytes > PROGRAM_BYTES_MAX {
            return Err(format!(
                "has a program of {} bytes without its segments; at most {PROGRAM_BYTES_MAX} are read",
                header.program_bytes
            ));
        }
        Ok(header)
    }

    /// Whether all segments are there, which shows a cut file before the engine maps it.
    fn check_segments(&self, root: &Table<'_>, bytes: u64) -> Result<(), String> {
        let damaged = |error: Damaged| format!("is damaged: {error}");
        for segment in root.tables(4).map_err(damaged)?.iter() {
            let segment = segment.map_err(damaged)?;
            let (offset, size) = (segment.u64(0).map_err(damaged)?, segment.u64(1).map_err(damaged)?);
            let end = self.segments_at.checked_add(offset).and_then(|begin| begin.checked_add(size));
            match end {
                Some(end) if end <= bytes => {}
                Some(end) => {
                    return Err(format!("is cut: it has {bytes} bytes, and a segment ends at {end}"));
                }
                None => return Err("is damaged: a segment ends nowhere".to_owned()),
            }
        }
        Ok(())
    }
}

fn methods(root: &Table<'_>) -> Result<Vec<MethodInfo>, String> {
    let damaged = |error: Damaged| format!("is damaged: {error}");
    let plans = root.tables(1).map_err(damaged)?;
    if plans.len() > METHODS_MAX {
        return Err(format!("has {} methods; at most {METHODS_MAX} are read", plans.len()));
    }
    if plans.len() == 0 {
        return Err("has no method".to_owned());
    }
    plans.iter().map(|plan| method(&plan.map_err(damaged)?)).collect()
}

fn method(plan: &Table<'_>) -> Result<MethodInfo, String> {
    let read = || -> Result<MethodInfo, Damaged> {
        let values = plan.tables(2)?;
        let slots = |index: usize| -> Result<Vec<Slot>, Damaged> {
            let places = plan.i32s(index)?;
            if places.len() > PORTS_MAX {
                return Err(Damaged);
            }
            let slot = |place: i32| slot(&values.get(usize::try_from(place).map_err(|_| Damaged)?)?);
            places.map(slot).collect()
        };
        let mut planned_bytes = 0_u64;
        for bytes in plan.i64s(8)? {
            let bytes = u64::try_from(bytes).map_err(|_| Damaged)?;
            planned_bytes = planned_bytes.checked_add(bytes).ok_or(Damaged)?;
        }
        let (mut parameters, mut has_state) = (0_u64, false);
        for value in values.iter() {
            let value = value?;
            let Some(tensor) = (if value.u8(0)? == TENSOR { value.table(1)? } else { None }) else {
                continue;
            };
            let has_data = tensor.u32(5)? > 0;
            if has_data && tensor.table(6)?.is_none() {
                let numbers = tensor.i32s(2)?.map(|size| u64::from(size.unsigned_abs()));
                parameters = parameters.saturating_add(numbers.fold(1, u64::saturating_mul));
            }
            // Weights are never planned and what is computed has no data: a tensor with both is a buffer with a first content.
            has_state |= has_data && tensor.table(6)?.is_some();
        }
        let operators = names(plan, 6, operator)?;
        let counts = Counts {
            values: values.len(),
            operators: plan.tables(6)?.len(),
            delegates: plan.tables(7)?.len(),
        };
        instructions::check(plan, &counts)?;
        has_state |= WRITE_BACK.iter().any(|name| operators.contains(*name));
        Ok(MethodInfo {
            name: plan.text(0)?.to_owned(),
            inputs: slots(3)?,
            outputs: slots(4)?,
            delegates: names(plan, 7, |delegate| Ok(delegate.text(0)?.to_owned()))?,
            operators,
            planned_bytes,
            parameters,
            has_state,
        })
    };
    read().map_err(|error| format!("is damaged: {error}"))
}

/// The operators with which exporters write a buffer's new content back.
const WRITE_BACK: [&str; 2] = ["aten::copy_", "aten::index_put_"];

fn names(
    plan: &Table<'_>,
    index: usize,
    name: impl Fn(&Table<'_>) -> Result<String, Damaged>,
) -> Result<BTreeSet<String>, Damaged> {
    let tables = plan.tables(index)?;
    if tables.len() > NAMES_MAX {
        return Err(Damaged);
    }
    tables.iter().map(|table| name(&table?)).collect()
}

/// An operator's name with its overload. The engine goes on without an operator whose name is missing or has more than 99 bytes,
/// and ends the process when it is called.
fn operator(operator: &Table<'_>) -> Result<String, Damaged> {
    let name = match (operator.text(0)?, operator.text(1)?) {
        ("", _) => return Err(Damaged),
        (name, "") => name.to_owned(),
        (name, overload) => format!("{name}.{overload}"),
    };
    if name.len() > OPERATOR_BYTES_MAX { Err(Damaged) } else { Ok(name) }
}

/// The type of a value that is a tensor, in the union `KernelTypes`.
const TENSOR: u8 = 5;

fn slot(value: &Table<'_>) -> Result<Slot, Damaged> {
    let kind = value.u8(0)?;
    let content = value.table(1)?;
    Ok(match (kind, content) {
        (2, Some(content)) => Slot::Constant(content.i64(0)?.to_string()),
        (3, Some(content)) => Slot::Constant((content.u8(0)? != 0).to_string()),
        (4, Some(content)) => Slot::Constant(content.f64(0)?.to_string()),
        (6, Some(content)) => Slot::Constant(content.text(0)?.to_owned()),
        (TENSOR, Some(tensor)) => port(&tensor)?,
        (1, _) => Slot::Other("nothing"),
        (7..=9, _) => Slot::Other("a list of numbers"),
        (10 | 11, _) => Slot::Other("a list of tensors"),
        _ => return Err(Damaged),
    })
}

fn port(tensor: &Table<'_>) -> Result<Slot, Damaged> {
    let Some(dtype) = dtype_of(tensor.u8(0)?) else {
        return Ok(Slot::Other("a tensor of complex or quantized numbers"));
    };
    let sizes = tensor.i32s(2)?;
    if sizes.len() > DIMS_MAX {
        return Ok(Slot::Other("a tensor of more than 16 dimensions"));
    }
    let sizes: Vec<usize> =
        sizes.map(|size| usize::try_from(size).map_err(|_| Damaged)).collect::<Result<_, _>>()?;
    let dim_order = tensor.bytes(3)?.to_vec();
    let mut sorted = dim_order.clone();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq((0..).take(sizes.len())) {
        return Err(Damaged);
    }
    let name = tensor.table(9)?.map(|extra| extra.text(1)).transpose()?;
    Ok(Slot::Tensor(Port {
        name: name.filter(|name| !name.is_empty()).map(str::to_owned),
        dtype,
        sizes,
        dim_order,
        is_dynamic: tensor.u8(8)? != 0,
    }))
}

/// The codes of `ScalarType` for the types that this API has.
const DTYPES: [(u8, Dtype); 13] = [
    (0, Dtype::U8),
    (1, Dtype::I8),
    (2, Dtype::I16),
    (3, Dtype::I32),
    (4, Dtype::I64),
    (5, Dtype::F16),
    (6, Dtype::F32),
    (7, Dtype::F64),
    (11, Dtype::Bool),
    (15, Dtype::Bf16),
    (27, Dtype::U16),
    (28, Dtype::U32),
    (29, Dtype::U64),
];

/// The element type of a code of `ScalarType`; `None` for complex and quantized numbers.
pub(crate) fn dtype_of(code: u8) -> Option<Dtype> {
    DTYPES.iter().find(|(known, _)| *known == code).map(|(_, dtype)| *dtype)
}

/// The code of `ScalarType` of an element type.
pub(crate) fn code_of(dtype: Dtype) -> Option<u8> {
    DTYPES.iter().find(|(_, known)| *known == dtype).map(|(code, _)| *code)
}
