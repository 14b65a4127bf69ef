//! The names, types and shapes of a decoder's tensors.

use pajamas_pipelines::TensorSpec;
use pajamas_plugin_api::{Dtype, Error};

/// Tokens, [batch, sequence].
pub(crate) const TOKENS: &str = "input_ids";
/// 1 for a cell that is seen, [batch, past + sequence].
pub(crate) const MASK: &str = "attention_mask";
/// Positions of the tokens, [batch, sequence].
pub(crate) const POSITIONS: &str = "position_ids";
/// Logits, [batch, sequence, vocabulary].
pub(crate) const LOGITS: &str = "logits";
const PAST: &str = "past_key_values.";
const PRESENT: &str = "present.";

/// Most layers: a network beyond is none that this crate was made for.
const LAYERS_MAX: usize = 1024;

/// The tensors of a decoder. `past` and `present` have keys and values of each layer, in the same order.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub tokens: TensorSpec,
    pub mask: TensorSpec,
    /// `None` where the network computes them itself.
    pub positions: Option<TensorSpec>,
    pub past: Vec<CellSpec>,
    pub present: Vec<String>,
    pub vocabulary: usize,
}

/// Keys or values of one layer: [batch, heads, past, width].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CellSpec {
    pub name: String,
    pub dtype: Dtype,
    pub heads: usize,
    pub width: usize,
}

impl CellSpec {
    /// Bytes of one token's cell.
    pub(crate) fn bytes(&self) -> usize {
        self.heads * self.width * self.dtype.size_bytes()
    }
}

impl Layout {
    /// The layout of a network with these inputs and outputs and so many tokens.
    ///
    /// # Errors
    /// An input or output is missing, unknown, or of another type or shape; the message names it and what is expected.
    pub(crate) fn of(
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
        vocabulary: usize,
    ) -> Result<Self, Error> {
        let integers = |name: &str| match inputs.iter().find(|input| input.name == name) {
            Some(input) if !matches!(input.dtype, Dtype::I64 | Dtype::I32) || input.shape.len() != 2 => {
                Err(wrong(&format!("its input `{name}` is {}", text(input))))
            }
            found => Ok(found.cloned()),
        };
        let needed = |name: &str| integers(name)?.ok_or_else(|| wrong(&format!("it has no input `{name}`")));
        let (tokens, mask) = (needed(TOKENS)?, needed(MASK)?);
        let positions = integers(POSITIONS)?;
        if let Some(other) = inputs.iter().find(|input| {
            ![TOKENS, MASK, POSITIONS].contains(&input.name.as_str()) && !input.name.starts_with(PAST)
        }) {
            return Err(wrong(&format!("it has an input `{}`", other.name)));
        }
        let past = past(inputs)?;
        let present: Vec<String> = past.iter().map(|cells| cells.name.replacen(PAST, PRESENT, 1)).collect();
        let missing = [LOGITS].into_iter().chain(present.iter().map(String::as_str));
        if let Some(name) = missing.into_iter().find(|name| outputs.iter().all(|output| output.name != *name))
        {
            return Err(wrong(&format!("it has no output `{name}`")));
        }
        let logits = outputs.iter().find(|output| output.name == LOGITS);
        let columns = logits.and_then(|logits| *logits.shape.last()?);
        match columns.unwrap_or(vocabulary) {
            columns if columns >= vocabulary => {
                Ok(Self { tokens, mask, positions, past, present, vocabulary: columns })
            }
            columns => Err(Error::bad_model(format!(
                "the decoder's `{LOGITS}` have {columns} columns, and `vocab_size` of config.json is {vocabulary}"
            ))),
        }
    }

    /// Bytes of one token's cells in all layers.
    pub(crate) fn cell_bytes(&self) -> usize {
        self.past.iter().map(CellSpec::bytes).sum()
    }
}

/// The inputs of the cache, in order of layers, keys first.
fn past(inputs: &[TensorSpec]) -> Result<Vec<CellSpec>, Error> {
    let layers = inputs.iter().filter(|input| input.name.starts_with(PAST)).count() / 2;
    if layers == 0 || layers > LAYERS_MAX {
        return Err(wrong(&format!("it has {layers} layers with inputs `{PAST}N.key` and `{PAST}N.value`")));
    }
    let names = (0..layers).flat_map(|layer| ["key", "value"].map(|part| format!("{PAST}{layer}.{part}")));
    let specs = names.map(|name| {
        let found = inputs.iter().find(|input| input.name == name);
        let found = found.ok_or_else(|| wrong(&format!("it has no input `{name}`")))?;
        match (found.dtype, found.shape.as_slice()) {
            (dtype @ (Dtype::F32 | Dtype::F16), &[_, Some(heads @ 1..), _, Some(width @ 1..)]) => {
                Ok(CellSpec { name, dtype, heads, width })
            }
            _ => Err(wrong(&format!("its input `{name}` is {}", text(found)))),
        }
    });
    let specs: Vec<_> = specs.collect::<Result<_, _>>()?;
    let known =
        |input: &&TensorSpec| !input.name.starts_with(PAST) || specs.iter().any(|s| s.name == input.name);
    match inputs.iter().find(|input| !known(input)) {
        Some(other) => Err(wrong(&format!("it has an input `{}`", other.name))),
        None => Ok(specs),
    }
}

fn text(spec: &TensorSpec) -> String {
    let dims = spec.shape.iter().map(|dim| dim.map_or_else(|| "?".to_owned(), |dim| dim.to_string()));
    format!("{:?} [{}]", spec.dtype, dims.collect::<Vec<_>>().join(", "))
}

fn wrong(problem: &str) -> Error {
    Error::bad_model(format!(
        "the network is no decoder with a cache: {problem}; expected are the inputs `{TOKENS}` and `{MASK}` of integers, perhaps \
         `{POSITIONS}`, and `{PAST}N.key` and `{PAST}N.value` of F32 or F16 [batch, heads, past, width] with known heads and \
         width, and the outputs `{LOGITS}`, `{PRESENT}N.key` and `{PRESENT}N.value`, as Optimum exports them with the task \
         `text-generation-with-past`; the option `pipeline` = \"tensors\" runs any network on raw tensors"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, dtype: Dtype, dims: &[i64]) -> TensorSpec {
        let shape = dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
        TensorSpec { name: name.to_owned(), dtype, shape }
    }

    fn decoder() -> (Vec<TensorSpec>, Vec<TensorSpec>) {
        let integers = |name| spec(name, Dtype::I64, &[-1, -1]);
        let cells = |name| spec(name, Dtype::F16, &[-1, 3, -1, 64]);
        let inputs = vec![
            integers("input_ids"),
            integers("attention_mask"),
            // Optimum's order is not by layers.
            cells("past_key_values.1.key"),
            cells("past_key_values.1.value"),
            cells("past_key_values.0.key"),
            cells("past_key_values.0.value"),
        ];
        let outputs = ["present.0.key", "present.0.value", "present.1.key", "present.1.value"];
        let outputs = outputs.map(cells).into_iter().chain([spec("logits", Dtype::F32, &[-1, -1, 100])]);
        (inputs, outputs.collect())
    }

    #[test]
    fn a_decoder_is_known_by_its_tensors() {
        let (inputs, outputs) = decoder();
        let layout = Layout::of(&inputs, &outputs, 98).unwrap();
        assert_eq!((layout.vocabulary, layout.cell_bytes()), (100, 4 * 3 * 64 * 2));
        assert!(layout.positions.is_none());
        assert_eq!(layout.past[0].name, "past_key_values.0.key");
        assert_eq!(layout.present[3], "present.1.value");
    }

    #[test]
    fn what_is_no_decoder_is_refused_with_what_is_wrong() {
        type Change = fn(&mut Vec<TensorSpec>, &mut Vec<TensorSpec>);
        let cases: [(&str, Change); 8] = [
            ("it has no input `attention_mask`", |inputs, _| drop(inputs.remove(1))),
            ("it has an input `use_cache_branch`", |inputs, _| {
                inputs.push(spec("use_cache_branch", Dtype::Bool, &[1]));
            }),
            ("its input `input_ids` is F32 [?, ?]", |inputs, _| inputs[0].dtype = Dtype::F32),
            ("it has 0 layers", |inputs, _| inputs.truncate(2)),
            ("`past_key_values.1.key` is F16 [?, ?, ?, 64]", |inputs, _| inputs[2].shape[1] = None),
            ("it has no input `past_key_values.1.key`", |inputs, _| {
                inputs[2].name = "past_key_values.7.key".to_owned();
            }),
            ("it has no output `present.0.value`", |_, outputs| drop(outputs.remove(1))),
            ("have 50 columns", |_, outputs| outputs[4].shape[2] = Some(50)),
        ];
        for (expected, change) in cases {
            let (mut inputs, mut outputs) = decoder();
            change(&mut inputs, &mut outputs);
            let error = Layout::of(&inputs, &outputs, 98).unwrap_err();
            assert!(error.message().contains(expected), "{expected}: {error}");
        }
    }
}
