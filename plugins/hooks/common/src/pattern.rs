//! Regular expressions of a small kind, made for text that comes in pieces.
//!
//! The usual crates search a text that is there as a whole. A hook that looks at an answer while it is written must know
//! whether what has come so far *may still become* a match, because only that has to be held back.
//! [`Pattern::longest_at`] tells. The price is a smaller language: see the README of the hook `redact`.

mod parse;

/// The most steps that a pattern may have once its counted repetitions are written out.
const STEPS_MAX: usize = 2000;

/// A pattern, ready to be used.
#[derive(Debug)]
pub struct Pattern {
    steps: Vec<Step>,
    ignore_case: bool,
    /// Which ASCII characters a match may begin with.
    begins: [bool; 128],
}

#[derive(Debug)]
enum Step {
    /// One character of a set.
    One(Set),
    /// Go on at both places.
    Fork(usize, usize),
    /// Go on if the place in the text is of this kind.
    If(Edge),
    /// What was read is a match.
    Found,
}

#[derive(Clone, Copy, Debug)]
enum Edge {
    Begin,
    End,
    Word,
    NotWord,
}

#[derive(Clone, Debug, Default)]
struct Set {
    ranges: Vec<(char, char)>,
    negated: bool,
}

impl Set {
    fn has(&self, c: char, ignore_case: bool) -> bool {
        let within = |c: char| self.ranges.iter().any(|&(low, high)| (low..=high).contains(&c));
        let found = within(c)
            || ignore_case
                && (c.to_lowercase().next().is_some_and(within)
                    || c.to_uppercase().next().is_some_and(within));
        found != self.negated
    }
}

/// What is at a place of a text that may be incomplete.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// No match begins here.
    No,
    /// More text is needed to tell.
    More,
    /// The longest match has this many bytes.
    Found(usize),
}

/// What follows a place.
#[derive(Clone, Copy)]
enum Next {
    Char(char),
    /// The text ends.
    End,
    /// Not known yet.
    Unknown,
    /// Whatever an edge asks for.
    Anything,
}

/// The steps that wait for the next character, each once.
struct Threads {
    waiting: Vec<usize>,
    seen: Vec<bool>,
    found: bool,
    /// Whether a step depends on what is not known yet.
    undecided: bool,
}

impl Threads {
    fn new(pattern: &Pattern) -> Self {
        Self { waiting: Vec::new(), seen: vec![false; pattern.steps.len()], found: false, undecided: false }
    }

    fn clear(&mut self) {
        self.waiting.clear();
        self.seen.fill(false);
        self.found = false;
        self.undecided = false;
    }

    /// Follows all steps from `step` that read nothing.
    fn add(&mut self, pattern: &Pattern, step: usize, before: Option<char>, next: Next) {
        let mut open = vec![step];
        while let Some(step) = open.pop() {
            if std::mem::replace(&mut self.seen[step], true) {
                continue;
            }
            match &pattern.steps[step] {
                Step::One(_) => self.waiting.push(step),
                Step::Fork(a, b) => open.extend([*b, *a]),
                Step::Found => self.found = true,
                Step::If(edge) => match edge.holds(before, next) {
                    Some(true) => open.push(step + 1),
                    Some(false) => {}
                    None => self.undecided = true,
                },
            }
        }
    }
}

impl Edge {
    fn holds(self, before: Option<char>, next: Next) -> Option<bool> {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let next = match next {
            Next::Char(c) => Some(c),
            Next::End => None,
            Next::Unknown => return matches!(self, Self::Begin).then_some(before.is_none()),
            Next::Anything => return Some(true),
        };
        Some(match self {
            Self::Begin => before.is_none(),
            Self::End => next.is_none(),
            Self::Word => before.is_some_and(is_word) != next.is_some_and(is_word),
            Self::NotWord => before.is_some_and(is_word) == next.is_some_and(is_word),
        })
    }
}

impl Pattern {
    /// Reads a regular expression. A leading `(?i)` makes it ignore case.
    ///
    /// # Errors
    /// When it is wrong, or uses what this kind does not have.
    pub fn regex(text: &str, ignore_case: bool) -> Result<Self, String> {
        match text.strip_prefix("(?i)") {
            Some(rest) => Ok(Self::new(parse::regex(rest)?, true)),
            None => Ok(Self::new(parse::regex(text)?, ignore_case)),
        }
    }

    /// A pattern that finds a text as it stands.
    #[must_use]
    pub fn literal(text: &str, ignore_case: bool) -> Self {
        let one = |c| Step::One(Set { ranges: vec![(c, c)], negated: false });
        Self::new(text.chars().map(one).chain([Step::Found]).collect(), ignore_case)
    }

    fn new(steps: Vec<Step>, ignore_case: bool) -> Self {
        let mut pattern = Self { steps, ignore_case, begins: [true; 128] };
        let mut threads = Threads::new(&pattern);
        threads.add(&pattern, 0, None, Next::Anything);
        if !threads.found {
            for (code, begins) in (0_u8..).zip(&mut pattern.begins) {
                *begins = threads.waiting.iter().any(|&step| match &pattern.steps[step] {
                    Step::One(set) => set.has(char::from(code), ignore_case),
                    _ => false,
                });
            }
        }
        pattern
    }

    /// Whether a match may begin with this byte of UTF-8.
    #[must_use]
    pub fn may_begin_with(&self, byte: u8) -> bool {
        self.begins.get(usize::from(byte)).is_none_or(|begins| *begins)
    }

    /// The longest match that begins at byte `at` of a text and has less than `len_max` bytes.
    /// With `end` the text is complete.
    ///
    /// What is answered for the beginning of a text is never contradicted by more of it.
    #[must_use]
    pub fn longest_at(&self, text: &str, at: usize, len_max: usize, end: bool) -> Outcome {
        let mut before = text[..at].chars().next_back();
        let mut now = Threads::new(self);
        let mut longest = 0;
        let mut starts = vec![0];
        let mut chars = text[at..].char_indices();
        loop {
            let (offset, next) = match chars.next() {
                Some((offset, c)) => (offset, Next::Char(c)),
                None => (text.len() - at, if end { Next::End } else { Next::Unknown }),
            };
            if offset >= len_max {
                break;
            }
            now.clear();
            starts.drain(..).for_each(|step| now.add(self, step, before, next));
            if now.found {
                longest = offset;
            }
            let Next::Char(c) = next else {
                if matches!(next, Next::Unknown) && (now.undecided || !now.waiting.is_empty()) {
                    return Outcome::More;
                }
                break;
            };
            starts.extend(self.after(&now, c));
            if starts.is_empty() {
                break;
            }
            before = Some(c);
        }
        if longest > 0 { Outcome::Found(longest) } else { Outcome::No }
    }

    /// Whether a match is anywhere in a complete text. Takes time in proportion to the text's length, whatever the pattern.
    #[must_use]
    pub fn is_in(&self, text: &str) -> bool {
        let mut now = Threads::new(self);
        let mut starts: Vec<usize> = Vec::new();
        let (mut at, mut before) = (0, None);
        loop {
            if starts.is_empty() {
                match text.as_bytes()[at..].iter().position(|&byte| self.may_begin_with(byte)) {
                    // Where a byte inside a character stands for all that is not ASCII, its beginning is meant.
                    Some(skipped) => at = text.floor_char_boundary(at + skipped),
                    None => at = text.len(),
                }
                before = text[..at].chars().next_back();
            }
            let next = text[at..].chars().next();
            now.clear();
            let known = next.map_or(Next::End, Next::Char);
            starts.drain(..).chain([0]).for_each(|step| now.add(self, step, before, known));
            if now.found {
                return true;
            }
            let Some(c) = next else { return false };
            starts.extend(self.after(&now, c));
            before = Some(c);
            at += c.len_utf8();
        }
    }

    /// Where the threads go on that take this character.
    fn after<'a>(&'a self, threads: &'a Threads, c: char) -> impl Iterator<Item = usize> + 'a {
        threads.waiting.iter().filter_map(move |&step| match &self.steps[step] {
            Step::One(set) if set.has(c, self.ignore_case) => Some(step + 1),
            _ => None,
        })
    }
}
