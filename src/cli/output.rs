//! What the tools print on standard output. A reader that went away (`interflow config | head`)
//! is an error here like any other, which [`is_closed_pipe`] finds again: `println!` would panic.

use std::io::{self, Write};

/// Prints a line on standard output.
pub(crate) fn print_line(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// Prints rows under a heading, each column as wide as its widest value.
pub(crate) fn print_table(heading: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    io::stdout().lock().write_all(table(heading, rows).as_bytes())
}

fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, value) in widths.iter_mut().zip(row) {
            *width = (*width).max(value.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |values: &mut dyn Iterator<Item = &str>| {
        for (value, width) in values.zip(&widths) {
            text.push_str(&format!("{value:<width$}  "));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    };
    line(&mut heading.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

/// Whoever read the output has seen enough.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_value() {
        let rows =
            [vec!["a".to_owned(), "1".to_owned()], vec!["ähnlich".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME     N\na        1\nähnlich\n");
    }
}
