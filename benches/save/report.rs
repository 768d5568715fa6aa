//! What came out, for the screen and for `docs/`.

use std::path::Path;
use std::{fs, io};

use crate::fleet::{self, BOARDS, Outcome};
use crate::machine;
use crate::measure::{Amount, BURST_ROUND_TRIP, Big, Latency, SMALL, Series};
use crate::plot::{self, Line};
use crate::rig::Burst;
use crate::stats::Values;
use crate::tables::{Table, ms, number};
use crate::tools::Kind;

const INTRODUCTION: &str = "\
# Benchmarks

`cargo bench` measures all of this anew, and needs nothing but cargo; what is installed of curl, lftp
and Python is measured beside. `cargo bench -- --quick` is a short form, and `cargo bench --
--write` writes this page.";

const EQUAL: &str = "\
All tools send the same files over the same relay to a server of the same kind, one tool at a time,
taking turns. Time begins just before a file that is saved in place is closed. *Stored* is when the
server has all of it, just before it says so; what it has is compared byte for byte. *Known* is when
the tool says so: autoftp its line, curl its end, the others a line.

Not equal: autoftp has to notice the save by itself. The others do not watch: they are told of it at
once, so that their figures are what a watcher that starts them could reach at best. curl starts and
logs in anew for each save. autoftp asks for the size of what it has stored, where the table of
commands says SIZE; the others believe the server.

Round trips are made by a relay on the same computer that holds back what passes in either direction
for half of them, and charges TCP's handshakes, as `benches/save/relay.rs` says. It does not model
TCP's slow start, which costs files of more than about 14 kB more round trips with every tool, and
loses nothing.";

const FLEET: &str = "\
They fetch from `autoftp --serve 127.0.0.1:0`, run by itself in a project of 20 small files and the
one that is saved. As the published client for MicroPython does, they speak HTTP/1.0 with a connection
for each request: `GET /files/version` until there is another one, then `GET /files`, and `GET
/file/CHECKSUM` of what has changed. Those that ask once a second do so spread evenly over it; the
others wait in `GET /files/version?wait=30&version=...` for the answer. Time begins just before a file
that is saved in place is closed, and ends when a board has read all of its answer, which is compared
byte for byte. They are threads on the same computer, without a network in between, and take their
part of its processors. CPU time and memory are autoftp's: *CPU for it* is what an update for all of
them takes beyond what passes anyway, *memory* is before the first, and *at most* up to the last.";

/// How long those took that came to their end.
fn seconds(bursts: &[Burst]) -> Values {
    let mut values = Values::default();
    for stored in bursts.iter().filter_map(|burst| burst.stored) {
        values.push(stored.as_secs_f64());
    }
    values
}

/// Collects what came out, and shows it at once.
pub struct Report {
    kinds: Vec<Kind>,
    page: String,
    plot: Option<String>,
    faults: usize,
    amount: String,
    files: usize,
    big_len: usize,
    idle: u64,
}

impl Report {
    pub fn new(kinds: &[Kind], amount: &Amount) -> Report {
        let saves = amount.saves.iter().map(|(ms, saves)| format!("{saves} at {ms} ms"));
        let mut report = Report {
            kinds: kinds.to_vec(),
            page: String::new(),
            plot: None,
            faults: 0,
            amount: saves.collect::<Vec<_>>().join(", "),
            files: amount.directories * 10,
            big_len: amount.big_len,
            idle: amount.idle.as_secs(),
        };
        let mut commands = Table::of_text(&["tool", "command", "for a save"]);
        for kind in kinds {
            commands.row([kind.name(), format!("`{}`", kind.command()), kind.work().to_owned()]);
        }
        let machine = machine::lines(kinds).into_iter().map(|line| format!("- {line}\n"));
        report.say(INTRODUCTION);
        report.say(&format!("## Where, and what\n\n{}", machine.collect::<String>()));
        report.say(&commands.to_string());
        report.say(EQUAL);
        report
    }

    pub fn relay(&mut self, table: &Table) {
        self.say("Exchanges of a client whose round trips are known show that the relay is right:");
        self.say(&table.to_string());
    }

    pub fn latency(&mut self, all: &[Latency]) {
        self.say(&format!(
            "## From a save to the server\n\nMedians and 95th percentiles in ms, of {} each, of a \
             file of {SMALL} bytes. Round trips for each save are the slope of the medians.",
            self.amount
        ));
        self.say("![Latency against round-trip time](latency.svg)");
        self.say(&format!(
            "Until it is stored:\n\n{}",
            by_round_trip(all, |series| &series.stored)
        ));
        self.say(&format!(
            "Until that is known:\n\n{}",
            by_round_trip(all, |series| &series.known)
        ));
        let mut table = Table::new(&[
            "",
            "first command, ms",
            "p95",
            "STOR, ms",
            "p95",
            "commands of a save",
            "failed",
            "doubled",
        ]);
        for latency in all {
            let Some(near) = latency.series.first() else { continue };
            table.row([
                latency.kind.name(),
                ms(near.first.median()),
                ms(near.first.p95()),
                ms(near.stor.median()),
                ms(near.stor.p95()),
                near.commands.join(" "),
                latency.failed().to_string(),
                latency.doubled().to_string(),
            ]);
            self.faults += latency.failed();
        }
        self.say(&format!(
            "Without a round trip, until the first command and STOR come to the relay:\n\n{table}"
        ));
        let lines: Vec<_> = all.iter().map(plotted).collect();
        self.plot = Some(plot::svg(&lines));
    }

    pub fn bursts(&mut self, near: &[Vec<Burst>], far: &[Vec<Burst>]) {
        let mut table = Table::new(&[
            "",
            "0 ms, s",
            "worst",
            &format!("{BURST_ROUND_TRIP} ms, s"),
            "round trips per file",
            "missing",
            "wrong",
            "doubled",
        ]);
        for ((kind, near), far) in self.kinds.iter().zip(near).zip(far) {
            let (at_once, delayed) = (seconds(near), seconds(far));
            let round_trips = at_once.median().zip(delayed.median()).map(|(at_once, delayed)| {
                (delayed - at_once) * 1000.0 / f64::from(BURST_ROUND_TRIP) / self.files as f64
            });
            let sum = |of: fn(&Burst) -> usize| near.iter().chain(far).map(of).sum::<usize>();
            let (missing, wrong) = (sum(|burst| burst.missing), sum(|burst| burst.wrong));
            table.row([
                kind.name(),
                number(at_once.median(), 2),
                number(at_once.worst(), 2),
                number(delayed.median(), 2),
                number(round_trips, 2),
                missing.to_string(),
                wrong.to_string(),
                sum(|burst| burst.doubled).to_string(),
            ]);
            self.faults += missing + wrong;
        }
        self.say(&format!(
            "## Many files at once\n\n{} files of 1 to 5 kB, all of which are there already, in {} \
             directories, until the last is stored: the median and the worst of {} bursts without a \
             round trip, and one with. The round trips are what the {BURST_ROUND_TRIP} ms add. curl \
             is told of all files at once, and uses one session.\n\n{table}",
            self.files,
            self.files / 10,
            near.first().map_or(0, Vec::len)
        ));
    }

    pub fn big(&mut self, all: &[Big]) {
        let mut table = Table::new(&["", "stored, ms", "worst", "known, ms", "MB/s", "failed"]);
        for big in all {
            let stored = big.stored.median();
            table.row([
                big.kind.name(),
                ms(stored),
                ms(big.stored.worst()),
                ms(big.known.median()),
                number(stored.map(|stored| self.big_len as f64 / 1000.0 / stored), 0),
                big.failed.to_string(),
            ]);
            self.faults += big.failed;
        }
        self.say(&format!(
            "## A big file\n\n{} MB to a server on the same computer, without the relay; medians of \
             saves that take turns.\n\n{table}",
            self.big_len / 1_000_000
        ));
    }

    pub fn footprint(&mut self, idle: io::Result<Table>, program: u64) {
        let idle = match idle {
            Ok(table) => {
                format!(
                    "Connected, for {} seconds in which nothing is saved:\n\n{table}",
                    self.idle
                )
            }
            Err(error) => format!("What it takes when idle is left out: {error}.\n"),
        };
        let size = number(Some(program as f64 / 1e6), 1);
        self.say(&format!("## At rest\n\n{idle}\nThe program has {size} MB."));
    }

    pub fn fleet(&mut self, outcome: &Outcome, amount: &Amount) {
        let Outcome { fleet, versions, failed } = outcome;
        self.say(&format!("## Boards that fetch\n\n{FLEET}"));
        self.say(&format!(
            "{BOARDS} boards, {} saves of a file of {} bytes, after {} seconds without one:\n\n\
             {fleet}",
            amount.updates,
            fleet::LEN,
            amount.fleet_idle.as_secs()
        ));
        self.say(&format!(
            "Until a client knows that there is another version, {} saves of a file of {SMALL} bytes in \
             each row:\n\n{versions}",
            amount.versions
        ));
        self.faults += failed;
    }

    /// How many saves did not arrive as they should.
    pub fn faults(&self) -> usize {
        self.faults
    }

    pub fn write(&self) -> io::Result<()> {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        fs::create_dir_all(&docs)?;
        fs::write(docs.join("benchmarks.md"), &self.page)?;
        fs::write(docs.join("latency.svg"), self.plot.as_deref().unwrap_or_default())
    }

    fn say(&mut self, text: &str) {
        let text = text.trim_end();
        println!("{text}\n");
        if !self.page.is_empty() {
            self.page.push('\n');
        }
        self.page += text;
        self.page.push('\n');
    }
}

fn by_round_trip(all: &[Latency], of: fn(&Series) -> &Values) -> Table {
    let round_trips = all.first().map(|latency| &latency.series).into_iter().flatten();
    let mut head = vec![String::new()];
    for series in round_trips {
        head.extend([format!("{} ms", series.round_trip), "p95".to_owned()]);
    }
    head.push("round trips".to_owned());
    let mut table = Table::new(&head);
    for latency in all {
        let mut row = vec![latency.kind.name()];
        for series in &latency.series {
            row.extend([ms(of(series).median()), ms(of(series).p95())]);
        }
        row.push(number(latency.round_trips(of), 2));
        table.row(row);
    }
    table
}

fn plotted(latency: &Latency) -> Line {
    let point = |series: &Series| Some((f64::from(series.round_trip), series.stored.median()?));
    Line {
        name: latency.kind.name(),
        is_own: latency.kind.is_autoftp(),
        points: latency.series.iter().filter_map(point).collect(),
    }
}
