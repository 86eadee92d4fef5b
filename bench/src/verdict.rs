//! What a report must show, held against what it measured.

use serde::Serialize;

/// Where a value has to lie.
#[derive(Clone, Copy, Debug, Serialize)]
pub enum Limit {
    /// Not below this.
    AtLeast(f64),
    /// Not above this.
    AtMost(f64),
    /// Above this.
    MoreThan(f64),
}

impl Limit {
    /// Whether `value` lies there.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
            Self::MoreThan(limit) => value > limit,
        }
    }

    /// The one of the two that is nearer to breaking the limit.
    fn worse(self, a: f64, b: f64) -> f64 {
        match self {
            Self::AtLeast(_) | Self::MoreThan(_) => a.min(b),
            Self::AtMost(_) => a.max(b),
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(limit) => format!("at least {limit}"),
            Self::AtMost(limit) => format!("at most {limit}"),
            Self::MoreThan(limit) => format!("more than {limit}"),
        }
    }
}

/// One bound, and each scenario's value.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// What is bounded, in words.
    pub claim: String,
    /// Where its values have to lie.
    pub limit: Limit,
    /// The values, medians over the rounds, by scenario. None: it was not measured.
    pub values: Vec<(String, f64)>,
    /// All of them lie there.
    pub holds: bool,
}

impl Verdict {
    /// Judges `values`.
    pub fn new(claim: &str, limit: Limit, values: Vec<(String, f64)>) -> Self {
        let holds = !values.is_empty() && values.iter().all(|(_, value)| limit.holds(*value));
        Self { claim: claim.into(), limit, values, holds }
    }

    /// The line of the report: the verdict, the worst value and where that was.
    pub fn line(&self) -> String {
        let (claim, limit) = (&self.claim, self.limit.text());
        let worst = self.values.iter().map(|(_, value)| *value);
        let Some(worst) = worst.reduce(|a, b| self.limit.worse(a, b)) else {
            return format!("not measured           {claim}, {limit}");
        };
        let word = if self.holds { "holds" } else { "fails" };
        let mut line = format!("{word} {worst:>14.2}   {claim}, {limit}");
        if let Some((scenario, _)) = self.values.iter().find(|(_, value)| *value == worst)
            && self.values.len() > 1
        {
            let good = self.values.iter().filter(|(_, value)| self.limit.holds(*value)).count();
            let all = self.values.len();
            line.push_str(&format!(" ({good} of {all}; worst: {scenario})"));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(limit: Limit, values: &[f64]) -> Verdict {
        let named = values.iter().map(|value| (format!("s{value}"), *value)).collect();
        Verdict::new("rate", limit, named)
    }

    #[test]
    fn a_bound_holds_where_its_worst_value_does() {
        for (limit, values, holds, worst) in [
            (Limit::AtLeast(0.8), &[0.8, 3.0][..], true, "0.80"),
            (Limit::AtLeast(0.8), &[0.79, 3.0], false, "0.79"),
            (Limit::AtMost(2.0), &[1.0, 2.0], true, "2.00"),
            (Limit::AtMost(2.0), &[1.0, 2.5], false, "2.50"),
            (Limit::MoreThan(10.0), &[10.0], false, "10.00"),
            (Limit::MoreThan(10.0), &[10.1], true, "10.10"),
        ] {
            let verdict = verdict(limit, values);
            assert_eq!(verdict.holds, holds, "{limit:?} {values:?}");
            let line = verdict.line();
            assert!(line.starts_with(if holds { "holds" } else { "fails" }), "{line}");
            assert!(line.contains(worst), "{line}");
        }
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        let none = verdict(Limit::AtLeast(0.0), &[]);
        assert!(!none.holds && none.line().starts_with("not measured"));
    }
}
