//! Making untrusted text safe to print.
//!
//! File names, server replies and script output may hold escape sequences that would drive the
//! terminal. Everything that is printed goes through [`printable`] first.

use std::borrow::Cow;
use std::fmt::Display;

/// Returns `text` with each character that could act on a terminal written as an escape (`\n`,
/// `\x1b`, `\u{202e}`); borrows when there is none.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts_on_terminal) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            _ if !acts_on_terminal(c) => safe.push(c),
            '\n' | '\r' | '\t' => safe.extend(c.escape_default()),
            _ if c.is_ascii() => safe.push_str(&format!("\\x{:02x}", u32::from(c))),
            _ => safe.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(safe)
}

/// `1 file`, `2 files`.
pub fn count(n: impl Copy + Display + PartialEq + From<u8>, what: &str) -> String {
    let ending = if n == 1.into() { "" } else { "s" };
    format!("{n} {what}{ending}")
}

/// The first `most` of many names.
pub fn first_few<T: AsRef<str>>(names: &[T], most: usize) -> String {
    let named: Vec<&str> = names.iter().take(most).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(most) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// The beginning of a text, as much as a message has room for.
pub fn shortened(text: &str) -> Cow<'_, str> {
    shortened_to(text, 60)
}

/// The first `longest` characters of a text.
pub fn shortened_to(text: &str, longest: usize) -> Cow<'_, str> {
    match text.char_indices().nth(longest) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Control characters (C0, DEL, C1), and the marks that reorder or hide what stands around them.
fn acts_on_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_borrowed() {
        assert!(matches!(printable("lib/übung a.py"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_acts_on_a_terminal_is_escaped() {
        assert_eq!(printable("a\n\x1b[2J\u{9b}\u{202e}b\t"), "a\\n\\x1b[2J\\u{9b}\\u{202e}b\\t");
    }
}
