//! What happened. Events flow from the rooms that do things to the one that shows them.
//!
//! Texts in here are raw, as servers, scripts and file systems gave them: [`crate::report`] makes
//! them safe to print.

use std::net::IpAddr;
use std::time::Duration;

use crate::model::file_meta::Stamp;
use crate::model::path::RelPath;
use crate::model::send_mode::SendChoice;
use crate::model::verdict::Why;

/// Which of the hosts, by its place on the command line.
pub type HostId = usize;

/// Orders to send a file are numbered: a lane coalesces them, and says which it has settled.
pub type Ticket = u64;

/// What takes longer shows how far it is.
pub const WORTH_A_BAR: Duration = Duration::from_secs(1);

/// How often it does.
pub const BAR_STEP: Duration = Duration::from_millis(100);

/// The cause of a [`HostEvent::Disconnected`] of a session that was not in use: servers end those as
/// a matter of course.
pub const IDLE_END: &str = "the idle session ended";

/// Something worth telling.
#[derive(Debug)]
pub enum Event {
    /// From now on saves are caught.
    Watching {
        /// How many files would be acted on when they change.
        files: usize,
        /// How many directories are watched.
        dirs: usize,
        /// The pause between two looks, where the system does not report changes.
        poll: Option<Duration>,
    },
    /// Something about the watching that is not wrong but good to know.
    Notice(String),
    /// Something that is wrong with the watching, and what to do about it.
    Problem(String),
    /// A file that the rules select cannot be sent.
    Unsendable {
        /// Its name, as far as it can be shown.
        name: String,
        /// Why not, and what to do.
        cause: String,
    },
    /// A change that the rules do not select.
    Ignored {
        /// The file.
        path: RelPath,
        /// Why.
        why: Why,
    },
    /// Something about one host.
    Host {
        /// Which.
        host: HostId,
        /// What.
        what: HostEvent,
    },
    /// Something about the script that was run on a file.
    Script {
        /// The file.
        path: RelPath,
        /// The script, as the user gave it.
        script: String,
        /// What.
        what: ScriptEvent,
    },
    /// From now on boards can fetch.
    Serving {
        /// Where from: what to put on the board.
        urls: Vec<String>,
        /// Only this computer can.
        is_local: bool,
        /// Everybody can who gets there.
        is_open: bool,
        /// How many files.
        files: usize,
    },
    /// There is nothing to publish, so what boards can fetch stays as it was; in words.
    Kept(String),
    /// There is a new version for boards to fetch.
    Published {
        /// What has changed and goes to no host, with the size in bytes.
        put: Vec<(RelPath, u64)>,
        /// What is not published any more, and went to no host.
        gone: Vec<RelPath>,
        /// The new version.
        version: String,
        /// How many files there are now.
        files: usize,
    },
    /// A file was fetched.
    Fetched {
        /// The file.
        path: RelPath,
        /// Its size in bytes.
        bytes: u64,
        /// Who fetched it,
        first: IpAddr,
        /// and how many times it was fetched since this was told last.
        times: u64,
    },
    /// A published file is not what was listed, and nothing was heard of a change.
    Doubted(RelPath),
    /// Somebody asked for something.
    Asked {
        /// Who.
        from: IpAddr,
        /// What for, and the status it was answered with.
        request: String,
    },
    /// Nothing can be fetched any more.
    ServingEnded,
    /// The local file was deleted after its upload.
    Deleted(RelPath),
    /// The local file would be deleted if this were no dry run.
    WouldDelete(RelPath),
    /// The local file was to be deleted after its upload, and was not.
    NotDeleted {
        /// The file.
        path: RelPath,
        /// Why.
        cause: String,
    },
}

/// What happened between us and one host.
#[derive(Debug)]
pub enum HostEvent {
    /// Logged in.
    Connected {
        /// The server's working directory, where it says it.
        dir: Option<String>,
        /// The server's greeting.
        greeting: String,
        /// How it is encrypted; `None` in the clear.
        tls: Option<String>,
    },
    /// Files will be sent like this from now on.
    SendChoice(SendChoice),
    /// There is no session; another try follows.
    Disconnected {
        /// Why, and what to do.
        cause: String,
        /// When the next try is.
        retry: Duration,
        /// Whether there was a session until now.
        lost: bool,
    },
    /// The host cannot be used as it was given. Nothing further happens to it.
    Unusable(String),
    /// A line of the dialogue on the control connection; no secrets in it.
    Dialogue {
        /// Whether we said it.
        sent: bool,
        /// The line.
        line: String,
    },
    /// An upload that takes a while has come this far.
    Sending {
        /// The file.
        path: RelPath,
        /// Bytes sent so far.
        sent: u64,
        /// The file's size in bytes.
        total: u64,
        /// Since it was begun.
        elapsed: Duration,
        /// Whether it has moved on since the last time.
        moved: bool,
    },
    /// What became of a file that was to be sent.
    File {
        /// The file.
        path: RelPath,
        /// The newest order that this settles.
        ticket: Ticket,
        /// What became of it.
        outcome: Outcome,
    },
    /// What was stored there is not there any more.
    Lost {
        /// The file.
        path: RelPath,
        /// The size in bytes of what is there instead.
        now_there: Option<u64>,
    },
    /// Something that is good to know.
    Notice(String),
    /// So much is still to be sent.
    Burst {
        /// Files sent so far, of this many.
        files: (usize, usize),
        /// Bytes sent so far, of this many.
        bytes: (u64, u64),
        /// Since it began.
        elapsed: Duration,
    },
    /// All that matches has been looked at.
    Synced {
        /// How many files were sent.
        sent: usize,
        /// How many were there already.
        unchanged: usize,
        /// How many were not sent.
        failed: usize,
    },
    /// A try failed; the file stays pending.
    Retrying {
        /// The file.
        path: RelPath,
        /// Why it failed.
        cause: String,
        /// When the next try is.
        wait: Duration,
    },
    /// What the server said to the remote command.
    RemoteCommand {
        /// The command as it was sent, without `SITE`.
        command: String,
        /// What it said, or would have been asked in a dry run.
        answer: Answer,
    },
    /// The session is over because the program ends.
    Closed,
}

/// What became of a file that was to be sent to one host.
#[derive(Debug)]
pub enum Outcome {
    /// Stored.
    Sent {
        /// Its size in bytes.
        bytes: u64,
        /// From the first command until it was stored.
        took: Duration,
        /// What the local file was when it was read.
        stamp: Stamp,
    },
    /// Renamed there, as it was here.
    Renamed {
        /// What it was named before.
        from: RelPath,
        /// How long it took.
        took: Duration,
    },
    /// Removed there, as it was here.
    Removed,
    /// Not removed because this is a dry run.
    WouldRemove,
    /// Not sent because this is a dry run.
    WouldSend {
        /// Its size in bytes.
        bytes: u64,
    },
    /// Not sent because the server has this content already.
    Unchanged {
        /// What the local file was when it was read.
        stamp: Stamp,
    },
    /// Gone before it could be sent: there is nothing to send.
    Vanished,
    /// Never to be sent as it is; why.
    Declined(String),
    /// Not sent, and not tried again until it changes.
    Failed(String),
}

/// What became of a remote command.
#[derive(Debug)]
pub enum Answer {
    /// Done; the server's words.
    Done(String),
    /// Refused, or not sent; why.
    Failed(String),
    /// The session ended instead, as with a command that restarts the board.
    None,
    /// Not sent because this is a dry run.
    WouldRun,
}

/// What happened to a script.
#[derive(Debug)]
pub enum ScriptEvent {
    /// It printed a line.
    Line(String),
    /// It ended well.
    Done(Duration),
    /// It failed; why, and what to do.
    Failed(String),
}
