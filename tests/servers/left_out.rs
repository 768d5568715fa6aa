//! Which servers are not to be had here, and what is said of that.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use crate::kinds::{self, Kind, Source};
use crate::private;

/// Makes a server that is left out a failure.
const ALL_SERVERS: &str = "AUTOFTP_ALL_SERVERS";

/// Whether the server can be started here. If not, that is said, of all of them in one line.
pub fn is_here(kind: &Kind) -> bool {
    static LEFT_OUT: OnceLock<Vec<(&'static str, &'static str)>> = OnceLock::new();
    let left_out = LEFT_OUT.get_or_init(|| {
        let kinds = kinds::all().into_iter();
        let left_out: Vec<_> =
            kinds.filter_map(|kind| obstacle(&kind).map(|why| (kind.name, why))).collect();
        say_who(&left_out);
        left_out
    });
    let Some((_, why)) = left_out.iter().find(|(name, _)| *name == kind.name) else {
        return true;
    };
    let allowed = env::var_os(ALL_SERVERS).is_none() || *why == NO_MOUNTS;
    assert!(allowed, "{} is left out, and {ALL_SERVERS} is set: {why}", kind.name);
    false
}

const NOT_INSTALLED: &str = "not installed: see .ci/run";
const NOT_ROOT: &str = "only root can start it";
/// Not even root may do it in some containers, and nothing can be installed against that.
const NO_MOUNTS: &str = "nothing can be mounted here";

fn obstacle(kind: &Kind) -> Option<&'static str> {
    if !kind.source.is_installed() {
        Some(NOT_INSTALLED)
    } else if kind.needs_root && !private::is_root() {
        Some(NOT_ROOT)
    } else if kind.needs_accounts && !private::can_mount() {
        Some(NO_MOUNTS)
    } else {
        None
    }
}

fn say_who(left_out: &[(&str, &str)]) {
    let reasons: Vec<_> = [NOT_INSTALLED, NOT_ROOT, NO_MOUNTS]
        .into_iter()
        .filter_map(|why| {
            let names = left_out.iter().filter(|(_, because)| *because == why);
            let names: Vec<_> = names.map(|(name, _)| *name).collect();
            (!names.is_empty()).then(|| format!("{} ({why})", names.join(", ")))
        })
        .collect();
    if !reasons.is_empty() {
        say_once(&format!("servers left out: {}", reasons.join("; ")));
    }
}

/// Says it on the terminal even of a test that passes: only what the print macros print is kept from
/// it.
pub fn say_once(text: &str) {
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut said = SAID.lock().unwrap();
    if !said.iter().any(|old| old == text) {
        said.push(text.to_owned());
        let _ = writeln!(io::stderr(), "{text}");
    }
}

impl Source {
    pub fn is_installed(self) -> bool {
        match self {
            Source::Debian(_) => self.program().is_file(),
            Source::Python(module) => Command::new(self.program())
                .args([
                    "-c",
                    &format!(
                        "import importlib.util as u, sys; sys.exit(not u.find_spec('{module}'))"
                    ),
                ])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success()),
            Source::Node(module) => node_modules().join(module).is_dir(),
            Source::Crate => true,
        }
    }

    /// What runs it: what `.ci/run` has installed, else the system's own.
    pub fn program(self) -> PathBuf {
        match self {
            Source::Debian(program) => {
                let installed = installed().join("debian").join(program);
                if installed.is_file() { installed } else { Path::new("/").join(program) }
            }
            Source::Python(_) => {
                let installed = installed().join("python/bin/python");
                if installed.is_file() { installed } else { PathBuf::from("python3") }
            }
            Source::Node(_) => PathBuf::from("node"),
            Source::Crate => unreachable!("it runs in this process"),
        }
    }
}

pub fn node_modules() -> PathBuf {
    installed().join("node/node_modules")
}

fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers")
}
