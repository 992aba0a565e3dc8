//! What pages measure, and the rows that come of it.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::row::{Against, Aim, Bound, Row};
use super::statistics::Summary;

/// One value that a page reported.
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) unit: String,
    /// `ours`, `limit`, or the name of the peer that was measured.
    pub(super) subject: String,
    pub(super) value: f64,
}

/// Runs a command that prints samples as lines of JSON.
pub(super) fn printed_by(command: &mut Command) -> Result<Vec<Sample>> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the page failed: {}", output.status);
    String::from_utf8(output.stdout)?.lines().map(sample).collect()
}

/// One line that was printed.
fn sample(line: &str) -> Result<Sample> {
    let value: Value = serde_json::from_str(line).with_context(|| format!("the page reported {line}"))?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let number = value.get("value").and_then(Value::as_f64);
    match (text("name"), text("unit"), text("subject"), number) {
        (Some(name), Some(unit), Some(subject), Some(value)) => Ok(Sample { name, unit, subject, value }),
        _ => bail!("the page reported {line}"),
    }
}

/// Groups samples by name, in the order of appearance; a row for each aim that fits, or one without, and for each peer.
pub(super) fn rows(samples: &[Sample], aims: &[(&str, Against, Bound)]) -> Result<Vec<Row>> {
    let mut names: Vec<&str> = Vec::new();
    for sample in samples {
        if !names.contains(&sample.name.as_str()) {
            names.push(&sample.name);
        }
    }
    let mut rows = Vec::new();
    for name in names {
        let of: Vec<&Sample> = samples.iter().filter(|sample| sample.name == name).collect();
        let summary = |subject: &str| {
            let values = of.iter().filter(|sample| sample.subject == subject).map(|sample| sample.value);
            Summary::of(&values.collect::<Vec<_>>())
        };
        let mut peers: Vec<&str> = Vec::new();
        for subject in of.iter().map(|sample| sample.subject.as_str()) {
            if !["ours", "limit"].contains(&subject) && !peers.contains(&subject) {
                peers.push(subject);
            }
        }
        let peers: Vec<_> =
            peers.into_iter().filter_map(|peer| Some((peer.to_owned(), summary(peer)?))).collect();
        let ours = summary("ours").with_context(|| format!("{name} was not measured of ours"))?;
        let unit = of.first().map(|sample| sample.unit.clone()).unwrap_or_default();

        let fitting = aims.iter().filter(|(prefix, _, _)| name.starts_with(prefix));
        let mut aims: Vec<Option<Aim>> =
            fitting.map(|(_, against, bound)| Some(Aim { against: *against, bound: *bound })).collect();
        if aims.is_empty() {
            aims.push(None);
        }
        for aim in aims {
            // What is compared with the limit is said once.
            let concerned = match aim.map(|aim| aim.against) {
                Some(Against::Limit) => peers.get(..1).unwrap_or_default(),
                Some(Against::Peer | Against::Nothing) | None => &peers,
            };
            let mut concerned: Vec<_> = concerned.iter().cloned().map(Some).collect();
            if concerned.is_empty() {
                concerned.push(None);
            }
            for peer in concerned {
                let (name, unit, limit) = (name.to_owned(), unit.clone(), summary("limit"));
                rows.push(Row { name, unit, ours, peer, limit, aim });
            }
        }
    }
    ensure!(!rows.is_empty(), "the page reported nothing");
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_a_row_per_aim() {
        let lines = [
            r#"{"name":"webtransport throughput down","unit":"MiB/s","subject":"ours","value":100}"#,
            r#"{"name":"webtransport throughput down","unit":"MiB/s","subject":"ours","value":120}"#,
            r#"{"name":"webtransport throughput down","unit":"MiB/s","subject":"js-libp2p","value":55}"#,
            r#"{"name":"webtransport throughput down","unit":"MiB/s","subject":"limit","value":220}"#,
            r#"{"name":"start","unit":"ms","subject":"ours","value":30}"#,
        ];
        let samples: Vec<Sample> = lines.iter().map(|line| sample(line).unwrap()).collect();
        let aims = [
            ("webtransport throughput", Against::Limit, Bound::AtLeast(0.7)),
            ("webtransport throughput", Against::Peer, Bound::AtLeast(2.0)),
        ];
        let rows = rows(&samples, &aims).unwrap();
        let ratios: Vec<Option<f64>> = rows.iter().map(Row::ratio).collect();
        assert_eq!(ratios, [Some(0.5), Some(2.0), None]);
    }

    #[test]
    fn each_peer_has_a_row() {
        let sample = |subject: &str, value| Sample {
            name: "link".to_owned(),
            unit: "MiB/s".to_owned(),
            subject: subject.to_owned(),
            value,
        };
        let samples =
            [sample("go-libp2p", 4.0), sample("ours", 8.0), sample("rust-libp2p", 2.0), sample("limit", 8.0)];
        let aims =
            [("link", Against::Peer, Bound::AtLeast(1.0)), ("link", Against::Limit, Bound::AtLeast(1.0))];
        let rows = rows(&samples, &aims).unwrap();
        let told: Vec<_> =
            rows.iter().map(|row| (row.peer.as_ref().unwrap().0.as_str(), row.ratio().unwrap())).collect();
        assert_eq!(told, [("go-libp2p", 2.0), ("rust-libp2p", 4.0), ("go-libp2p", 1.0)]);
    }

    #[test]
    fn a_report_that_lacks_a_field_is_refused() {
        assert!(sample(r#"{"name":"start","unit":"ms","value":30}"#).is_err());
        assert!(sample("nothing").is_err());
    }
}
