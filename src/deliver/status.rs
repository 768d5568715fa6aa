//! What is known of one host: what was ordered for it, and what became of that.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crossbeam_channel::Sender;

use crate::deliver::order::{Order, Origin};
use crate::journal::store::Journal;
use crate::model::event::{BAR_STEP, HostEvent, Outcome, Ticket, WORTH_A_BAR};
use crate::model::path::RelPath;

/// See the [module](self).
pub struct HostStatus {
    orders: Sender<Order>,
    /// Where orders are noted, to outlast us; `None` in a dry run.
    journal: Option<Journal>,
    /// Whether there is a session.
    pub connected: bool,
    /// Its lane has ended.
    pub closed: bool,
    /// It is of no use.
    pub unusable: bool,
    /// The newest order for each file that is not settled, and the file's size in bytes.
    outstanding: HashMap<RelPath, (Ticket, u64)>,
    /// The files that were given up.
    failed: BTreeSet<RelPath>,
    /// How many files were sent.
    pub files: u64,
    /// How many bytes.
    pub bytes: u64,
    burst: Option<Burst>,
    /// All files are to be looked at, and which those are is not known yet.
    awaits_listing: bool,
}

/// Orders that came before the ones before them were settled.
struct Burst {
    begun: Instant,
    shown: Instant,
    files: (usize, usize),
    bytes: (u64, u64),
    sent: usize,
    unchanged: usize,
    failed: usize,
    /// It is about all files.
    syncs: bool,
}

impl HostStatus {
    /// Of a host whose lane takes these orders.
    pub fn new(orders: Sender<Order>, journal: Option<Journal>) -> Self {
        Self {
            orders,
            journal,
            connected: false,
            closed: false,
            unusable: false,
            outstanding: HashMap::new(),
            failed: BTreeSet::new(),
            files: 0,
            bytes: 0,
            burst: None,
            awaits_listing: false,
        }
    }

    /// Has a file of `len` bytes sent.
    pub fn upload(
        &mut self,
        path: &RelPath,
        ticket: Ticket,
        origin: Origin,
        len: impl Fn() -> u64,
    ) {
        if self.unusable {
            return;
        }
        let is_save = matches!(origin, Origin::Save { .. });
        if let Some(journal) = self.journal.as_ref().filter(|_| is_save) {
            journal.is_ordered(path);
        }
        let path = path.clone();
        self.send(Order::Upload { path: path.clone(), ticket, origin });
        // Only now, so that the save is on its way already; of a single one it does not matter.
        let matters = !is_save || !self.outstanding.is_empty();
        self.expect(path, ticket, if matters { len() } else { 0 });
    }

    /// Has a file removed there.
    pub fn remove(&mut self, path: RelPath, ticket: Ticket) {
        if !self.unusable {
            self.send(Order::Remove(path.clone(), ticket));
            self.expect(path, ticket, 0);
        }
    }

    /// Has directories removed there that have gone here.
    pub fn tidy(&self) {
        self.send(Order::Tidy);
    }

    /// Somebody is at work here.
    pub fn stir(&self) {
        self.send(Order::Stir);
    }

    /// All files are to be looked at; [`HostStatus::take_listing`] says which.
    pub fn await_listing(&mut self) {
        self.awaits_listing = !self.unusable;
    }

    /// Has all files looked at if that is awaited.
    pub fn take_listing(&mut self, files: &[(RelPath, u64)], ticket: Ticket) {
        if !std::mem::take(&mut self.awaits_listing) || self.unusable {
            return;
        }
        self.burst().syncs = true;
        for (path, len) in files {
            if !self.outstanding.contains_key(path) {
                self.upload(path, ticket, Origin::Listing, || *len);
            }
        }
    }

    /// Whether all files are being looked at, or are to be.
    pub fn is_syncing(&self) -> bool {
        self.awaits_listing || self.burst.as_ref().is_some_and(|burst| burst.syncs)
    }

    /// Has the lane end when it has sent what it can.
    pub fn drain(&self) {
        self.send(Order::Drain);
    }

    /// Whether an order for this file is not settled.
    pub fn expects(&self, path: &RelPath) -> bool {
        self.outstanding.contains_key(path)
    }

    /// How many files are not settled.
    pub fn expected(&self) -> usize {
        self.outstanding.len()
    }

    /// Nothing more will become of its orders.
    pub fn give_up(&mut self) {
        self.unusable = true;
        self.awaits_listing = false;
        self.outstanding.clear();
        self.burst = None;
    }

    /// What it does not have.
    pub fn undelivered(&self) -> Vec<RelPath> {
        let paths: BTreeSet<_> = self.outstanding.keys().chain(&self.failed).collect();
        paths.into_iter().cloned().collect()
    }

    /// Takes in what became of a file; returns what there is to say of the burst that it was in.
    pub fn settle(&mut self, path: &RelPath, ticket: Ticket, outcome: &Outcome) -> Vec<HostEvent> {
        match outcome {
            Outcome::Failed(_) => drop(self.failed.insert(path.clone())),
            _ => drop(self.failed.remove(path)),
        }
        match outcome {
            Outcome::Sent { bytes, .. } => {
                self.files += 1;
                self.bytes += bytes;
            }
            Outcome::Renamed { .. } => self.files += 1,
            _ => {}
        }
        let len = match self.outstanding.get(path) {
            Some((newest, len)) if *newest == ticket => *len,
            _ => return Vec::new(),
        };
        self.outstanding.remove(path);
        let burst = self.burst();
        burst.files.0 += 1;
        burst.bytes.0 += len;
        match outcome {
            Outcome::Failed(_) | Outcome::Declined(_) => burst.failed += 1,
            Outcome::Unchanged { .. } => burst.unchanged += 1,
            Outcome::Vanished => {}
            _ => burst.sent += 1,
        }
        self.progress()
    }

    /// Ends the burst if all of it is settled; returns what there is to say of it.
    pub fn end_burst(&mut self) -> Vec<HostEvent> {
        if !self.outstanding.is_empty() || self.awaits_listing {
            return Vec::new();
        }
        let Some(Burst { syncs, files, bytes, sent, unchanged, failed, begun, shown }) =
            self.burst.take()
        else {
            return Vec::new();
        };
        let mut events = Vec::new();
        if shown > begun {
            events.push(HostEvent::Burst { files, bytes, elapsed: begun.elapsed() });
        }
        if syncs {
            events.push(HostEvent::Synced { sent, unchanged, failed });
        }
        events
    }

    fn progress(&mut self) -> Vec<HostEvent> {
        let Some(Burst { begun, shown, files, bytes, .. }) = &mut self.burst else {
            return Vec::new();
        };
        let is_short = begun.elapsed() < WORTH_A_BAR || files.1 < files.0 + 2;
        if (is_short && begun == shown) || shown.elapsed() < BAR_STEP {
            return Vec::new();
        }
        *shown = Instant::now();
        vec![HostEvent::Burst { files: *files, bytes: *bytes, elapsed: begun.elapsed() }]
    }

    fn expect(&mut self, path: RelPath, ticket: Ticket, len: u64) {
        let known = self.outstanding.insert(path, (ticket, len));
        let burst = self.burst();
        burst.files.1 += usize::from(known.is_none());
        burst.bytes.1 = (burst.bytes.1 + len).saturating_sub(known.map_or(0, |(_, len)| len));
    }

    fn burst(&mut self) -> &mut Burst {
        self.burst.get_or_insert_with(|| {
            let now = Instant::now();
            Burst {
                begun: now,
                shown: now,
                files: (0, 0),
                bytes: (0, 0),
                sent: 0,
                unchanged: 0,
                failed: 0,
                syncs: false,
            }
        })
    }

    fn send(&self, order: Order) {
        // A lane that has ended meanwhile leaves it outstanding.
        let _ = self.orders.send(order);
    }
}
