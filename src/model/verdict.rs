//! What is to happen to a file.

/// What is to happen to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it, and publish it for boards that fetch.
    Upload,
    /// Publish it only.
    Publish,
    /// Run the script of this rule (an index into the list of process patterns) on it.
    Process(usize),
    /// Nothing.
    Ignored(Why),
}

/// Why a file is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Settings or credentials.
    Own,
    /// An editor's or a system's by-product.
    Junk,
    /// An exclude pattern matches it or a directory above it.
    Excluded,
    /// No include pattern matches it.
    NotIncluded,
}
