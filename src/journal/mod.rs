//! The record of what each host has, kept across runs.

pub mod store;
