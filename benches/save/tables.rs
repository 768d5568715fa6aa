//! Tables, for the screen and for Markdown alike.

use std::fmt;

/// Where there is no value.
const NONE: &str = "-";

#[derive(Clone)]
pub struct Table {
    /// All columns are words, not numbers.
    is_text: bool,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<T: ToString>(head: &[T]) -> Table {
        Table { is_text: false, rows: vec![head.iter().map(ToString::to_string).collect()] }
    }

    /// One of words.
    pub fn of_text<T: ToString>(head: &[T]) -> Table {
        Table { is_text: true, ..Table::new(head) }
    }

    fn is_left(&self, column: usize) -> bool {
        column == 0 || self.is_text
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            write!(out, "|")?;
            for (column, width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                if self.is_left(column) {
                    write!(out, " {cell:<width$} |")?;
                } else {
                    write!(out, " {cell:>width$} |")?;
                }
            }
            writeln!(out)?;
            if number == 0 {
                write!(out, "|")?;
                for (column, width) in widths.iter().enumerate() {
                    let end = if self.is_left(column) { '-' } else { ':' };
                    write!(out, "-{}{end}|", "-".repeat(*width))?;
                }
                writeln!(out)?;
            }
        }
        Ok(())
    }
}

/// A value with this many decimals.
pub fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| format!("{value:.decimals$}"))
}

/// Milliseconds: those of which there are few get more decimals.
pub fn ms(value: Option<f64>) -> String {
    number(value, if value.is_some_and(|value| value < 10.0) { 2 } else { 1 })
}
