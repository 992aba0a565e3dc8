//! A link with a delay and losses, for kernels without netem: two network devices (TUN), each of which gets, later, what is
//! sent into the other. Everything above IP is the kernel's or the subject's own, as on a wire.
//!
//! `bench-link DEVICE DEVICE MILLIS PER_MILLION SEED` makes the devices, prints `ready`, and lasts as long as its standard input.
//! Each way takes so many milliseconds and loses so many of a million packets; which ones depends on the seed and on their
//! number alone, so that with one seed all subjects lose the same.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tun_rs::{DeviceBuilder, SyncDevice};

const MTU: u16 = 1500;
/// Packets that wait in the kernel for us, and packets on their way: more than any sender has under way, so that the only
/// losses are ours.
const QUEUE: u32 = 20_000;
const ON_THE_WAY: usize = 200_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [one, other, millis, per_million, seed] = arguments.as_slice() else {
        bail!("usage: bench-link DEVICE DEVICE MILLIS PER_MILLION SEED");
    };
    let delay = Duration::from_millis(millis.parse()?);
    let (per_million, seed) = (per_million.parse()?, seed.parse::<u64>()?);
    let (one, other) = (device(one)?, device(other)?);
    way(one.clone(), other.clone(), delay, Losses { per_million, state: seed });
    way(other, one, delay, Losses { per_million, state: !seed });
    println!("ready");
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn device(name: &str) -> Result<Arc<SyncDevice>> {
    let device = DeviceBuilder::new().name(name).mtu(MTU).tx_queue_len(QUEUE).enable(false).build_sync();
    Ok(Arc::new(device.with_context(|| format!("cannot make the network device {name}"))?))
}

type Packet = (Instant, Vec<u8>);

/// Carries packets from one device to the other.
fn way(from: Arc<SyncDevice>, to: Arc<SyncDevice>, delay: Duration, mut losses: Losses) {
    let (sender, receiver) = sync_channel(ON_THE_WAY);
    thread::spawn(move || take(&from, delay, &mut losses, &sender));
    thread::spawn(move || deliver(&to, &receiver));
}

fn take(from: &SyncDevice, delay: Duration, losses: &mut Losses, sender: &SyncSender<Packet>) {
    let mut buffer = vec![0; usize::from(MTU) + 4];
    loop {
        match from.recv(&mut buffer) {
            Ok(length) => {
                if !losses.next() && sender.send((Instant::now() + delay, buffer[..length].to_vec())).is_err()
                {
                    return;
                }
            }
            // The device is down until somebody has given it an address.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn deliver(to: &SyncDevice, receiver: &Receiver<Packet>) {
    while let Ok((due, packet)) = receiver.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // A device that is down loses what it gets, as a link does.
        let _ = to.send(&packet);
    }
}

/// Which packets are lost.
struct Losses {
    per_million: u64,
    state: u64,
}

impl Losses {
    /// SplitMix64: enough to be without a pattern.
    fn next(&mut self) -> bool {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        mixed % 1_000_000 < self.per_million
    }
}
