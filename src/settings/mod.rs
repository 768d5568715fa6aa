//! The command line, `.autoftp`, hosts and credentials, folded into settings.

pub mod cli;
pub mod config;
pub mod credentials;
pub mod host;
