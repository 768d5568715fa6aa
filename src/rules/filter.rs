//! What is to happen to a file, decided by its path alone.
//!
//! Patterns match as Python's `PurePosixPath.match` does: case-sensitive, from the right, component
//! by component; a wildcard never crosses `/` but does match a leading dot. `**`, which Python
//! takes for `*`, crosses directories.

use anyhow::{Result, anyhow, ensure};
use globset::GlobBuilder;
use regex::RegexSet;

use crate::model::path::RelPath;
use crate::model::verdict::{Verdict, Why};

/// Names that are never sent: the settings of this program and credentials.
const OWN: &[&str] = &[".autoftp", ".netrc", "_netrc"];

/// The file that says what boards cannot fetch: it is to be watched also where it is ignored.
pub const SERVE_IGNORE: &str = ".promoterignore";

/// What editors, version control and desktops leave in a project. Turned off by
/// `--no-default-ignores`.
const JUNK: &[&str] = &[
    // vim's test for a writable directory, its backups and its swap files
    "4913",
    "*~",
    ".*.sw[a-px]",
    // emacs: auto-save and lock
    "#*#",
    ".#*",
    // JetBrains, GNOME, Kate
    "*___jb_tmp___",
    "*___jb_old___",
    ".goutputstream-*",
    ".*.kate-swp",
    // version control, what package managers fetch, bytecode of the PC's Python, desktops
    ".git",
    ".hg",
    ".svn",
    ".jj",
    "node_modules",
    "__pycache__",
    ".DS_Store",
    "Thumbs.db",
];

/// What boards cannot fetch unless it is included by name or pattern: these files hold credentials of
/// the person who works here.
const SECRETS: [&str; 9] = [
    ".env",
    ".env.*",
    ".git-credentials",
    ".npmrc",
    ".pypirc",
    ".ssh",
    "id_rsa",
    "id_ecdsa",
    "id_ed25519",
];

/// The patterns, as the user wrote them.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What to upload.
    pub include: Vec<String>,
    /// What to ignore.
    pub exclude: Vec<String>,
    /// What to run a script on; the first match wins.
    pub process: Vec<String>,
    /// What to delete here after it was uploaded.
    pub up_delete: Vec<String>,
    /// Which uploads the remote command follows; all when empty.
    pub remote_match: Vec<String>,
    /// Whether `JUNK` is ignored.
    pub default_ignores: bool,
    /// Who else is served than hosts.
    pub serve: Serve,
    /// What is within the watched directory of this program's own files, and of secrets.
    pub own: Vec<RelPath>,
}

/// What boards can fetch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serve {
    /// Nothing.
    #[default]
    Nothing,
    /// What is included.
    Included,
    /// Everything that is not ignored.
    Everything,
}

/// [`Rules`] made ready to match.
#[derive(Debug)]
pub struct Filter {
    include: RegexSet,
    exclude: RegexSet,
    process: RegexSet,
    up_delete: RegexSet,
    remote_match: Option<RegexSet>,
    junk: RegexSet,
    secrets: RegexSet,
    serve: Serve,
    own: Vec<RelPath>,
}

impl Filter {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// Names the pattern that is malformed and the option it was given to.
    pub fn new(rules: &Rules) -> Result<Self> {
        let junk: Vec<String> = if rules.default_ignores {
            JUNK.iter().map(ToString::to_string).collect()
        } else {
            Vec::new()
        };
        // A trailing slash says "a directory", which is what an exclude covers anyway.
        let exclude: Vec<String> = (rules.exclude.iter())
            .map(|pattern| pattern.trim_end_matches('/').to_owned())
            .collect();
        Ok(Self {
            include: compile("include", &rules.include)?,
            exclude: compile("exclude", &exclude)?,
            process: compile("process", &rules.process)?,
            up_delete: compile("up-delete", &rules.up_delete)?,
            remote_match: match rules.remote_match.as_slice() {
                [] => None,
                patterns => Some(compile("remote-match", patterns)?),
            },
            junk: compile("default ignores", &junk)?,
            secrets: compile("secrets", &SECRETS.map(ToString::to_string))?,
            serve: rules.serve,
            own: rules.own.clone(),
        })
    }

    /// What is to happen to this file.
    pub fn verdict(&self, path: &RelPath) -> Verdict {
        match self.selection(path) {
            Verdict::Ignored(_) | Verdict::Process(_)
                if self.serve != Serve::Nothing && path.as_str() == SERVE_IGNORE =>
            {
                Verdict::Publish
            }
            verdict => verdict,
        }
    }

    /// Whether boards can fetch a file.
    pub fn publishes(&self, path: &RelPath) -> bool {
        self.serve != Serve::Nothing
            && matches!(self.selection(path), Verdict::Upload | Verdict::Publish)
    }

    fn selection(&self, path: &RelPath) -> Verdict {
        if OWN.contains(&path.name()) {
            return Verdict::Ignored(Why::Own);
        }
        if let Some(why) = path.ancestors().find_map(|dir| self.excludes(dir)) {
            return Verdict::Ignored(why);
        }
        if let Some(why) = self.excludes(path.as_str()) {
            return Verdict::Ignored(why);
        }
        if let Some(rule) = self.process.matches(path.as_str()).iter().next() {
            return Verdict::Process(rule);
        }
        if self.include.is_match(path.as_str()) {
            return Verdict::Upload;
        }
        let is_secret = |path: &str| self.secrets.is_match(path);
        if self.serve == Serve::Everything
            && !path.ancestors().chain([path.as_str()]).any(is_secret)
        {
            return Verdict::Publish;
        }
        Verdict::Ignored(Why::NotIncluded)
    }

    /// Whether this file or directory is ignored by its own path; everything beneath an ignored
    /// directory is ignored too.
    pub fn excludes(&self, path: &str) -> Option<Why> {
        if self.exclude.is_match(path) {
            Some(Why::Excluded)
        } else if self.junk.is_match(path) {
            Some(Why::Junk)
        } else if self.own.iter().any(|own| own.as_str() == path) {
            Some(Why::Own)
        } else {
            None
        }
    }

    /// Whether the local file is to be deleted once it was uploaded.
    pub fn up_delete(&self, path: &RelPath) -> bool {
        self.up_delete.is_match(path.as_str())
    }

    /// Whether the remote command follows the upload of this file.
    pub fn remote_match(&self, path: &RelPath) -> bool {
        (self.remote_match.as_ref()).is_none_or(|set| set.is_match(path.as_str()))
    }
}

fn compile(option: &str, patterns: &[String]) -> Result<RegexSet> {
    let regexes = (patterns.iter())
        .map(|pattern| {
            let glob = GlobBuilder::new(&translate(pattern))
                .literal_separator(true)
                .backslash_escape(false)
                .build()
                .map_err(|error| {
                    anyhow!("the {option} pattern '{pattern}' is malformed: {}", error.kind())
                })?;
            ensure!(
                !pattern.contains(char::is_control),
                "the {option} pattern '{pattern}' has a control character in it"
            );
            Ok(by_characters(glob.regex()))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(RegexSet::new(regexes)?)
}

/// Makes a regular expression of globset's match characters: its own match bytes, so that `?` and
/// `[...]` would take a non-ASCII character for several. It writes such a character as the escapes
/// (`\xc3\xbc`) of its bytes.
fn by_characters(regex: &str) -> String {
    let regex = regex.strip_prefix("(?-u)").unwrap_or(regex);
    let mut bytes = Vec::with_capacity(regex.len());
    let mut rest = regex.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let escaped = match (first, after) {
            (b'\\', [b'x', digits @ ..]) => digits
                .get(..2)
                .and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()),
            _ => None,
        };
        match (escaped, first) {
            (Some(byte), _) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            // An escape of something else, such as of a backslash.
            (None, b'\\') => {
                bytes.push(b'\\');
                if let Some((next, after)) = after.split_first() {
                    bytes.push(*next);
                    rest = after;
                }
            }
            (None, byte) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Rewrites a pattern of `PurePosixPath.match` for globset.
///
/// An absolute pattern keeps its leading slash and so never matches a relative path.
fn translate(pattern: &str) -> String {
    let components: Vec<&str> =
        pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let anchor = if pattern.starts_with('/') { "/" } else { "**/" };
    let mut glob = String::from(anchor);
    // Alternatives are globset's own: take braces literally.
    let mut class = false;
    for c in components.join("/").chars() {
        match c {
            '{' if !class => glob.push_str("[{]"),
            '}' if !class => glob.push_str("[}]"),
            _ => {
                class = match c {
                    '[' => true,
                    ']' => false,
                    _ => class,
                };
                glob.push(c);
            }
        }
    }
    glob
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn filter(change: impl FnOnce(&mut Rules)) -> Filter {
        let mut rules = Rules { default_ignores: true, ..Rules::default() };
        change(&mut rules);
        Filter::new(&rules).expect("good patterns")
    }

    fn list(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(ToString::to_string).collect()
    }

    fn verdict(filter: &Filter, path: &str) -> Verdict {
        filter.verdict(&RelPath::new(Path::new(path)).expect("a good path"))
    }

    /// The table was generated with Python by `tests/data/match.py`.
    #[test]
    fn matches_as_python_does() {
        let mut cases = 0;
        for row in include_str!("../../tests/data/match.tsv").lines() {
            let [pattern, path, expected] = row.split('\t').collect::<Vec<_>>()[..] else {
                panic!("a row of three columns: {row:?}");
            };
            let set = compile("include", &list(&[pattern])).expect(pattern);
            assert_eq!(set.is_match(path), expected == "1", "{pattern} on {path}");
            cases += 1;
        }
        assert!(cases > 1000, "the table is missing: {cases} cases");
    }

    #[test]
    fn double_star_crosses_directories() {
        let filter = filter(|rules| rules.include = list(&["lib/**/*.py"]));
        assert_eq!(verdict(&filter, "lib/a/b/c.py"), Verdict::Upload);
        assert_eq!(verdict(&filter, "lib/c.py"), Verdict::Upload);
        assert_eq!(verdict(&filter, "src/c.py"), Verdict::Ignored(Why::NotIncluded));
    }

    #[test]
    fn an_exclude_covers_all_beneath_and_wins() {
        let filter = filter(|rules| {
            rules.include = list(&["*.py", "test/*"]);
            rules.exclude = list(&["test/*", "build/"]);
        });
        for path in ["test/a.py", "test/deep/z.py", "build/x.py", "a/build/b/x.py"] {
            assert_eq!(verdict(&filter, path), Verdict::Ignored(Why::Excluded), "{path}");
        }
        assert_eq!(verdict(&filter, "a.py"), Verdict::Upload);
    }

    #[test]
    fn process_comes_before_include_and_the_first_rule_wins() {
        let filter = filter(|rules| {
            rules.include = list(&["*.py", "*.mpy"]);
            rules.process = list(&["main.py", "*.py"]);
        });
        assert_eq!(verdict(&filter, "main.py"), Verdict::Process(0));
        assert_eq!(verdict(&filter, "a/b.py"), Verdict::Process(1));
        assert_eq!(verdict(&filter, "a/b.mpy"), Verdict::Upload);
    }

    #[test]
    fn junk_and_secrets() {
        let all = |rules: &mut Rules| rules.include = list(&["*"]);
        let junk = [
            "4913",
            "a/main.py~",
            ".main.py.swp",
            "#a.py#",
            ".#a.py",
            ".git/config",
            "x.py___jb_tmp___",
        ];
        for path in junk {
            let ignored = Verdict::Ignored(Why::Junk);
            assert_eq!(verdict(&filter(all), path), ignored, "{path}");
            let bare = filter(|rules| {
                all(rules);
                rules.default_ignores = false;
            });
            assert_eq!(verdict(&bare, path), Verdict::Upload, "{path}");
            let own = Verdict::Ignored(Why::Own);
            assert_eq!(verdict(&bare, "a/.autoftp"), own);
            assert_eq!(verdict(&bare, ".netrc"), own);
        }
        assert_eq!(verdict(&filter(all), "sedate.md"), Verdict::Upload);
    }

    #[test]
    fn a_malformed_pattern_is_named() {
        let rules = Rules { exclude: list(&["*.py", "lib/[a"]), ..Rules::default() };
        let error = format!("{:#}", Filter::new(&rules).expect_err("malformed"));
        assert!(error.contains("exclude pattern 'lib/[a'"), "{error}");
    }
}
