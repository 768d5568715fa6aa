//! The servers: replies, how servers differ, and the session.

pub mod connect;
pub mod control;
pub mod error;
pub mod fault;
pub mod profile;
pub mod reply;
pub mod session;
pub mod tls;
pub mod trace;
pub mod uploader;
pub mod watchdog;
