//! One worker a host: what is sent, removed and renamed there.

pub mod attempt;
pub mod order;
pub mod session_pool;
pub mod status;
pub mod worker;
