//! [`RelPath`]: the one form in which a file is named between the rooms of the program.

use std::borrow::Borrow;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// A file's path relative to the watched directory: UTF-8, `/`-separated, without empty, `.` or
/// `..` components and without control characters, so that a value of it is safe to send on the
/// control connection. Clones share one allocation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(Arc<str>);

/// Why a path cannot be a [`RelPath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// It is the root itself, leads out of it, or is absolute.
    Outside,
    /// Boards answer a name that is not UTF-8 with silence, or end the session.
    NotUtf8,
    /// A line break would end the command; other control characters never name a file on purpose.
    Control,
}

impl AsRef<str> for RelPath {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl RelPath {
    /// Takes a path relative to the watched directory.
    ///
    /// # Errors
    /// [`BadPath`] when the path is not one that may be sent.
    pub fn new(path: &Path) -> Result<Self, BadPath> {
        let mut text = String::with_capacity(path.as_os_str().len());
        for component in path.components() {
            match component {
                Component::Normal(part) => {
                    if !text.is_empty() {
                        text.push('/');
                    }
                    text.push_str(part.to_str().ok_or(BadPath::NotUtf8)?);
                }
                Component::CurDir => {}
                _ => return Err(BadPath::Outside),
            }
        }
        if text.is_empty() {
            return Err(BadPath::Outside);
        }
        if text.contains(char::is_control) {
            return Err(BadPath::Control);
        }
        Ok(Self(text.into()))
    }

    /// The path with `/` between its components.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The directory the file is in; `None` for one in the root.
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }

    /// Whether the file is in this directory or in one beneath it.
    pub fn is_beneath(&self, dir: &Self) -> bool {
        self.0.strip_prefix(&*dir.0).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The same path with `from`, which is the path itself or a directory on the way, replaced.
    pub fn moved(&self, from: &Self, to: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(&*from.0)?;
        let moves = rest.is_empty() || rest.starts_with('/');
        moves.then(|| Self(format!("{to}{rest}").into()))
    }

    /// Every directory on the way to the file, outermost first: `a`, `a/b` for `a/b/c`.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(end, _)| &self.0[..end])
    }

    /// Where the file is on this machine.
    pub fn under(&self, root: &Path) -> PathBuf {
        root.join(&*self.0)
    }
}

/// Compares and hashes as the text does.
impl Borrow<str> for RelPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outside => "it is outside the watched directory",
            Self::NotUtf8 => "its name is not UTF-8",
            Self::Control => "its name has a control character",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(path: &str) -> Result<RelPath, BadPath> {
        RelPath::new(Path::new(path))
    }

    #[test]
    fn only_paths_that_are_safe_to_send() {
        assert_eq!(rel("./a//b.py").map(|p| p.to_string()), Ok("a/b.py".into()));
        for outside in ["", ".", "..", "a/../../b", "/etc/passwd"] {
            assert_eq!(rel(outside), Err(BadPath::Outside), "{outside:?}");
        }
        for control in ["a\nDELE b", "a\rb", "\x1b[2J", "a\x7f", "a\u{85}b"] {
            assert_eq!(rel(control), Err(BadPath::Control), "{control:?}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn names_must_be_utf8() {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9.py");
        assert_eq!(RelPath::new(Path::new(name)), Err(BadPath::NotUtf8));
    }

    #[test]
    fn parts() {
        let path = rel("a/b/c.py").expect("a good path");
        assert_eq!(path.name(), "c.py");
        assert_eq!(path.parent(), Some("a/b"));
        assert_eq!(path.ancestors().collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(rel("c.py").expect("a good path").ancestors().count(), 0);
    }

    #[test]
    fn moves() {
        let good = |path| rel(path).expect("a good path");
        assert!(path_is_beneath("a/b/c.py", "a/b") && path_is_beneath("a/b/c.py", "a"));
        assert!(!path_is_beneath("a/b", "a/b") && !path_is_beneath("a/bc", "a/b"));
        assert_eq!(good("a/b/c.py").moved(&good("a/b"), &good("x")), Some(good("x/c.py")));
        assert_eq!(good("a").moved(&good("a"), &good("b/c")), Some(good("b/c")));
        assert_eq!(good("ab").moved(&good("a"), &good("x")), None);
    }

    fn path_is_beneath(path: &str, dir: &str) -> bool {
        rel(path).expect("a good path").is_beneath(&rel(dir).expect("a good path"))
    }
}
