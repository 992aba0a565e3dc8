//! Which router there is.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// The router, that of the default route if none is given, and the address of ours that it knows.
pub(crate) fn to_gateway(given: Option<Ipv4Addr>) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let gateway = given.or_else(default_gateway)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Nothing is sent: the system chooses the address from which it would be.
    socket.connect((gateway, 5351)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(client) => Some((gateway, client)),
        IpAddr::V6(_) => None,
    }
}

#[cfg(target_os = "linux")]
fn default_gateway() -> Option<Ipv4Addr> {
    gateway_of(&std::fs::read_to_string("/proc/net/route").ok()?)
}

/// Nobody tells; UPnP needs none.
#[cfg(not(target_os = "linux"))]
fn default_gateway() -> Option<Ipv4Addr> {
    None
}

/// That of the default route with the least metric. proc_net_route(5): addresses in hexadecimal, in the machine's byte order.
#[cfg(target_os = "linux")]
fn gateway_of(routes: &str) -> Option<Ipv4Addr> {
    const RTF_GATEWAY: u32 = 2;
    let route = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (destination, gateway, flags) = (fields.next()?, fields.next()?, fields.next()?);
        let (metric, mask) = (fields.nth(2)?, fields.next()?);
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let is_default = destination == "00000000" && mask == "00000000" && flags & RTF_GATEWAY != 0;
        is_default.then_some((metric.parse::<u32>().ok()?, Ipv4Addr::from(gateway.to_ne_bytes())))
    };
    routes.lines().skip(1).filter_map(route).min().map(|(_, gateway)| gateway)
}

#[cfg(all(test, target_os = "linux", target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_with_the_least_metric_is_taken() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
            wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
            eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0\n\
            garbage\n";
        assert_eq!(gateway_of(routes), Some(Ipv4Addr::new(192, 168, 1, 1)));
        assert_eq!(gateway_of(""), None);
    }

    #[test]
    fn the_address_that_the_router_knows_is_ours() {
        let loopback = Ipv4Addr::LOCALHOST;
        assert_eq!(to_gateway(Some(loopback)), Some((loopback, loopback)));
    }
}
