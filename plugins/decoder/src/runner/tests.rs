//! The runner over a network whose logits tell which tokens at which positions each row has seen.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

/// Heads and width of the fake's cells: a cell holds token and position, one in each head's first place.
const HEADS: usize = 2;
const WIDTH: usize = 3;
const VOCABULARY: usize = 5;
const CONTEXT: usize = 40;
const SEQUENCES: usize = 4;

#[derive(Clone, Debug)]
struct HostValue {
    dtype: Dtype,
    shape: Vec<i64>,
    data: Arc<[u8]>,
}

impl Value for HostValue {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[i64] {
        &self.shape
    }

    fn bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        Ok(Cow::Borrowed(&self.data))
    }
}

impl HostValue {
    fn new(dtype: Dtype, shape: &[usize], data: Vec<u8>) -> Self {
        let shape = shape.iter().map(|dim| *dim as i64).collect();
        Self { dtype, shape, data: data.into() }
    }

    fn dims(&self) -> Vec<usize> {
        self.shape.iter().map(|dim| *dim as usize).collect()
    }

    fn integers(&self) -> Vec<i64> {
        self.data.as_chunks().0.iter().map(|bytes| i64::from_ne_bytes(*bytes)).collect()
    }

    fn floats(&self) -> Vec<f32> {
        match self.dtype {
            Dtype::F16 => self.data.as_chunks().0.iter().map(|b| f16::from_ne_bytes(*b).to_f32()).collect(),
            _ => self.data.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect(),
        }
    }
}

/// One layer of cells that are copies of what went in. Its logits are sums over the cells that a token sees.
struct Fake {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    cells: Dtype,
    /// Takes the first cells as seen, as many as the mask has ones.
    counts_the_mask: bool,
    runs: Arc<AtomicUsize>,
    /// The values that were made of bytes: inputs and copies of cells.
    copies: Arc<AtomicUsize>,
    fails: Arc<AtomicUsize>,
    metadata: BTreeMap<String, String>,
}

impl Fake {
    fn new(cells: Dtype) -> Self {
        let spec = |name: &str, dtype, dims: &[Option<usize>]| TensorSpec {
            name: name.to_owned(),
            dtype,
            shape: dims.to_vec(),
        };
        let integers = |name| spec(name, Dtype::I64, &[None, None]);
        let cache = |name| spec(name, cells, &[None, Some(HEADS), None, Some(WIDTH)]);
        Self {
            inputs: vec![
                integers(TOKENS),
                integers(MASK),
                integers(POSITIONS),
                cache("past_key_values.0.key"),
                cache("past_key_values.0.value"),
            ],
            outputs: vec![
                spec(LOGITS, Dtype::F32, &[None, None, Some(VOCABULARY)]),
                cache("present.0.key"),
                cache("present.0.value"),
            ],
            cells,
            counts_the_mask: false,
            runs: Arc::default(),
            copies: Arc::default(),
            fails: Arc::default(),
            metadata: BTreeMap::new(),
        }
    }

    fn layout(&self) -> Layout {
        Layout::of(&self.inputs, &self.outputs, VOCABULARY).unwrap()
    }

    fn runner(self, rows_max: usize) -> DecoderRunner<Self> {
        let layout = self.layout();
        DecoderRunner::new(self, layout, Limits { sequences: SEQUENCES, context_len: CONTEXT, rows_max })
    }

    fn bytes(&self, numbers: &[f32]) -> Vec<u8> {
        match self.cells {
            Dtype::F16 => numbers.iter().flat_map(|x| f16::from_f32(*x).to_ne_bytes()).collect(),
            _ => numbers.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        }
    }

    /// The cells with those of the new tokens behind them: token and position in the heads.
    fn appended(&self, past: &HostValue, tokens: &[i64], positions: &[i64]) -> HostValue {
        let dims = past.dims();
        let (rows, len) = (dims[0], dims[2]);
        let new = tokens.len() / rows;
        let old = past.floats();
        let mut all = Vec::new();
        for row in 0..rows {
            for head in 0..HEADS {
                let begin = (row * HEADS + head) * len * WIDTH;
                all.extend_from_slice(&old[begin..begin + len * WIDTH]);
                for index in row * new..(row + 1) * new {
                    let number = if head == 0 { tokens[index] } else { positions[index] } as f32;
                    all.extend([number, number + 0.5, -number]);
                }
            }
        }
        HostValue::new(self.cells, &[rows, HEADS, len + new, WIDTH], self.bytes(&all))
    }

    fn logits(&self, keys: &HostValue, values: &HostValue, mask: &[i64], new: usize) -> HostValue {
        let dims = keys.dims();
        let (rows, len) = (dims[0], dims[2]);
        let (keys_all, values_all) = (keys.floats(), values.floats());
        let mut all = Vec::new();
        for row in 0..rows {
            for query in len - new..len {
                let mut seen = Vec::new();
                for cell in 0..=query {
                    let at = |head: usize| ((row * HEADS + head) * len + cell) * WIDTH;
                    let of_row = &mask[row * len..(row + 1) * len];
                    let is_seen = if self.counts_the_mask {
                        (cell as i64) < of_row.iter().sum::<i64>()
                    } else {
                        of_row[cell] == 1
                    };
                    if is_seen {
                        assert_eq!(keys_all[at(0)], values_all[at(0)]);
                        seen.push((keys_all[at(0)], keys_all[at(1)]));
                    }
                }
                all.extend(sums(seen.into_iter()));
            }
        }
        let data = all.iter().flat_map(|x: &f32| x.to_ne_bytes()).collect();
        HostValue::new(Dtype::F32, &[rows, new, VOCABULARY], data)
    }
}

/// Sums that tell apart which tokens were seen at which positions; small enough to be exact.
fn sums(seen: impl Iterator<Item = (f32, f32)>) -> [f32; VOCABULARY] {
    seen.fold([0.0; VOCABULARY], |sums, (token, position)| {
        let own = [1.0, token, position, token * (position + 1.0), token * token * (position + 2.0)];
        std::array::from_fn(|index| sums[index] + own[index])
    })
}

impl TensorRunner for Fake {
    type Value = HostValue;

    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn value(&self, tensor: &TensorView<'_>) -> Result<HostValue, Error> {
        self.copies.fetch_add(1, Ordering::Relaxed);
        Ok(HostValue { dtype: tensor.dtype, shape: tensor.shape.to_vec(), data: tensor.data.into() })
    }

    fn run(&self, inputs: &[(&str, &HostValue)], outputs: &[&str]) -> Result<Vec<HostValue>, Error> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) > 0 {
            self.fails.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::internal("out of order"));
        }
        let given = |name: &str| inputs.iter().find(|(known, _)| *known == name).unwrap().1;
        let (tokens, mask, positions) = (given(TOKENS), given(MASK), given(POSITIONS));
        let (past_keys, past_values) = (given("past_key_values.0.key"), given("past_key_values.0.value"));
        let (rows, new) = (tokens.dims()[0], tokens.dims()[1]);
        assert_eq!(positions.dims(), [rows, new]);
        assert_eq!(mask.dims(), [rows, past_keys.dims()[2] + new]);
        let keys = self.appended(past_keys, &tokens.integers(), &positions.integers());
        let values = self.appended(past_values, &tokens.integers(), &positions.integers());
        let logits = self.logits(&keys, &values, &mask.integers(), new);
        let result = |name: &&str| match *name {
            LOGITS => logits.clone(),
            "present.0.key" => keys.clone(),
            "present.0.value" => values.clone(),
            other => panic!("{other}"),
        };
        Ok(outputs.iter().map(result).collect())
    }
}

/// A batch that appends these tokens to these sequences, in order of sequences; all rows are outputs.
fn batch(held: &[Vec<i32>], new: &[(usize, Vec<i32>)]) -> Batch {
    let mut batch = Batch::default();
    for (sequence, tokens) in new {
        for (index, token) in tokens.iter().enumerate() {
            batch.push(*token, held[*sequence].len() + index, *sequence, true);
        }
    }
    batch
}

/// What a sequence alone gives after each of its last `count` tokens.
fn expected(tokens: &[i32], count: usize) -> Vec<[f32; VOCABULARY]> {
    let seen = |end: usize| (0..end).map(|at| (tokens[at] as f32, at as f32));
    (tokens.len() - count + 1..=tokens.len()).map(|end| sums(seen(end))).collect()
}

/// Appends the tokens to runner and model, and compares all logits.
fn step(runner: &mut DecoderRunner<Fake>, held: &mut [Vec<i32>], new: &[(usize, Vec<i32>)]) {
    let mut batch = batch(held, new);
    runner.decode(&mut batch, &|| false).unwrap();
    let mut row = 0;
    for (sequence, tokens) in new {
        held[*sequence].extend(tokens);
        for expected in expected(&held[*sequence], tokens.len()) {
            assert_eq!(runner.logits(&[row])[0].unwrap(), expected, "{new:?}, sequence {sequence}");
            row += 1;
        }
    }
    assert_eq!(runner.logits(&[row]), [None]);
}

#[derive(Clone, Debug)]
enum Action {
    /// Appends so many tokens to each sequence, none where it is 0.
    Step([usize; SEQUENCES]),
    /// Cuts a sequence to a part of its length.
    Cut(usize, usize),
    /// Copies one sequence to another, which is emptied first.
    Copy(usize, usize),
}

fn action() -> impl Strategy<Value = Action> {
    let count = prop_oneof![3 => Just(1_usize), 1 => Just(0), 1 => 2..6_usize];
    prop_oneof![
        6 => [count.clone(), count.clone(), count.clone(), count].prop_map(Action::Step),
        1 => (0..SEQUENCES, 0..5_usize).prop_map(|(sequence, part)| Action::Cut(sequence, part)),
        1 => (0..SEQUENCES, 0..SEQUENCES).prop_map(|(source, target)| Action::Copy(source, target)),
    ]
}

proptest! {
    #[test]
    fn any_mix_of_steps_cuts_and_copies_gives_what_single_sequences_give(
        actions in proptest::collection::vec(action(), 1..30),
        rows_max in 1..=SEQUENCES,
        is_half in any::<bool>(),
    ) {
        let mut runner = Fake::new(if is_half { Dtype::F16 } else { Dtype::F32 }).runner(rows_max);
        let mut held: Vec<Vec<i32>> = vec![Vec::new(); SEQUENCES];
        let mut next = 0;
        for action in actions {
            match action {
                Action::Step(counts) => {
                    let mut new = Vec::new();
                    for (sequence, count) in counts.into_iter().enumerate() {
                        let count = count.min(CONTEXT - held[sequence].len());
                        let tokens = (0..count).map(|_| { next = (next + 5) % 23; next });
                        let tokens: Vec<i32> = tokens.collect();
                        if count > 0 {
                            new.push((sequence, tokens));
                        }
                    }
                    if !new.is_empty() {
                        step(&mut runner, &mut held, &new);
                        prop_assert!(runner.store.cell_count() <= SEQUENCES * CONTEXT);
                    }
                }
                Action::Cut(sequence, part) => {
                    let len = held[sequence].len() * part / 4;
                    let len = len.min(held[sequence].len());
                    prop_assert!(runner.remove(sequence, len));
                    held[sequence].truncate(len);
                }
                Action::Copy(source, target) if source != target => {
                    prop_assert!(runner.remove(target, 0));
                    runner.copy(source, target);
                    held[target] = held[source].clone();
                }
                Action::Copy(..) => {}
            }
        }
    }
}

#[test]
fn the_same_sequences_go_on_without_a_copy_and_in_one_run() {
    let fake = Fake::new(Dtype::F32);
    let (runs, copies) = (Arc::clone(&fake.runs), Arc::clone(&fake.copies));
    let mut runner = fake.runner(SEQUENCES);
    let mut held: Vec<Vec<i32>> = vec![Vec::new(); SEQUENCES];
    step(&mut runner, &mut held, &[(0, vec![1, 2, 3]), (1, vec![4, 5, 6, 7]), (3, vec![8, 9])]);
    let next = [(0, vec![1]), (1, vec![2]), (3, vec![3])];
    step(&mut runner, &mut held, &next);
    let counts = || (runs.load(Ordering::Relaxed), copies.load(Ordering::Relaxed));
    for _ in 0..5 {
        let (runs_before, copies_before) = counts();
        step(&mut runner, &mut held, &next);
        // Tokens, mask and positions are made, and nothing else.
        assert_eq!(counts(), (runs_before + 1, copies_before + 3));
    }
    // A prompt beside them disturbs nobody.
    let (runs_before, copies_before) = counts();
    let with_prompt = [(0, vec![1]), (1, vec![2]), (2, vec![7, 7]), (3, vec![3])];
    step(&mut runner, &mut held, &with_prompt);
    assert_eq!(counts(), (runs_before + 2, copies_before + 3 + 3 + 2));
    assert!(runner.cell_bytes().load(Ordering::Relaxed) > 0);
}

#[test]
fn a_failed_or_abandoned_step_leaves_the_sequences_as_they_were() {
    let fake = Fake::new(Dtype::F32);
    let fails = Arc::clone(&fake.fails);
    let mut runner = fake.runner(SEQUENCES);
    let mut held: Vec<Vec<i32>> = vec![Vec::new(); SEQUENCES];
    step(&mut runner, &mut held, &[(0, vec![1, 2]), (1, vec![3, 4])]);
    fails.store(1, Ordering::Relaxed);
    let new = [(0, vec![5]), (1, vec![6])];
    let error = runner.decode(&mut batch(&held, &new), &|| false).unwrap_err();
    assert_eq!(error, DecodeError::Failed("out of order".to_owned()));
    step(&mut runner, &mut held, &new);
    // The first run is done before anyone is asked; the caller removes what it wrote.
    let prompts = [(2, vec![1, 1]), (3, vec![2, 2])];
    assert_eq!(runner.decode(&mut batch(&held, &prompts), &|| true), Err(DecodeError::Aborted));
    assert!(runner.remove(2, 0) && runner.remove(3, 0));
    step(&mut runner, &mut held, &prompts);
    // Beyond the context nothing is computed.
    let long = [(0, vec![1; CONTEXT])];
    assert_eq!(runner.decode(&mut batch(&held, &long), &|| false), Err(DecodeError::NoCells));
    step(&mut runner, &mut held, &[(0, vec![9])]);
    // What a sequence does not hold cannot be kept, nor gone on from.
    assert!(!runner.remove(0, held[0].len() + 1));
    let mut gap = Batch::default();
    gap.push(1, held[0].len() + 1, 0, true);
    let error = runner.decode(&mut gap, &|| false).unwrap_err().to_string();
    assert!(error.contains("its cache holds 4 tokens"), "{error}");
}

#[test]
fn a_network_that_counts_the_mask_is_found_out() {
    for counts_the_mask in [false, true] {
        let fake = Fake { counts_the_mask, ..Fake::new(Dtype::F32) };
        let layout = fake.layout();
        let (_, may_pad) = crate::probe::may_pad(fake, &layout);
        assert_eq!(may_pad, !counts_the_mask);
    }
    let fake = Fake::new(Dtype::F32);
    fake.fails.store(1, Ordering::Relaxed);
    let layout = fake.layout();
    assert!(!crate::probe::may_pad(fake, &layout).1, "a network that fails is run alone");
}
