//! How long a save takes to the server, and what autoftp takes meanwhile: `cargo bench`.
//!
//! Drives the real program, as it is built for a release, against a real server (libunftp) behind a
//! relay that is as far away as it is told to be, beside whatever of curl, lftp and Python is
//! installed; and lets a fleet of boards fetch from it.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on is to stop")]

mod check;
mod fleet;
mod footprint;
mod machine;
mod measure;
mod plot;
mod relay;
mod report;
mod rig;
mod stats;
#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use more of it")]
mod support;
mod tables;
mod tools;

use std::process::ExitCode;
use std::{env, io};

use measure::{Amount, BURST_ROUND_TRIP};
use report::Report;
use tools::Kind;

const USAGE: &str = "\
cargo bench [-- OPTIONS]

  --quick   few saves, and smaller projects: to see that everything works
  --write   put what comes out into docs/benchmarks.md and docs/latency.svg";

fn main() -> ExitCode {
    let (mut quick, mut write) = (false, false);
    for option in env::args().skip(1) {
        match option.as_str() {
            "--quick" => quick = true,
            "--write" => write = true,
            // Cargo says so.
            "--bench" => {}
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let amount = if quick { Amount::quick() } else { Amount::full() };
    match run(&amount, write) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(faults) => {
            println!("{faults} faults.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures all of it; returns how many saves did not arrive as they should.
fn run(amount: &Amount, write: bool) -> io::Result<usize> {
    let kinds = Kind::installed();
    let mut report = Report::new(&kinds, amount);
    report.relay(&check::exchanges()?);
    let mut rigs = measure::relayed(&kinds, amount);
    report.latency(&measure::latency(&mut rigs, amount));
    let near = measure::bursts(&mut rigs, 0, amount.bursts, amount);
    let far = measure::bursts(&mut rigs, BURST_ROUND_TRIP, 1, amount);
    report.bursts(&near, &far);
    drop(rigs);
    let mut rigs = measure::direct(&kinds, amount);
    report.big(&measure::big(&mut rigs, amount));
    drop(rigs);
    report.footprint(footprint::idle(&Kind::modes(), amount), footprint::program()?);
    report.fleet(&fleet::measure(amount)?, amount);
    if write {
        report.write()?;
    }
    Ok(report.faults())
}
