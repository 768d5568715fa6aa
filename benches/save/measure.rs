//! What is measured of all tools, taking turns.

use std::time::Duration;

use crate::rig::{Burst, EDITED, Rig, Save, Way};
use crate::stats::{Values, line};
use crate::tools::Kind;

/// How much is done.
pub struct Amount {
    /// Round trips in milliseconds, each with a number of saves.
    pub saves: Vec<(u32, usize)>,
    /// Directories of ten files each.
    pub directories: usize,
    /// Bursts without a round trip; with one, where each takes its time, there is one.
    pub bursts: usize,
    pub big_rounds: usize,
    pub big_len: usize,
    pub idle: Duration,
    pub starts: usize,
    /// Directories of ten files each; none for nothing of the kind.
    pub large_tree: usize,
    /// How long boards are looked at for whom there is nothing new.
    pub fleet_idle: Duration,
    /// Saves that a fleet fetches.
    pub updates: usize,
    /// Saves of which the version is fetched, in each way.
    pub versions: usize,
}

impl Amount {
    pub fn full() -> Amount {
        Amount {
            saves: vec![(0, 100), (20, 40), (100, 25)],
            directories: 20,
            bursts: 5,
            big_rounds: 7,
            big_len: 20_000_000,
            idle: Duration::from_secs(20),
            starts: 9,
            large_tree: 5_000,
            // In it, everyone who waits for so long asks again once.
            fleet_idle: Duration::from_secs(30),
            updates: 20,
            versions: 40,
        }
    }

    /// Enough to see that everything works.
    pub fn quick() -> Amount {
        Amount {
            saves: vec![(0, 5), (20, 5), (100, 3)],
            directories: 3,
            bursts: 2,
            big_rounds: 2,
            idle: Duration::from_secs(3),
            starts: 3,
            large_tree: 0,
            fleet_idle: Duration::from_secs(3),
            updates: 3,
            versions: 5,
            ..Amount::full()
        }
    }
}

/// The size of a file that is saved to see how long that takes, in bytes.
pub const SMALL: usize = 2048;

/// Files in each directory of a burst.
const FILES: usize = 10;

/// The round trip of the bursts, in milliseconds.
pub const BURST_ROUND_TRIP: u32 = 20;

/// Saves at one round-trip time, all in milliseconds.
#[derive(Default)]
pub struct Series {
    pub round_trip: u32,
    pub saves: usize,
    pub stored: Values,
    pub known: Values,
    /// Until the first command arrived at the relay, and until STOR did.
    pub first: Values,
    pub stor: Values,
    /// The commands of the last save, up to when it was known to be stored.
    pub commands: Vec<String>,
    pub failed: usize,
    pub doubled: usize,
}

/// The latency of one tool.
pub struct Latency {
    pub kind: Kind,
    pub series: Vec<Series>,
}

impl Latency {
    /// Round trips for each save, by the slope of the medians.
    pub fn round_trips(&self, of: fn(&Series) -> &Values) -> Option<f64> {
        let point = |series: &Series| Some((f64::from(series.round_trip), of(series).median()?));
        let points: Vec<_> = self.series.iter().filter_map(point).collect();
        line(&points).map(|(slope, _)| slope)
    }

    pub fn failed(&self) -> usize {
        self.series.iter().map(|series| series.failed).sum()
    }

    pub fn doubled(&self) -> usize {
        self.series.iter().map(|series| series.doubled).sum()
    }
}

impl Series {
    fn add(&mut self, save: &Save) {
        self.saves += 1;
        self.doubled += save.doubled;
        let (Some(stored), Some(known)) = (save.stored, save.known) else {
            self.failed += 1;
            return;
        };
        self.stored.push(millis(stored));
        self.known.push(millis(known));
        let said: Vec<_> = save.said.iter().filter(|(at, _)| *at <= known).collect();
        let stor = said.iter().find(|(_, line)| line.starts_with("STOR "));
        for (values, heard) in [(&mut self.first, said.first()), (&mut self.stor, stor)] {
            if let Some((at, _)) = heard {
                values.push(millis(*at));
            }
        }
        let verb = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
        self.commands = said.iter().map(|(_, line)| verb(line)).collect();
    }
}

pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn files(directories: usize) -> Vec<String> {
    (0..directories * FILES)
        .map(|number| format!("pkg{:02}/mod{}.py", number / FILES, number % FILES))
        .collect()
}

/// The tools with a relay each, in a project for the bursts.
pub fn relayed(kinds: &[Kind], amount: &Amount) -> Vec<Rig> {
    start(kinds, Way::Relayed, amount)
}

/// The same without a relay.
pub fn direct(kinds: &[Kind], amount: &Amount) -> Vec<Rig> {
    start(kinds, Way::Direct, amount)
}

fn start(kinds: &[Kind], way: Way, amount: &Amount) -> Vec<Rig> {
    let files = files(amount.directories);
    kinds.iter().map(|kind| Rig::start(*kind, way, &files)).collect()
}

/// One after the other saves, at each round-trip time; each round begins with another tool.
pub fn latency(rigs: &mut [Rig], amount: &Amount) -> Vec<Latency> {
    let nothing = |rig: &Rig| Latency { kind: rig.kind, series: Vec::new() };
    let mut all: Vec<_> = rigs.iter().map(nothing).collect();
    for (round_trip, saves) in &amount.saves {
        let delay = Duration::from_millis((*round_trip).into());
        for (rig, latency) in rigs.iter_mut().zip(&mut all) {
            rig.set_round_trip(delay);
            latency.series.push(Series { round_trip: *round_trip, ..Series::default() });
            // What the tool has prepared was prepared in the old world.
            rig.pause(delay * 6);
            rig.save(EDITED, SMALL);
        }
        for round in 0..*saves {
            for turn in 0..rigs.len() {
                let index = (round + turn) % rigs.len();
                // Four round trips make a new data connection ready, for who does that.
                rigs[index].pause(delay * 6);
                let save = rigs[index].save(EDITED, SMALL);
                if let Some(series) = all[index].series.last_mut() {
                    series.add(&save);
                }
            }
        }
    }
    all
}

/// So many bursts for each tool at this round trip in milliseconds, taking turns. All go through the
/// relay, also without a round trip: what is compared has to come the same way. Where answers come at
/// once, curl 7.88.1 may wait for its limit of a second in poll(), on its control connection alone,
/// before it connects for a file: at times through the relay, often without it.
pub fn bursts(
    rigs: &mut [Rig],
    round_trip: u32,
    rounds: usize,
    amount: &Amount,
) -> Vec<Vec<Burst>> {
    let paths = files(amount.directories);
    let delay = Duration::from_millis(round_trip.into());
    let mut all: Vec<Vec<Burst>> = rigs.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (rig, bursts) in rigs.iter_mut().zip(&mut all) {
            rig.set_round_trip(delay);
            rig.pause(delay * 6);
            bursts.push(rig.burst(&paths));
        }
    }
    all
}

/// A big file, in milliseconds.
pub struct Big {
    pub kind: Kind,
    pub stored: Values,
    pub known: Values,
    pub failed: usize,
}

/// The big file again and again, taking turns.
pub fn big(rigs: &mut [Rig], amount: &Amount) -> Vec<Big> {
    let nothing = |rig: &Rig| {
        let (stored, known) = (Values::default(), Values::default());
        Big { kind: rig.kind, stored, known, failed: 0 }
    };
    let mut all: Vec<_> = rigs.iter().map(nothing).collect();
    for round in 0..amount.big_rounds {
        for turn in 0..rigs.len() {
            let index = (round + turn) % rigs.len();
            rigs[index].pause(Duration::ZERO);
            let save = rigs[index].save("big.py", amount.big_len);
            match (save.stored, save.known) {
                (Some(stored), Some(known)) => {
                    all[index].stored.push(millis(stored));
                    all[index].known.push(millis(known));
                }
                _ => all[index].failed += 1,
            }
        }
    }
    all
}
