use proptest::prelude::*;

use super::*;
use crate::ice::candidate::Kind;

const FINGERPRINT: &str =
    "0A:1B:2C:3D:4E:5F:60:71:82:93:A4:B5:C6:D7:E8:F9:0A:1B:2C:3D:4E:5F:60:71:82:93:A4:B5:C6:D7:E8:F9";

/// What Chromium offers.
fn chromium() -> String {
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         a=extmap-allow-mixed\r\na=msid-semantic: WMS\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n\
         c=IN IP4 0.0.0.0\r\na=ice-ufrag:4OEp\r\na=ice-pwd:7sG1oT2vJqQ0aX9bLk3fWm5R\r\na=ice-options:trickle\r\n\
         a=fingerprint:sha-256 {FINGERPRINT}\r\na=setup:actpass\r\na=mid:0\r\na=sctp-port:5000\r\n\
         a=max-message-size:262144\r\n"
    )
}

/// What Firefox offers: the fingerprint is the session's.
fn firefox() -> String {
    format!(
        "v=0\r\no=mozilla...THIS_IS_SDPARTA-99.0 4899 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=sendrecv\r\n\
         a=fingerprint:sha-256 {FINGERPRINT}\r\na=group:BUNDLE 0\r\na=ice-options:trickle\r\na=msid-semantic:WMS *\r\n\
         m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=sendrecv\r\n\
         a=ice-pwd:0f1e2d3c4b5a69788796a5b4c3d2e1f0\r\na=ice-ufrag:9f8e7d6c\r\na=mid:0\r\na=setup:actpass\r\n\
         a=sctp-port:5000\r\na=max-message-size:1073741823\r\n"
    )
}

/// What libdatachannel offers, candidates included.
fn libdatachannel() -> String {
    format!(
        "v=0\r\no=rtc 2889410333 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=group:LS 0\r\n\
         a=msid-semantic:WMS *\r\na=ice-options:ice2,trickle\r\na=fingerprint:sha-256 {FINGERPRINT}\r\n\
         m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendrecv\r\n\
         a=sctp-port:5000\r\na=max-message-size:262144\r\na=setup:actpass\r\na=ice-ufrag:lDwV\r\n\
         a=ice-pwd:2m6dyHdMWkkZjXjH6BLMFB\r\na=candidate:1 1 UDP 2114977791 192.0.2.4 5000 typ host\r\n\
         a=end-of-candidates\r\n"
    )
}

fn hash() -> Multihash {
    let bytes: Vec<u8> = FINGERPRINT.split(':').map(|hex| u8::from_str_radix(hex, 16).unwrap()).collect();
    Multihash::sha2_256(bytes.try_into().unwrap())
}

#[test]
fn offers_of_browsers_and_libdatachannel_are_understood() {
    for (sdp, ufrag, candidates) in
        [(chromium(), "4OEp", 0), (firefox(), "9f8e7d6c", 0), (libdatachannel(), "lDwV", 1)]
    {
        let description = Description::parse(&sdp).unwrap();
        assert_eq!(description.credentials.ufrag.as_str(), ufrag);
        assert_eq!(description.fingerprints, [hash()]);
        assert_eq!((description.setup, description.mid.as_str()), (Setup::ActPass, "0"));
        assert!(description.is_bundled && !description.is_lite);
        assert_eq!(description.candidates.len(), candidates);
        assert_eq!(description.ends_candidates, candidates == 1);
    }
}

#[test]
fn own_descriptions_are_understood() {
    let description = Description {
        credentials: IceCredentials::generate(),
        fingerprints: vec![hash()],
        setup: Setup::Passive,
        mid: "data".to_owned(),
        is_bundled: true,
        is_lite: false,
        candidates: vec![Candidate::local("192.0.2.1:7".parse().unwrap(), Kind::Host, 0, None)],
        ends_candidates: true,
    };
    assert_eq!(Description::parse(&description.write()), Ok(description));
}

#[test]
fn descriptions_that_no_connection_can_come_of_are_refused() {
    use InvalidDescription::{Missing, NotSdp, Sections, TooLong, Unusable};
    let offer = chromium();
    let with = |from: &str, to: &str| offer.replace(from, to);
    let cases = [
        (String::new(), NotSdp),
        ("{}".to_owned(), NotSdp),
        ("v=0\r\n".to_owned(), Sections),
        (format!("{offer}m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"), Sections),
        (with("m=application 9", "m=application 0"), Sections),
        (with("m=application", "m=video"), Sections),
        (with("a=setup:actpass\r\n", ""), Missing("setup")),
        (with("actpass", "holdconn"), Unusable("setup")),
        (with("a=ice-ufrag:4OEp\r\n", ""), Missing("ice-ufrag")),
        (with("4OEp", "4OE"), Unusable("ice-ufrag")),
        (with("4OEp", "4OE\u{e4}"), Unusable("ice-ufrag")),
        (with("7sG1oT2vJqQ0aX9bLk3fWm5R", "short"), Unusable("ice-pwd")),
        (with("sha-256", "sha-1"), Missing("SHA-256 fingerprint")),
        (with(":F9\r\n", "\r\n"), Unusable("fingerprint")),
        (with("0A:1B", "+A:1B"), Unusable("fingerprint")),
        (with("sctp-port:5000", "sctp-port:5001"), Unusable("sctp-port")),
        (with("max-message-size:262144", "max-message-size:1024"), Unusable("max-message-size")),
        (with("a=mid:0", "a=mid:0 a=candidate"), Unusable("mid")),
        (format!("{offer}{}", "a=x\r\n".repeat(4000)), TooLong),
    ];
    for (sdp, error) in cases {
        assert_eq!(Description::parse(&sdp), Err(error), "{sdp}");
    }
}

#[test]
fn candidates_of_a_description_are_bounded() {
    let candidates: String =
        (1..100).map(|n| format!("a=candidate:1 1 udp {n} 192.0.2.{n} 5000 typ host\r\n")).collect();
    let description = Description::parse(&(chromium() + &candidates)).unwrap();
    assert_eq!(description.candidates.len(), limits::MAX_REMOTE_CANDIDATES);
}

#[test]
fn candidates_are_written_and_read_as_browsers_do() {
    let ufrag = IceCredentials::generate().ufrag;
    let candidate = Candidate::local("192.0.2.1:7".parse().unwrap(), Kind::Host, 0, None);
    let json = candidate_to_json(&candidate, "0", &ufrag);
    assert!(json.contains(r#""sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"#), "{json}");
    assert_eq!(candidate_from_json(&json, Some(&ufrag)), Ok(Some(candidate)));
    let another = IceCredentials::generate().ufrag;
    assert_eq!(candidate_from_json(&json, Some(&another)), Ok(None), "of another session");
    let chromium = r#"{"candidate":"candidate:1 1 udp 2113937151 192.0.2.7 5000 typ host generation 0 ufrag 4OEp","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":null}"#;
    assert!(candidate_from_json(chromium, Some(&ufrag)).unwrap().is_some());
    for end in ["null", "{}", r#"{"candidate":"","sdpMid":"0","sdpMLineIndex":0}"#] {
        assert_eq!(candidate_from_json(end, Some(&ufrag)), Ok(None), "{end}");
    }
    for bad in ["", "[", "7", r#"{"candidate":7}"#, r#"{"candidate":"x"}"#, &" ".repeat(10_000)] {
        assert_eq!(candidate_from_json(bad, Some(&ufrag)), Err(InvalidCandidate), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_description_that_a_remote_writes_panics(lines in proptest::collection::vec("([avmoc]=)?[ -~]{0,40}", 0..20)) {
        let _ = Description::parse(&format!("v=0\r\n{}", lines.join("\r\n")));
    }

    #[test]
    fn no_damage_to_a_description_panics(at in 0usize..700, with in any::<char>(), cut in any::<bool>()) {
        let mut sdp: Vec<char> = libdatachannel().chars().collect();
        let at = at.min(sdp.len() - 1);
        if cut { sdp.truncate(at) } else { sdp[at] = with }
        if let Ok(description) = Description::parse(&sdp.into_iter().collect::<String>()) {
            prop_assert!(!description.fingerprints.is_empty());
            prop_assert!(Description::parse(&description.write()).is_ok());
        }
    }

    #[test]
    fn no_candidate_that_a_remote_writes_panics(json in "[ -~]{0,80}") {
        let _ = candidate_from_json(&json, None);
    }
}
