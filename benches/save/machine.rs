//! Where it was measured, and with what.

use std::fs;
use std::thread;

use chrono::Local;

use crate::rig::is_in_memory;
use crate::tools::{Kind, said};

/// One line for each thing that the figures depend on.
pub fn lines(kinds: &[Kind]) -> Vec<String> {
    let mut lines = vec![
        format!("date: {}", Local::now().format("%Y-%m-%d")),
        format!("processor: {}", processor()),
        format!("system: {}", system()),
        format!("rustc: {}", said("rustc", "--version").unwrap_or_default().trim()),
        format!(
            "server: libunftp on the same computer, which keeps files {}; the project is in the \
             temporary directory",
            if is_in_memory() { "in memory" } else { "in the temporary directory" }
        ),
    ];
    let tools = kinds.iter().filter(|kind| !matches!(kind, Kind::Autoftp(Some(_))));
    let versions: Vec<_> = tools.filter_map(|kind| kind.version()).collect();
    lines.push(format!("tools: {}", versions.join(", ")));
    lines
}

fn processor() -> String {
    let model = read("/proc/cpuinfo", "model name").unwrap_or(std::env::consts::ARCH.to_owned());
    let count = thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {count} cores")
}

fn system() -> String {
    let name = read("/etc/os-release", "PRETTY_NAME").unwrap_or(std::env::consts::OS.to_owned());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{name}, kernel {}", kernel.trim())
}

/// The first value of this name in a file of names and values.
fn read(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let value = value.trim_start().strip_prefix([':', '='])?;
    Some(value.trim().trim_matches('"').to_owned())
}
