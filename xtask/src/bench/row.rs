//! One line of a bench's result.

use serde_json::{Value, json};

use super::statistics::Summary;

/// One quantity, measured of ours and, in the same run, of what it is compared with.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) ours: Summary,
    /// The same quantity of another implementation, and that one's name.
    pub(crate) peer: Option<(String, Summary)>,
    /// What the machine or the browser can do at all.
    pub(crate) limit: Option<Summary>,
    pub(crate) aim: Option<Aim>,
}

/// Where we want ours to be, or its ratio to something.
#[derive(Clone, Copy)]
pub(crate) struct Aim {
    pub(crate) against: Against,
    pub(crate) bound: Bound,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Against {
    Peer,
    Limit,
    /// Nothing: the bound is one of the quantity itself.
    Nothing,
}

#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl std::fmt::Display for Aim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = match self.against {
            Against::Peer => " x peer",
            Against::Limit => " x limit",
            Against::Nothing => "",
        };
        match self.bound {
            Bound::AtLeast(value) => write!(f, ">= {value}{of}"),
            Bound::AtMost(value) => write!(f, "<= {value}{of}"),
        }
    }
}

impl Row {
    /// Ours divided by what the aim compares it with; if it does with nothing, by the peer's or else by the limit.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let peer = self.peer.as_ref().map(|(_, peer)| *peer);
        let other = match self.aim.map(|aim| aim.against) {
            Some(Against::Peer) => peer,
            Some(Against::Limit) => self.limit,
            Some(Against::Nothing) | None => peer.or(self.limit),
        };
        other.map(|other| self.ours.median / other.median).filter(|ratio| ratio.is_finite())
    }

    pub(crate) fn json(&self) -> Value {
        let spread = |summary: Option<Summary>| {
            summary.map(
                |Summary { min, max, samples, .. }| json!({ "min": min, "max": max, "samples": samples }),
            )
        };
        let peer = self.peer.as_ref().map(|(_, peer)| *peer);
        json!({
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours.median,
            "ours_spread": spread(Some(self.ours)),
            "peer": peer.map(|peer| peer.median),
            "peer_spread": spread(peer),
            "peer_name": self.peer.as_ref().map(|(name, _)| name),
            "limit": self.limit.map(|limit| limit.median),
            "limit_spread": spread(self.limit),
            "ratio": self.ratio(),
            "aim": self.aim.map(|aim| aim.to_string()),
        })
    }
}

/// The rows as text: medians, with the extremes in brackets.
pub(crate) fn table(rows: &[Row]) -> String {
    let header = ["name", "unit", "ours", "peer", "peer's name", "limit", "ratio", "aim"].map(str::to_owned);
    let lines: Vec<[String; 8]> = std::iter::once(header).chain(rows.iter().map(cells)).collect();
    let widths: [usize; 8] = std::array::from_fn(|column| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    });
    let format = |line: &[String; 8]| {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    lines.iter().map(format).collect::<Vec<_>>().join("\n")
}

fn cells(row: &Row) -> [String; 8] {
    let text = |summary: Option<Summary>| summary.map(measured).unwrap_or_default();
    let (peer_name, peer) = row.peer.clone().unzip();
    [
        row.name.clone(),
        row.unit.clone(),
        measured(row.ours),
        text(peer),
        peer_name.unwrap_or_default(),
        text(row.limit),
        row.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
        row.aim.map(|aim| aim.to_string()).unwrap_or_default(),
    ]
}

fn measured(summary: Summary) -> String {
    let Summary { median, min, max, samples } = summary;
    if samples == 1 {
        number(median)
    } else {
        format!("{} [{} {}]", number(median), number(min), number(max))
    }
}

/// Three digits are what a measurement on a shared machine is good for; counts of bytes stay whole.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(samples: &[f64]) -> Summary {
        Summary::of(samples).unwrap()
    }

    fn row(aim: Option<Aim>) -> Row {
        Row {
            name: "webtransport down".to_owned(),
            unit: "MiB/s".to_owned(),
            ours: summary(&[140.0, 150.0, 160.0]),
            peer: Some(("js-libp2p".to_owned(), summary(&[75.0]))),
            limit: Some(summary(&[200.0])),
            aim,
        }
    }

    #[test]
    fn the_ratio_is_to_what_the_aim_compares_with() {
        let at_least = |against| Some(Aim { against, bound: Bound::AtLeast(1.0) });
        assert_eq!(row(at_least(Against::Limit)).ratio(), Some(0.75));
        assert_eq!(row(at_least(Against::Peer)).ratio(), Some(2.0));
        assert_eq!(row(None).ratio(), Some(2.0));
    }

    #[test]
    fn an_aim_may_compare_with_nothing() {
        let row = row(Some(Aim { against: Against::Nothing, bound: Bound::AtMost(200.0) }));
        assert_eq!(row.ratio(), Some(2.0));
        assert_eq!(row.json().get("aim"), Some(&json!("<= 200")));
    }

    #[test]
    fn json_has_medians_with_their_spread_beside() {
        let json = row(Some(Aim { against: Against::Limit, bound: Bound::AtLeast(0.7) })).json();
        assert_eq!(json.get("ours"), Some(&json!(150.0)));
        assert_eq!(json.get("ours_spread"), Some(&json!({ "min": 140.0, "max": 160.0, "samples": 3 })));
        assert_eq!(json.get("peer_name"), Some(&json!("js-libp2p")));
        assert_eq!(json.get("ratio"), Some(&json!(0.75)));
        assert_eq!(json.get("aim"), Some(&json!(">= 0.7 x limit")));
    }

    #[test]
    fn columns_of_the_table_line_up() {
        let table = table(&[row(None), row(Some(Aim { against: Against::Peer, bound: Bound::AtMost(0.5) }))]);
        let lines: Vec<&str> = table.lines().collect();
        let [header, first, second] = lines.as_slice() else { panic!("{table}") };
        assert_eq!(header.find("ratio"), first.find("2.00"), "{table}");
        assert_eq!(header.find("aim"), second.find("<= 0.5 x peer"), "{table}");
    }
}
