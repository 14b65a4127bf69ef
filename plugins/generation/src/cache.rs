//! Which slot a new request gets, and what of its prompt is already computed there. Pure decisions, no engine.

/// Fewest tokens that make it worth to copy another slot's cells: below, computing them again costs less. A copy moves
/// the whole buffer of a slot, 94 MB for SmolLM2-135M with 4096 cells, which takes as long as 7 tokens of prompt on 2
/// cores; larger models gain more, because their weights grow faster than their cells.
const COPY_TOKENS_MIN: usize = 16;
/// A slot with fewer tokens than this holds nothing that is worth keeping for another conversation.
const KEEP_TOKENS_MIN: usize = 64;

/// What is known about one slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotView<'a> {
    /// Tokens whose cells the slot holds.
    pub cached: &'a [i32],
    /// A stream uses it.
    pub busy: bool,
    /// Number of the step at which it was used last; higher is more recent.
    pub last_used: u64,
}

/// A slot for a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The slot.
    pub slot: usize,
    /// Tokens at the beginning of the prompt that need no computation.
    pub reused: usize,
    /// They are another slot's and must be copied first.
    pub copy_from: Option<usize>,
}

/// Chooses an idle slot, or `None` when all are busy. The last token of the prompt is always computed, because its
/// logits are needed.
///
/// The slot that shares the longest prefix wins; without a useful one, an empty slot, then the one that was not used
/// for the longest time. Among equals the lowest number, which keeps the busy slots together: llama.cpp computes
/// neighbours in one go. A longer prefix in another slot is copied.
pub(crate) fn place(prompt: &[i32], slots: &[SlotView<'_>], reuse: bool) -> Option<Placement> {
    let usable = prompt.len().saturating_sub(1);
    let shared = |slot: &SlotView<'_>| if reuse { common_prefix(prompt, slot.cached).min(usable) } else { 0 };
    let own = |slot: &SlotView<'_>| {
        let shared = shared(slot);
        // A handful of common tokens (a template's first words) is no reason to take away another conversation's cells.
        if shared * 2 >= slot.cached.len().min(KEEP_TOKENS_MIN) { shared } else { 0 }
    };
    let (slot, view) = slots.iter().enumerate().filter(|(_, slot)| !slot.busy).min_by_key(|(_, slot)| {
        (
            std::cmp::Reverse(own(slot)),
            !slot.cached.is_empty(),
            if slot.cached.is_empty() { 0 } else { slot.last_used },
        )
    })?;
    let kept = shared(view);
    let donor = slots
        .iter()
        .enumerate()
        .map(|(index, slot)| (shared(slot), index))
        .max_by_key(|&(shared, index)| (shared, std::cmp::Reverse(index)));
    Some(match donor {
        Some((longest, donor)) if donor != slot && longest >= kept + COPY_TOKENS_MIN => {
            Placement { slot, reused: longest, copy_from: Some(donor) }
        }
        _ => Placement { slot, reused: kept, copy_from: None },
    })
}

/// Length of the common beginning.
fn common_prefix(left: &[i32], right: &[i32]) -> usize {
    left.iter().zip(right).take_while(|(l, r)| l == r).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(cached: &[i32], busy: bool, last_used: u64) -> SlotView<'_> {
        SlotView { cached, busy, last_used }
    }

    fn placed(slot: usize, reused: usize, copy_from: Option<usize>) -> Option<Placement> {
        Some(Placement { slot, reused, copy_from })
    }

    #[test]
    fn placement_table() {
        let long: Vec<i32> = (0..100).collect();
        let mut longer = long.clone();
        longer.push(7);
        let other: Vec<i32> = (500..600).collect();
        // No slot is free.
        assert_eq!(place(&long, &[slot(&[], true, 0)], true), None);
        // The first empty slot when nothing is shared.
        assert_eq!(place(&long, &[slot(&other, false, 9), slot(&[], false, 0)], true), placed(1, 0, None));
        // The least recently used one when all hold something.
        assert_eq!(place(&long, &[slot(&other, false, 9), slot(&other, false, 3)], true), placed(1, 0, None));
        // The longest common prefix, all of it.
        assert_eq!(place(&longer, &[slot(&[], false, 0), slot(&long, false, 3)], true), placed(1, 100, None));
        // The last token is always computed.
        assert_eq!(place(&long, &[slot(&[], false, 0), slot(&long, false, 3)], true), placed(1, 99, None));
        // A busy slot's prefix is copied.
        assert_eq!(
            place(&longer, &[slot(&long, true, 5), slot(&[], false, 0)], true),
            placed(1, 100, Some(0))
        );
        // Not worth a copy.
        assert_eq!(
            place(&long[..15], &[slot(&long, true, 5), slot(&[], false, 0)], true),
            placed(1, 0, None)
        );
        // Reuse is switched off.
        assert_eq!(place(&long, &[slot(&[], false, 0), slot(&long, false, 3)], false), placed(0, 0, None));
        // Three shared tokens do not take away a long conversation.
        let greeting = [0, 1, 2, 900, 901];
        assert_eq!(place(&greeting, &[slot(&long, false, 1), slot(&[], false, 0)], true), placed(1, 0, None));
    }
}
