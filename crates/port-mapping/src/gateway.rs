//! A router, by whichever of the protocols it understands.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    time::Duration,
};

use crab_nat::{InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp};
use igd_next::{
    AddPortError, PortMappingProtocol, SearchOptions,
    aio::{
        Gateway as Igd,
        tokio::{Tokio, search_gateway},
    },
};
use peerloom_node::addresses::PortProtocol;

use crate::{Config, route, wanted::Port};

/// What the router's own pages call it.
const DESCRIPTION: &str = "peerloom";
/// Without an answer, a router is asked four times within three seconds.
const PCP_TIMEOUTS: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 3,
    max_retry_timeout: Some(Duration::from_secs(1)),
};
/// How long routers have to say that they are there.
const UPNP_SEARCH: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
pub(crate) enum Gateway {
    Pcp { gateway: Ipv4Addr, client: Ipv4Addr },
    Upnp(Igd<Tokio>),
}

/// A port that the router forwards.
pub(crate) struct Mapping {
    /// Where others reach it.
    pub(crate) outside: SocketAddr,
    /// For how long, unless it is renewed.
    pub(crate) lifetime: Duration,
    agreed: Agreed,
}

enum Agreed {
    Pcp { mapping: PortMapping, gateway: Ipv4Addr },
    Upnp { gateway: Igd<Tokio>, port: Port },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum MappingError {
    #[error("there is no router")]
    NoGateway,
    #[error("port 0 cannot be mapped")]
    NoPort,
    #[error("PCP, NAT-PMP: {0}")]
    Pcp(String),
    #[error("UPnP: {0}")]
    Upnp(String),
}

fn pcp_error(error: impl ToString) -> MappingError {
    MappingError::Pcp(error.to_string())
}

fn upnp_error(error: impl ToString) -> MappingError {
    MappingError::Upnp(error.to_string())
}

impl Gateway {
    pub(crate) fn pcp(config: &Config) -> Option<Self> {
        let (gateway, client) = route::to_gateway(config.gateway).filter(|_| config.pcp)?;
        Some(Self::Pcp { gateway, client })
    }

    pub(crate) async fn upnp(config: &Config) -> Option<Self> {
        if !config.upnp {
            return None;
        }
        let mut options = SearchOptions::default();
        options.timeout = Some(UPNP_SEARCH);
        if let Some(search) = config.upnp_search {
            options.broadcast_address = search;
            // Who was named is believed, even on this machine.
            options.allowed_gateway_ips.push(search.ip());
        }
        let found = search_gateway(options).await;
        found.inspect_err(|error| tracing::debug!(%error, "no router that speaks UPnP")).ok().map(Self::Upnp)
    }

    /// Asks for the same port number outside, and takes what it gets.
    pub(crate) async fn map(&self, port: Port, lifetime: Duration) -> Result<Mapping, MappingError> {
        match self {
            Self::Pcp { gateway, client } => {
                let number = NonZeroU16::new(port.inside.port()).ok_or(MappingError::NoPort)?;
                let protocol = match port.protocol {
                    PortProtocol::Tcp => InternetProtocol::Tcp,
                    PortProtocol::Udp => InternetProtocol::Udp,
                };
                let options = PortMappingOptions {
                    external_port: Some(number),
                    lifetime_seconds: Some(seconds(lifetime)),
                    timeout_config: Some(PCP_TIMEOUTS),
                };
                let client = IpAddr::V4(*client);
                let mapping = PortMapping::new((*gateway).into(), client, protocol, number, options).await;
                agreed_by_pcp(mapping.map_err(pcp_error)?, *gateway).await
            }
            Self::Upnp(gateway) => map_by_upnp(gateway.clone(), port, lifetime).await,
        }
    }
}

async fn agreed_by_pcp(mapping: PortMapping, gateway: Ipv4Addr) -> Result<Mapping, MappingError> {
    let ip = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip.to_canonical(),
        PortMappingType::NatPmp => {
            natpmp::external_address(gateway.into(), Some(PCP_TIMEOUTS)).await.map_err(pcp_error)?.into()
        }
    };
    let lifetime = Duration::from_secs(mapping.lifetime().max(2).into());
    let outside = SocketAddr::new(ip, mapping.external_port().get());
    Ok(Mapping { outside, lifetime, agreed: Agreed::Pcp { mapping, gateway } })
}

async fn map_by_upnp(gateway: Igd<Tokio>, port: Port, lifetime: Duration) -> Result<Mapping, MappingError> {
    let (protocol, number, lease) = (upnp_protocol(port), port.inside.port(), seconds(lifetime));
    let ip = gateway.get_external_ip().await.map_err(upnp_error)?;
    let same = gateway.add_port(protocol, number, port.inside, lease, DESCRIPTION).await;
    let outside = match same {
        Ok(()) => number,
        // Then it is taken back by us or by nobody.
        Err(AddPortError::OnlyPermanentLeasesSupported) => {
            gateway.add_port(protocol, number, port.inside, 0, DESCRIPTION).await.map_err(upnp_error)?;
            number
        }
        Err(AddPortError::PortInUse) => {
            gateway.add_any_port(protocol, port.inside, lease, DESCRIPTION).await.map_err(upnp_error)?
        }
        Err(error) => return Err(upnp_error(error)),
    };
    let port = Port { protocol: port.protocol, inside: port.inside };
    let outside = SocketAddr::new(ip, outside);
    Ok(Mapping { outside, lifetime, agreed: Agreed::Upnp { gateway, port } })
}

impl Mapping {
    /// The same for longer, or another one in its place.
    pub(crate) async fn renewed(self) -> Result<Self, MappingError> {
        match self.agreed {
            Agreed::Pcp { mut mapping, gateway } => {
                mapping.renew().await.map_err(pcp_error)?;
                agreed_by_pcp(mapping, gateway).await
            }
            Agreed::Upnp { gateway, port } => map_by_upnp(gateway, port, self.lifetime).await,
        }
    }

    pub(crate) async fn give_back(self) -> Result<(), MappingError> {
        match self.agreed {
            Agreed::Pcp { mapping, .. } => mapping.try_drop().await.map_err(|(error, _)| pcp_error(error)),
            Agreed::Upnp { gateway, port } => {
                gateway.remove_port(upnp_protocol(port), self.outside.port()).await.map_err(upnp_error)
            }
        }
    }
}

fn upnp_protocol(port: Port) -> PortMappingProtocol {
    match port.protocol {
        PortProtocol::Tcp => PortMappingProtocol::TCP,
        PortProtocol::Udp => PortMappingProtocol::UDP,
    }
}

fn seconds(duration: Duration) -> u32 {
    duration.as_secs().try_into().unwrap_or(u32::MAX)
}
