//! Making one file there what it is here: sending it, unless it is there already, renaming it,
//! removing it.

use std::time::{Duration, Instant, SystemTime};

use xxhash_rust::xxh3::xxh3_64;

use crate::deliver::worker::{HostWorker, TRIES};
use crate::ftp::error::{AWAY, TransferError};
use crate::ftp::session::{FtpSession, ServerFacts, Size, Stored, Upload};
use crate::journal::store::Content;
use crate::local::file::{OpenError, Source};
use crate::model::event::{HostEvent, IDLE_END, Outcome};
use crate::model::path::RelPath;
use crate::model::verdict::{Verdict, Why};
use crate::pending::queue::{Class, Job, Timing};

/// A temporary name that is refused this often may be what is refused: the file's own is tried.
const TRIES_UNDER_TEMPORARY_NAME: u32 = 3;

/// As many files, at most; with `--sync` these are the sample that shows whether all is lost.
const LAST_WRITES: usize = 32;

/// What the server has under a path where a certain content was stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum There {
    /// Something of that size.
    Same,
    /// Something of another size in bytes, or nothing.
    Other(Option<u64>),
    /// It does not tell.
    Unknown,
}

/// What is to be done for a job.
pub enum Task {
    /// Nothing more.
    Done(Outcome),
    /// This is to be sent.
    Send(Box<PreparedUpload>),
}

/// A file on its way.
pub struct PreparedUpload {
    path: RelPath,
    source: Source,
    /// The name to store it under first.
    temporary: Option<String>,
    /// It was refused before.
    again: bool,
    /// A file of this name is known to be there.
    replaces: bool,
    /// Another file is waiting.
    more: bool,
    started: Instant,
}

impl PreparedUpload {
    /// The file.
    pub fn path(&self) -> &RelPath {
        &self.path
    }

    /// Sends it.
    pub fn send(
        &mut self,
        session: &mut FtpSession,
        facts: &mut ServerFacts,
        progress: &mut dyn FnMut(u64, u64, Duration),
    ) -> Result<Stored, TransferError> {
        let Self { path, source, temporary, again, replaces, more, started } = self;
        let temporary = temporary.as_deref();
        let (again, replaces, more, total) = (*again, *replaces, *more, source.stamp().len);
        let upload = Upload { path, temporary, again, replaces, more };
        let mut show = |sent| progress(sent, total, started.elapsed());
        let stored = session.store(upload, source, facts, &mut show);
        stored.map_err(|error| error.during(format_args!("{path} was under way")))
    }
}

impl HostWorker {
    /// Makes one file there what it is here, as far as that is done without sending it. `slot` tells
    /// files apart that are under way at the same time.
    pub fn prepare(&mut self, job: &Job, slot: usize) -> Result<Task, TransferError> {
        let path = &job.path;
        let mut source = match Source::open(&self.config.root, path) {
            Ok(source) => source,
            Err(OpenError::Vanished) => return self.attempt_removal(job).map(Task::Done),
            Err(error @ OpenError::LeadsOutside) => {
                return Ok(Task::Done(self.settled(job, Outcome::Declined(error.to_string()))));
            }
            Err(OpenError::Io(error)) => return Err(TransferError::Local(error)),
        };
        self.removals.remove(path);
        if let Some(target) = source.target()
            && let Verdict::Ignored(Why::Own | Why::Excluded) = self.config.filter.verdict(target)
        {
            let cause = format!("it is a link to {target}, which is ignored");
            return Ok(Task::Done(self.settled(job, Outcome::Declined(cause))));
        }
        self.check_session()?;
        if self.has_already(job, &mut source)? {
            let unchanged = Outcome::Unchanged { stamp: source.stamp() };
            return Ok(Task::Done(self.settled(job, unchanged)));
        }
        if self.config.dry_run {
            return Ok(Task::Done(Outcome::WouldSend { bytes: source.stamp().len }));
        }
        if let Some(outcome) = self.attempt_rename(path, &mut source)? {
            return Ok(Task::Done(outcome));
        }
        let replaces = self.ledger.content(path).is_some()
            || self.last_writes.iter().any(|(written, _)| written == path);
        // Whatever becomes of it, the server may not have the old content any more.
        self.absent.remove(path);
        self.ledger.is_changing(path);
        Ok(Task::Send(Box::new(PreparedUpload {
            path: path.clone(),
            source,
            temporary: self.temporary(job, slot),
            again: job.failures > 0,
            replaces,
            more: self.queue.next_due().is_some_and(|due| due <= Instant::now()),
            started: Instant::now(),
        })))
    }

    /// A file is stored.
    pub fn conclude(&mut self, upload: Box<PreparedUpload>, stored: Stored) -> Outcome {
        let PreparedUpload { path, source, temporary, started, .. } = *upload;
        let Stored { bytes, when } = stored;
        let took = when - started;
        self.note_stored(&path, &source, bytes, temporary);
        Outcome::Sent { bytes, took, stamp: source.stamp() }
    }

    pub(super) fn note_stored(
        &mut self,
        path: &RelPath,
        source: &Source,
        bytes: u64,
        temporary: Option<String>,
    ) {
        if let Some(name) = temporary {
            self.facts.is_stored_by_renaming();
            self.leftovers.remove(&name);
            self.ledger.journal().is_gone(&name);
        } else if self.config.atomic && !self.in_place_said && self.facts.is_stored_in_place() {
            self.in_place_said = true;
            self.tell(HostEvent::Notice(
                "files cannot be renamed there: they are stored in place, without --atomic"
                    .to_owned(),
            ));
        }
        // A file that is deleted here once it is sent is a new one whenever it comes back.
        if self.config.filter.up_delete(path) {
            self.ledger.is_settled(path);
        } else {
            self.note_there(path, Content { len: bytes, hash: source.hash() });
        }
        if source.has_changed() {
            // It was written to while it was read: compare it with what was sent.
            self.queue.put(path.clone(), Class::of(path), Instant::now() + Timing::NATIVE.settle);
        }
    }

    /// Nothing is to be delivered, or not any more.
    pub(super) fn settled(&self, job: &Job, outcome: Outcome) -> Outcome {
        // What goes on in the background was not noted as ordered.
        let was_noted = job.class != Class::Background || self.refused.contains(&job.path);
        if !self.config.dry_run && was_noted {
            self.ledger.is_settled(&job.path);
        }
        outcome
    }

    /// The name to store a file under first.
    pub(super) fn temporary(&mut self, job: &Job, slot: usize) -> Option<String> {
        if !self.config.atomic
            || self.facts.cannot_rename()
            || (TRIES_UNDER_TEMPORARY_NAME..TRIES).contains(&job.failures)
        {
            return None;
        }
        let name = match slot {
            0 => self.temporary_name.clone(),
            slot => format!("{}-{slot}", self.temporary_name),
        };
        let name = match job.path.parent() {
            Some(parent) => format!("{parent}/{name}"),
            None => name,
        };
        if self.leftovers.insert(name.clone()) {
            self.ledger.journal().may_be_left(&name);
        }
        Some(name)
    }

    /// Whether the host has this content already. What an earlier session stored is believed only
    /// if the size is still right.
    pub(super) fn has_already(
        &mut self,
        job: &Job,
        source: &mut Source,
    ) -> Result<bool, TransferError> {
        let path = &job.path;
        if self.config.force && self.tickets.contains_key(path) {
            return Ok(false);
        }
        let Some(content) = self.ledger.content(path) else {
            return Ok(false);
        };
        // What is only in doubt need not be read: if it is being changed just now, that will be told.
        let is_in_doubt = job.class == Class::Background
            && !self.tickets.contains_key(path)
            && !self.refused.contains(path);
        if !is_in_doubt
            && (content.len != source.stamp().len
                || content.hash != source.hash_all().map_err(TransferError::Local)?)
        {
            return Ok(false);
        }
        let there = self.what_is_there(path, content)?;
        if let There::Other(now_there) = there
            && !self.config.dry_run
        {
            *self.lost.entry(path.clone()).or_default() += 1;
            self.tell(HostEvent::Lost { path: path.clone(), now_there });
        }
        Ok(there == There::Same)
    }

    /// Looks whether what was stored is there, by its size; once a session.
    pub(super) fn what_is_there(
        &mut self,
        path: &RelPath,
        content: Content,
    ) -> Result<There, TransferError> {
        if self.confirmed.contains(path) {
            return Ok(There::Same);
        }
        let Some(session) = &mut self.session else {
            return Ok(There::Unknown);
        };
        let size = session.size(path, &mut self.facts)?;
        let now = Instant::now();
        self.last_heard = now;
        Ok(match size {
            Size::Bytes(bytes) if bytes == content.len => {
                self.last_work = now;
                self.confirmed.insert(path.clone());
                self.absent.remove(path);
                if self.config.sync {
                    // One of the sample that shows whether all is lost.
                    self.note_write(path, now);
                }
                There::Same
            }
            Size::Bytes(bytes) => There::Other(Some(bytes)),
            Size::Missing => There::Other(None),
            Size::Untold => There::Unknown,
        })
    }

    /// A file that was renamed here is renamed there if it is there, and is what it is here.
    pub(super) fn attempt_rename(
        &mut self,
        path: &RelPath,
        source: &mut Source,
    ) -> Result<Option<Outcome>, TransferError> {
        let Some(from) = self.renames.remove(path) else {
            return Ok(None);
        };
        let Some(content) = self.ledger.content(&from) else {
            return Ok(None);
        };
        let hash = source.hash_all().map_err(TransferError::Local)?;
        if content != (Content { len: source.stamp().len, hash })
            || from.under(&self.config.root).symlink_metadata().is_ok()
            || self.what_is_there(&from, content)? != There::Same
        {
            return Ok(None);
        }
        let Some(session) = &mut self.session else {
            return Ok(None);
        };
        let started = Instant::now();
        self.ledger.is_changing(&from);
        self.ledger.is_changing(path);
        match session.move_to(&from, path, &mut self.facts) {
            Ok(()) => {}
            Err(error @ (TransferError::Disconnected(_) | TransferError::Reconnect(_))) => {
                return Err(error);
            }
            // Sending it will do, and the old name is removed by and by.
            Err(_) => return Ok(None),
        }
        self.note_gone(&from);
        let took = started.elapsed();
        self.note_there(path, content);
        Ok(Some(Outcome::Renamed { from, took }))
    }

    /// The file is not here any more.
    pub(super) fn attempt_removal(&mut self, job: &Job) -> Result<Outcome, TransferError> {
        let path = &job.path;
        // With the whole project out of sight, it is not the file that was deleted.
        let is_to_go = self.removals.contains(path) && !self.absent.contains(path);
        if !is_to_go || !self.config.root.is_dir() {
            self.removals.remove(path);
            return Ok(self.settled(job, Outcome::Vanished));
        }
        if self.config.dry_run {
            return Ok(Outcome::WouldRemove);
        }
        self.check_session()?;
        let Some(session) = &mut self.session else {
            return Err(TransferError::Disconnected("no session".to_owned()));
        };
        self.ledger.is_changing(path);
        let was_there = session
            .remove(path.as_str(), &mut self.facts)
            .map_err(|error| error.of("removing it"))?;
        self.removals.remove(path);
        self.note_gone(path);
        Ok(if was_there { Outcome::Removed } else { Outcome::Vanished })
    }

    /// The file is not there any more.
    pub(super) fn note_gone(&mut self, path: &RelPath) {
        self.ledger.is_settled(path);
        self.confirmed.remove(path);
        self.absent.insert(path.clone());
        self.last_writes.retain(|(other, _)| other != path);
        self.emptied.extend(path.ancestors().map(ToOwned::to_owned));
    }

    /// The file is there, with this content.
    pub(super) fn note_there(&mut self, path: &RelPath, content: Content) {
        self.ledger.is_stored(path, content);
        self.absent.remove(path);
        self.confirmed.insert(path.clone());
        self.note_write(path, Instant::now());
    }

    pub(super) fn note_write(&mut self, path: &RelPath, when: Instant) {
        self.last_writes.retain(|(other, _)| other != path);
        self.last_writes.push_back((path.clone(), when));
        if self.last_writes.len() > LAST_WRITES {
            self.last_writes.pop_front();
        }
    }

    /// Finds out early about a session that has ended while it was idle, so that the file at hand
    /// goes out in a new one at once.
    pub(super) fn check_session(&mut self) -> Result<(), TransferError> {
        match &self.session {
            Some(session) if !session.is_quiet() => {
                Err(TransferError::Disconnected(IDLE_END.to_owned()))
            }
            Some(session) if !session.is_at_home() => {
                Err(TransferError::Disconnected(AWAY.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// A name that no other process uses.
pub fn temporary_name() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = format!("{} {}", std::process::id(), now.as_nanos());
    format!(".autoftp-{:06x}", xxh3_64(seed.as_bytes()) & 0xff_ffff)
}
