//! Repetition, frequency and presence penalties.

use std::collections::{HashMap, VecDeque};

/// What was seen, and how much it costs.
#[derive(Debug, Default)]
pub(crate) struct Penalties {
    repeat: f32,
    window_len: usize,
    frequency: f32,
    presence: f32,
    /// The last tokens of prompt and output, for `repeat`.
    window: VecDeque<u32>,
    window_counts: HashMap<u32, u32>,
    /// Occurrences in the output alone, for `frequency` and `presence`.
    output_counts: HashMap<u32, u32>,
}

impl Penalties {
    /// `repeat` (1 is none) looks at the last `window_len` tokens of prompt and output, as in llama.cpp; `frequency`
    /// and `presence` (0 is none) look at the whole output, as OpenAI defines them.
    pub(crate) fn new(repeat: f32, window_len: usize, frequency: f32, presence: f32) -> Self {
        let window_len = if repeat == 1.0 { 0 } else { window_len };
        Self { repeat, window_len, frequency, presence, ..Self::default() }
    }

    /// Whether [`Penalties::apply`] can change anything.
    pub(crate) fn is_active(&self) -> bool {
        self.window_len > 0 || self.counts_output()
    }

    fn counts_output(&self) -> bool {
        self.frequency != 0.0 || self.presence != 0.0
    }

    /// Takes note of the prompt.
    pub(crate) fn see_prompt(&mut self, tokens: impl DoubleEndedIterator<Item = u32>) {
        let recent: Vec<u32> = tokens.rev().take(self.window_len).collect();
        recent.into_iter().rev().for_each(|token| self.see(token));
    }

    /// Takes note of an output token.
    pub(crate) fn see_output(&mut self, token: u32) {
        self.see(token);
        if self.counts_output() {
            *self.output_counts.entry(token).or_default() += 1;
        }
    }

    fn see(&mut self, token: u32) {
        if self.window_len == 0 {
            return;
        }
        if self.window.len() == self.window_len
            && let Some(oldest) = self.window.pop_front()
            && let Some(count) = self.window_counts.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.window_counts.remove(&oldest);
            }
        }
        self.window.push_back(token);
        *self.window_counts.entry(token).or_default() += 1;
    }

    /// Lowers the logits of what was seen.
    pub(crate) fn apply(&self, logits: &mut [f32]) {
        for &token in self.window_counts.keys() {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 { *logit / self.repeat } else { *logit * self.repeat };
            }
        }
        for (&token, &count) in &self.output_counts {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= self.frequency * count as f32 + self.presence;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeat_looks_at_the_window_of_prompt_and_output() {
        let mut penalties = Penalties::new(2.0, 3, 0.0, 0.0);
        penalties.see_prompt([0, 1, 2].into_iter());
        penalties.see_output(3);
        penalties.see_output(3);
        // The window is now 2, 3, 3.
        let mut logits = [4.0, 4.0, 4.0, -4.0];
        penalties.apply(&mut logits);
        assert_eq!(logits, [4.0, 4.0, 2.0, -8.0]);
    }

    #[test]
    fn frequency_and_presence_count_the_output_only() {
        let mut penalties = Penalties::new(1.0, 64, 0.5, 1.0);
        penalties.see_prompt([0, 0, 0].into_iter());
        penalties.see_output(1);
        penalties.see_output(1);
        penalties.see_output(2);
        let mut logits = [0.0; 4];
        penalties.apply(&mut logits);
        assert_eq!(logits, [0.0, -2.0, -1.5, 0.0]);
    }
}
