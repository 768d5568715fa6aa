//! The screen: the only place where causes become words.

pub mod text;
