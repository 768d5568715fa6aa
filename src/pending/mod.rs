//! Changes and jobs that wait: the queue, retry times. Pure.

pub mod backoff;
pub mod queue;
