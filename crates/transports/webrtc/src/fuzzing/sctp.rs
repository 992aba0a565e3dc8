use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::{
    driver, limits,
    sctp::{PayloadProtocol, Sctp, SctpEvent},
};

/// An association with a remote that knows the tags and sends any chunks. What comes first of each is how long it is and
/// what else happens: time, an honest packet, or the application.
pub fn webrtc_sctp(data: &[u8]) {
    let mut now = driver::now();
    let mut ends = [Sctp::client(now).expect("an association begins"), Sctp::server()];
    // What packets to the server look like.
    let mut header = [0; 12];
    let Some((early, mut rest)) = data.split_first() else { return };
    // An association of which a part of the handshake has passed, or all of it.
    for _ in 0..early % 8 {
        exchange(&mut ends, now, &mut header);
    }
    let [client, server] = &mut ends;
    for stream in [0, 2, 4] {
        let _ = client.open(stream);
        let _ = client.write(now, stream, PayloadProtocol::Binary, &Bytes::from_static(b"hello"));
    }
    let _ = server.open(1);
    let mut streams = vec![0, 1, 2, 4];
    while let Some((first, after)) = rest.split_first() {
        let (chunks, after) = after.split_at(after.len().min(usize::from(first & 63)));
        rest = after;
        let [client, server] = &mut ends;
        if !chunks.is_empty() && server.handle_packet(now, packet(&header, chunks)).is_err() {
            // The end of the association is what a violation brings; nothing more is given to it.
            server.abort(now);
            return;
        }
        match first >> 6 {
            0 => {}
            1 => {
                now += Duration::from_millis(200);
                for end in [&mut *client, &mut *server] {
                    settle(end, now);
                }
            }
            2 => exchange(&mut ends, now, &mut header),
            _ => {
                for stream in &streams {
                    while server.read(*stream).is_some() {}
                    let _ = server.write(now, *stream, PayloadProtocol::Binary, &Bytes::from_static(b"back"));
                }
                if let Some(stream) = streams.pop() {
                    let _ = server.reset(now, stream);
                }
            }
        }
        let [_, server] = &mut ends;
        while let Some(event) = server.poll_event() {
            match event {
                SctpEvent::Opened(stream) if !streams.contains(&stream) && streams.len() < 32 => {
                    streams.push(stream)
                }
                SctpEvent::Lost { .. } => return,
                _ => {}
            }
        }
        assert!(server.unread() <= limits::SCTP_RECEIVE_WINDOW, "{} bytes unread", server.unread());
        let sent = std::iter::from_fn(|| server.poll_transmit(now)).take(1000).count();
        assert!(sent < 1000, "one packet makes many");
        let _ = (server.fullest(), server.outstanding(), server.end_of_streams());
    }
}

fn settle(end: &mut Sctp, now: Instant) {
    for _ in 0..64 {
        if end.poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        end.handle_timeout(now);
    }
    panic!("an association wants to be woken again and again");
}

/// One packet each way, or all that there are.
fn exchange(ends: &mut [Sctp; 2], now: Instant, header: &mut [u8; 12]) {
    for from in 0..2 {
        while let Some(packet) = ends[from].poll_transmit(now) {
            if from == 0
                && let Some(first) = packet.first_chunk()
            {
                *header = *first;
            }
            let _ = ends[1 - from].handle_packet(now, packet);
        }
        while ends[0].poll_event().is_some() {}
    }
}

fn packet(header: &[u8; 12], chunks: &[u8]) -> Bytes {
    let mut packet = BytesMut::with_capacity(header.len() + chunks.len());
    packet.put_slice(&header[..8]);
    packet.put_u32(0);
    packet.put_slice(chunks);
    let checksum = crc32c::crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&checksum);
    packet.freeze()
}
