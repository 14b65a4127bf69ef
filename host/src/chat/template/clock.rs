//! `strftime_now`: the date that some templates put into the system message.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const SECONDS_PER_DAY: u64 = 86_400;
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Formats `now` in UTC as C's `strftime` does in the C locale.
///
/// Known are `%Y %y %m %d %e %j %B %b %A %a %H %I %M %S %p %F %T %Z %z %%` and `-` after `%` for no leading zero;
/// other directives are left as they stand. A time before 1970 is taken for the beginning of 1970.
pub(super) fn strftime(now: SystemTime, format: &str) -> String {
    let date = DateTime::new(now);
    let mut output = String::with_capacity(format.len() + 16);
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        output.push_str(&rest[..at]);
        let directive = &rest[at + 1..];
        let (unpadded, directive) =
            directive.strip_prefix('-').map_or((false, directive), |rest| (true, rest));
        let Some(letter) = directive.chars().next() else {
            output.push_str(&rest[at..]);
            return output;
        };
        rest = &directive[letter.len_utf8()..];
        let field =
            date.field(letter).unwrap_or_else(|| format!("%{}{letter}", if unpadded { "-" } else { "" }));
        let zeros = if unpadded { field.len() - 1 } else { 0 };
        output.push_str(strip_zeros(&field, zeros));
    }
    output.push_str(rest);
    output
}

/// `field` without its leading zeros and spaces, of which at most `count` are removed.
fn strip_zeros(field: &str, count: usize) -> &str {
    let padding = field.bytes().take(count).take_while(|byte| matches!(byte, b'0' | b' ')).count();
    &field[padding..]
}

struct DateTime {
    year: u64,
    /// From 0.
    month: usize,
    /// From 1.
    day: u64,
    /// From 1.
    day_of_year: u64,
    /// From 0, Sunday.
    weekday: usize,
    second_of_day: u64,
}

impl DateTime {
    fn new(now: SystemTime) -> Self {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut days = seconds / SECONDS_PER_DAY;
        // 1 January 1970 was a Thursday.
        let weekday = usize::try_from((days + 4) % 7).unwrap_or_default();
        // Gregorian years repeat after 400 years, which have 146,097 days; so at most 400 steps follow.
        let mut year = 1970 + 400 * (days / 146_097);
        days %= 146_097;
        while days >= days_in_year(year) {
            days -= days_in_year(year);
            year += 1;
        }
        let day_of_year = days + 1;
        let mut month = 0;
        while days >= days_in_month(year, month) {
            days -= days_in_month(year, month);
            month += 1;
        }
        Self { year, month, day: days + 1, day_of_year, weekday, second_of_day: seconds % SECONDS_PER_DAY }
    }

    fn field(&self, letter: char) -> Option<String> {
        let (hour, minute) = (self.second_of_day / 3600, self.second_of_day / 60 % 60);
        let second = self.second_of_day % 60;
        let (month, weekday) = (MONTHS[self.month], WEEKDAYS[self.weekday]);
        let mut field = String::new();
        let written = match letter {
            'Y' => write!(field, "{}", self.year),
            'y' => write!(field, "{:02}", self.year % 100),
            'm' => write!(field, "{:02}", self.month + 1),
            'd' => write!(field, "{:02}", self.day),
            'e' => write!(field, "{:>2}", self.day),
            'j' => write!(field, "{:03}", self.day_of_year),
            'B' => write!(field, "{month}"),
            'b' | 'h' => write!(field, "{month:.3}"),
            'A' => write!(field, "{weekday}"),
            'a' => write!(field, "{weekday:.3}"),
            'H' => write!(field, "{hour:02}"),
            'I' => write!(field, "{:02}", (hour + 11) % 12 + 1),
            'M' => write!(field, "{minute:02}"),
            'S' => write!(field, "{second:02}"),
            'p' => write!(field, "{}", if hour < 12 { "AM" } else { "PM" }),
            'F' => write!(field, "{}-{:02}-{:02}", self.year, self.month + 1, self.day),
            'T' => write!(field, "{hour:02}:{minute:02}:{second:02}"),
            'Z' => write!(field, "UTC"),
            'z' => write!(field, "+0000"),
            '%' => write!(field, "%"),
            _ => return None,
        };
        written.ok().map(|()| field)
    }
}

fn days_in_year(year: u64) -> u64 {
    if is_leap_year(year) { 366 } else { 365 }
}

fn days_in_month(year: u64, month: usize) -> u64 {
    match month {
        1 => 28 + u64::from(is_leap_year(year)),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

fn is_leap_year(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_written_as_strftime_writes_them() {
        let table = [
            (1_732_406_405, "%d %b %Y", "24 Nov 2024"),
            (1_732_406_405, "%A, %B %-d, %Y %H:%M:%S", "Sunday, November 24, 2024 00:00:05"),
            (1_709_210_096, "%F %T %j %a", "2024-02-29 12:34:56 060 Thu"),
            (1_709_210_096, "%I %p %y %e %Z%z", "12 PM 24 29 UTC+0000"),
            (4_102_444_799, "%-m/%-d/%y %-I%p", "12/31/99 11PM"),
            (951_782_400, "%F", "2000-02-29"),
            (0, "%A %e|%-e", "Thursday  1|1"),
            (0, "100%% %Q %-Q %", "100% %Q %-Q %"),
            (0, "%-H", "0"),
        ];
        for (seconds, format, expected) in table {
            assert_eq!(strftime(UNIX_EPOCH + Duration::from_secs(seconds), format), expected);
        }
    }

    #[test]
    fn times_far_away_are_dates_too() {
        let far = UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 1000);
        assert_eq!(strftime(far, "%Y"), "138072");
        assert_eq!(strftime(UNIX_EPOCH - Duration::from_secs(1), "%F"), "1970-01-01");
    }
}
