//! Files as they were listed, and never otherwise.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::SystemTime;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::local::file::{OpenError, Source};
use crate::model::file_meta::{STEP, Stamp};
use crate::model::path::RelPath;
use crate::serve::catalog::{Checksum, Hasher, Item};
use crate::serve::lock::lock;

/// Long files are read in pieces of so many bytes.
const PIECE: usize = 64 * 1024;

/// So many bytes are kept of what was asked for last, of so many files.
const KEPT: (usize, usize) = (16 * 1024 * 1024, 256);

/// Why a file is not published.
#[derive(Debug)]
pub enum Unread {
    /// It is a symbolic link.
    Link,
    /// It cannot be opened or read.
    Closed(OpenError),
}

/// Reads a file for its checksum.
///
/// # Errors
/// See [`Unread`].
pub fn read(root: &Path, path: &RelPath) -> Result<Item, Unread> {
    let mut source = open(root, path)?;
    let (checksum, len) =
        sum(&mut source, path).map_err(|error| Unread::Closed(OpenError::Io(error)))?;
    Ok(Item { path: path.clone(), checksum, len })
}

/// Whether a file could be read.
pub fn opens(root: &Path, path: &RelPath) -> bool {
    open(root, path).is_ok()
}

fn open(root: &Path, path: &RelPath) -> Result<Source, Unread> {
    // Also one that leads nowhere, or not yet.
    if path.under(root).is_symlink() {
        return Err(Unread::Link);
    }
    match Source::open(root, path) {
        Ok(source) if source.target().is_some() => Err(Unread::Link),
        Ok(source) => Ok(source),
        Err(error) => Err(Unread::Closed(error)),
    }
}

fn sum(source: &mut Source, path: &RelPath) -> io::Result<(Checksum, u64)> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; PIECE];
    let mut len = 0;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(path), len)),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                len += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file that is as it was listed.
pub enum Content {
    /// All of it.
    Short(Bytes),
    /// Open, and in this state as long as it is what was listed.
    Long(Box<Source>, State),
}

/// What was asked for last.
#[derive(Default)]
pub struct Shelf {
    short: Mutex<VecDeque<(Checksum, Bytes)>>,
    /// The states of long files that were found to be what was listed.
    long: Mutex<VecDeque<(Checksum, State)>>,
}

/// What cannot stay the same when a file changes: the time of its last change cannot be set back
/// (`ctime`, where there is such a thing).
pub type State = (Stamp, Option<SystemTime>);

fn state(source: &Source) -> io::Result<State> {
    let metadata = source.metadata()?;
    #[cfg(unix)]
    let changed = {
        use std::os::unix::fs::MetadataExt;
        use std::time::Duration;
        let unsigned = |number: i64| u64::try_from(number).map_err(io::Error::other);
        let seconds = Duration::from_secs(unsigned(metadata.ctime())?);
        let nanos = Duration::from_nanos(unsigned(metadata.ctime_nsec())?);
        Some(SystemTime::UNIX_EPOCH + seconds + nanos)
    };
    #[cfg(not(unix))]
    let changed = None;
    Ok((Stamp::of(&metadata), changed))
}

impl Shelf {
    /// Opens a file; `None` if it is not what was listed any more. Reads all of it unless it is on
    /// the shelf.
    pub fn content(&self, root: &Path, item: &Item) -> Option<Content> {
        if let Some(bytes) = self.find(item.checksum) {
            return Some(Content::Short(bytes));
        }
        let mut source = open(root, &item.path).ok()?;
        let stamp = source.stamp();
        if stamp.len != item.len {
            return None;
        }
        if !item.is_long() {
            let mut bytes = Vec::with_capacity(usize::try_from(item.len).ok()?);
            source.read_to_end(&mut bytes).ok()?;
            let mut hasher = Hasher::default();
            hasher.update(&bytes);
            if hasher.finish(&item.path) != item.checksum {
                return None;
            }
            let bytes = Bytes::from(bytes);
            self.keep(item.checksum, bytes.clone());
            return Some(Content::Short(bytes));
        }
        if stamp.is_fresh(SystemTime::now()) {
            thread::sleep(STEP);
        }
        // From here on, every change of it shows in its time stamp; but where those are in seconds.
        let now = SystemTime::now();
        if stamp.is_fresh(now) && !stamp.is_ahead(now) {
            return None;
        }
        let now_is = state(&source).ok()?;
        let is_known = lock(&self.long).contains(&(item.checksum, now_is));
        if !is_known {
            let (checksum, _) = sum(&mut source, &item.path).ok()?;
            if checksum != item.checksum || state(&source).ok()? != now_is {
                return None;
            }
            self.vouch(item.checksum, now_is, now);
        }
        Some(Content::Long(Box::new(source), now_is))
    }

    /// Notes that a long file in this state is what was listed.
    fn vouch(&self, checksum: Checksum, state: State, now: SystemTime) {
        let age = state.1.and_then(|changed| now.duration_since(changed).ok());
        if age.is_some_and(|age| age > STEP) {
            let mut long = lock(&self.long);
            long.push_back((checksum, state));
            if long.len() > KEPT.1 {
                long.pop_front();
            }
        }
    }

    /// What is on the shelf of a file with this checksum.
    pub fn find(&self, checksum: Checksum) -> Option<Bytes> {
        let mut kept = lock(&self.short);
        let place = kept.iter().rposition(|(other, _)| *other == checksum)?;
        let found = kept.remove(place)?;
        let bytes = found.1.clone();
        kept.push_back(found);
        Some(bytes)
    }

    fn keep(&self, checksum: Checksum, bytes: Bytes) {
        let mut kept = lock(&self.short);
        kept.push_back((checksum, bytes));
        let mut size: usize = kept.iter().map(|(_, bytes)| bytes.len()).sum();
        while size > KEPT.0 || kept.len() > KEPT.1 {
            let Some((_, bytes)) = kept.pop_front() else { return };
            size -= bytes.len();
        }
    }
}

/// A range of a file, as the body of an answer. When the file turns out to have changed, the body
/// ends with an error before a byte of the new content is sent.
pub enum Pieces {
    /// It is in memory.
    Short(Option<Bytes>),
    /// It is read on.
    Long {
        /// The file, unless it is being read from.
        source: Option<Box<Source>>,
        /// The state that it has to stay in.
        state: State,
        /// The next piece of it.
        next: Option<JoinHandle<io::Result<Piece>>>,
        /// How many bytes are yet to come.
        left: u64,
    },
}

impl Pieces {
    /// Of what has been made up for the answer.
    pub fn of(text: impl Into<Bytes>) -> Self {
        Self::Short(Some(text.into()))
    }

    /// Of a file, these bytes.
    ///
    /// # Errors
    /// As the system says.
    pub fn cut(content: Content, range: Range<u64>) -> io::Result<Self> {
        match content {
            Content::Short(bytes) => {
                let place = |at| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                Ok(Self::of(bytes.slice(place(range.start)..place(range.end))))
            }
            Content::Long(mut source, state) => {
                let left = range.end - range.start;
                source.restrict(range)?;
                Ok(Self::Long { source: Some(source), state, next: None, left })
            }
        }
    }
}

/// The next bytes of a file, and the rest of it.
type Piece = (Box<Source>, Bytes);

fn read_piece(mut source: Box<Source>, known: State) -> io::Result<Piece> {
    let mut piece = vec![0; PIECE];
    let read = source.read(&mut piece)?;
    piece.truncate(read);
    // It was what was listed until now, then, and the piece with it.
    if read == 0 || state(&source)? != known {
        return Err(io::Error::other("the file has changed"));
    }
    Ok((source, piece.into()))
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Short(bytes) => {
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Long { left: 0, .. } => Poll::Ready(None),
            Self::Long { source, state, next, left } => {
                if let Some(source) = source.take() {
                    let state = *state;
                    *next = Some(spawn_blocking(move || read_piece(source, state)));
                }
                let Some(reading) = next else { return Poll::Ready(None) };
                let piece = ready!(Pin::new(reading).poll(context));
                *next = None;
                let (rest, piece) = piece.map_err(io::Error::other).flatten()?;
                *source = Some(rest);
                *left = left.saturating_sub(piece.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Short(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Long { left, .. } => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Short(bytes) => bytes.as_ref().map_or(0, Bytes::len) as u64,
            Self::Long { left, .. } => *left,
        })
    }
}
