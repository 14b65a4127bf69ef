//! Which rows of which tensors hold the cells of which sequence.

use pajamas_pipelines::{TensorRunner, Value};
use pajamas_plugin_api::Error;

use crate::cells::{Cells, Stretch};
use crate::layout::CellSpec;

/// The cells of all sequences, in groups of sequences that ran together last. A row that its sequence has left goes with the
/// next change, so all cells together are at most sequences × longest sequence, twice while a run or a copy goes on.
#[derive(Debug)]
pub(super) struct Store<V> {
    sequences: Vec<Sequence>,
    /// By number; a free number has none.
    groups: Vec<Option<Group<V>>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sequence {
    /// Tokens whose cells it holds.
    len: usize,
    /// Where they are, if it has ever held any.
    place: Option<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    group: usize,
    row: usize,
    /// The cell of the first token: those before it are padding.
    begin: usize,
}

#[derive(Debug)]
struct Group<V> {
    cells: Cells<V>,
    /// The sequence of each row; `None` after it has left.
    members: Vec<Option<usize>>,
}

impl<V: Value> Store<V> {
    pub(super) fn new(sequences: usize) -> Self {
        Self { sequences: vec![Sequence::default(); sequences], groups: Vec::new() }
    }

    /// Tokens that the sequence holds; none for one that does not exist.
    pub(super) fn len(&self, sequence: usize) -> usize {
        self.sequences.get(sequence).map_or(0, |sequence| sequence.len)
    }

    /// Cells of all groups, padding included.
    pub(super) fn cell_count(&self) -> usize {
        self.groups.iter().flatten().map(|group| group.cells.rows * group.cells.len).sum()
    }

    /// Makes the sequence hold its first `len` tokens only. False when it holds fewer.
    pub(super) fn cut(&mut self, sequence: usize, len: usize) -> bool {
        let Some(held) = self.sequences.get_mut(sequence) else { return len == 0 };
        if len > held.len {
            return false;
        }
        held.len = len;
        if len == 0 {
            self.leave(sequence);
        }
        true
    }

    /// Makes `target`, which holds nothing, hold what `source` holds. Memory is shared where `source` is alone in its group.
    pub(super) fn copy<R: TensorRunner<Value = V>>(
        &mut self,
        runner: &R,
        specs: &[CellSpec],
        source: usize,
        target: usize,
    ) -> Result<(), Error> {
        let Some(stretch) = self.stretch(source) else { return Ok(()) };
        let len = stretch.len;
        let cells = if stretch.cells.rows == 1 && stretch.begin == 0 && stretch.cells.len == len {
            stretch.cells.clone()
        } else {
            Cells::of(runner, specs, &[Some(stretch)], len)?
        };
        self.settle(&[target], cells, &[len]);
        self.separate(runner, specs, self.left_behind(&[]))
    }

    /// The group whose rows are these sequences and no others, each at the end of its row. Copies rows where there is none;
    /// sequences that are left behind in an old group get one of their own.
    ///
    /// # Errors
    /// Memory does not suffice, or the engine failed; all sequences are as they were.
    pub(super) fn gather<R: TensorRunner<Value = V>>(
        &mut self,
        runner: &R,
        specs: &[CellSpec],
        members: &[usize],
    ) -> Result<usize, Error> {
        if let Some(group) = self.group_of(members) {
            return Ok(group);
        }
        let lens: Vec<usize> = members.iter().map(|member| self.len(*member)).collect();
        let len_max = lens.iter().copied().max().unwrap_or(0);
        let stretches: Vec<_> = members.iter().map(|member| self.stretch(*member)).collect();
        let cells = Cells::of(runner, specs, &stretches, len_max)?;
        self.separate(runner, specs, self.left_behind(members))?;
        Ok(self.settle(members, cells, &lens))
    }

    /// Gives each of these sequences a group of its own.
    fn separate<R: TensorRunner<Value = V>>(
        &mut self,
        runner: &R,
        specs: &[CellSpec],
        sequences: Vec<usize>,
    ) -> Result<(), Error> {
        for sequence in sequences {
            let Some(stretch) = self.stretch(sequence) else { continue };
            let len = stretch.len;
            let cells = Cells::of(runner, specs, &[Some(stretch)], len)?;
            self.settle(&[sequence], cells, &[len]);
        }
        Ok(())
    }

    /// The cells of a group.
    pub(super) fn cells(&self, group: usize) -> Result<&Cells<V>, Error> {
        let found = self.groups.get(group).and_then(Option::as_ref);
        found.map(|group| &group.cells).ok_or_else(|| Error::internal("a group of sequences is gone"))
    }

    /// Replaces the cells of a group by what a run made of them, `len` tokens more for each of its sequences.
    pub(super) fn advance(&mut self, group: usize, cells: Cells<V>, len: usize) {
        let Some(Some(group)) = self.groups.get_mut(group) else { return };
        group.cells = cells;
        for member in group.members.iter().flatten() {
            self.sequences[*member].len += len;
        }
    }

    /// The group that has exactly these rows, none of which has been cut.
    fn group_of(&self, members: &[usize]) -> Option<usize> {
        let number = self.sequences.get(*members.first()?)?.place?.group;
        let group = self.groups.get(number)?.as_ref()?;
        let is_whole = |member: &Option<usize>| {
            let sequence = member.and_then(|member| self.sequences.get(member));
            sequence.is_some_and(|sequence| {
                sequence.place.is_some_and(|place| place.begin + sequence.len == group.cells.len)
            })
        };
        let are_same = group.members.iter().copied().eq(members.iter().copied().map(Some));
        (are_same && group.members.iter().all(is_whole)).then_some(number)
    }

    /// What a sequence holds, if anything.
    fn stretch(&self, sequence: usize) -> Option<Stretch<'_, V>> {
        let Sequence { len, place } = *self.sequences.get(sequence).filter(|sequence| sequence.len > 0)?;
        let Place { group, row, begin } = place?;
        let cells = &self.groups.get(group)?.as_ref()?.cells;
        Some(Stretch { cells, row, begin, len })
    }

    /// The sequences, none of these, whose group will have a row that nobody owns once these are in a group of their own.
    fn left_behind(&self, members: &[usize]) -> Vec<usize> {
        let stays = |member: &Option<usize>| member.is_some_and(|member| !members.contains(&member));
        let torn = self.groups.iter().flatten().filter(|group| !group.members.iter().all(stays));
        torn.flat_map(|group| group.members.iter().copied().filter(stays).flatten()).collect()
    }

    /// Puts sequences into a new group with these cells; their old places are given up. Returns its number.
    fn settle(&mut self, members: &[usize], cells: Cells<V>, lens: &[usize]) -> usize {
        for member in members {
            self.leave(*member);
        }
        let free = self.groups.iter().position(Option::is_none);
        let number = free.unwrap_or(self.groups.len());
        for (row, (member, len)) in members.iter().zip(lens).enumerate() {
            let place = Place { group: number, row, begin: cells.len - len };
            self.sequences[*member] = Sequence { len: *len, place: Some(place) };
        }
        let group = Some(Group { cells, members: members.iter().copied().map(Some).collect() });
        match free {
            Some(number) => self.groups[number] = group,
            None => self.groups.push(group),
        }
        number
    }

    /// Takes a sequence out of its group, which is freed with the last one.
    fn leave(&mut self, sequence: usize) {
        let Some(place) = self.sequences.get_mut(sequence).and_then(|sequence| sequence.place.take()) else {
            return;
        };
        let Some(slot) = self.groups.get_mut(place.group) else { return };
        if let Some(group) = slot {
            group.members[place.row] = None;
            if group.members.iter().all(Option::is_none) {
                *slot = None;
            }
        }
    }
}
