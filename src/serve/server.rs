//! For boards that fetch: what the rules select, live, over HTTP.
//!
//! One thread keeps the catalog: it reads what has changed, and nothing else. Another answers
//! requests on connections that have their limits, with files whose content is
//! what was listed. Neither has any part in sending files to hosts.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use tokio::sync::watch;

use crate::local::file::OpenError;
use crate::model::event::Event;
use crate::model::path::RelPath;
use crate::model::verdict::Verdict;
use crate::rules::filter::SERVE_IGNORE;
use crate::serve::catalog::{Catalog, Listing};
use crate::serve::content::{self, Unread};
use crate::serve::http::Shop;
use crate::serve::ignore::Ignore;
use crate::serve::{address, connections};
use crate::settings::config::Config;

/// How often to try what cannot be read.
const AGAIN: Duration = Duration::from_secs(1);

/// What is to be done to what is published.
enum Ask {
    /// These are all files that there are.
    List(Vec<RelPath>),
    /// The file may have changed.
    Changed(RelPath),
    /// The file is gone.
    Gone(RelPath),
    /// Show what has come of it.
    Publish,
}

/// The running server.
pub struct Server {
    asks: Sender<Ask>,
    stop: watch::Sender<bool>,
}

impl Server {
    /// These are all files that the rules select. From then on requests are answered.
    pub fn list(&self, files: Vec<RelPath>) {
        self.ask(Ask::List(files));
    }

    /// The file may have changed.
    pub fn changed(&self, path: &RelPath) {
        self.ask(Ask::Changed(path.clone()));
    }

    /// The file is gone.
    pub fn gone(&self, path: &RelPath) {
        self.ask(Ask::Gone(path.clone()));
    }

    /// Shows what was said since the last time.
    pub fn publish(&self) {
        self.ask(Ask::Publish);
    }

    /// Lets nobody in any more; what is being fetched is finished. Then comes
    /// [`Event::ServingEnded`].
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    fn ask(&self, ask: Ask) {
        // Its thread lasts as long as we do.
        let _ = self.asks.send(ask);
    }
}

/// Takes the configured address. Who connects is answered after [`Server::list`].
///
/// # Errors
/// When the address cannot be had, or the rules in `.promoterignore` are malformed.
pub fn start(config: &Arc<Config>, events: &Sender<Event>) -> Result<Option<Server>> {
    let Some(serve) = config.serve.as_ref().filter(|_| !config.dry_run) else {
        return Ok(None);
    };
    let listener = address::listen(serve.address)?;
    let ignore = Ignore::load(&config.root)?;
    let (asks, inbox) = unbounded();
    let (stop, stopped) = watch::channel(false);
    let (listing, listed) = watch::channel(None);
    let keeper = Keeper {
        config: Arc::clone(config),
        events: events.clone(),
        ignore,
        selected: HashSet::new(),
        catalog: Catalog::default(),
        unread: HashSet::new(),
        is_kept: false,
        address: listener.local_addr()?,
        listing,
    };
    thread::Builder::new()
        .name("catalog".to_owned())
        .spawn(move || keeper.run(&inbox))
        .context("no thread for what is published")?;
    let shop = Shop::new(config, events.clone(), listed, stopped);
    let events = events.clone();
    thread::Builder::new()
        .name("serve".to_owned())
        .spawn(move || {
            if let Err(error) = run(listener, shop) {
                let _ = events.send(Event::Problem(format!("serving has ended: {error:#}")));
            }
            let _ = events.send(Event::ServingEnded);
        })
        .context("no thread for serving")?;
    Ok(Some(Server { asks, stop }))
}

fn run(listener: TcpListener, shop: Shop) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // They read files, which is not to hold up the others.
        .max_blocking_threads(2)
        .thread_name("serve files")
        .thread_keep_alive(Duration::from_secs(1))
        .build()?;
    runtime.block_on(connections::accept(listener, Arc::new(shop)))
}

/// The thread that keeps the catalog.
struct Keeper {
    config: Arc<Config>,
    events: Sender<Event>,
    ignore: Ignore,
    /// What the rules select, published or not.
    selected: HashSet<RelPath>,
    catalog: Catalog,
    /// What cannot be read, as was said.
    unread: HashSet<RelPath>,
    /// Whether it was said that the list stays as it was.
    is_kept: bool,
    address: SocketAddr,
    listing: watch::Sender<Option<Arc<Listing>>>,
}

impl Keeper {
    fn run(mut self, asks: &Receiver<Ask>) {
        let mut next_try = Instant::now();
        loop {
            let wait = match self.unread.is_empty() {
                true => Duration::MAX,
                false => next_try.saturating_duration_since(Instant::now()),
            };
            let ask = match asks.recv_timeout(wait) {
                Ok(ask) => ask,
                Err(RecvTimeoutError::Timeout) => {
                    self.try_again();
                    next_try = Instant::now() + AGAIN;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            match ask {
                Ask::List(paths) => {
                    self.catalog = Catalog::default();
                    self.selected.clear();
                    self.unread.clear();
                    self.reload();
                    for path in paths {
                        self.look(&path);
                        self.selected.insert(path);
                    }
                    self.publish();
                }
                Ask::Changed(path) => {
                    if path.as_str() == SERVE_IGNORE {
                        self.reload();
                    }
                    self.look(&path);
                    self.selected.insert(path);
                }
                Ask::Gone(path) => {
                    if path.as_str() == SERVE_IGNORE {
                        self.reload();
                    }
                    self.selected.remove(&path);
                    self.unread.remove(&path);
                    self.catalog.remove(&path);
                }
                Ask::Publish => self.publish(),
            }
        }
    }

    /// Takes in the rules of [`SERVE_IGNORE`].
    fn reload(&mut self) {
        match Ignore::load(&self.config.root) {
            Ok(ignore) => self.ignore = ignore,
            Err(error) => {
                let text = format!("{error:#}; the rules before it still apply");
                return self.tell(Event::Problem(text));
            }
        }
        for path in self.selected.clone() {
            if self.ignore.covers(&path) {
                self.catalog.remove(&path);
            } else if !self.catalog.has(&path) {
                self.look(&path);
            }
        }
    }

    /// Takes in a file as it is now.
    fn look(&mut self, path: &RelPath) {
        let was_unread = self.unread.remove(path);
        if self.ignore.covers(path) || !self.config.filter.publishes(path) {
            return self.catalog.remove(path);
        }
        match content::read(&self.config.root, path) {
            Ok(item) => self.catalog.put(item),
            // An editor may put it back; that it has gone will be told.
            Err(Unread::Closed(OpenError::Vanished)) => {}
            Err(Unread::Link | Unread::Closed(OpenError::LeadsOutside)) => {
                self.catalog.remove(path);
            }
            Err(Unread::Closed(OpenError::Io(error))) => {
                // What is wrong with the system (too many open files) is no reason to have boards
                // delete it.
                if error.kind() == io::ErrorKind::PermissionDenied {
                    self.catalog.remove(path);
                }
                self.unread.insert(path.clone());
                if !was_unread {
                    self.tell(Event::Problem(format!(
                        "{path}: not published as it is: it cannot be read here: {error}"
                    )));
                }
            }
        }
    }

    /// There is no event when a file can be read at last.
    fn try_again(&mut self) {
        for path in &self.unread {
            if content::opens(&self.config.root, path) {
                self.tell(Event::Doubted(path.clone()));
            }
        }
    }

    fn publish(&mut self) {
        let listing = Arc::new(self.catalog.listing());
        let before = self.listing.borrow().clone();
        if before.as_ref().is_some_and(|before| before.version == listing.version) {
            return;
        }
        if listing.items.is_empty() && before.is_some() {
            // Rather a disk that was taken away, or a clean build, than a wish to empty all boards.
            if !std::mem::replace(&mut self.is_kept, true) {
                self.tell(Event::Kept(
                    "no file is left to publish, so the list for boards stays as it was".to_owned(),
                ));
            }
            return;
        }
        self.is_kept = false;
        let files = listing.items.len();
        self.listing.send_replace(Some(Arc::clone(&listing)));
        let Some(before) = before else {
            let token = self.config.serve.as_ref().and_then(|serve| serve.token.as_deref());
            let urls = address::urls(self.address, token);
            let is_local = self.address.ip().is_loopback();
            self.tell(Event::Serving { urls, is_local, is_open: token.is_none(), files });
            if files == 0 {
                let hint = match self.config.scripts.is_empty() {
                    true => "",
                    false => "; --sync runs the scripts first",
                };
                let text = "the list is empty: a board that fetches now may delete all that it has";
                self.tell(Event::Notice(format!("{text}{hint}")));
            }
            return;
        };
        let (put, gone) = before.changes(&listing);
        // What goes to hosts is shown when it is there.
        let is_shown = |path: &RelPath| {
            self.config.hosts.is_empty() || self.config.filter.verdict(path) != Verdict::Upload
        };
        let put = put.iter().filter(|item| is_shown(&item.path));
        let put = put.map(|item| (item.path.clone(), item.len)).collect();
        let gone = gone.into_iter().filter(|path| is_shown(path)).collect();
        let version = listing.version.to_string();
        self.tell(Event::Published { put, gone, version, files });
    }

    fn tell(&self, event: Event) {
        // The other end is gone only when the program is ending.
        let _ = self.events.send(event);
    }
}
