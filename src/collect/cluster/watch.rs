//! One watch, kept up: begun with what is there, followed, and taken up again where it broke off.
//!
//! Written here and not taken from kube's runtime for one thing: bookmarks. They are the only sign that a quiet watch
//! is alive, so a reading's age is the time since the last one, and an API server that is away shows as age and then
//! as Unknown, although no error came.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout_at};

use super::expect_kind;
use super::mailbox::Mailbox;
use super::objects::Object;
use super::store::{Kept, Store};
use crate::collect::clock::Clock;
use crate::facts::{Cause, NodeTime, Observation, Source, Unknown};
use crate::kube_api::{Api, ApiError, Lines, MAX_OBJECT_BYTES, Piece, WatchLine, first_value, short_message};
use crate::pacing::{Backoff, spread};

/// A watch that lasted so long has worked.
const WORKED: Duration = Duration::from_secs(20);
/// Around so long after the answer that its version is gone, a node lists again.
const RELIST: Duration = Duration::from_secs(5);
/// How long one watch lasts, give or take a quarter: each new one costs the server a little.
const LASTS: Duration = Duration::from_secs(2700);
/// A server that knows how to begin a watch with what is there does so at once.
const TO_BEGIN: Duration = Duration::from_secs(30);
/// Objects in one page of a list. A server that answers from its memory gives all in one.
const PAGE: u32 = 50;
/// For so long what was last seen stands while the server is away; then it is not known.
const STANDS: Duration = Duration::from_secs(240);
/// No cluster has a million PersistentVolumes, of which a page has 250.
const MAX_PAGES: usize = 4096;
/// A server's own tokens have some hundred bytes.
const MAX_TOKEN: usize = 4096;
/// The API server's UIDs have 36 bytes.
const MAX_UID: usize = 64;

/// What a store says at a moment.
pub(super) type Publish<T> = Box<dyn Fn(&Store<T>, NodeTime) -> Observation + Send + Sync>;

/// What is watched, and what becomes of it.
pub(super) struct Watch<R, T> {
    /// The collection.
    pub path: String,
    /// Its field selector, as it stands in a query.
    pub selector: String,
    pub source: Source,
    pub convert: fn(R) -> Result<T, Unknown>,
    /// Which of them are kept at all.
    pub keep: fn(&T) -> bool,
    /// After so long without an event the watch begins again. Bookmarks come each minute where anything of the kind
    /// changes anywhere in the cluster; a watch from a version that the server does not have is silent for ever.
    pub silence: Duration,
    /// The observation that the objects make.
    pub publish: Publish<T>,
}

/// One line of a watch.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    type_: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// The part that an object still has when the rest cannot be read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Head {
    metadata: Meta,
    /// Of a Status: the HTTP code.
    code: Option<u16>,
    message: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    uid: String,
    resource_version: String,
    annotations: Option<BookmarkAnnotations>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BookmarkAnnotations {
    #[serde(rename = "k8s.io/initial-events-end")]
    initial_events_end: Option<String>,
}

/// A page of a list.
#[derive(Deserialize)]
pub(super) struct List<T> {
    #[serde(default)]
    pub metadata: ListMeta,
    #[serde(default = "Vec::new")]
    pub items: Vec<T>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    token: Option<String>,
}

/// What a list has beside its items.
#[derive(Deserialize)]
pub(super) struct Page {
    pub kind: String,
    #[serde(default)]
    metadata: ListMeta,
}

/// Hands out the items of a list, page by page with so much time between; the path has its own parameters. `list` is what it is called in
/// an error, and the kind that it must have.
///
/// # Errors
/// When a page cannot be read, is of another kind, or does not lead to the end.
pub(super) async fn list_in_pages(
    api: &Api,
    path: &str,
    list: (&str, &str),
    between: Duration,
    mut take: impl FnMut(Piece<'_>),
) -> Result<(), ApiError> {
    let (mut pages, mut next) = (Pages::default(), String::new());
    loop {
        let on_item = |item: Piece<'_>| {
            take(item);
            Ok(())
        };
        let page: Page = api.list_items(&format!("{path}{next}"), on_item).await?;
        expect_kind(list.0, list.1, &page.kind)?;
        match pages.next(&page.metadata)? {
            Some(token) => next = token,
            None => return Ok(()),
        }
        sleep(between).await;
    }
}

/// The way through the pages of a list. It ends: a server that leads back, or on and on, is not followed.
#[derive(Debug, Default)]
pub(super) struct Pages {
    tokens: BTreeSet<String>,
}

impl Pages {
    /// The parameter that asks for the next page, where there is one.
    ///
    /// # Errors
    /// When there are more pages than any list has, or the next one was read before.
    pub fn next(&mut self, page: &ListMeta) -> Result<Option<String>, ApiError> {
        let Some(token) = page.token.as_deref().filter(|token| !token.is_empty()) else { return Ok(None) };
        let refused = |why: &str| Err(ApiError::malformed("a list in pages", why));
        if token.len() > MAX_TOKEN {
            return refused("expected a continue token of at most 4096 bytes");
        }
        if self.tokens.len() >= MAX_PAGES {
            return refused("it has more than 4096 pages");
        }
        if !self.tokens.insert(token.to_owned()) {
            return refused("a continue token leads to a page that was read");
        }
        Ok(Some(format!("&continue={}", escape(token))))
    }
}

/// What a line came to.
enum News {
    /// Objects are not as they were.
    Changed,
    /// The server is there and nothing changed.
    Alive,
    /// All that was there at the beginning has arrived.
    Begun,
}

struct Running<R, T> {
    watch: Watch<R, T>,
    api: Api,
    clock: Clock,
    mailbox: Arc<Mailbox>,
    store: Store<T>,
    /// Where to go on from; none before the first list and after a 410.
    version: Option<String>,
    /// Whether the server begins a watch with what is there.
    streams: bool,
    /// How often it agreed to and did not.
    failed_streams: u32,
    /// When the server was last heard.
    heard: Option<NodeTime>,
}

impl<R: DeserializeOwned + Object, T: Kept> Watch<R, T> {
    /// Watches for ever.
    pub async fn run(self, api: Api, clock: Clock, mailbox: Arc<Mailbox>) {
        let (store, version) = (Store::default(), None);
        let mut running =
            Running { watch: self, api, clock, mailbox, store, version, streams: true, failed_streams: 0, heard: None };
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            let begun = Instant::now();
            let ended = running.follow().await;
            // A watch that ends as soon as it is open is no better than none, however it ends.
            if begun.elapsed() >= WORKED {
                backoff.reset();
            }
            let wait = backoff.wait();
            match ended {
                Ok(()) => sleep(wait).await,
                // What we know is older than what the server remembers. After a restart all nodes hear so at once.
                Err(error) if error.code == Some(410) => sleep(wait.max(spread(RELIST, 0.9))).await,
                Err(error) => {
                    running.trouble(&error);
                    sleep(wait.max(error.retry_after.unwrap_or_default())).await;
                }
            }
        }
    }
}

impl<R: DeserializeOwned + Object, T: Kept> Running<R, T> {
    /// One watch from its beginning to its end.
    async fn follow(&mut self) -> Result<(), ApiError> {
        // What was given up for lack of room is read again.
        let version = self.version.as_ref().filter(|_| !self.store.gave_up());
        let mut lines = match version {
            Some(version) => self.open(&format!("&resourceVersion={version}")).await?,
            None => self.begin().await?,
        };
        let mut changed = false;
        loop {
            let line = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                // Nothing need be wrong: it begins again, and what is wrong shows then.
                Err(error) if error.cause == Cause::Stuck => {
                    self.version = None;
                    return Ok(());
                }
                Err(error) => return Err(self.without_version(error)),
            };
            changed |= matches!(self.take(&line).map_err(|error| self.without_version(error))?, News::Changed);
            // A burst wakes the agent once.
            if !lines.has_line() {
                self.publish(if std::mem::take(&mut changed) { &News::Changed } else { &News::Alive });
            }
        }
    }

    /// What cannot be understood is not asked for again: the watch begins with everything.
    fn without_version(&mut self, error: ApiError) -> ApiError {
        if matches!(error.cause, Cause::Malformed | Cause::TooLarge) {
            self.version = None;
        }
        error
    }

    async fn open(&self, more: &str) -> Result<Lines, ApiError> {
        let Watch { path, selector, .. } = &self.watch;
        let lasts = spread(LASTS, 0.25).as_secs();
        let query = format!("watch=true&allowWatchBookmarks=true&timeoutSeconds={lasts}&fieldSelector={selector}");
        self.api.watch(&format!("{path}?{query}{more}"), self.watch.silence).await
    }

    /// All that there is, and the watch that goes on from there.
    async fn begin(&mut self) -> Result<Lines, ApiError> {
        if self.streams {
            match self.begin_streaming().await {
                Ok(lines) => return Ok(lines),
                // Older servers refuse it. What else goes wrong need not do so the next time.
                Err(error) if matches!(error.code, Some(400 | 422)) => self.streams = false,
                // Or fail at it once they have agreed: with an etcd that cannot, or as they do not know the words.
                Err(error) if error.code == Some(500) || error.cause == Cause::Unsupported => {
                    self.failed_streams += 1;
                    self.streams = self.failed_streams < 2;
                }
                Err(error) => return Err(error),
            }
        }
        self.list().await?;
        let version = self.version.clone().unwrap_or_default();
        self.open(&format!("&resourceVersion={version}")).await
    }

    /// The server sends what is there as the watch's first events: it never has the whole list in one piece, nor do we.
    async fn begin_streaming(&mut self) -> Result<Lines, ApiError> {
        let mut lines = self.open("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan").await?;
        let before = std::mem::take(&mut self.store);
        let begun = self.until_begun(&mut lines).await;
        if begun.is_err() {
            self.store = before;
            self.version = None;
        }
        begun.map(|()| lines)
    }

    async fn until_begun(&mut self, lines: &mut Lines) -> Result<(), ApiError> {
        let end = Instant::now() + TO_BEGIN;
        let path = self.watch.path.clone();
        let ended_early = || {
            let why = format!("watch {path}: the server does not say what is there");
            ApiError { cause: Cause::Unsupported, code: None, why, retry_after: None }
        };
        loop {
            let line = timeout_at(end, lines.next()).await.map_err(|_| ended_early())??;
            let Some(line) = line else { return Err(ended_early()) };
            if matches!(self.take(&line)?, News::Begun) {
                self.publish(&News::Changed);
                return Ok(());
            }
        }
    }

    /// The way of servers that cannot stream: from their memory (version 0), where pods are found by their node; a list
    /// of the newest would have etcd read all pods of the cluster.
    async fn list(&mut self) -> Result<(), ApiError> {
        let mut store = Store::default();
        let (mut pages, mut next) = (Pages::default(), String::new());
        loop {
            let Watch { path, selector, .. } = &self.watch;
            let path = format!("{path}?fieldSelector={selector}&limit={PAGE}&resourceVersion=0{next}");
            let take = |item: Piece<'_>| self.take_item(item, &mut store);
            let page: List<IgnoredAny> = self.api.list_items(&path, take).await?;
            match pages.next(&page.metadata)? {
                Some(token) => next = token,
                None => {
                    self.version = Some(page.metadata.resource_version).filter(|version| !version.is_empty());
                    break;
                }
            }
        }
        self.store = store;
        self.publish(&News::Changed);
        Ok(())
    }

    fn take_item(&self, item: Piece<'_>, store: &mut Store<T>) -> Result<(), ApiError> {
        let path = &self.watch.path;
        let item = match item {
            Piece::Whole(item) => item,
            Piece::TooLarge(head) => {
                let (uid, why) = self.too_large(head)?;
                store.put(uid, Err(why));
                return Ok(());
            }
        };
        let item: &RawValue = serde_json::from_slice(item)
            .map_err(|error| ApiError::malformed(format!("GET {path}"), format!("expected an object: {error}")))?;
        let (uid, object) = self.read(item)?;
        if !object.as_ref().is_ok_and(|object| !(self.watch.keep)(object)) {
            store.put(uid, object);
        }
        Ok(())
    }

    /// An object that is larger than any that is read, by what its beginning says: the list is incomplete by it.
    fn too_large(&self, head: &[u8]) -> Result<(String, Unknown), ApiError> {
        let path = &self.watch.path;
        match first_value(head, "uid") {
            Some(uid) => {
                let why = format!("{path} {uid}: an object of more than {} MiB is not read", MAX_OBJECT_BYTES >> 20);
                Ok((uid, Unknown::new(Cause::TooLarge, why)))
            }
            None => Err(ApiError::malformed(format!("watch {path}"), "a large object without a UID at its beginning")),
        }
    }

    fn take(&mut self, line: &WatchLine) -> Result<News, ApiError> {
        let path = &self.watch.path;
        let line = match line {
            WatchLine::Whole(line) => line,
            WatchLine::TooLarge(head) => {
                let (uid, why) = self.too_large(head)?;
                let is_new = match first_value(head, "type").as_deref() {
                    Some("DELETED") => self.store.remove(&uid),
                    _ => self.store.put(uid, Err(why)),
                };
                self.version = first_value(head, "resourceVersion").or_else(|| self.version.take());
                return Ok(if is_new { News::Changed } else { News::Alive });
            }
        };
        let line: Line<'_> = serde_json::from_slice(line)
            .map_err(|error| ApiError::malformed(format!("watch {path}"), format!("expected an event: {error}")))?;
        match line.type_ {
            "ADDED" | "MODIFIED" => {
                let (uid, object) = self.read(line.object)?;
                self.advance(line.object);
                Ok(if self.put(uid, object) { News::Changed } else { News::Alive })
            }
            "DELETED" => {
                let uid = head(line.object).metadata.uid;
                self.advance(line.object);
                Ok(if self.store.remove(&uid) { News::Changed } else { News::Alive })
            }
            "BOOKMARK" => {
                self.advance(line.object);
                let annotations = head(line.object).metadata.annotations.unwrap_or_default();
                let end = annotations.initial_events_end.as_deref() == Some("true");
                Ok(if end { News::Begun } else { News::Alive })
            }
            "ERROR" => Err(self.refused(&head(line.object))),
            other => Err(ApiError::malformed(format!("watch {path}"), format!("no event is called {other:?}"))),
        }
    }

    /// An object by its UID; one that cannot be read, but can be distinguished from others, makes the list incomplete and is not the end.
    fn read(&self, raw: &RawValue) -> Result<(String, Result<T, Unknown>), ApiError> {
        let path = &self.watch.path;
        let object = serde_json::from_str::<R>(raw.get());
        let uid = match &object {
            Ok(object) => object.uid().to_owned(),
            Err(_) => head(raw).metadata.uid,
        };
        if uid.is_empty() || uid.len() > MAX_UID {
            return Err(ApiError::malformed(format!("watch {path}"), "an object without a UID, or with a long one"));
        }
        // What is wrong quotes the object, and is kept for each that is.
        let malformed = |error: serde_json::Error| {
            Unknown::new(Cause::Malformed, format!("{path} {uid}: {}", short_message(&error.to_string())))
        };
        let object = object.map_err(malformed).and_then(self.watch.convert);
        Ok((uid, object))
    }

    fn put(&mut self, uid: String, object: Result<T, Unknown>) -> bool {
        match object {
            Ok(object) if !(self.watch.keep)(&object) => self.store.remove(&uid),
            object => self.store.put(uid, object),
        }
    }

    fn advance(&mut self, raw: &RawValue) {
        let version = head(raw).metadata.resource_version;
        if !version.is_empty() {
            self.version = Some(version);
        }
    }

    /// The server's answer that it cannot go on.
    fn refused(&mut self, status: &Head) -> ApiError {
        let said = status.message.as_deref().unwrap_or("the server ended it with an error that it does not explain");
        let why = format!("watch {}: {}", self.watch.path, short_message(said));
        if status.code == Some(410) {
            self.version = None;
        }
        ApiError { cause: Cause::Stale, code: status.code, why, retry_after: None }
    }

    fn publish(&mut self, news: &News) {
        let now = self.clock.now();
        self.heard = Some(now);
        let observation = (self.watch.publish)(&self.store, now);
        match news {
            News::Alive => self.mailbox.keep(observation),
            News::Changed | News::Begun => self.mailbox.put(observation),
        }
    }

    /// Says why nothing is known, where that is so: what was seen a moment ago still stands.
    fn trouble(&mut self, error: &ApiError) {
        let now = self.clock.now();
        let stands = self.heard.and_then(|heard| now.since(&heard)).is_some_and(|age| age < STANDS);
        if error.cause == Cause::Denied || !stands {
            // What was reported as unknown is sent again: to go on from it may be to receive nothing for long.
            self.version = None;
            self.mailbox.put(Observation::unknown(self.watch.source, error.unknown()));
        }
    }
}

fn head(raw: &RawValue) -> Head {
    serde_json::from_str(raw.get()).unwrap_or_default()
}

/// A continue token as it may stand in a query.
fn escape(token: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    token.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_whose_pages_lead_back_or_never_end_ends_with_an_error() {
        let meta = |token: &str| ListMeta { token: Some(token.to_owned()), ..ListMeta::default() };
        let mut pages = Pages::default();
        assert_eq!(pages.next(&ListMeta::default()), Ok(None));
        assert_eq!(pages.next(&meta("")), Ok(None));
        assert_eq!(pages.next(&meta("a/")), Ok(Some("&continue=a%2F".to_owned())));
        assert!(pages.next(&meta("b")).is_ok());
        assert!(pages.next(&meta("a/")).unwrap_err().why.contains("was read"), "a circle of two");
        let errors = (0..5000).filter(|page| pages.next(&meta(&page.to_string())).is_err()).count();
        assert_eq!(errors, 5000 + 2 - MAX_PAGES);
        assert!(Pages::default().next(&meta(&"a".repeat(5000))).is_err());
    }

    #[test]
    fn a_token_cannot_end_its_parameter() {
        assert_eq!(escape("aB-_.~9"), "aB-_.~9");
        assert_eq!(escape("a&b=c/ä"), "a%26b%3Dc%2F%C3%A4");
    }
}
