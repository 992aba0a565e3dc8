//! Small routers that speak the protocols' own bytes, on loopback addresses of their own.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// Real time, and tasks whose results are wanted.
#![allow(clippy::disallowed_methods)]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use peerloom_core::{Keypair, Multiaddr};
use peerloom_node::{AddressSource, Node, OwnAddress};
use peerloom_port_mapping::{Config, PortMapper};
use peerloom_tcp::TcpTransport;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
};

/// What is forwarded: the port outside and the lifetime, by protocol and port inside.
type Mappings = Arc<Mutex<BTreeMap<(String, u16), (u16, u32)>>>;

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 7);
const DEADLINE: Duration = Duration::from_secs(60);

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn node() -> (Node, Multiaddr, u16) {
    let keypair = Keypair::generate();
    let node = Node::builder(keypair.clone()).transport(TcpTransport::new(keypair)).build();
    let address =
        node.listen("/ip4/127.0.0.1/tcp/0".parse().unwrap()).await.unwrap().remove(0).without_peer_id();
    let port = address.to_string().rsplit('/').next().unwrap().parse().unwrap();
    (node, address, port)
}

fn mapped(node: &Node) -> Vec<OwnAddress> {
    let own = node.own_addresses().into_iter();
    own.filter(|own| own.source == AddressSource::PortMapping).collect()
}

fn config() -> Config {
    let mut config = Config::default();
    (config.private, config.pcp, config.upnp) = (true, false, false);
    config
}

/// RFC 6886, sections 3.2 to 3.4; with `pcp`, RFC 6887, section 11.
async fn pmp_router(at: Ipv4Addr, pcp: bool, mappings: Mappings) {
    let socket = UdpSocket::bind((at, 5351)).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1100];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let request = &buffer[..length];
            let number = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
            let long = |at: usize| u32::from_be_bytes(request[at..at + 4].try_into().unwrap());
            let map = |protocol: &str, inside: u16, outside: u16, lifetime: u32| {
                let mut mappings = mappings.lock().unwrap();
                match lifetime {
                    0 => _ = mappings.remove(&(protocol.to_owned(), inside)),
                    _ => _ = mappings.insert((protocol.to_owned(), inside), (outside, lifetime)),
                }
            };
            let answer = match (request[0], request[1]) {
                (0, 0) => [&[0, 128, 0, 0, 0, 0, 0, 9][..], &OUTSIDE.octets()].concat(),
                (0, operation @ (1 | 2)) => {
                    let (inside, lifetime) = (number(4), long(8));
                    map(if operation == 1 { "UDP" } else { "TCP" }, inside, 7001, lifetime);
                    let outside: u16 = if lifetime == 0 { 0 } else { 7001 };
                    let head = [0, 128 + operation, 0, 0, 0, 0, 0, 9];
                    [&head[..], &inside.to_be_bytes(), &outside.to_be_bytes(), &lifetime.to_be_bytes()]
                        .concat()
                }
                (2, 1) if pcp => {
                    let (lifetime, protocol, inside) = (long(4), request[36], number(40));
                    map(if protocol == 17 { "UDP" } else { "TCP" }, inside, 7002, lifetime);
                    // Version, R and opcode, reserved, SUCCESS; lifetime; epoch; reserved.
                    let mut answer =
                        [&[2, 0x81, 0, 0][..], &lifetime.to_be_bytes(), &[0, 0, 0, 9], &[0; 12]].concat();
                    answer.extend(&request[24..42]);
                    answer.extend(7002_u16.to_be_bytes());
                    answer.extend(OUTSIDE.to_ipv6_mapped().octets());
                    answer
                }
                // RFC 6886, section 3.5: unsupported version, and the one that is spoken.
                (2, _) => vec![0, 128, 0, 1, 0, 0, 0, 9],
                other => panic!("unexpected request {other:?}"),
            };
            socket.send_to(&answer, from).await.unwrap();
        }
    });
}

async fn is_mapped_and_given_back(config: Config, mappings: Mappings, outside: u16) {
    let (node, address, port) = node().await;
    let mapper = PortMapper::start(&node, config);
    eventually("a mapped address", || !mapped(&node).is_empty()).await;
    let own = mapped(&node).remove(0);
    assert_eq!(own.address, format!("/ip4/{OUTSIDE}/tcp/{outside}").parse().unwrap());
    assert!(own.told && node.listen_addresses()[0].without_peer_id() == own.address);
    assert_eq!(mappings.lock().unwrap().get(&("TCP".to_owned(), port)), Some(&(outside, 3600)));
    mapper.close().await;
    assert!(mappings.lock().unwrap().is_empty(), "given back");
    assert_eq!(node.listen_addresses().len(), 1);
    assert_eq!(node.own_addresses()[0].address, address);
}

#[tokio::test]
async fn a_router_that_speaks_nat_pmp_forwards_the_port_until_the_end() {
    let (router, mappings) = (Ipv4Addr::new(127, 53, 51, 1), Mappings::default());
    pmp_router(router, false, mappings.clone()).await;
    let mut config = config();
    (config.pcp, config.gateway) = (true, Some(router));
    is_mapped_and_given_back(config, mappings, 7001).await;
}

#[tokio::test]
async fn a_router_that_speaks_pcp_forwards_the_port_until_the_end() {
    let (router, mappings) = (Ipv4Addr::new(127, 53, 51, 2), Mappings::default());
    pmp_router(router, true, mappings.clone()).await;
    let mut config = config();
    (config.pcp, config.gateway) = (true, Some(router));
    is_mapped_and_given_back(config, mappings, 7002).await;
}

const SERVICE: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";

/// UPnP: SSDP, the description of the device and of its service, and SOAP.
async fn upnp_router(mappings: Mappings) -> SocketAddr {
    let ssdp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (found_at, pages_at) = (ssdp.local_addr().unwrap(), http.local_addr().unwrap());
    tokio::spawn(async move {
        let mut buffer = [0; 2000];
        loop {
            let (length, from) = ssdp.recv_from(&mut buffer).await.unwrap();
            assert!(buffer[..length].starts_with(b"M-SEARCH * HTTP/1.1\r\n"));
            let answer = format!(
                "HTTP/1.1 200 OK\r\nLOCATION: http://{pages_at}/root.xml\r\n\
                ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
            );
            ssdp.send_to(answer.as_bytes(), from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = http.accept().await.unwrap();
            let mappings = mappings.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                let body = loop {
                    if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                    let text = String::from_utf8_lossy(&request).to_lowercase();
                    let Some(end) = text.find("\r\n\r\n") else { continue };
                    let length = text.split("content-length: ").nth(1);
                    let length =
                        length.map_or(0, |rest| rest.lines().next().unwrap().parse::<usize>().unwrap());
                    if request.len() >= end + 4 + length {
                        break String::from_utf8_lossy(&request[end + 4..]).into_owned();
                    }
                };
                let head = String::from_utf8_lossy(&request).into_owned();
                let page = if head.starts_with("GET /root.xml") {
                    device()
                } else if head.starts_with("GET /scpd.xml") {
                    service()
                } else {
                    soap(&body, &mappings)
                };
                let length = page.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n\
                    Connection: close\r\n\r\n{page}"
                );
                socket.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    found_at
}

fn device() -> String {
    let inner = format!(
        "<service><serviceType>{SERVICE}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1\
        </serviceId><controlURL>/control</controlURL><eventSubURL>/event</eventSubURL><SCPDURL>/scpd.xml</SCPDURL>\
        </service>"
    );
    let device = |kind: &str, inner: &str| {
        format!("<device><deviceType>urn:schemas-upnp-org:device:{kind}:1</deviceType>{inner}</device>")
    };
    let connection = device("WANConnectionDevice", &format!("<serviceList>{inner}</serviceList>"));
    let wan = device("WANDevice", &format!("<deviceList>{connection}</deviceList>"));
    let root = device("InternetGatewayDevice", &format!("<deviceList>{wan}</deviceList>"));
    format!("<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\">{root}</root>")
}

fn service() -> String {
    let action = |name: &str, arguments: &[&str]| {
        let argument =
            |name: &&str| format!("<argument><name>{name}</name><direction>in</direction></argument>");
        let arguments: String = arguments.iter().map(argument).collect();
        format!("<action><name>{name}</name><argumentList>{arguments}</argumentList></action>")
    };
    let of_mapping = ["NewRemoteHost", "NewExternalPort", "NewProtocol"];
    let added = [
        "NewInternalPort",
        "NewInternalClient",
        "NewEnabled",
        "NewPortMappingDescription",
        "NewLeaseDuration",
    ];
    let actions = action("AddPortMapping", &[&of_mapping[..], &added].concat())
        + &action("DeletePortMapping", &of_mapping)
        + &action("GetExternalIPAddress", &[]);
    format!(
        "<?xml version=\"1.0\"?><scpd xmlns=\"urn:schemas-upnp-org:service-1-0\"><actionList>{actions}</actionList></scpd>"
    )
}

fn soap(body: &str, mappings: &Mappings) -> String {
    let field =
        |name: &str| body.split(&format!("<{name}>")).nth(1).unwrap().split('<').next().unwrap().to_owned();
    let mut mappings = mappings.lock().unwrap();
    let (action, result) = if body.contains("GetExternalIPAddress") {
        ("GetExternalIPAddress", format!("<NewExternalIPAddress>{OUTSIDE}</NewExternalIPAddress>"))
    } else if body.contains("AddPortMapping") {
        let (outside, lifetime) = (field("NewExternalPort"), field("NewLeaseDuration"));
        let inside = field("NewInternalPort").parse().unwrap();
        assert_eq!(field("NewInternalClient"), "127.0.0.1");
        let mapping = (outside.parse().unwrap(), lifetime.parse().unwrap());
        mappings.insert((field("NewProtocol"), inside), mapping);
        ("AddPortMapping", String::new())
    } else {
        let outside: u16 = field("NewExternalPort").parse().unwrap();
        mappings.retain(|_, (mapped, _)| *mapped != outside);
        ("DeletePortMapping", String::new())
    };
    format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>\
        <u:{action}Response xmlns:u=\"{SERVICE}\">{result}</u:{action}Response></s:Body></s:Envelope>"
    )
}

#[tokio::test]
async fn a_router_that_speaks_upnp_forwards_the_port_until_the_end() {
    let mappings = Mappings::default();
    let mut config = config();
    config.upnp = true;
    config.gateway = Some(Ipv4Addr::LOCALHOST);
    config.upnp_search = Some(upnp_router(mappings.clone()).await);
    let (node, _, port) = node().await;
    let mapper = PortMapper::start(&node, config);
    eventually("a mapped address", || !mapped(&node).is_empty()).await;
    assert_eq!(mapped(&node)[0].address, format!("/ip4/{OUTSIDE}/tcp/{port}").parse().unwrap());
    assert_eq!(mappings.lock().unwrap().get(&("TCP".to_owned(), port)), Some(&(port, 3600)));
    mapper.close().await;
    assert!(mappings.lock().unwrap().is_empty(), "given back");
    assert_eq!(mapped(&node), []);
}

#[tokio::test]
async fn without_a_router_nothing_is_told_and_closing_takes_no_time() {
    let mut config = config();
    (config.pcp, config.gateway) = (true, Some(Ipv4Addr::new(127, 53, 51, 9)));
    let (node, _, _) = node().await;
    let mapper = PortMapper::start(&node, config);
    tokio::time::sleep(Duration::from_millis(600)).await;
    tokio::time::timeout(Duration::from_secs(10), mapper.close()).await.unwrap();
    assert_eq!(mapped(&node), []);
}
