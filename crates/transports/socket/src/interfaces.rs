//! When the addresses of the machine's interfaces change.

use std::{io, time::Duration};

use tokio::time::sleep;

/// Interfaces come up step by step, with one address after another.
const SETTLE: Duration = Duration::from_millis(300);

/// Tells that an address of the machine has come or gone. Which ones there are is for the listeners to ask, as
/// [`reachable`](crate::address::reachable) does.
#[derive(Debug)]
pub struct InterfaceChanges(platform::Changes);

impl InterfaceChanges {
    /// From now on. On Linux the kernel tells of changes; elsewhere the addresses are looked at every few seconds.
    pub fn watch() -> io::Result<Self> {
        Ok(Self(platform::Changes::watch()?))
    }

    /// Ready when something has changed since the last time. Cancel-safe, but for a change that is reported while it settles,
    /// for 300 ms.
    pub async fn next(&mut self) -> io::Result<()> {
        self.0.next().await?;
        sleep(SETTLE).await;
        self.0.forget_pending()
    }
}

#[cfg(target_os = "linux")]
mod platform {
    use std::{
        io,
        os::{fd::AsRawFd as _, unix::net},
    };

    use nix::{
        errno::Errno,
        sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket},
    };
    use tokio::net::UnixDatagram;

    /// rtnetlink(7): RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR.
    const ADDRESS_GROUPS: u32 = 0x10 | 0x100;

    /// A socket to which the kernel writes a message for each address that comes or goes. Of another family than the type says,
    /// for which tokio has none; what is called on it is the same for all that have datagrams.
    #[derive(Debug)]
    pub(super) struct Changes(UnixDatagram);

    impl Changes {
        pub(super) fn watch() -> io::Result<Self> {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, ADDRESS_GROUPS))?;
            Ok(Self(UnixDatagram::from_std(net::UnixDatagram::from(socket))?))
        }

        pub(super) async fn next(&mut self) -> io::Result<()> {
            match self.0.recv(&mut [0; MESSAGE]).await {
                Err(error) if !is_overflow(&error) => Err(error),
                _ => Ok(()),
            }
        }

        pub(super) fn forget_pending(&mut self) -> io::Result<()> {
            loop {
                match self.0.try_recv(&mut [0; MESSAGE]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) if !is_overflow(&error) => return Err(error),
                    _ => {}
                }
            }
        }
    }

    /// What a message says does not matter; it may be cut off.
    const MESSAGE: usize = 64;

    /// There was no room for all messages, which are all the same to us.
    fn is_overflow(error: &io::Error) -> bool {
        error.raw_os_error() == Some(Errno::ENOBUFS as i32)
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::{collections::BTreeSet, io, net::IpAddr, time::Duration};

    use tokio::time::sleep;

    const INTERVAL: Duration = Duration::from_secs(5);

    #[derive(Debug)]
    pub(super) struct Changes(BTreeSet<IpAddr>);

    impl Changes {
        pub(super) fn watch() -> io::Result<Self> {
            Ok(Self(addresses()?))
        }

        pub(super) async fn next(&mut self) -> io::Result<()> {
            loop {
                sleep(INTERVAL).await;
                let now = addresses()?;
                if std::mem::replace(&mut self.0, now.clone()) != now {
                    return Ok(());
                }
            }
        }

        pub(super) fn forget_pending(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn addresses() -> io::Result<BTreeSet<IpAddr>> {
        Ok(if_addrs::get_if_addrs()?.into_iter().map(|interface| interface.ip()).collect())
    }
}
