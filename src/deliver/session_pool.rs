//! Further sessions with the same host, which send along while a burst lasts (`--parallel`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::deliver::attempt::Load;
use crate::ftp::connect::{ConnectError, Habits};
use crate::ftp::error::TransferError;
use crate::ftp::session::{Entry, Lore, Session, Stored};
use crate::ftp::trace::Trace;
use crate::model::event::HostId;
use crate::settings::config::Config;

/// A session that has had nothing to do for so long is ended.
const RESTS: Duration = Duration::from_secs(5);

/// So many files have to be waiting for a login to be worth its time.
const WORTH_A_LOGIN: usize = 8;

/// What became of a file that was sent along.
pub enum Along {
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
pub struct Crew {
    helpers: Vec<Helper>,
}

impl Crew {
    /// For so many sessions in all, the lane's own included.
    pub fn new(sessions: usize, id: HostId, config: &Arc<Config>) -> Self {
        let helper = || Helper {
            id,
            config: config.clone(),
            habits: Habits::default(),
            lore: Lore::default(),
            session: None,
            used: Instant::now(),
        };
        Self { helpers: std::iter::repeat_with(helper).take(sessions.saturating_sub(1)).collect() }
    }

    /// How many sessions, the lane's own included, to use while so many files are waiting.
    pub fn sessions_for(&self, waiting: usize) -> usize {
        let is_worth = |helper: &&Helper| waiting >= WORTH_A_LOGIN || helper.session.is_some();
        1 + self.helpers.iter().filter(is_worth).count()
    }

    /// The further sessions, open ones first.
    pub fn helpers(&mut self) -> impl Iterator<Item = &mut Helper> {
        self.helpers.sort_by_key(|helper| helper.session.is_none());
        self.helpers.iter_mut()
    }

    /// From now on no more than there are sessions; returns how many that is.
    pub fn shrink(&mut self) -> usize {
        self.helpers.retain(|helper| helper.session.is_some());
        1 + self.helpers.len()
    }

    /// When the next session will have rested for long.
    pub fn next_rest(&self) -> Option<Instant> {
        let in_use = self.helpers.iter().filter(|helper| helper.session.is_some());
        in_use.map(|helper| helper.used + RESTS).min()
    }

    /// Ends the sessions that have had nothing to do until then.
    pub fn rest(&mut self, now: Instant) {
        for helper in &mut self.helpers {
            if helper.used + RESTS <= now {
                helper.quit();
            }
        }
    }

    /// Ends them all.
    pub fn disband(&mut self) {
        self.helpers.iter_mut().for_each(Helper::quit);
    }
}

/// One further session.
pub struct Helper {
    id: HostId,
    config: Arc<Config>,
    habits: Habits,
    lore: Lore,
    session: Option<Session>,
    used: Instant,
}

impl Helper {
    /// Sends a file, logging in first if that is needed.
    pub fn send(
        &mut self,
        load: &mut Load,
        trace: Trace,
        progress: &mut dyn FnMut(u64, u64, Duration),
    ) -> Along {
        if self.session.as_ref().is_some_and(|session| !session.is_quiet()) {
            self.quit();
        }
        let session = match &mut self.session {
            Some(session) => session,
            None => {
                match Session::open(Entry::of(&self.config, self.id), &mut self.habits, trace) {
                    Ok((mut session, _)) => {
                        session.take_up(&mut self.lore);
                        self.session.insert(session)
                    }
                    Err(
                        ConnectError::Again(cause)
                        | ConnectError::Later(cause)
                        | ConnectError::Unusable(cause),
                    ) => return Along::Alone(cause),
                }
            }
        };
        let sent = load.send(session, &mut self.lore, progress);
        self.used = Instant::now();
        let is_spent = session.is_spent(&self.lore);
        let along = match sent {
            Ok(stored) => Along::Stored(stored),
            Err(
                TransferError::Disconnected(_)
                | TransferError::Reconnect(_)
                | TransferError::Again(_),
            ) => Along::Returned,
            Err(error) => Along::Failed(error),
        };
        if is_spent || matches!(along, Along::Returned) {
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
