//! The scripts that run on files.

pub mod scripts;
