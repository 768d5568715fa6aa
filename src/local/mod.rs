//! Local files: opened safely, hashed while they are read, deleted.

pub mod file;
