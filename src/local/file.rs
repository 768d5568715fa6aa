//! A local file on its way to the servers: opened safely, hashed while it is read, and checked
//! for changes afterwards.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::model::file_meta::Stamp;
use crate::model::path::RelPath;

/// Why a file cannot be sent.
#[derive(Debug)]
pub enum OpenError {
    /// It is not there any more, or is no regular file.
    Vanished,
    /// It is a symbolic link that leads out of the watched directory.
    LeadsOutside,
    /// The system does not let us read it.
    Io(io::Error),
}

/// An open file, as long as it was when it was opened. Reading it computes its content hash.
pub struct Source {
    path: PathBuf,
    target: Option<RelPath>,
    file: File,
    stamp: Stamp,
    /// How much of it is to be read yet, in bytes: a file may grow faster than it is sent.
    left: u64,
    hash: Xxh3,
}

impl Source {
    /// Opens a file under `root`, which must be canonical.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(root: &Path, rel: &RelPath) -> Result<Self, OpenError> {
        let path = rel.under(root);
        // Any directory on the way may have become a link since the file was seen.
        let real = path.canonicalize().map_err(open_error)?;
        let Ok(inside) = real.strip_prefix(root) else {
            return Err(OpenError::LeadsOutside);
        };
        let target = match real == path {
            true => None,
            false => Some(RelPath::new(inside).map_err(|_| OpenError::Vanished)?),
        };
        if !fs::metadata(&real).map_err(open_error)?.is_file() {
            return Err(OpenError::Vanished);
        }
        let mut options = OpenOptions::new();
        options.read(true);
        // Should the name have become a FIFO meanwhile, opening it must not block.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            &mut options,
            rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
        );
        let file = options.open(&real).map_err(open_error)?;
        let metadata = file.metadata().map_err(open_error)?;
        if !metadata.is_file() {
            return Err(OpenError::Vanished);
        }
        let stamp = Stamp::of(&metadata);
        Ok(Self { path, target, file, stamp, left: stamp.len, hash: Xxh3::new() })
    }

    /// Takes a file that is open for reading.
    ///
    /// # Errors
    /// As the system says.
    pub fn of(file: File) -> io::Result<Self> {
        let stamp = Stamp::of(&file.metadata()?);
        let (path, target, left) = (PathBuf::new(), None, stamp.len);
        Ok(Self { path, target, file, stamp, left, hash: Xxh3::new() })
    }

    /// The file that a link leads to.
    pub fn target(&self) -> Option<&RelPath> {
        self.target.as_ref()
    }

    /// The file's state when it was opened, or last rewound.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Goes back to the start, for reading it afresh.
    ///
    /// # Errors
    /// As the system says.
    pub fn rewind(&mut self) -> io::Result<()> {
        self.file.rewind()?;
        self.stamp = Stamp::of(&self.file.metadata()?);
        self.left = self.stamp.len;
        self.hash.reset();
        Ok(())
    }

    /// Reads on from the start of this range, in bytes, and no further than its end.
    ///
    /// # Errors
    /// As the system says.
    pub fn restrict(&mut self, range: std::ops::Range<u64>) -> io::Result<()> {
        self.file.seek(io::SeekFrom::Start(range.start))?;
        self.left = range.end.saturating_sub(range.start);
        Ok(())
    }

    /// What the system says of the open file now.
    ///
    /// # Errors
    /// As the system says.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// The hash of what has been read since the start: 64 bits against accident, not malice.
    pub fn hash(&self) -> u64 {
        self.hash.digest()
    }

    /// Whether all of it has been read.
    pub fn is_at_end(&self) -> bool {
        self.left == 0
    }

    /// Reads the whole file for its hash, and rewinds it.
    ///
    /// # Errors
    /// As the system says.
    pub fn hash_all(&mut self) -> io::Result<u64> {
        io::copy(self, &mut io::sink())?;
        let hash = self.hash();
        self.rewind()?;
        Ok(hash)
    }

    /// Whether the name now stands for another state of the file than the one that was read.
    pub fn has_changed(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| Stamp::of(&metadata) != self.stamp)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vanished => f.write_str("it is gone"),
            Self::LeadsOutside => f.write_str(
                "it is behind a symbolic link that leads out of the watched directory, and is not followed",
            ),
            Self::Io(error) => write!(f, "it cannot be read here: {error}"),
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = (&self.file).take(self.left).read(buffer)?;
        self.left -= read as u64;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

/// Deletes the file if it is still what `stamp` says, and a regular file.
///
/// # Errors
/// As the system says; [`io::ErrorKind::Other`] if it is not what it was.
pub fn delete(root: &Path, rel: &RelPath, stamp: Stamp) -> io::Result<()> {
    let path = rel.under(root);
    if path.canonicalize()? != path {
        return Err(io::Error::other("it is, or is behind, a symbolic link"));
    }
    let metadata = fs::symlink_metadata(&path)?;
    if Stamp::of(&metadata) != stamp {
        return Err(io::Error::other("it has changed since it was sent"));
    }
    fs::remove_file(path)
}

fn open_error(error: io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => OpenError::Vanished,
        _ => OpenError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(path: &str) -> RelPath {
        RelPath::new(Path::new(path)).expect("a good path")
    }

    fn root() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("its name");
        (dir, root)
    }

    #[test]
    fn the_hash_is_of_the_content_and_changes_are_seen() {
        let (_dir, root) = root();
        fs::write(root.join("a"), "one").expect("written");
        fs::write(root.join("b"), "one").expect("written");
        let mut a = Source::open(&root, &rel("a")).expect("open");
        let mut b = Source::open(&root, &rel("b")).expect("open");
        assert_eq!(a.hash_all().expect("read"), b.hash_all().expect("read"));
        assert!(!a.has_changed());
        fs::write(root.join("a"), "three").expect("written");
        assert!(a.has_changed());
        a.rewind().expect("rewound");
        assert!(!a.has_changed());
        assert_ne!(a.hash_all().expect("read"), b.hash_all().expect("read"));
    }

    #[test]
    fn only_what_was_sent_is_deleted() {
        let (_dir, root) = root();
        fs::write(root.join("a"), "one").expect("written");
        let stamp = Source::open(&root, &rel("a")).expect("open").stamp();
        fs::write(root.join("a"), "newer").expect("written");
        delete(&root, &rel("a"), stamp).expect_err("changed since");
        assert!(root.join("a").exists());
        let stamp = Source::open(&root, &rel("a")).expect("open").stamp();
        delete(&root, &rel("a"), stamp).expect("deleted");
        assert!(!root.join("a").exists());
    }

    #[test]
    #[cfg(unix)]
    fn links_lead_no_further_than_the_root() {
        use std::os::unix::fs::symlink;
        let (_dir, root) = root();
        fs::write(root.join("inside"), "x").expect("written");
        symlink("/etc/hostname", root.join("out")).expect("linked");
        symlink("inside", root.join("in")).expect("linked");
        symlink("nowhere", root.join("dangling")).expect("linked");
        assert!(matches!(Source::open(&root, &rel("out")), Err(OpenError::LeadsOutside)));
        assert!(Source::open(&root, &rel("in")).is_ok());
        assert!(matches!(Source::open(&root, &rel("dangling")), Err(OpenError::Vanished)));
        let stamp = Source::open(&root, &rel("in")).expect("open").stamp();
        delete(&root, &rel("in"), stamp).expect_err("a link is never deleted");
    }
}
