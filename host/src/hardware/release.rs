//! Numbers of releases, such as `2.36`.

/// Whether release `have` is `least` or newer. Parts are compared as numbers, missing ones count as 0; a text that is no
/// release is older than any.
#[must_use]
pub fn is_at_least(have: &str, least: &str) -> bool {
    let parts = |text: &str| text.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>();
    let (Some(mut have), Some(mut least)) = (parts(have), parts(least)) else { return false };
    let length = have.len().max(least.len());
    have.resize(length, 0);
    least.resize(length, 0);
    have >= least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_compared_as_numbers() {
        let table = [
            ("2.36", "2.31", true),
            ("2.9", "2.31", false),
            ("15", "14.2", true),
            ("14", "14.0", true),
            ("14", "14.0.1", false),
            ("rolling", "1", false),
        ];
        for (have, least, expected) in table {
            assert_eq!(is_at_least(have, least), expected, "{have} {least}");
        }
    }
}
