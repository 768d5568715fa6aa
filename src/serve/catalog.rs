//! What is published, and which version of it. No I/O.
//!
//! Checksums and versions are those of [OTA-promoter](https://github.com/pappz/ota-promoter).

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};

use hyper::body::Bytes;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

use crate::model::path::RelPath;

/// SHA-1 over a file's content and then its path, so that equal files have different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checksum([u8; 20]);

/// Computes a [`Checksum`] from a file's content, piece by piece.
pub struct Hasher(Context);

impl Default for Hasher {
    fn default() -> Self {
        Self(Context::new(&SHA1_FOR_LEGACY_USE_ONLY))
    }
}

impl Hasher {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of a file with this content and path.
    pub fn finish(mut self, path: &RelPath) -> Checksum {
        self.update(path.as_str().as_bytes());
        self.digest()
    }

    fn digest(self) -> Checksum {
        let mut sum = [0; 20];
        sum.copy_from_slice(self.0.finish().as_ref());
        Checksum(sum)
    }
}

impl Checksum {
    /// Reads 40 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut sum = [0; 20];
        let is_digit = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 2 * sum.len() || !text.as_bytes().iter().all(is_digit) {
            return None;
        }
        for (byte, digits) in sum.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(sum))
    }

    /// 40 lower-case hexadecimal digits. A version takes those of each file.
    fn digits(&self) -> [u8; 40] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 40];
        for (pair, byte) in digits.chunks_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 0xf)];
        }
        digits
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.digits()).map_err(|_| fmt::Error)?)
    }
}

/// A file that is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its path.
    pub path: RelPath,
    /// What tells this content of it from others.
    pub checksum: Checksum,
    /// The size of that content in bytes.
    pub len: u64,
}

impl Item {
    /// Whether it is rather not kept in memory.
    pub fn is_long(&self) -> bool {
        const SHORT: u64 = 1024 * 1024;
        self.len > SHORT
    }
}

/// Orders as a walk through the directories does that takes each one's entries by name: `a/b` comes
/// before `a.py`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct InWalk(RelPath);

impl Ord for InWalk {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.as_str().split('/').cmp(other.0.as_str().split('/'))
    }
}

impl PartialOrd for InWalk {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The files that are published, as they come and go.
#[derive(Debug, Default)]
pub struct Catalog {
    items: BTreeMap<InWalk, Arc<Item>>,
}

impl Catalog {
    /// Puts in a file, in place of what was known of it.
    pub fn put(&mut self, item: Item) {
        self.items.insert(InWalk(item.path.clone()), Arc::new(item));
    }

    /// Takes out a file.
    pub fn remove(&mut self, path: &RelPath) {
        self.items.remove(&InWalk(path.clone()));
    }

    /// Whether it has this file.
    pub fn has(&self, path: &RelPath) -> bool {
        self.items.contains_key(&InWalk(path.clone()))
    }

    /// How it is now.
    pub fn listing(&self) -> Listing {
        let items: Vec<_> = self.items.values().cloned().collect();
        let mut hasher = Hasher::default();
        for item in &items {
            hasher.update(&item.checksum.digits());
        }
        Listing { items, version: hasher.digest(), index: OnceLock::new(), json: OnceLock::new() }
    }
}

/// What was published at one moment. It never changes.
#[derive(Debug)]
pub struct Listing {
    /// The files, in the order of a walk.
    pub items: Vec<Arc<Item>>,
    /// SHA-1 over the checksums in that order, as digits.
    pub version: Checksum,
    index: OnceLock<HashMap<Checksum, usize>>,
    json: OnceLock<Bytes>,
}

impl Listing {
    /// The file with this checksum.
    pub fn find(&self, checksum: Checksum) -> Option<&Arc<Item>> {
        let index = self.index.get_or_init(|| {
            // Of two that differ only in where the content ends and the path begins, the first.
            self.items.iter().enumerate().rev().map(|(at, item)| (item.checksum, at)).collect()
        });
        self.items.get(*index.get(&checksum)?)
    }

    /// The answer to `GET /files`.
    pub fn json(&self) -> Bytes {
        let json = self.json.get_or_init(|| {
            let files: Vec<String> = (self.items.iter())
                .map(|item| {
                    let (path, checksum) = (quoted(item.path.as_str()), item.checksum);
                    format!(r#"{{"path":{path},"checksum":"{checksum}"}}"#)
                })
                .collect();
            format!(r#"{{"files":[{}],"version":"{}"}}"#, files.join(","), self.version).into()
        });
        json.clone()
    }

    /// What differs in a later listing: what is new or has changed, and what has gone.
    pub fn changes(&self, later: &Self) -> (Vec<Arc<Item>>, Vec<RelPath>) {
        let before: HashMap<_, _> =
            self.items.iter().map(|item| (&item.path, item.checksum)).collect();
        let after: HashMap<_, _> = later.items.iter().map(|item| (&item.path, ())).collect();
        let put = later.items.iter().filter(|item| before.get(&item.path) != Some(&item.checksum));
        let gone = self.items.iter().filter(|item| !after.contains_key(&item.path));
        (put.cloned().collect(), gone.map(|item| item.path.clone()).collect())
    }
}

/// A JSON string.
pub fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c.is_control() => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn item(path: &str, content: &str) -> Item {
        let path = RelPath::new(Path::new(path)).expect("a good path");
        let mut hasher = Hasher::default();
        hasher.update(content.as_bytes());
        Item { checksum: hasher.finish(&path), path, len: content.len() as u64 }
    }

    fn catalog(files: &[(&str, &str)]) -> Catalog {
        let mut catalog = Catalog::default();
        for (path, content) in files {
            catalog.put(item(path, content));
        }
        catalog
    }

    fn order(paths: &[&str]) -> Vec<String> {
        let files: Vec<_> = paths.iter().map(|path| (*path, "")).collect();
        let listing = catalog(&files).listing();
        listing.items.iter().map(|item| item.path.to_string()).collect()
    }

    /// Computed with Python: `hashlib.sha1(content + path)`, `hashlib.sha1(''.join(checksums))`.
    #[test]
    fn checksums_and_versions_are_those_of_ota_promoter() {
        assert_eq!(catalog(&[]).listing().version.to_string(), GOLDEN_EMPTY);
        let listing = catalog(&[("b.py", "two\n"), ("a/c.py", "one\n"), ("a.py", "")]).listing();
        let sums: Vec<_> = listing.items.iter().map(|item| item.checksum.to_string()).collect();
        assert_eq!(sums, GOLDEN_SUMS);
        assert_eq!(listing.version.to_string(), GOLDEN_VERSION);
        let found = listing.find(Checksum::parse(GOLDEN_SUMS[1]).expect("digits"));
        assert_eq!(found.map(|item| item.path.as_str()), Some("a.py"));
    }

    const GOLDEN_EMPTY: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
    const GOLDEN_SUMS: [&str; 3] = [
        "5cf2a1211c603a7e8c8109d35088d711a824c31a",
        "bb88d7506cfdcbc88cc950c4af72a3e28c024a77",
        "031c0671ed0d352f507067be5ef33d13a924031f",
    ];
    const GOLDEN_VERSION: &str = "14be7aa7fe1e070f9f6a75b8d9520df7e708ad37";

    #[test]
    fn directories_are_walked_by_name() {
        let walked = ["A", "a/z", "a b", "a-b", "a.d/y", "a.py", "b/a/c", "b/a.c", "ä"];
        let mut paths = walked;
        paths.reverse();
        assert_eq!(order(&paths), walked);
    }

    #[test]
    fn an_empty_list_is_a_list() {
        let json = catalog(&[]).listing().json();
        assert_eq!(json, format!(r#"{{"files":[],"version":"{GOLDEN_EMPTY}"}}"#));
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("a\"b\\c ü\u{1}"), r#""a\"b\\c ü\u0001""#);
    }

    #[test]
    fn what_has_changed() {
        let before = catalog(&[("a", "1"), ("b", "1"), ("c", "1")]).listing();
        let after = catalog(&[("a", "1"), ("b", "2"), ("d", "1")]).listing();
        let (put, gone) = before.changes(&after);
        let put: Vec<_> = put.iter().map(|item| item.path.as_str()).collect();
        assert_eq!(put, ["b", "d"]);
        assert_eq!(gone.iter().map(RelPath::as_str).collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn only_checksums_are_read_as_such() {
        let zeros = "0".repeat(40);
        assert_eq!(Checksum::parse(&zeros).map(|sum| sum.to_string()), Some(zeros.clone()));
        for bad in ["", "version", &zeros[1..], &"A".repeat(40), &"+1".repeat(20), &"é".repeat(20)]
        {
            assert_eq!(Checksum::parse(bad), None, "{bad}");
        }
    }
}
