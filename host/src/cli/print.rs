//! The one way to standard output: everything that a command prints goes through a [`Printer`].

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use super::error::Error;

/// Prints a command's result. Tests give it a buffer.
#[derive(Debug)]
pub(super) struct Printer<W> {
    out: W,
}

impl Printer<io::Stdout> {
    /// Standard output.
    pub(super) fn stdout() -> Self {
        Self::new(io::stdout())
    }
}

impl<W: Write> Printer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    /// A line, which is out when this returns.
    pub(super) fn line(&mut self, line: impl fmt::Display) -> Result<(), Error> {
        writeln!(self.out, "{}", printable(&line.to_string()))
            .and_then(|()| self.out.flush())
            .map_err(Error::Output)
    }

    /// A piece of a text, which is out when this returns.
    pub(super) fn piece(&mut self, text: &str) -> Result<(), Error> {
        self.bytes(text.as_bytes())
    }

    /// Anything, unchanged.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).and_then(|()| self.out.flush()).map_err(Error::Output)
    }

    /// A JSON document on lines of its own.
    pub(super) fn json(&mut self, document: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(document).map_err(|error| Error::Output(error.into()))?;
        self.line(text)
    }

    /// Rows below their headings, in columns as wide as their widest cell.
    pub(super) fn table<const N: usize>(
        &mut self,
        headings: [&str; N],
        rows: &[[String; N]],
    ) -> Result<(), Error> {
        let headings = headings.map(str::to_owned);
        let mut widths = [0; N];
        for row in std::iter::once(&headings).chain(rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in std::iter::once(&headings).chain(rows) {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            self.line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }

    /// Names and values, the values below each other; what has no value is left out.
    pub(super) fn fields(&mut self, fields: &[(&str, Option<String>)]) -> Result<(), Error> {
        let present = || fields.iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, value)));
        let width = present().map(|(name, _)| name.len()).max().unwrap_or(0);
        present().try_for_each(|(name, value)| self.line(format_args!("{name:width$}  {value}")))
    }
}

/// The text without the control characters that steer a terminal: much of what is printed was written by strangers.
pub(super) fn printable(text: &str) -> String {
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().map(|c| if harmless(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// A size in the largest unit that keeps it at 1 or more: `93.8 MiB`.
pub(super) fn bytes(size_bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut size = size_bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{size_bytes} B") } else { format!("{size:.1} {unit}") }
}

/// A list for a table's cell; `-` when it is empty.
pub(super) fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "-".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(print: impl FnOnce(&mut Printer<Vec<u8>>) -> Result<(), Error>) -> String {
        let mut printer = Printer::new(Vec::new());
        print(&mut printer).unwrap();
        String::from_utf8(printer.out).unwrap()
    }

    #[test]
    fn columns_are_aligned_without_trailing_spaces() {
        let rows = [["a".to_owned(), "long value".to_owned()], ["größer".to_owned(), "-".to_owned()]];
        let text = printed(|printer| printer.table(["NAME", "VALUE"], &rows));
        assert_eq!(text, "NAME    VALUE\na       long value\ngrößer  -\n");
    }

    #[test]
    fn strangers_do_not_steer_the_terminal() {
        assert_eq!(printed(|printer| printer.line("a\u{1b}[2Kb\tc")), "a\u{fffd}[2Kb\tc\n");
    }

    #[test]
    fn fields_without_a_value_are_left_out() {
        let fields =
            [("name", Some("x".to_owned())), ("quantization", None), ("size", Some("1 B".to_owned()))];
        assert_eq!(printed(|printer| printer.fields(&fields)), "name  x\nsize  1 B\n");
    }

    #[test]
    fn sizes_are_readable() {
        for (size_bytes, expected) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (98_362_432, "93.8 MiB")]
        {
            assert_eq!(bytes(size_bytes), expected);
        }
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = Printer::new(Closed).line("x").unwrap_err();
        assert_eq!(error.exit().code(), 0);
    }
}
