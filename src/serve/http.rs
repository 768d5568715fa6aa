//! What is asked for, and what is answered: the API of OTA-promoter, whose published client speaks
//! HTTP/1.0, asks for `/file/` where the documents say `/files/`, and takes no answer but 200.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use crossbeam_channel::Sender;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode, Version};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::digest::{SHA256, digest};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::model::event::Event;
use crate::model::path::RelPath;
use crate::serve::catalog::{Catalog, Checksum, Item, Listing, quoted};
use crate::serve::connections::{Doing, Place};
use crate::serve::content::{Content, Pieces, Shelf};
use crate::serve::lock::lock;
use crate::settings::config::Config;
use crate::text::count;

/// Nobody waits longer than this for a new version; that a client has gone is not seen before.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Files that are fetched within this time are told of together.
const TOGETHER: Duration = Duration::from_millis(300);

const JSON: &str = "application/json;charset=utf-8";

/// An URL by checksum never means another content.
const FOR_EVER: &str = "max-age=31536000, immutable";

/// What is served, and to whom.
pub struct Shop {
    root: PathBuf,
    /// Nobody else than this computer's own programs is let in.
    is_private: bool,
    /// SHA-256 of the token: comparing two of them tells nothing of where they differ.
    token: Option<[u8; 32]>,
    listing: watch::Receiver<Option<Arc<Listing>>>,
    stopped: watch::Receiver<bool>,
    shelf: Arc<Shelf>,
    /// Reading a long file takes its time: no more than one is checked at once.
    long_reads: Semaphore,
    fetched: Mutex<BTreeMap<RelPath, Fetched>>,
    /// There is something to tell, or to count anew.
    is_asked: Notify,
    /// Whether each request is told of.
    debug: bool,
    /// How long the program waits for answers when it ends.
    timeout: Duration,
    /// How many requests came since that was told last.
    asked: AtomicU64,
    events: Sender<Event>,
}

/// Who fetched a file lately.
struct Fetched {
    item: Arc<Item>,
    first: IpAddr,
    times: u64,
}

impl Shop {
    /// Opens when there is a first listing.
    pub fn new(
        config: &Config,
        events: Sender<Event>,
        listing: watch::Receiver<Option<Arc<Listing>>>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let serve = config.serve.as_ref();
        let token = serve.and_then(|serve| serve.token.as_deref());
        Self {
            root: config.root.clone(),
            is_private: token.is_none() && serve.is_some_and(|it| it.address.ip().is_loopback()),
            token: token.map(sha256),
            listing,
            stopped,
            shelf: Arc::default(),
            long_reads: Semaphore::new(1),
            fetched: Mutex::default(),
            is_asked: Notify::new(),
            debug: config.screen.debug,
            timeout: config.timeout,
            asked: AtomicU64::new(0),
            events,
        }
    }

    /// Turns true when it is to close.
    pub fn stopped(&self) -> watch::Receiver<bool> {
        self.stopped.clone()
    }

    /// Waits until there is something to publish.
    pub async fn opens(&self) {
        // An error says that the program is ending, as will be told.
        let _ = self.listing.clone().wait_for(Option::is_some).await;
    }

    fn listing(&self) -> Arc<Listing> {
        self.listing.borrow().clone().unwrap_or_else(|| Arc::new(Catalog::default().listing()))
    }

    /// Tells of a request, unless there are so many that nobody could read it.
    fn tell_asked(&self, from: IpAddr, request: String) {
        const MOST: u64 = 100;
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        self.is_asked.notify_one();
        if asked < MOST {
            let _ = self.events.send(Event::Asked { from, request });
        }
        if asked == MOST {
            let _ = self.events.send(Event::Notice("more requests than can be shown".to_owned()));
        }
    }

    /// Tells what has been fetched.
    pub fn tell_fetched(&self) {
        self.asked.store(0, Ordering::Relaxed);
        let mut fetched = lock(&self.fetched);
        for Fetched { item, first, times } in std::mem::take(&mut *fetched).into_values() {
            let (path, bytes) = (item.path.clone(), item.len);
            let _ = self.events.send(Event::Fetched { path, bytes, first, times });
        }
    }

    /// Tells that so many answers are on their way while the program is ending.
    pub fn tell_waiting(&self, answers: usize) {
        let answers = count(answers, "answer");
        let _ = self.events.send(Event::Notice(format!(
            "boards are still taking {answers}, for at most {:?}; Ctrl-C again to end at once",
            self.timeout
        )));
    }

    fn was_fetched(&self, item: &Arc<Item>, by: IpAddr) {
        let mut fetched = lock(&self.fetched);
        fetched
            .entry(item.path.clone())
            .or_insert_with(|| Fetched { item: Arc::clone(item), first: by, times: 0 })
            .times += 1;
        self.is_asked.notify_one();
    }

    /// Whether it is not meant for us: a web page whose name leads to this computer all of a sudden
    /// (DNS rebinding) could read what only this computer is to.
    fn is_misled(&self, request: &Request<Incoming>) -> bool {
        let named = request.uri().authority().map(Authority::host);
        let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("."));
        // A name without a dot, or with one of these ends, is nobody's on the internet.
        let is_near = |name: &str| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let is_local = name.ends_with(".local") || name.ends_with(".localhost");
            is_local || !name.contains('.') || name.parse::<IpAddr>().is_ok()
        };
        let Some(host) = named.or(host) else { return false };
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        // No browser speaks 1.0.
        let may_be_browser = request.version() == Version::HTTP_11;
        self.is_private && may_be_browser && !(is_near(name) || host.starts_with('['))
    }

    /// The path that is asked for, without the token; `None` for those who do not know that.
    fn admit<'a>(&self, request: &'a Request<Incoming>) -> Option<&'a str> {
        let path = request.uri().path();
        let Some(token) = &self.token else { return Some(path) };
        let first = path.strip_prefix('/')?.split('/').next()?;
        if sha256(first) == *token {
            return path.get(1 + first.len()..);
        }
        let given = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, given) = given.split_once(' ')?;
        let knows = scheme.eq_ignore_ascii_case("bearer") && sha256(given.trim()) == *token;
        knows.then_some(path)
    }

    async fn route(&self, request: &Request<Incoming>, path: &str, place: &Place) -> Reply {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let reply = Reply::error(StatusCode::METHOD_NOT_ALLOWED, "files can only be fetched");
            return reply.with(header::ALLOW, "GET, HEAD");
        }
        match path.split('/').collect::<Vec<_>>()[..] {
            ["", "files", "version"] => self.version(request, place).await,
            ["", "files"] => {
                let listing = self.listing();
                Reply::current(listing.version, request, || listing.json())
            }
            ["", "files" | "file", checksum] => self.file(request, checksum).await,
            _ => Reply::error(
                StatusCode::NOT_FOUND,
                "there are /files/version, /files and /files/CHECKSUM",
            ),
        }
    }

    /// The version, at once or, with `?wait=SECONDS`, when it is another one than `version=` or
    /// `If-None-Match` says, or than it is now. That is no part of OTA-promoter's API.
    async fn version(&self, request: &Request<Incoming>, place: &Place) -> Reply {
        let mut listing = self.listing();
        let query = |name| {
            let pairs = request.uri().query().unwrap_or_default().split('&');
            pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)
        };
        if let Some((_, seconds)) = query("wait") {
            let seconds = seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
            let Some(wait) = seconds else {
                return Reply::bad("wait= is to be a number of seconds");
            };
            let version = listing.version;
            let is_known = match query("version") {
                Some((_, known)) => known == version.to_string(),
                None => {
                    let headers = request.headers();
                    !headers.contains_key(header::IF_NONE_MATCH) || has_tag(headers, version)
                }
            };
            if is_known {
                place.now(Doing::Waiting);
                let mut listings = self.listing.clone();
                let mut stopped = self.stopped();
                let is_news = |listing: &Option<Arc<Listing>>| {
                    listing.as_ref().is_some_and(|listing| listing.version != version)
                };
                tokio::select! {
                    _ = listings.wait_for(is_news) => {}
                    () = sleep(wait.min(LONGEST_WAIT)) => {}
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                }
                place.now(Doing::Fetching);
                listing = self.listing();
            }
        }
        let version = listing.version;
        Reply::current(version, request, || format!(r#"{{"version":"{version}"}}"#).into())
    }

    /// The file, if it is what was listed.
    async fn content(&self, item: &Arc<Item>) -> Option<Content> {
        if let Some(bytes) = self.shelf.find(item.checksum) {
            return Some(Content::Short(bytes));
        }
        let _turn = match item.is_long() {
            true => Some(self.long_reads.acquire().await),
            false => None,
        };
        let (shelf, root, item) = (Arc::clone(&self.shelf), self.root.clone(), Arc::clone(item));
        spawn_blocking(move || shelf.content(&root, &item)).await.ok().flatten()
    }

    async fn file(&self, request: &Request<Incoming>, checksum: &str) -> Reply {
        let listing = self.listing();
        let Some(item) = Checksum::parse(checksum).and_then(|checksum| listing.find(checksum))
        else {
            return Reply::bad("no file with this checksum is published: ask for /files again");
        };
        if has_tag(request.headers(), item.checksum) {
            return Reply::unchanged(item.checksum, FOR_EVER);
        }
        let (status, range) = match wanted_part(request, item) {
            Part::All => (StatusCode::OK, 0..item.len),
            Part::Bytes(range) => (StatusCode::PARTIAL_CONTENT, range),
            Part::Beyond => {
                let status = StatusCode::RANGE_NOT_SATISFIABLE;
                return Reply::error(status, "the file is shorter than that")
                    .with(header::CONTENT_RANGE, &format!("bytes */{}", item.len));
            }
        };
        let is_head = request.method() == Method::HEAD;
        let pieces = if is_head {
            Some(Pieces::of(""))
        } else {
            let content = self.content(item).await;
            content.and_then(|content| Pieces::cut(content, range.clone()).ok())
        };
        let Some(pieces) = pieces else {
            let _ = self.events.send(Event::Doubted(item.path.clone()));
            return Reply::bad("this file has just changed: ask for /files again");
        };
        let is_whole = status == StatusCode::OK;
        let whole = (is_whole && !is_head).then(|| Arc::clone(item));
        let len = Some(range.end - range.start);
        let reply = Reply { status, headers: HeaderMap::new(), pieces, item: whole, len }
            .with(header::CONTENT_TYPE, "application/octet-stream")
            .with(header::CONTENT_DISPOSITION, &disposition(item.path.name()))
            .with("x-target-path", item.path.as_str())
            .with(header::ACCEPT_RANGES, "bytes")
            .tagged(item.checksum, FOR_EVER);
        if is_whole {
            return reply;
        }
        let Range { start, end } = range;
        reply.with(header::CONTENT_RANGE, &format!("bytes {start}-{}/{}", end - 1, item.len))
    }
}

/// Tells what has been fetched, a little later, so that a fleet makes no more lines than a board.
pub async fn tell_fetched(shop: Arc<Shop>) {
    loop {
        shop.is_asked.notified().await;
        sleep(TOGETHER).await;
        shop.tell_fetched();
    }
}

/// Answers one request.
pub async fn answer(
    request: Request<Incoming>,
    from: IpAddr,
    place: Arc<Place>,
    shop: Arc<Shop>,
) -> Result<Response<Answer>, Infallible> {
    place.now(Doing::Fetching);
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    let (reply, asked) = match shop.admit(&request) {
        _ if lacks_host(&request) => (Reply::bad("the Host is missing"), "...".to_owned()),
        _ if shop.is_misled(&request) => {
            let message = "this is for this computer only: ask for it by its IP address";
            (Reply::bad(message), "...".to_owned())
        }
        Some(path) => (shop.route(&request, path, &place).await, format!("{path}{query}")),
        // What may be an attempt at the token is shown to nobody.
        None => (Reply::stranger(), "...".to_owned()),
    };
    let Reply { status, headers, mut pieces, item, len } = reply;
    if shop.debug {
        shop.tell_asked(from, format!("{} {asked} {}", request.method(), status.as_str()));
    }
    let length = HeaderValue::from(len.unwrap_or_else(|| pieces.size_hint().lower()));
    if request.method() == Method::HEAD {
        pieces = Pieces::of("");
    }
    let is_guarded = shop.token.is_some();
    let mut response = Response::new(Answer { pieces, place, item, from, shop });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    // Also to HEAD, and of an empty file.
    if status != StatusCode::NOT_MODIFIED {
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    if is_guarded {
        // nginx would give its copy to those who do not know the token.
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("authorization"));
    }
    Ok(response)
}

/// RFC 9112, 3.2.
fn lacks_host(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11 && !request.headers().contains_key(header::HOST)
}

/// What is answered.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    pieces: Pieces,
    /// The file that this is all of.
    item: Option<Arc<Item>>,
    /// The length of what GET would bring, in bytes, if that is not this.
    len: Option<u64>,
}

impl Reply {
    fn json(json: Bytes) -> Self {
        let reply = Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            pieces: Pieces::of(json),
            item: None,
            len: None,
        };
        reply.with(header::CONTENT_TYPE, JSON)
    }

    fn error(status: StatusCode, message: &str) -> Self {
        let json = format!(r#"{{"Message":{}}}"#, quoted(message));
        let reply = Self::json(json.into()).with(header::CACHE_CONTROL, "no-store");
        Self { status, ..reply }
    }

    fn stranger() -> Self {
        let reply = Self::error(StatusCode::UNAUTHORIZED, "the token is missing or wrong");
        reply.with(header::WWW_AUTHENTICATE, "Bearer")
    }

    /// As OTA-promoter answers whatever is wrong with a request.
    fn bad(message: &str) -> Self {
        Self::error(StatusCode::BAD_REQUEST, message)
    }

    fn with(mut self, name: impl header::IntoHeaderName, value: &str) -> Self {
        // No path has a control character in it, and nothing else comes from elsewhere.
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            self.headers.insert(name, value);
        }
        self
    }

    /// To whoever has this version.
    fn unchanged(tag: Checksum, cache: &str) -> Self {
        let status = StatusCode::NOT_MODIFIED;
        let (headers, pieces) = (HeaderMap::new(), Pieces::of(""));
        Self { status, headers, pieces, item: None, len: None }.tagged(tag, cache)
    }

    /// What changes with each version.
    fn current(tag: Checksum, request: &Request<Incoming>, json: impl FnOnce() -> Bytes) -> Self {
        /// To be asked for each time.
        const CACHE: &str = "no-cache";
        if has_tag(request.headers(), tag) {
            return Self::unchanged(tag, CACHE);
        }
        Self::json(json()).tagged(tag, CACHE)
    }

    fn tagged(self, tag: Checksum, cache: &str) -> Self {
        self.with(header::ETAG, &format!("\"{tag}\"")).with(header::CACHE_CONTROL, cache)
    }
}

/// Whether the client has this version (`If-None-Match`, RFC 9110, 13.1.2).
fn has_tag(headers: &HeaderMap, tag: Checksum) -> bool {
    let tag = format!("\"{tag}\"");
    let given = headers.get_all(header::IF_NONE_MATCH).into_iter();
    given.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|given| {
        let given = given.trim();
        given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag
    })
}

/// What is asked for of a file.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// All of it; also where several parts are, or what nobody understands.
    All,
    /// These bytes.
    Bytes(Range<u64>),
    /// What it does not have.
    Beyond,
}

/// See RFC 9110, 14.2 and 13.1.5.
fn wanted_part(request: &Request<Incoming>, item: &Item) -> Part {
    let headers = request.headers();
    let is_other =
        |tag: &HeaderValue| tag.as_bytes() != format!("\"{}\"", item.checksum).as_bytes();
    if request.method() != Method::GET || headers.get(header::IF_RANGE).is_some_and(is_other) {
        return Part::All;
    }
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    range.and_then(|range| part(range, item.len)).unwrap_or(Part::All)
}

fn part(text: &str, len: u64) -> Option<Part> {
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        // One that is too large is beyond any file.
        is_number.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => return None,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(len),
        (Some(first), None) if last.is_empty() => first..len,
        (None, Some(last)) if first.is_empty() => len.saturating_sub(last)..len,
        _ => return None,
    };
    Some(if range.start < range.end { Part::Bytes(range) } else { Part::Beyond })
}

/// Names a file for whoever saves it (RFC 6266).
fn disposition(name: &str) -> String {
    const PLAIN: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'+');
    let encoded = utf8_percent_encode(name, PLAIN).to_string();
    if encoded == name {
        format!("attachment; filename={name}")
    } else {
        let plain: String = name
            .chars()
            .map(|c| if c.is_ascii() && !"\"\\%".contains(c) { c } else { '_' })
            .collect();
        format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
    }
}

fn sha256(text: &str) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    sum
}

/// The body of an answer.
pub struct Answer {
    pieces: Pieces,
    place: Arc<Place>,
    item: Option<Arc<Item>>,
    from: IpAddr,
    shop: Arc<Shop>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.pieces).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.pieces.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.pieces.is_end_stream() {
            let (item, from, shop) = (self.item.take(), self.from, Arc::clone(&self.shop));
            self.place.when_sent(move || {
                if let Some(item) = item {
                    shop.was_fetched(&item, from);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let bytes = |range| Some(Part::Bytes(range));
        let table = [
            ("bytes=0-9", bytes(0..10)),
            ("bytes=5-", bytes(5..100)),
            ("bytes=-7", bytes(93..100)),
            ("bytes=-700", bytes(0..100)),
            ("Bytes=90-1000", bytes(90..100)),
            ("bytes=99-99999999999999999999999", bytes(99..100)),
            ("bytes=100-", Some(Part::Beyond)),
            ("bytes=99999999999999999999999-", Some(Part::Beyond)),
            ("bytes=-0", Some(Part::Beyond)),
            ("bytes=9-5", None),
            ("bytes=0-1,5-6", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("lines=0-9", None),
            ("bytes", None),
        ];
        for (text, expected) in table {
            assert_eq!(part(text, 100), expected, "{text}");
        }
        assert_eq!(part("bytes=0-", 0), Some(Part::Beyond));
    }

    #[test]
    fn names_of_downloads() {
        assert_eq!(disposition("main.py"), "attachment; filename=main.py");
        assert_eq!(
            disposition("ä \"b\";.py"),
            "attachment; filename=\"_ _b_;.py\"; filename*=UTF-8''%C3%A4%20%22b%22%3B.py"
        );
    }
}
