//! `--check`: diagnoses a server.

pub mod checkup;
