//! What an engine does for this crate: compute rows of tokens over a cache of sequences.

/// Asked between parts of a computation; true when nobody waits for its result any more.
pub type AbortCheck<'a> = &'a (dyn Fn() -> bool + Sync);

/// A causal language model with a key-value cache of several sequences, numbered from 0.
///
/// The scheduler's thread is the only one that calls it, after it was moved there.
pub trait LmRunner: Send {
    /// Tokens that one sequence can hold.
    fn sequence_len_max(&self) -> usize;

    /// Whether another device does nearly all of the computation, so that [`decode`](Self::decode) returns long before it is
    /// done. What does not have to wait for the next step is then done while it runs, and the cores are free for choosing
    /// tokens.
    fn computes_elsewhere(&self) -> bool {
        false
    }

    /// Computes the rows of `batch` and appends them to their sequences, or lets another device begin with that. The
    /// positions of a sequence follow its cells without a gap.
    ///
    /// # Errors
    /// There is no room, `abort` said so, or the computation failed; what the cache then holds of the batch's rows is
    /// removed by the caller, but for [`DecodeError::NoCells`], which leaves the cache as it was.
    fn decode(&mut self, batch: &mut Batch, abort: AbortCheck<'_>) -> Result<(), DecodeError>;

    /// The logits of these rows of the last batch, one for each token of the vocabulary, where a row was an output. Waits until
    /// they are computed.
    fn logits(&mut self, rows: &[usize]) -> Vec<Option<&[f32]>>;

    /// Removes the cells of `sequence` from position `from` on. False when the kind of memory cannot remove a part.
    fn remove(&mut self, sequence: usize, from: usize) -> bool;

    /// Copies all cells of `source` to `target`, which is empty.
    fn copy(&mut self, source: usize, target: usize);
}

/// Why a batch was not computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No free cells in the key-value cache; the cache is unchanged.
    #[error("the key-value cache is full")]
    NoCells,
    /// The abort check said so; cells of the batch may have been written.
    #[error("aborted")]
    Aborted,
    /// Anything else, in words for the log and the client.
    #[error("the engine could not compute the batch: {0}")]
    Failed(String),
}

/// Rows of one step, as columns of equal length. Reused between steps.
#[derive(Debug, Default)]
pub struct Batch {
    /// The tokens.
    pub tokens: Vec<i32>,
    /// Their positions in their sequences, from 0.
    pub positions: Vec<i32>,
    /// Their sequences.
    pub sequences: Vec<i32>,
    /// 1 where the logits are wanted, else 0.
    pub outputs: Vec<i8>,
}

impl Batch {
    /// Removes all rows.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
    }

    /// Adds a row and returns its index.
    pub fn push(&mut self, token: i32, position: usize, sequence: usize, output: bool) -> usize {
        self.tokens.push(token);
        self.positions.push(i32::try_from(position).unwrap_or(i32::MAX));
        self.sequences.push(i32::try_from(sequence).unwrap_or(i32::MAX));
        self.outputs.push(i8::from(output));
        self.tokens.len() - 1
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}
