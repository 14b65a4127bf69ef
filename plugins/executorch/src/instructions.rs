//! Whether the instructions of a method speak of operators, delegates and values that exist: the engine finds some of this out
//! by ending the process.

use crate::flatbuffer::{Damaged, Table};

/// How many of each a method has.
pub(crate) struct Counts {
    pub(crate) values: usize,
    pub(crate) operators: usize,
    pub(crate) delegates: usize,
}

/// Checks all instructions of a method.
///
/// # Errors
/// One names what the method does not have.
pub(crate) fn check(plan: &Table<'_>, counts: &Counts) -> Result<(), Damaged> {
    for chain in plan.tables(5)?.iter() {
        let instructions = chain?.tables(2)?;
        for instruction in instructions.iter() {
            let instruction = instruction?;
            let content = instruction.table(1)?.ok_or(Damaged)?;
            let in_values = |index: usize| below(content.i32(index)?, counts.values);
            match instruction.u8(0)? {
                1 => call(&content, counts.operators, counts)?,
                2 => call(&content, counts.delegates, counts)?,
                // A move has two values, and a free one.
                3 => in_values(0).and_then(|()| in_values(1))?,
                4 => {
                    in_values(0)?;
                    // It may lead to the end.
                    below(content.i32(1)?, instructions.len() + 1)?;
                }
                5 => in_values(0)?,
                _ => return Err(Damaged),
            }
        }
    }
    Ok(())
}

/// A call of one of `callees` on values.
fn call(content: &Table<'_>, callees: usize, counts: &Counts) -> Result<(), Damaged> {
    below(content.i32(0)?, callees)?;
    content.i32s(1)?.try_for_each(|argument| below(argument, counts.values))
}

fn below(index: i32, count: usize) -> Result<(), Damaged> {
    if usize::try_from(index).is_ok_and(|index| index < count) { Ok(()) } else { Err(Damaged) }
}
