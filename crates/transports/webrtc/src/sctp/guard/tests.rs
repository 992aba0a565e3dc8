//! Packets as a remote might send them, and what the library sees of them.

use proptest::prelude::*;

use super::*;

const HEADER: Header = Header { source: 5000, destination: 5000, tag: 7 };

fn data(tsn: u32, payload: &[u8]) -> Vec<u8> {
    let mut chunk = vec![chunk::DATA, 0b0011];
    chunk.extend_from_slice(&(16 + payload.len() as u16).to_be_bytes());
    chunk.extend_from_slice(&tsn.to_be_bytes());
    chunk.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 53]);
    chunk.extend_from_slice(payload);
    chunk
}

fn packet(chunks: &[Vec<u8>]) -> Bytes {
    let mut bytes = BytesMut::new();
    chunks.iter().for_each(|chunk| put_chunk(&mut bytes, chunk));
    HEADER.packet(&bytes)
}

/// Stream 5 is sending if `.0`, and stream 1 discarded if `.1`.
struct Some5(bool, bool);

impl Streams for Some5 {
    fn is_sending(&self, stream: u16) -> bool {
        self.0 && stream == 5
    }
    fn is_discarded(&self, stream: u16) -> bool {
        self.1 && stream == 1
    }
}

const IDLE: &Some5 = &Some5(false, false);

fn guard() -> Guard {
    let mut init = vec![chunk::INIT, 0, 0, 20];
    init.extend_from_slice(&[0, 0, 0, 9, 0, 1, 0, 0, 4, 0, 2, 0, 0, 0, 0, 10]);
    let mut guard = Guard::default();
    guard.inbound(packet(&[init]), false, IDLE).unwrap();
    assert_eq!(guard.remote_streams, 512);
    guard
}

#[test]
fn packet_in_order_passes_untouched() {
    let sent = packet(&[data(10, b"one"), data(11, b"two")]);
    let inbound = guard().inbound(sent.clone(), true, IDLE).unwrap();
    assert_eq!(inbound.packet, Some(sent));
}

#[test]
fn chunk_far_ahead_is_taken_out_and_the_remote_hears_where_we_stand() {
    let sack = vec![chunk::SACK, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0];
    let sent = packet(&[sack.clone(), data(1_000_000, b"far ahead")]);
    let inbound = guard().inbound(sent, true, IDLE).unwrap();
    let seen = inbound.packet.unwrap();
    let chunks: Vec<_> = Chunks::of(&seen).map(Option::unwrap).collect();
    assert_eq!(chunks[0].bytes, sack);
    assert_eq!((chunks[1].kind, u32_at(chunks[1].value, 0)), (chunk::DATA, Some(9)));
    assert_eq!(chunks.len(), 2);
}

#[test]
fn forward_tsn_is_a_violation() {
    let forward = vec![chunk::FORWARD_TSN, 0, 0, 8, 0x7F, 0xFF, 0xFF, 0xFF];
    assert!(guard().inbound(packet(&[forward]), true, IDLE).is_err());
}

/// Found by the fuzzer: the library takes causes apart by lengths that it does not check, and panics.
#[test]
fn causes_of_aborts_and_errors_do_not_reach_the_library() {
    let causes = |kind: u8| vec![kind, 0, 0, 12, 0, 3, 0x40, 0, 1, 2, 3, 4];
    let seen = |kind: u8| {
        let inbound = guard().inbound(packet(&[causes(kind)]), true, IDLE).unwrap();
        inbound.packet.map(|packet| packet.slice(12..))
    };
    assert_eq!(seen(chunk::ERROR), None);
    assert_eq!(seen(chunk::ABORT).unwrap(), ABORT_FOR_ANY_CAUSE[..]);
}

#[test]
fn request_for_more_streams_is_granted() {
    let request = vec![chunk::RE_CONFIG, 0, 0, 16, 0, 17, 0, 12, 0, 0, 0, 5, 1, 0, 0, 0];
    let inbound = guard().inbound(packet(&[request]), true, IDLE).unwrap();
    assert_eq!(inbound.packet, None);
    let reply = inbound.reply.unwrap();
    let chunk = Chunks::of(&reply).next().unwrap().unwrap();
    assert_eq!(parameters(chunk.value).next(), Some((parameter::RESPONSE, &[0, 0, 0, 5, 0, 0, 0, 1][..])));
}

#[test]
fn reset_requests_that_wait_are_bounded_until_answered() {
    let request = |sequence: u8| {
        packet(&[vec![
            chunk::RE_CONFIG,
            0,
            0,
            22,
            0,
            13,
            0,
            18,
            0,
            0,
            0,
            sequence,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            9,
            0,
            1,
        ]])
    };
    let mut guard = guard();
    let passed =
        (0..100).filter(|n| guard.inbound(request(*n), true, IDLE).unwrap().packet.is_some()).count();
    assert_eq!(passed, MAX_PENDING_RESETS);
    assert!(guard.inbound(request(0), true, IDLE).unwrap().packet.is_some(), "a repetition passes");
    let response = vec![chunk::RE_CONFIG, 0, 0, 16, 0, 16, 0, 12, 0, 0, 0, 3, 0, 0, 0, 1];
    guard.outbound(packet(&[response]));
    assert!(guard.inbound(request(200), true, IDLE).unwrap().packet.is_some());
}

#[test]
fn reset_of_a_stream_that_is_being_sent_waits() {
    let request =
        packet(&[vec![chunk::RE_CONFIG, 0, 0, 22, 0, 13, 0, 18, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 5]]);
    let mut guard = guard();
    let sending = &Some5(true, false);
    for _ in 0..2 {
        let inbound = guard.inbound(request.clone(), true, sending).unwrap();
        assert_eq!((inbound.packet, inbound.resetting), (None, vec![5]));
    }
    assert_eq!(guard.released_reset(sending), None);
    assert!(guard.released_reset(IDLE).is_some());
    assert_eq!(guard.released_reset(IDLE), None);
}

fn our_reset(sequence: u8, reply: u8, streams: &[u8]) -> Bytes {
    our_reset_of(sequence, reply, &streams.iter().map(|stream| u16::from(*stream)).collect::<Vec<_>>())
}

fn our_reset_of(sequence: u8, reply: u8, streams: &[u16]) -> Bytes {
    let length = 16 + 2 * streams.len() as u8;
    let mut chunk =
        vec![chunk::RE_CONFIG, 0, 0, length + 4, 0, 13, 0, length, 0, 0, 0, sequence, 0, 0, 0, reply];
    chunk.extend_from_slice(&[0, 0, 0, 1]);
    chunk.extend(streams.iter().flat_map(|stream| stream.to_be_bytes()));
    packet(&[chunk])
}

#[test]
fn stream_that_both_sides_close_is_reset_once() {
    // Ours goes first; the library's reply to the remote's would be another.
    let mut guard = guard();
    guard.closed(3);
    assert!(guard.outbound(our_reset(1, 0, &[3])).is_some());
    guard.forget(3);
    // The remote has said that we may use 512 streams.
    assert_eq!(guard.reserved_stream(), 510);
    assert_eq!(guard.outbound(our_reset(2, 9, &[3])), Some(our_reset_of(2, 9, &[510])));
    guard.flushed(crate::test_now());

    // The reply goes first, and ours waits behind other data. By the time that it comes the stream may be another.
    guard.closed(5);
    guard.closed(7);
    guard.forget(5);
    assert!(guard.outbound(our_reset(3, 9, &[5])).is_some());
    guard.flushed(crate::test_now());
    assert_eq!(guard.outbound(our_reset(4, 0, &[5, 7])), Some(our_reset(4, 0, &[7])));
    assert_eq!(guard.outbound(our_reset(4, 0, &[5, 7])), Some(our_reset(4, 0, &[7])), "repeated");
    guard.closed(5);
    assert!(guard.outbound(our_reset(5, 0, &[5])).is_some(), "the next one's reset");
}

fn response_to_our(sequence: u8, result: u8) -> Bytes {
    packet(&[vec![chunk::RE_CONFIG, 0, 0, 16, 0, 16, 0, 12, 0, 0, 0, sequence, 0, 0, 0, result]])
}

#[test]
fn reset_sent_in_reply_is_repeated_until_it_is_answered() {
    let (mut guard, now) = (guard(), crate::test_now());
    let [first, second] = [our_reset(1, 9, &[3]), our_reset(2, 10, &[5])];
    guard.outbound(first.clone());
    guard.outbound(second.clone());
    guard.flushed(now);
    assert_eq!(guard.repeat(now).count(), 0);
    let due = guard.poll_timeout().unwrap();
    assert_eq!(guard.repeat(due).collect::<Vec<_>>(), [first, second.clone()]);
    guard.inbound(response_to_our(1, 1), true, IDLE).unwrap();
    let due = guard.poll_timeout().unwrap();
    assert_eq!(guard.repeat(due).collect::<Vec<_>>(), [second]);
    guard.inbound(response_to_our(2, 1), true, IDLE).unwrap();
    assert_eq!(guard.poll_timeout(), None);
}

#[test]
fn library_goes_on_asking_for_a_reset_that_was_not_performed() {
    let mut guard = guard();
    let mut passes = |sequence, result| {
        guard.inbound(response_to_our(sequence, result), true, IDLE).unwrap().packet.is_some()
    };
    assert!(!passes(2, 6), "in progress");
    assert!(!passes(2, 5), "overtook the first");
    assert!(passes(1, 1));
    assert!(!passes(2, 5));
    assert!(passes(3, 1));
    assert!(passes(2, 5), "the answer to it was lost, and the third has been performed since");
}

#[test]
fn remote_that_never_answers_resets_is_refused() {
    let mut guard = guard();
    let refused = (0..10_000u32).any(|n| {
        let mut chunk = vec![chunk::RE_CONFIG, 0, 0, 22, 0, 13, 0, 18];
        chunk.extend_from_slice(&n.to_be_bytes());
        chunk.extend_from_slice(&[0, 0, 0, 9, 0, 0, 0, 1, 0, 3]);
        guard.outbound(packet(&[chunk]));
        guard.inbound(response_to_our(200, 6), true, IDLE).is_err()
    });
    assert!(refused);
}

#[test]
fn reset_that_overtakes_data_waits_for_it() {
    let mut guard = guard();
    let request =
        packet(&[vec![chunk::RE_CONFIG, 0, 0, 22, 0, 13, 0, 18, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 10, 0, 1]]);
    assert_eq!(guard.inbound(request, true, IDLE).unwrap().packet, None);
    assert_eq!(guard.released_reset(IDLE), None);
    guard.inbound(packet(&[data(10, b"late")]), true, IDLE).unwrap();
    assert!(guard.released_reset(IDLE).is_some());
}

#[test]
fn data_of_a_stream_that_we_have_closed_goes_down_the_sink() {
    let mut guard = guard();
    let inbound = guard.inbound(packet(&[data(10, b"unwanted")]), true, &Some5(false, true)).unwrap();
    let seen = inbound.packet.unwrap();
    let chunk = Chunks::of(&seen).next().unwrap().unwrap();
    assert_eq!((chunk.flags, u32_at(chunk.value, 0), u16_at(chunk.value, 4)), (0b0111, Some(10), Some(SINK)));
    assert_eq!(guard.unread(), 8);
    guard.read(SINK, 1, 8);
    assert_eq!(guard.unread(), 0);
}

#[test]
fn stream_that_is_forgotten_gives_its_part_of_the_window_back() {
    let mut guard = guard();
    guard.inbound(packet(&[data(10, b"unread")]), true, IDLE).unwrap();
    guard.forget(1);
    assert_eq!(guard.unread(), 0);
}

#[test]
fn window_that_opens_again_is_announced_once() {
    let mut guard = guard();
    assert_eq!(guard.window_update(IDLE), None);
    let sack = vec![chunk::SACK, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0];
    guard.outbound(packet(&[sack]));
    let update = guard.window_update(IDLE).unwrap();
    let chunk = Chunks::of(&update).next().unwrap().unwrap();
    assert_eq!((chunk.kind, chunk.flags & 8), (chunk::DATA, 8));
    assert_eq!(guard.window_update(IDLE), None);
}

#[test]
fn probe_is_taken_when_the_window_opens() {
    let mut guard = guard();
    let full = ReceiveWindow::BYTES as u32 / 1000;
    for n in 0..=full {
        guard.inbound(packet(&[data(10 + n, &[7; 1000])]), true, IDLE).unwrap();
    }
    let sack = vec![chunk::SACK, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0];
    guard.outbound(packet(&[sack]));
    assert_eq!(guard.window_update(IDLE), None);
    guard.read(1, full as usize, full as usize * 1000);
    let update = guard.window_update(IDLE).unwrap();
    let chunk = Chunks::of(&update).next().unwrap().unwrap();
    assert_eq!((u32_at(chunk.value, 0), chunk.value.len()), (Some(10 + full), 1012));
    assert_eq!(guard.unread(), 1000);
}

proptest! {
    #[test]
    fn nothing_a_remote_sends_panics(chunks in proptest::collection::vec(any::<u8>(), 0..300), established: bool) {
        let mut guard = guard();
        if let Ok(Inbound { packet: Some(packet), .. }) = guard.inbound(HEADER.packet(&chunks), established, IDLE) {
            guard.outbound(packet);
        }
        guard.window_update(IDLE);
    }
}
