//! The section `[gating]` of the configuration: who and what may connect, and be connected to.

use std::path::Path;

use anyhow::{anyhow, bail};
use peerloom_node::{Gating, Node, Rule};
use serde::Deserialize;
use tokio::signal::unix::Signal;

use crate::config;

/// As it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileGating {
    #[serde(default)]
    deny: Vec<String>,
    #[serde(default)]
    allow: Vec<String>,
}

/// The rules, by what they say.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    denied: Vec<Rule>,
    allowed: Vec<Rule>,
}

impl FileGating {
    pub(crate) fn rules(self) -> anyhow::Result<Rules> {
        let denied = parse("deny", &self.deny)?;
        let allowed = parse("allow", &self.allow)?;
        if let Some(both) = allowed.iter().find(|rule| denied.contains(rule)) {
            bail!("gating.allow: {both}: is in gating.deny, too");
        }
        Ok(Rules { denied, allowed })
    }
}

fn parse(key: &str, rules: &[String]) -> anyhow::Result<Vec<Rule>> {
    let parse = |text: &String| text.parse().map_err(|error| anyhow!("gating.{key}: {error}"));
    rules.iter().map(parse).collect()
}

impl Rules {
    pub(crate) fn apply(self, gating: &Gating) {
        gating.replace(self.denied, self.allowed);
    }
}

/// Reads the rules again whenever the process is told to, and closes what they no longer let pass. A file with a mistake in it
/// changes nothing.
pub(crate) async fn reload(
    file: Option<&Path>,
    hangup: &mut Signal,
    node: &Node,
) -> std::convert::Infallible {
    loop {
        if hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        let Some(file) = file else {
            tracing::warn!("SIGHUP: there is no configuration file to read again");
            continue;
        };
        match config::read_rules(file) {
            Ok(rules) => {
                rules.apply(node.gating());
                let closed = node.close_denied().await;
                tracing::info!(closed, "the rules of [gating] were read again");
            }
            Err(error) => tracing::error!("the rules stay as they are: {error:#}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> anyhow::Result<Rules> {
        toml::from_str::<FileGating>(text)?.rules()
    }

    #[test]
    fn a_rule_that_is_none_is_named_with_its_key() {
        for (text, error) in [
            ("deny = ['10.0.0.0/40']", "gating.deny: 10.0.0.0/40 has too long a prefix"),
            (
                "allow = ['10.0.0.1/8']",
                "gating.allow: 10.0.0.1/8 is not a network; 10.0.0.0/8 is the one it is in",
            ),
            (
                "deny = ['10.0.0.0/8']\nallow = ['10.0.0.0/8']",
                "gating.allow: 10.0.0.0/8: is in gating.deny, too",
            ),
        ] {
            assert_eq!(rules(text).unwrap_err().to_string(), error);
        }
        assert!(rules("denied = []").unwrap_err().to_string().contains("denied"));
        assert_eq!(rules("deny = ['*']").unwrap().denied, [Rule::EveryPeer]);
    }
}
