//! Further sessions with the same host, which send along while a burst lasts (`--parallel`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::deliver::attempt::PreparedUpload;
use crate::ftp::connect::{ConnectError, TlsFacts};
use crate::ftp::error::TransferError;
use crate::ftp::session::{Entry, FtpSession, ServerFacts, Stored};
use crate::ftp::trace::Trace;
use crate::model::event::HostId;
use crate::settings::config::Config;

/// A session that has had nothing to do for so long is ended.
const RESTS: Duration = Duration::from_secs(5);

/// So many files have to be waiting for a login to be worth its time.
const WORTH_A_LOGIN: usize = 8;

/// What became of a file that was sent along.
pub enum ParallelResult {
    /// Stored.
    Stored(Stored),
    /// Refused.
    Failed(TransferError),
    /// The session was of no use: the lane's own may be.
    Returned,
    /// There is no such session to be had; why.
    Alone(String),
}

/// See the [module](self).
pub struct SessionPool {
    extra_sessions: Vec<ExtraSession>,
}

impl SessionPool {
    /// For so many sessions in all, the lane's own included.
    pub fn new(sessions: usize, id: HostId, config: &Arc<Config>) -> Self {
        let extra = || ExtraSession {
            id,
            config: config.clone(),
            tls_facts: TlsFacts::default(),
            facts: ServerFacts::default(),
            session: None,
            used: Instant::now(),
        };
        Self {
            extra_sessions: std::iter::repeat_with(extra)
                .take(sessions.saturating_sub(1))
                .collect(),
        }
    }

    /// How many sessions, the lane's own included, to use while so many files are waiting.
    pub fn sessions_for(&self, waiting: usize) -> usize {
        let is_worth = |extra: &&ExtraSession| waiting >= WORTH_A_LOGIN || extra.session.is_some();
        1 + self.extra_sessions.iter().filter(is_worth).count()
    }

    /// The further sessions, open ones first.
    pub fn extra_sessions(&mut self) -> impl Iterator<Item = &mut ExtraSession> {
        self.extra_sessions.sort_by_key(|extra| extra.session.is_none());
        self.extra_sessions.iter_mut()
    }

    /// From now on no more than there are sessions; returns how many that is.
    pub fn shrink(&mut self) -> usize {
        self.extra_sessions.retain(|extra| extra.session.is_some());
        1 + self.extra_sessions.len()
    }

    /// When the next session will have rested for long.
    pub fn next_rest(&self) -> Option<Instant> {
        let in_use = self.extra_sessions.iter().filter(|extra| extra.session.is_some());
        in_use.map(|extra| extra.used + RESTS).min()
    }

    /// Ends the sessions that have had nothing to do until then.
    pub fn rest(&mut self, now: Instant) {
        for extra in &mut self.extra_sessions {
            if extra.used + RESTS <= now {
                extra.quit();
            }
        }
    }

    /// Ends them all.
    pub fn disband(&mut self) {
        self.extra_sessions.iter_mut().for_each(ExtraSession::quit);
    }
}

/// One further session.
pub struct ExtraSession {
    id: HostId,
    config: Arc<Config>,
    tls_facts: TlsFacts,
    facts: ServerFacts,
    session: Option<FtpSession>,
    used: Instant,
}

impl ExtraSession {
    /// Sends a file, logging in first if that is needed.
    pub fn send(
        &mut self,
        upload: &mut PreparedUpload,
        trace: Trace,
        progress: &mut dyn FnMut(u64, u64, Duration),
    ) -> ParallelResult {
        if self.session.as_ref().is_some_and(|session| !session.is_quiet()) {
            self.quit();
        }
        let session = match &mut self.session {
            Some(session) => session,
            None => {
                match FtpSession::open(Entry::of(&self.config, self.id), &mut self.tls_facts, trace)
                {
                    Ok((mut session, _)) => {
                        session.take_up(&mut self.facts);
                        self.session.insert(session)
                    }
                    Err(
                        ConnectError::Again(cause)
                        | ConnectError::Later(cause)
                        | ConnectError::Unusable(cause),
                    ) => return ParallelResult::Alone(cause),
                }
            }
        };
        let sent = upload.send(session, &mut self.facts, progress);
        self.used = Instant::now();
        let is_spent = session.is_spent(&self.facts);
        let along = match sent {
            Ok(stored) => ParallelResult::Stored(stored),
            Err(
                TransferError::Disconnected(_)
                | TransferError::Reconnect(_)
                | TransferError::Again(_),
            ) => ParallelResult::Returned,
            Err(error) => ParallelResult::Failed(error),
        };
        if is_spent || matches!(along, ParallelResult::Returned) {
            self.quit();
        }
        along
    }

    fn quit(&mut self) {
        if let Some(session) = self.session.take() {
            session.quit();
        }
    }
}
