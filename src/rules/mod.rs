//! Patterns, and the verdict on a path. Pure.

pub mod filter;
