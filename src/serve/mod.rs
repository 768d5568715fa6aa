//! Boards that fetch over HTTP.

pub mod address;
pub mod burst;
pub mod catalog;
pub mod connections;
pub mod content;
pub mod http;
pub mod ignore;
pub mod lock;
pub mod server;
