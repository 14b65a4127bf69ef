//! The network of an encoder, and the batches that it reads.

use std::sync::Arc;

use pajamas_plugin_api::Error;

use super::tokens::Sequence;
use crate::numbers;
use crate::open::Kind;
use crate::runner::{TensorRunner, TensorSpec, Value};
use crate::tensors;

/// Sequences of one run, where the network takes any number.
const BATCH_MAX: usize = 32;

/// Tokens of one run, padding included; a single longer sequence is a run of its own.
const BATCH_TOKENS_MAX: usize = 8192;

/// A network that reads token ids.
pub(crate) struct Encoder<R: TensorRunner> {
    network: Arc<R>,
    inputs: Vec<(Feed, TensorSpec)>,
    constants: Vec<(String, R::Value)>,
    output: String,
    pad: u32,
    batch: Option<usize>,
    len: Option<usize>,
}

/// What an input gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Feed {
    Ids,
    Mask,
    Types,
    Positions,
}

impl Feed {
    fn of(name: &str) -> Option<Self> {
        match name {
            "input_ids" => Some(Self::Ids),
            "attention_mask" => Some(Self::Mask),
            "token_type_ids" => Some(Self::Types),
            "position_ids" => Some(Self::Positions),
            _ => None,
        }
    }
}

/// What the network made of a batch.
#[derive(Debug)]
pub(crate) struct Encoded {
    numbers: Vec<f32>,
    /// Numbers of one sequence.
    each: usize,
    /// Numbers of one token, if there are some for each token, else of one sequence.
    pub(crate) width: usize,
}

impl Encoded {
    /// The numbers of one sequence, those of its padding included.
    pub(crate) fn sequence(&self, index: usize) -> &[f32] {
        self.numbers.get(index * self.each..(index + 1) * self.each).unwrap_or_default()
    }
}

impl<R: TensorRunner> Encoder<R> {
    /// The encoder of `network`, of which `output` is wanted. `constants` are inputs that are the same in every run.
    ///
    /// # Errors
    /// The network has no `input_ids`, or inputs that an encoder of texts has not.
    pub(crate) fn new(
        network: Arc<R>,
        output: &str,
        pad: u32,
        constants: Vec<(String, R::Value)>,
        kind: Kind,
    ) -> Result<Self, Error> {
        let mut inputs = Vec::new();
        for spec in network.inputs() {
            match Feed::of(&spec.name) {
                Some(feed) => inputs.push((feed, spec.clone())),
                None if constants.iter().any(|(name, _)| *name == spec.name) => {}
                None => return Err(unusable(network.inputs(), kind)),
            }
        }
        let ids = inputs.iter().find(|(feed, _)| *feed == Feed::Ids).map(|(_, spec)| spec.shape.as_slice());
        let Some(&[batch, len]) = ids else { return Err(unusable(network.inputs(), kind)) };
        Ok(Self { inputs, constants, output: output.to_owned(), pad, batch, len, network })
    }

    /// The network itself.
    pub(crate) fn network(&self) -> &R {
        &self.network
    }

    /// The only length in tokens that the network takes, if it is fixed.
    pub(crate) fn fixed_len(&self) -> Option<usize> {
        self.len
    }

    /// Which sequences to read together: those of similar length, so that little is padding.
    pub(crate) fn batches(&self, sequences: &[Sequence]) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(sequences[*index].ids.len()));
        let count_max = self.batch.unwrap_or(BATCH_MAX).max(1);
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for index in order {
            let fits = |batch: &Vec<usize>| {
                let longest = batch.first().map_or(0, |first| sequences[*first].ids.len());
                batch.len() < count_max && longest * (batch.len() + 1) <= BATCH_TOKENS_MAX
            };
            match batches.last_mut().filter(|batch| fits(batch)) {
                Some(batch) => batch.push(index),
                None => batches.push(vec![index]),
            }
        }
        batches
    }

    /// Reads one batch.
    ///
    /// # Errors
    /// The network failed, or its output is not one for each sequence.
    pub(crate) fn run(&self, batch: &[&Sequence]) -> Result<Encoded, Error> {
        let longest = batch.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0);
        let len = self.len.unwrap_or(longest);
        let count = self.batch.unwrap_or(batch.len());
        let shape = [count as i64, len as i64];
        let mut values = Vec::with_capacity(self.inputs.len());
        for (feed, spec) in &self.inputs {
            let numbers = self.feed(*feed, batch, count, len);
            values.push(numbers::from_i64s(&*self.network, spec, &shape, &numbers)?);
        }
        let names = self.inputs.iter().map(|(_, spec)| spec.name.as_str());
        let mut inputs: Vec<_> = names.zip(&values).collect();
        inputs.extend(self.constants.iter().map(|(name, value)| (name.as_str(), value)));
        let results = self.network.run(&inputs, &[&self.output])?;
        let Some(result) = results.first() else {
            return Err(Error::internal("the engine returned no output"));
        };
        let numbers = numbers::to_f32s(result)?;
        let dims: Vec<_> = result.shape().iter().filter_map(|dim| usize::try_from(*dim).ok()).collect();
        let width = match *dims.as_slice() {
            [rows, width] if rows == count => width,
            [rows, tokens, width] if rows == count && tokens == len => width,
            _ => {
                return Err(Error::bad_model(format!(
                    "the network returned `{}` of shape {dims:?} for {count} sequences of {len} tokens",
                    self.output
                )));
            }
        };
        Ok(Encoded { each: numbers.len() / count.max(1), numbers, width })
    }

    /// The numbers of one input, row by row; padding is on the right.
    fn feed(&self, feed: Feed, batch: &[&Sequence], count: usize, len: usize) -> Vec<i64> {
        let empty = Sequence::default();
        let rows = batch.iter().copied().chain(std::iter::repeat(&empty)).take(count);
        let mut numbers = Vec::with_capacity(count * len);
        for sequence in rows {
            let used = sequence.ids.len().min(len);
            let padding = std::iter::repeat_n(i64::from(self.pad), len - used);
            let zeros = std::iter::repeat_n(0, len - used);
            match feed {
                Feed::Ids => {
                    numbers.extend(sequence.ids.iter().take(used).map(|id| i64::from(*id)).chain(padding))
                }
                Feed::Mask => numbers.extend(std::iter::repeat_n(1, used).chain(zeros)),
                Feed::Types => {
                    numbers.extend(sequence.types.iter().take(used).map(|id| i64::from(*id)).chain(zeros))
                }
                Feed::Positions => numbers.extend(0..len as i64),
            }
        }
        numbers
    }
}

fn unusable(inputs: &[TensorSpec], kind: Kind) -> Error {
    Error::bad_model(format!(
        "the {kind} pipeline needs a network with the input input_ids [batch, tokens], and may be attention_mask, \
         token_type_ids and position_ids; this one has {}",
        tensors::list(inputs)
    ))
}
