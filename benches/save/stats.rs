//! What many measured values come to.

/// Measured values of one kind, in any unit.
#[derive(Clone, Debug, Default)]
pub struct Values(Vec<f64>);

impl Values {
    pub fn push(&mut self, value: f64) {
        let place = self.0.partition_point(|other| *other < value);
        self.0.insert(place, value);
    }

    pub fn median(&self) -> Option<f64> {
        let upper = *self.0.get(self.0.len() / 2)?;
        let lower = *self.0.get(self.0.len().checked_sub(1)? / 2)?;
        Some(f64::midpoint(lower, upper))
    }

    /// Nineteen of twenty were at most this.
    pub fn p95(&self) -> Option<f64> {
        self.at_share(0.95)
    }

    pub fn worst(&self) -> Option<f64> {
        self.0.last().copied()
    }

    fn at_share(&self, share: f64) -> Option<f64> {
        let last = self.0.len().checked_sub(1)?;
        self.0.get((last as f64 * share).round() as usize).copied()
    }
}

/// The straight line through these points that is best by least squares: its slope, and where it
/// begins.
pub fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let both: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    (points.len() >= 2).then(|| (both / spread, y - both / spread * x))
}
