//! The command line.

use std::{net::SocketAddr, num::NonZeroU16, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use peerloom_core::Multiaddr;

use crate::daemon::LocalAddress;

/// A libp2p node that browsers can dial.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node: QUIC, WebTransport, WebRTC, TCP and WebSocket, until SIGTERM or Ctrl-C.
    Run(RunArguments),
    /// Run a node that other programs drive, over the control protocol of libp2p's daemon (p2pd).
    Daemon(DaemonArguments),
    /// Print this node's peer id, making an identity if there is none.
    Id(IdArguments),
    /// Measure the round-trip time to a peer.
    Ping(PingArguments),
    /// Measure the throughput to a peer, both ways (/perf/1.0.0).
    Perf(PerfArguments),
}

/// The keys of the configuration file, with what they are if left out.
const CONFIGURATION: &str = r#"The configuration file, with its defaults (but for `enabled`, nothing needs to be written):

  port = 4001                            # UDP and TCP, for every transport; or, in its place, where to listen:
  # listen = ["/ip4/0.0.0.0/udp/4001/quic-v1", "/ip4/0.0.0.0/udp/4001/quic-v1/webtransport",
  #           "/ip4/0.0.0.0/udp/4001/webrtc-direct", "/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/tcp/4001/ws"]
  data_dir = "~/.local/share/peerloom"   # written out: a ~ is not expanded
  status = "127.0.0.1:9464"
  external_addresses = []                # told to others besides: of a router that forwards a port, or a name
  private_network = "swarm.key"          # or --private-network; if left out, the node is public

  [tls]                                  # for /tls/ws, which the port then serves, too; read again when it changes
  certificate = "chain.pem"              # PEM: the server's own certificate first, then those above it
  key = "key.pem"
  key_exchange = "classical"             # of QUIC and of TLS on TCP; "post-quantum" costs time and a packet more

  [dns]                                  # for /dns, /dns4, /dns6 and /dnsaddr in addresses
  servers = []                           # "192.0.2.53:53"; none for those of the system

  [limits]                               # what remotes may cost; all that follows from these two is below, for 1 GiB
  memory = 1073741824                    # bytes; if left out, an eighth of the machine's or of the control group's
  descriptors = 524288                   # if left out, half of what the process may have (ulimit -n)
  high_water = 3072                      # with more connections, the least worthy are closed until low_water is reached
  low_water = 2560
  allow = []                             # networks ("192.0.2.0/24") and peer ids that get in when there is no more room
  ip4 = [{ prefix = 32, connections = 256, handshakes = 32 }]   # of those who dial from one address or network
  ip6 = [{ prefix = 64, connections = 256, handshakes = 32 }, { prefix = 48, connections = 512, handshakes = 32 }]
  [limits.networks]                      # in their place, for all of a network together: a proxy's, say
  "127.0.0.0/8" = { connections = "unlimited" }
  "::1/128" = { connections = "unlimited" }
  [limits.system]                        # all of the node; every section that follows has the same keys
  connections = 4096
  inbound_connections = 3584
  outbound_connections = 4096
  streams = 65536
  inbound_streams = 57344
  outbound_streams = 65536
  memory = 1073741824
  descriptors = 524288
  [limits.transient]                     # connections before the end of the handshakes, streams without a protocol
  inbound_connections = 128              # more wait until one of these has had its second
  inbound_streams = 4096
  [limits.peer]                          # each peer
  connections = 8                        # for one more, the oldest is closed
  inbound_streams = 1024
  [limits.connection]
  inbound_streams = 256                  # more wait until one of these is over
  [limits.protocol]                      # each protocol
  inbound_streams = 32768
  [limits.protocol_peer]                 # each protocol with each peer
  inbound_streams = 512
  [limits.allowed_system]                # those who got in by `allow`
  connections = 512
  [limits.allowed_transient]
  connections = 128
  [limits.peers.12D3Koo...]              # one peer; also [limits.protocols."/echo/1.0.0"]

  [relay]                                # circuit relay v2, for peers that cannot be dialed
  enabled = false                        # or --relay
  reservations = 128                     # peers that are reachable through this one
  reservations_per_ip = 8                # of them from one IPv4 address or IPv6 /64
  reservation_seconds = 3600             # then a reservation must have been renewed
  circuits = 1024                        # connections relayed at one time
  circuits_per_peer = 16                 # of them from or to one peer
  circuit_bytes = 131072                 # in each direction; 0 for no limit
  circuit_seconds = 120                  # 0 for no limit

  [autonat]                              # which of this node's addresses others reach
  client = true                          # asks other nodes; what is found unreachable is not told
  server = true                          # dials others back, at most once a second
  private_addresses = false              # asks and answers about private addresses, too

  [port_mapping]                         # has the router forward the ports that are listened on
  pcp = false                            # by PCP or NAT-PMP
  upnp = false                           # by UPnP, where it has neither
  gateway = "192.168.1.1"                # the router, if it is not that of the default route

  [gating]                               # who and what may connect, and be connected to; read again at SIGHUP
  deny = []                              # peer ids, "192.0.2.1", "192.0.2.0/24", "/dns4/example.com", "*" for every peer
  allow = []                             # the same; the more specific rule decides, and what none fits may

  [webrtc]                               # direct connections that begin at a relay
  port = 0                               # UDP, of those that are dialed from elsewhere; 0 for any
  stun_servers = []                      # "host:port", which tell a node behind a NAT its outer address

A node behind a NAT is reached through a relay: listen on the relay's address with /p2p-circuit behind it, for example
/dns4/relay.example/tcp/4001/p2p/12D3Koo.../p2p-circuit. Browsers then connect to it directly (/webrtc)."#;

#[derive(Debug, Args)]
#[command(after_long_help = CONFIGURATION)]
pub(crate) struct RunArguments {
    /// A TOML file; what the command line says goes before it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The port to listen on: UDP for QUIC, WebTransport and WebRTC, TCP for plain TCP and WebSocket, over IPv4 and IPv6
    /// [default: 4001].
    #[arg(long, value_name = "PORT", conflicts_with = "listen")]
    pub(crate) port: Option<NonZeroU16>,
    /// A multiaddr to listen on, in place of the port; may be given again. One that ends in /p2p/<relay>/p2p-circuit reserves a place at that relay.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Vec<Multiaddr>,
    /// Where the identity, the certificates and what is known of peers are kept.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where /metrics and /health are served; a loopback address unless you know better.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) status: Option<SocketAddr>,
    /// The key file of a private network (/key/swarm/psk/1.0.0/): only nodes that have the same key connect, by TCP and
    /// WebSocket.
    #[arg(long, value_name = "FILE")]
    pub(crate) private_network: Option<PathBuf>,
    /// Be a relay (circuit relay v2) for peers that cannot be dialed, within the limits of the configuration's [relay].
    #[arg(long)]
    pub(crate) relay: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DaemonArguments {
    /// Where programs connect: /unix/PATH, which only this user can, or /ip4/127.0.0.1/tcp/PORT, which every user of the machine
    /// can [default: control.sock in the data directory].
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen_control: Option<LocalAddress>,
    /// How many connections are left when a program asks for them to be trimmed.
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    pub(crate) trim_to: usize,
    #[command(flatten)]
    pub(crate) node: RunArguments,
}

#[derive(Debug, Args)]
pub(crate) struct IdArguments {
    /// Where the identity is kept.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PingArguments {
    /// The peer's multiaddr.
    pub(crate) address: Multiaddr,
    /// The key file of the private network that the peer is in.
    #[arg(long, value_name = "FILE")]
    pub(crate) private_network: Option<PathBuf>,
    /// How many pings.
    #[arg(long, short = 'n', default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// One JSON object instead of lines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PerfArguments {
    /// The peer's multiaddr.
    pub(crate) address: Multiaddr,
    /// The key file of the private network that the peer is in.
    #[arg(long, value_name = "FILE")]
    pub(crate) private_network: Option<PathBuf>,
    /// Mebibytes to send.
    #[arg(long, value_name = "MIB", default_value_t = 100)]
    pub(crate) upload: u32,
    /// Mebibytes to receive.
    #[arg(long, value_name = "MIB", default_value_t = 100)]
    pub(crate) download: u32,
    /// One JSON object instead of a progress bar and lines.
    #[arg(long)]
    pub(crate) json: bool,
}
