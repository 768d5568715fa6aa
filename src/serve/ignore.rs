//! `.promoterignore`: what is not published of what the rules select.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use regex::RegexSet;

use crate::model::path::RelPath;
use crate::rules::filter::SERVE_IGNORE as FILE;
use crate::text::shortened;

/// A regular expression a line, each for a whole relative path.
#[derive(Debug)]
pub struct Ignore(RegexSet);

impl Ignore {
    /// Reads the rules; no file is no rules.
    ///
    /// # Errors
    /// Names the line that is malformed.
    pub fn load(root: &Path) -> Result<Self> {
        match fs::read(root.join(FILE)) {
            Ok(text) => Self::parse(&String::from_utf8_lossy(&text)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => {
                Self::parse("")
            }
            Err(error) => bail!("{FILE} cannot be read: {error}"),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty());
        let rules: Vec<(usize, &str)> = lines.collect();
        for (number, rule) in &rules {
            compile([*rule]).map_err(|error| {
                let error = error.to_string();
                let cause = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
                let rule = shortened(rule);
                anyhow!("{FILE}:{number}: '{rule}' is no regular expression: {cause}")
            })?;
        }
        Ok(Self(compile(rules.iter().map(|(_, rule)| *rule))?))
    }

    /// Whether this file is not published.
    pub fn covers(&self, path: &RelPath) -> bool {
        self.0.is_match(path.as_str())
    }
}

fn compile<'a>(rules: impl IntoIterator<Item = &'a str>) -> Result<RegexSet, regex::Error> {
    let whole = rules.into_iter().map(|rule| format!("^(?:{rule})$"));
    RegexSet::new(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_about_whole_paths() {
        let ignore =
            Ignore::parse("  README\\.md\n\ntest/.*|docs/.*\r\nv\\d+\n(?i)todo\n.\\.c\n[ä-ü]x")
                .expect("good");
        let covers = |path| ignore.covers(&RelPath::new(Path::new(path)).expect("a good path"));
        for path in ["README.md", "test/a/b.py", "docs/ü", "v12", "ToDo", "ä.c"] {
            assert!(covers(path), "{path}");
        }
        for path in ["README_md", "lib/README.md", "README.md.bak", "src/test/a", "v", "tests/a"] {
            assert!(!covers(path), "{path}");
        }
    }

    #[test]
    fn a_malformed_line_is_named() {
        let error = Ignore::parse("a\n\nb(c\n").expect_err("malformed").to_string();
        assert_eq!(error, ".promoterignore:3: 'b(c' is no regular expression: unclosed group");
    }
}
