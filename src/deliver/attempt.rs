//! Making one file there what it is here: sending it, unless it is there already, renaming it,
//! removing it.

use std::time::{Instant, SystemTime};

use xxhash_rust::xxh3::xxh3_64;

use super::{Lane, TRIES};
use crate::event::{BAR_STEP, Event, HostEvent, IDLE_END, Outcome, WORTH_A_BAR};
use crate::filter::{Verdict, Why};
use crate::ledger::Content;
use crate::path::RelPath;
use crate::queue::{Class, Job, Timing};
use crate::remote::ftp::{Size, Upload};
use crate::remote::{AWAY, TransferError};
use crate::source::{OpenError, Source};

/// A temporary name that is refused this often may be what is refused: the file's own is tried.
const TRIES_UNDER_TEMPORARY_NAME: u32 = 3;

/// As many files, at most; with `--sync` these are the sample that shows whether all is lost.
const LAST_WRITES: usize = 32;

/// What the server has under a path where a certain content was stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum There {
    /// Something of that size.
    Same,
    /// Something of another size in bytes, or nothing.
    Other(Option<u64>),
    /// It does not tell.
    Unknown,
}

impl Lane {
    /// Tries to make one file there what it is here.
    pub(super) fn attempt(&mut self, job: &Job) -> Result<Outcome, TransferError> {
        let path = &job.path;
        let mut source = match Source::open(&self.config.root, path) {
            Ok(source) => source,
            Err(OpenError::Vanished) => return self.attempt_removal(job),
            Err(error @ OpenError::LeadsOutside) => {
                return Ok(self.settled(job, Outcome::Declined(error.to_string())));
            }
            Err(OpenError::Io(error)) => return Err(TransferError::Local(error)),
        };
        self.removals.remove(path);
        if let Some(target) = source.target()
            && let Verdict::Ignored(Why::Own | Why::Excluded) = self.config.filter.verdict(target)
        {
            let cause = format!("it is a link to {target}, which is ignored");
            return Ok(self.settled(job, Outcome::Declined(cause)));
        }
        self.check_session()?;
        if self.has_already(job, &mut source)? {
            return Ok(self.settled(job, Outcome::Unchanged { stamp: source.stamp() }));
        }
        if self.config.dry_run {
            return Ok(Outcome::WouldSend { bytes: source.stamp().len });
        }
        if let Some(outcome) = self.attempt_rename(path, &mut source)? {
            return Ok(outcome);
        }
        let replaces = self.ledger.content(path).is_some()
            || self.last_writes.iter().any(|(written, _)| written == path);
        // Whatever becomes of it, the server may not have the old content any more.
        self.absent.remove(path);
        self.ledger.is_changing(path);
        let temporary = self.temporary(job);
        let started = Instant::now();
        let mut shown = (started + WORTH_A_BAR - BAR_STEP, 0);
        let (id, events, total) = (self.id, &self.events, source.stamp().len);
        let ledger = &self.ledger;
        let Some(session) = &mut self.session else {
            return Err(TransferError::Disconnected("no session".to_owned()));
        };
        let (temporary_name, again) = (temporary.as_deref(), job.failures > 0);
        let more = self.queue.next_due().is_some_and(|due| due <= started);
        let upload = Upload { path, temporary: temporary_name, again, replaces, more };
        let stored = session.store(upload, &mut source, &mut self.lore, &mut |sent| {
            if shown.0.elapsed() >= BAR_STEP {
                ledger.keep_turn();
                let (path, elapsed, moved) = (path.clone(), started.elapsed(), sent > shown.1);
                shown = (Instant::now(), sent);
                let what = HostEvent::Sending { path, sent, total, elapsed, moved };
                let _ = events.send(Event::Host { host: id, what });
            }
        });
        let bytes = stored.map_err(|error| error.during(format_args!("{path} was under way")))?;
        let took = started.elapsed();
        self.note_stored(path, &source, bytes, temporary);
        let stamp = source.stamp();
        Ok(Outcome::Sent { bytes, took, stamp })
    }

    fn note_stored(
        &mut self,
        path: &RelPath,
        source: &Source,
        bytes: u64,
        temporary: Option<String>,
    ) {
        if let Some(name) = temporary {
            self.lore.is_stored_by_renaming();
            self.leftovers.remove(&name);
            self.ledger.journal().is_gone(&name);
        } else if self.config.atomic && !self.in_place_said && self.lore.is_stored_in_place() {
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
    fn settled(&self, job: &Job, outcome: Outcome) -> Outcome {
        // What goes on in the background was not noted as ordered.
        let was_noted = job.class != Class::Background || self.refused.contains(&job.path);
        if !self.config.dry_run && was_noted {
            self.ledger.is_settled(&job.path);
        }
        outcome
    }

    /// The name to store a file under first.
    fn temporary(&mut self, job: &Job) -> Option<String> {
        if !self.config.atomic
            || self.lore.cannot_rename()
            || (TRIES_UNDER_TEMPORARY_NAME..TRIES).contains(&job.failures)
        {
            return None;
        }
        let name = match job.path.parent() {
            Some(parent) => format!("{parent}/{}", self.temporary_name),
            None => self.temporary_name.clone(),
        };
        if self.leftovers.insert(name.clone()) {
            self.ledger.journal().may_be_left(&name);
        }
        Some(name)
    }

    /// Whether the host has this content already. What an earlier session stored is believed only
    /// if the size is still right.
    fn has_already(&mut self, job: &Job, source: &mut Source) -> Result<bool, TransferError> {
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
    fn what_is_there(&mut self, path: &RelPath, content: Content) -> Result<There, TransferError> {
        if self.confirmed.contains(path) {
            return Ok(There::Same);
        }
        let Some(session) = &mut self.session else {
            return Ok(There::Unknown);
        };
        let size = session.size(path, &mut self.lore)?;
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
    fn attempt_rename(
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
        match session.move_to(&from, path, &mut self.lore) {
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
    fn attempt_removal(&mut self, job: &Job) -> Result<Outcome, TransferError> {
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
            .remove(path.as_str(), &mut self.lore)
            .map_err(|error| error.of("removing it"))?;
        self.removals.remove(path);
        self.note_gone(path);
        Ok(if was_there { Outcome::Removed } else { Outcome::Vanished })
    }

    /// The file is not there any more.
    fn note_gone(&mut self, path: &RelPath) {
        self.ledger.is_settled(path);
        self.confirmed.remove(path);
        self.absent.insert(path.clone());
        self.last_writes.retain(|(other, _)| other != path);
        self.emptied.extend(path.ancestors().map(ToOwned::to_owned));
    }

    /// The file is there, with this content.
    fn note_there(&mut self, path: &RelPath, content: Content) {
        self.ledger.is_stored(path, content);
        self.absent.remove(path);
        self.confirmed.insert(path.clone());
        self.note_write(path, Instant::now());
    }

    fn note_write(&mut self, path: &RelPath, when: Instant) {
        self.last_writes.retain(|(other, _)| other != path);
        self.last_writes.push_back((path.clone(), when));
        if self.last_writes.len() > LAST_WRITES {
            self.last_writes.pop_front();
        }
    }

    /// Finds out early about a session that has ended while it was idle, so that the file at hand
    /// goes out in a new one at once.
    fn check_session(&mut self) -> Result<(), TransferError> {
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
