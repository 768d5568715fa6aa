//! A server's processes and sockets, as the kernel lists them.

use std::fs;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a wait may last: far more than a loaded machine needs.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// Looks again and again until it is so: files and processes tell nobody.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < DEADLINE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Ends a process and all that it has started, the way a power cut does.
pub fn kill_tree(child: &mut Child) {
    let sessions = descendants(child.id());
    let _ = child.kill();
    child.wait().unwrap();
    kill(&sessions);
}

/// Ends what a process has started, but not itself.
pub fn kill_descendants(id: u32) {
    kill(&descendants(id));
}

fn kill(ids: &[u32]) {
    for id in ids {
        let _ = kill_process(Pid::from_raw(*id as i32).unwrap(), Signal::KILL);
    }
}

fn descendants(id: u32) -> Vec<u32> {
    let processes: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // The name, in parentheses, may contain anything.
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
            Some((id, parent))
        })
        .collect();
    let mut found = vec![id];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(processes.iter().filter(|(_, of)| *of == parent).map(|(id, _)| id));
        next += 1;
    }
    found.remove(0);
    found
}

/// Whether this process listens on this loopback port: another one's data port may be the same.
pub fn is_listening(process: u32, port: u16) -> bool {
    let listening: Vec<_> =
        sockets(port, "0A").iter().map(|inode| format!("socket:[{inode}]")).collect();
    let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|target| listening.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

/// Whether a server has a session on this port.
pub fn is_connected(port: u16) -> bool {
    !sockets(port, "01").is_empty()
}

/// The sockets on this side of a port that are in this state.
fn sockets(port: u16, state: &str) -> Vec<String> {
    let port = format!(":{port:04X}");
    let list = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    list.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 9 && fields[1].ends_with(&port) && fields[3] == state)
        .map(|fields| fields[9].to_owned())
        .collect()
}
