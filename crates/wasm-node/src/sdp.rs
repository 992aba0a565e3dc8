//! The little SDP that a page deals with. Of WebRTC-direct: three lines of the browser's offer, and the answer that the
//! server would have given had there been a way to ask it. Page to page: what the description is of.

use std::net::SocketAddr;

/// The value of the first `a=<name>:` line.
pub(crate) fn attribute<'a>(sdp: &'a str, name: &str) -> Option<&'a str> {
    sdp.lines().find_map(|line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Whether the description has nothing but data channels: no audio, no video.
pub(crate) fn has_only_data(sdp: &str) -> bool {
    let mut media = sdp.lines().filter_map(|line| line.strip_prefix("m="));
    media.next().is_some_and(|media| media.starts_with("application ")) && media.next().is_none()
}

/// The SHA-256 fingerprint of the browser's certificate.
pub(crate) fn sha256_fingerprint(sdp: &str) -> Option<[u8; 32]> {
    let (algorithm, hex) = attribute(sdp, "fingerprint")?.split_once(' ')?;
    if !algorithm.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    let mut digits = hex.split(':');
    let mut digest = [0; 32];
    for byte in &mut digest {
        *byte = u8::from_str_radix(digits.next()?, 16).ok()?;
    }
    digits.next().is_none().then_some(digest)
}

/// The offer with other ICE credentials than the browser's own (WebRTC-direct version 1).
pub(crate) fn with_ice_credentials(offer: &str, credentials: &str) -> String {
    let mut munged = String::with_capacity(offer.len().saturating_add(128));
    for line in offer.lines() {
        let key = ["a=ice-ufrag:", "a=ice-pwd:"].into_iter().find(|key| line.starts_with(key));
        match key {
            Some(key) => munged.extend([key, credentials]),
            None => munged.push_str(line),
        }
        munged.push_str("\r\n");
    }
    munged
}

/// The answer of a server with these ICE credentials, which are its user name fragment and its password.
pub(crate) fn server_answer(address: SocketAddr, credentials: &str, fingerprint: &[u8]) -> String {
    let family = if address.is_ipv4() { "IP4 " } else { "IP6 " };
    let ip = address.ip().to_string();
    let port = address.port().to_string();
    let fingerprint: Vec<String> = fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
    [
        "v=0\r\no=- 0 0 IN ",
        family,
        &ip,
        "\r\ns=-\r\nt=0 0\r\na=ice-lite\r\nm=application ",
        &port,
        " UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN ",
        family,
        &ip,
        "\r\na=mid:0\r\na=ice-options:ice2\r\na=ice-ufrag:",
        credentials,
        "\r\na=ice-pwd:",
        credentials,
        "\r\na=fingerprint:sha-256 ",
        &fingerprint.join(":"),
        "\r\na=setup:passive\r\na=sctp-port:5000\r\na=max-message-size:16384\r\na=candidate:1 1 UDP 1 ",
        &ip,
        " ",
        &port,
        " typ host\r\na=end-of-candidates\r\n",
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdefABCDEF\r\n\
        a=fingerprint:sha-256 3E:79:AF:40:D6:05:96:17:A0:D8:3B:83:A5:2C:E7:3B:0C:1F:37:A7:2C:60:43:AD:29:69:E2:35:1B:DC:A8:70\r\n\
        a=setup:actpass\r\n";

    #[test]
    fn fingerprint_of_the_offer_is_read() {
        let digest = sha256_fingerprint(OFFER).unwrap();
        assert_eq!(digest[..4], [0x3e, 0x79, 0xaf, 0x40]);
        assert_eq!(digest[31], 0x70);
    }

    #[test]
    fn fingerprint_that_is_not_sha_256_is_refused() {
        for line in ["sha-512 00", "sha-256 00:11", "sha-256 ", "sha-256 zz", ""] {
            assert_eq!(sha256_fingerprint(&format!("a=fingerprint:{line}\r\n")), None, "{line}");
        }
        assert_eq!(sha256_fingerprint(&OFFER.replace(":A8:70", ":A8:70:00")), None);
    }

    #[test]
    fn descriptions_with_audio_or_video_or_nothing_are_told_apart() {
        let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n";
        let audio = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n";
        assert!(has_only_data(&[OFFER, data].concat()));
        for other in [vec![OFFER], vec![OFFER, audio], vec![OFFER, data, audio], vec![OFFER, data, data]] {
            assert!(!has_only_data(&other.concat()), "{other:?}");
        }
    }

    #[test]
    fn credentials_are_replaced_and_nothing_else() {
        let munged = with_ice_credentials(OFFER, "libp2p+webrtc+v1/x");
        assert_eq!(attribute(&munged, "ice-ufrag"), Some("libp2p+webrtc+v1/x"));
        assert_eq!(attribute(&munged, "ice-pwd"), Some("libp2p+webrtc+v1/x"));
        assert_eq!(munged.lines().count(), OFFER.lines().count());
        assert_eq!(sha256_fingerprint(&munged), sha256_fingerprint(OFFER));
    }

    #[test]
    fn answer_names_the_server() {
        let answer = server_answer("[2001:db8::1]:4001".parse().unwrap(), "libp2p+webrtc+v2/pw", &[0xab; 32]);
        assert!(answer.contains("c=IN IP6 2001:db8::1\r\n"));
        assert!(answer.contains("a=candidate:1 1 UDP 1 2001:db8::1 4001 typ host\r\n"));
        assert_eq!(attribute(&answer, "ice-pwd"), Some("libp2p+webrtc+v2/pw"));
        assert_eq!(sha256_fingerprint(&answer), Some([0xab; 32]));
    }
}
