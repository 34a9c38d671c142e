//! Kubernetes quantities, as many as capacities need: sums and how often one goes into another. Exact: no floating point.

/// A sum of quantities of one resource.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Quantity {
    milli: i128,
    binary: bool,
}

impl Quantity {
    /// Reads `4`, `100m`, `1.5`, `16Gi`, `32777944Ki`, `2e3`, `1G`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let (scale, binary) = scale_of(suffix)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let units: i128 = format!("{whole}{fraction}").parse().ok()?;
        let shift = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let milli = units.checked_mul(scale)? / shift;
        Some(Quantity { milli, binary })
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.milli == 0
    }

    /// As much as several of it.
    #[must_use]
    pub fn times(self, count: i64) -> Quantity {
        Quantity {
            milli: self.milli.saturating_mul(i128::from(count)),
            binary: self.binary,
        }
    }

    /// How many times a request goes into this quantity; `None` for a request of nothing.
    pub fn holds(self, request: Quantity) -> Option<i64> {
        let times = self.milli.max(0).checked_div(request.milli).filter(|_| request.milli > 0)?;
        Some(i64::try_from(times).unwrap_or(i64::MAX))
    }
}

impl std::ops::Add for Quantity {
    type Output = Quantity;

    fn add(self, other: Quantity) -> Quantity {
        Quantity {
            milli: self.milli.saturating_add(other.milli),
            binary: self.binary || other.binary,
        }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        Quantity {
            milli: self.milli.saturating_sub(other.milli),
            binary: self.binary || other.binary,
        }
    }
}

/// The factor of a suffix, in thousandths.
fn scale_of(suffix: &str) -> Option<(i128, bool)> {
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if let Some(at) = binary.iter().position(|s| *s == suffix) {
        return Some((1000 << (10 * (at + 1)), true));
    }
    let decimal = ["k", "M", "G", "T", "P", "E"];
    if let Some(at) = decimal.iter().position(|s| *s == suffix) {
        return Some((1000 * 1000i128.pow(u32::try_from(at).ok()? + 1), false));
    }
    match suffix {
        "" => Some((1000, false)),
        "m" => Some((1, false)),
        _ => {
            let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            Some((10i128.checked_pow(exponent.min(18))? * 1000, false))
        }
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.milli % 1000 != 0 {
            return write!(f, "{}m", self.milli);
        }
        let whole = self.milli / 1000;
        let suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        let fits = |steps: &usize| whole % (1i128 << (10 * steps)) == 0;
        match (0..suffixes.len()).rev().find(fits).filter(|_| self.binary && whole != 0) {
            Some(steps) => write!(f, "{}{}", whole >> (10 * steps), suffixes[steps]),
            None => write!(f, "{whole}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn sum(texts: &[&str]) -> String {
        let all = texts.iter().map(|text| Quantity::parse(text).unwrap());
        all.fold(Quantity::default(), |sum, one| sum + one).to_string()
    }

    #[test]
    fn sums_keep_kubernetes_spelling() {
        assert_eq!(sum(&["3900m", "100m"]), "4");
        assert_eq!(sum(&["1.5", "250m"]), "1750m");
        assert_eq!(sum(&["16Gi", "16Gi"]), "32Gi");
        assert_eq!(sum(&["32777944Ki", "1Ki"]), "32777945Ki");
        assert_eq!(sum(&["2e3", "1k", "1"]), "3001");
        assert_eq!(Quantity::parse("many"), None);
    }

    #[test]
    fn counts_how_often_a_request_fits() {
        let holds = |of: &str, request: &str| Quantity::parse(of).unwrap().holds(Quantity::parse(request).unwrap());
        assert_eq!(holds("4", "1500m"), Some(2));
        assert_eq!(holds("1Gi", "1G"), Some(1));
        assert_eq!(holds("-1", "1"), Some(0));
        assert_eq!(holds("4", "0"), None);
    }
}
