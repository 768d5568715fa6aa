//! The dialogue on the control connection, for those who want to see it.

/// Who gets to see the dialogue on the control connection.
pub struct Trace(pub Option<Box<dyn Fn(bool, String) + Send>>);

impl Trace {
    /// We said `line`.
    pub fn sent(&self, line: &str) {
        if let Some(show) = &self.0 {
            show(true, line.to_owned());
        }
    }

    /// The server said these lines.
    pub fn received(&self, bytes: &[u8]) {
        if let Some(show) = &self.0 {
            for line in String::from_utf8_lossy(bytes).lines() {
                show(false, line.to_owned());
            }
        }
    }
}
