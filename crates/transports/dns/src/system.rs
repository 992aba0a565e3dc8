//! The name servers that the system uses, or others.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
};
use peerloom_core::runtime::BoxFuture;

use crate::resolver::{LookupError, Resolver};

/// Asks name servers, and the hosts file. Answers are kept for as long as they say.
#[derive(Clone)]
pub struct SystemResolver(TokioResolver);

/// The system's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up DNS: {0}")]
pub struct SystemResolverError(String);

impl SystemResolver {
    /// Asks the name servers that the system is configured with: /etc/resolv.conf.
    pub fn from_system() -> Result<Self, SystemResolverError> {
        let builder =
            TokioResolver::builder_tokio().map_err(|error| SystemResolverError(error.to_string()))?;
        Self::build(builder)
    }

    /// Asks these name servers, by UDP, and by TCP for what is too long for that.
    pub fn with_name_servers(servers: &[SocketAddr]) -> Result<Self, SystemResolverError> {
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        Self::build(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
    }

    fn build(
        mut builder: hickory_resolver::ResolverBuilder<TokioRuntimeProvider>,
    ) -> Result<Self, SystemResolverError> {
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        builder.build().map(Self).map_err(|error| SystemResolverError(error.to_string()))
    }
}

impl Resolver for SystemResolver {
    fn addresses(&self, name: String) -> BoxFuture<'static, Result<Vec<IpAddr>, LookupError>> {
        let resolver = self.0.clone();
        Box::pin(async move {
            match resolver.lookup_ip(name.as_str()).await {
                Ok(found) => Ok(found.iter().collect()),
                Err(error) => Err(describe(name, &error)),
            }
        })
    }

    fn texts(&self, name: String) -> BoxFuture<'static, Result<Vec<String>, LookupError>> {
        let resolver = self.0.clone();
        Box::pin(async move {
            // Such names are whole: without the dot, the system's search domains would be tried behind them.
            let absolute = format!("{}.", name.trim_end_matches('.'));
            let found = match resolver.txt_lookup(absolute).await {
                Ok(found) => found,
                Err(error) => return Err(describe(name, &error)),
            };
            let texts = found.answers().iter().filter_map(|record| match &record.data {
                RData::TXT(text) => String::from_utf8(text.txt_data.concat()).ok(),
                _ => None,
            });
            Ok(texts.collect())
        })
    }
}

fn describe(name: String, error: &NetError) -> LookupError {
    if error.is_no_records_found() {
        LookupError::NotFound { name }
    } else {
        LookupError::Failed { name, reason: error.to_string() }
    }
}

impl std::fmt::Debug for SystemResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SystemResolver")
    }
}
