//! Turns the text of a regular expression into steps.

use std::iter::Peekable;
use std::str::Chars;

use super::{Edge, STEPS_MAX, Set, Step};

/// How deep groups may be nested.
const DEPTH_MAX: usize = 32;
/// The largest number in a counted repetition.
const COUNT_MAX: usize = 256;

enum Node {
    One(Set),
    If(Edge),
    Sequence(Vec<Self>),
    Either(Vec<Self>),
    Repeat { node: Box<Self>, min: usize, max: Option<usize> },
}

pub(super) fn regex(text: &str) -> Result<Vec<Step>, String> {
    let mut parser = Parser { chars: text.chars().peekable(), depth: 0 };
    let node = parser.either()?;
    if parser.chars.next().is_some() {
        return Err("`)` without `(`".to_owned());
    }
    let mut steps = Vec::new();
    emit(&node, &mut steps)?;
    steps.push(Step::Found);
    Ok(steps)
}

struct Parser<'a> {
    chars: Peekable<Chars<'a>>,
    depth: usize,
}

impl Parser<'_> {
    fn either(&mut self) -> Result<Node, String> {
        let mut branches = vec![self.sequence()?];
        while self.chars.next_if_eq(&'|').is_some() {
            branches.push(self.sequence()?);
        }
        Ok(Node::Either(branches))
    }

    fn sequence(&mut self) -> Result<Node, String> {
        let mut nodes = Vec::new();
        while let Some(c) = self.chars.next_if(|c| !matches!(c, '|' | ')')) {
            let node = self.atom(c)?;
            nodes.push(self.repeated(node)?);
        }
        Ok(Node::Sequence(nodes))
    }

    fn atom(&mut self, c: char) -> Result<Node, String> {
        Ok(match c {
            '(' => return self.group(),
            '[' => Node::One(self.set()?),
            '.' => Node::One(Set { ranges: vec![('\n', '\n')], negated: true }),
            '^' => Node::If(Edge::Begin),
            '$' => Node::If(Edge::End),
            '\\' => match self.chars.next() {
                Some('b') => Node::If(Edge::Word),
                Some('B') => Node::If(Edge::NotWord),
                escaped => Node::One(class(escaped)?),
            },
            '*' | '+' | '?' | '{' => return Err(format!("`{c}` repeats nothing")),
            c => Node::One(Set { ranges: vec![(c, c)], negated: false }),
        })
    }

    fn group(&mut self) -> Result<Node, String> {
        if self.chars.next_if_eq(&'?').is_some() && self.chars.next() != Some(':') {
            return Err("of groups with `(?`, only `(?:` is known, and `(?i)` at the beginning".to_owned());
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("groups are nested more than {DEPTH_MAX} deep"));
        }
        let node = self.either()?;
        self.depth -= 1;
        if self.chars.next() == Some(')') { Ok(node) } else { Err("`(` without `)`".to_owned()) }
    }

    fn repeated(&mut self, node: Node) -> Result<Node, String> {
        let Some(sign) = self.chars.next_if(|c| matches!(c, '*' | '+' | '?' | '{')) else { return Ok(node) };
        let (min, max) = match sign {
            '*' => (0, None),
            '+' => (1, None),
            '?' => (0, Some(1)),
            _ => self.counts()?,
        };
        if let Some(more) = self.chars.next_if(|c| matches!(c, '*' | '+' | '?' | '{')) {
            return Err(format!("`{more}` after a repetition is not known: the longest match is taken"));
        }
        Ok(Node::Repeat { node: Box::new(node), min, max })
    }

    /// What is between the braces of `{2}`, `{2,}` or `{2,5}`.
    fn counts(&mut self) -> Result<(usize, Option<usize>), String> {
        let mut inside = String::new();
        loop {
            match self.chars.next() {
                Some('}') => break,
                Some(c) => inside.push(c),
                None => return Err("`{` without `}`".to_owned()),
            }
        }
        let wrong = || format!("`{{{inside}}}` is no repetition; expected `{{2}}`, `{{2,}}` or `{{2,5}}`");
        let number = |text: &str| text.parse::<usize>().map_err(|_| wrong());
        let (min, max) = match inside.split_once(',') {
            None => (number(&inside)?, Some(number(&inside)?)),
            Some((min, "")) => (number(min)?, None),
            Some((min, max)) => (number(min)?, Some(number(max)?)),
        };
        if max.is_some_and(|max| max < min) {
            return Err(wrong());
        }
        if min.max(max.unwrap_or(0)) > COUNT_MAX {
            return Err(format!("`{{{inside}}}` repeats more than {COUNT_MAX} times"));
        }
        Ok((min, max))
    }

    /// What is between brackets.
    fn set(&mut self) -> Result<Set, String> {
        let mut set = Set { ranges: Vec::new(), negated: self.chars.next_if_eq(&'^').is_some() };
        loop {
            let c = self.chars.next().ok_or("`[` without `]`")?;
            let low = match c {
                ']' if !set.ranges.is_empty() => return Ok(set),
                '[' => return Err("`[` within brackets must be written `\\[`".to_owned()),
                '\\' => {
                    let class = class(self.chars.next())?;
                    match class.ranges.as_slice() {
                        [(low, high)] if low == high && !class.negated => *low,
                        _ if class.negated => {
                            return Err("`\\D`, `\\S` and `\\W` are not known within brackets".to_owned());
                        }
                        ranges => {
                            set.ranges.extend(ranges);
                            continue;
                        }
                    }
                }
                c => c,
            };
            let high = self.range_end()?.unwrap_or(low);
            if high < low {
                return Err(format!("`{low}-{high}` is an empty range"));
            }
            set.ranges.push((low, high));
        }
    }

    /// The end of a range, when a dash follows that is not the last of the brackets.
    fn range_end(&mut self) -> Result<Option<char>, String> {
        let mut ahead = self.chars.clone();
        if ahead.next() != Some('-') || matches!(ahead.next(), Some(']') | None) {
            return Ok(None);
        }
        self.chars.next();
        match self.chars.next() {
            Some('\\') => match class(self.chars.next())?.ranges.as_slice() {
                [(low, high)] if low == high => Ok(Some(*low)),
                _ => Err("a range cannot end in a class".to_owned()),
            },
            end => Ok(end),
        }
    }
}

/// What a character after a backslash stands for.
fn class(escaped: Option<char>) -> Result<Set, String> {
    let set = |ranges: &[(char, char)], negated| Set { ranges: ranges.to_vec(), negated };
    let one = |c| set(&[(c, c)], false);
    const DIGITS: &[(char, char)] = &[('0', '9')];
    const SPACES: &[(char, char)] = &[('\t', '\r'), (' ', ' '), ('\u{a0}', '\u{a0}')];
    const WORDS: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
    Ok(match escaped {
        Some('d') => set(DIGITS, false),
        Some('D') => set(DIGITS, true),
        Some('s') => set(SPACES, false),
        Some('S') => set(SPACES, true),
        Some('w') => set(WORDS, false),
        Some('W') => set(WORDS, true),
        Some('n') => one('\n'),
        Some('r') => one('\r'),
        Some('t') => one('\t'),
        Some(c) if c.is_ascii_punctuation() => one(c),
        Some(c) => return Err(format!("`\\{c}` is not known")),
        None => return Err("nothing follows the last `\\`".to_owned()),
    })
}

/// Writes a node's steps behind those that are there. What follows a node comes directly after its steps.
fn emit(node: &Node, steps: &mut Vec<Step>) -> Result<(), String> {
    if steps.len() > STEPS_MAX {
        return Err(format!("it has more than {STEPS_MAX} steps; repeat less"));
    }
    match node {
        Node::One(set) => steps.push(Step::One(set.clone())),
        Node::If(edge) => steps.push(Step::If(*edge)),
        Node::Sequence(nodes) => nodes.iter().try_for_each(|node| emit(node, steps))?,
        Node::Either(branches) => emit_either(branches, steps)?,
        Node::Repeat { node, min, max } => {
            for _ in 0..*min {
                let begin = steps.len();
                emit(node, steps)?;
                if steps.len() == begin {
                    // Nothing, however often: groups of it could be nested to take for ever.
                    return Ok(());
                }
            }
            match max {
                None => {
                    // fork, node, back to the fork
                    let fork = steps.len();
                    steps.push(Step::Fork(fork + 1, 0));
                    emit(node, steps)?;
                    steps.push(Step::Fork(fork, fork));
                    let end = steps.len();
                    steps[fork] = Step::Fork(fork + 1, end);
                }
                Some(max) => emit_optional(node, max - min, steps)?,
            }
        }
    }
    Ok(())
}

fn emit_either(branches: &[Node], steps: &mut Vec<Step>) -> Result<(), String> {
    let Some((last, others)) = branches.split_last() else { return Ok(()) };
    let mut exits = Vec::new();
    for branch in others {
        let fork = steps.len();
        steps.push(Step::Fork(fork + 1, 0));
        emit(branch, steps)?;
        exits.push(steps.len());
        steps.push(Step::Fork(0, 0));
        let next = steps.len();
        steps[fork] = Step::Fork(fork + 1, next);
    }
    emit(last, steps)?;
    let end = steps.len();
    exits.into_iter().for_each(|exit| steps[exit] = Step::Fork(end, end));
    Ok(())
}

/// Up to `count` times the node; each may be the last.
fn emit_optional(node: &Node, count: usize, steps: &mut Vec<Step>) -> Result<(), String> {
    let mut forks = Vec::new();
    for _ in 0..count {
        forks.push(steps.len());
        steps.push(Step::Fork(0, 0));
        emit(node, steps)?;
    }
    let end = steps.len();
    forks.into_iter().for_each(|fork| steps[fork] = Step::Fork(fork + 1, end));
    Ok(())
}
