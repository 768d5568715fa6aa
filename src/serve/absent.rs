//! In place of the server where it is left out.

mod burst;

use std::sync::Arc;

use anyhow::Result;
use crossbeam_channel::Sender;

use crate::config::Config;
use crate::event::Event;
use crate::path::RelPath;

pub use burst::Burst;

/// There is none.
pub enum Server {}

impl Server {
    pub fn list(&self, _: Vec<RelPath>) {}

    pub fn changed(&self, _: &RelPath) {}

    pub fn gone(&self, _: &RelPath) {}

    pub fn publish(&self) {}

    pub fn stop(&self) {}
}

/// Starts nothing; [`Config`] has refused to.
pub fn start(_: &Arc<Config>, _: &Sender<Event>) -> Result<Option<Server>> {
    Ok(None)
}
