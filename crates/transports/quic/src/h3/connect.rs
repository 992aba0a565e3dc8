//! The extended CONNECT request that opens a WebTransport session, and its response (RFC 9220).

#![warn(clippy::arithmetic_side_effects)]

use super::{
    field_section::{self, FieldSectionError, PseudoHeader, static_table},
    frame,
};

/// Where a libp2p server answers. libp2p webtransport spec, "WebTransport HTTP endpoint".
const PATH: &str = "/.well-known/libp2p-webtransport";
const QUERY: &str = "type=noise";

/// Status codes of responses.
pub(crate) const OK: u16 = 200;
pub(crate) const BAD_REQUEST: u16 = 400;
pub(crate) const NOT_FOUND: u16 = 404;

/// A HEADERS frame that asks `authority` (host and port) for a session.
pub(crate) fn encode_request(authority: &str) -> Vec<u8> {
    let mut section = Vec::new();
    field_section::encode_prefix(&mut section);
    field_section::encode_indexed(static_table::METHOD_CONNECT, &mut section);
    field_section::encode_indexed(static_table::SCHEME_HTTPS, &mut section);
    field_section::encode_named(static_table::AUTHORITY, authority, &mut section);
    field_section::encode_named(static_table::PATH, &format!("{PATH}?{QUERY}"), &mut section);
    // The name of all drafts up to 14; servers of later ones know it too.
    field_section::encode_literal(":protocol", "webtransport", &mut section);
    field_section::encode_literal("sec-webtransport-http3-draft02", "1", &mut section);
    field_section::encode_named(static_table::ORIGIN, &format!("https://{authority}"), &mut section);
    into_frame(section)
}

/// The answer to the content of a HEADERS frame: the status code with which to respond.
pub(crate) fn answer_request(section: &[u8]) -> Result<u16, FieldSectionError> {
    let request = PseudoHeader::decode(section)?;
    let is = |field: &Option<Vec<u8>>, value: &str| field.as_deref() == Some(value.as_bytes());
    let session = is(&request.method, "CONNECT")
        && is(&request.scheme, "https")
        && request.authority.is_some()
        // The second name is that of draft 15 on.
        && (is(&request.protocol, "webtransport") || is(&request.protocol, "webtransport-h3"));
    let ours = request.path.as_deref().and_then(|path| std::str::from_utf8(path).ok()).is_some_and(is_ours);
    Ok(match (session, ours) {
        (true, true) => OK,
        (true, false) => NOT_FOUND,
        (false, _) => BAD_REQUEST,
    })
}

/// A HEADERS frame that responds with `status`.
pub(crate) fn encode_response(status: u16) -> Vec<u8> {
    let mut section = Vec::new();
    field_section::encode_prefix(&mut section);
    field_section::encode_named(static_table::STATUS, &status.to_string(), &mut section);
    if status == OK {
        // Browsers that speak draft 02 want to read it.
        field_section::encode_literal("sec-webtransport-http3-draft", "draft02", &mut section);
    }
    into_frame(section)
}

/// The status code in the content of a HEADERS frame; `None` if there is none.
pub(crate) fn decode_response(section: &[u8]) -> Result<Option<u16>, FieldSectionError> {
    let status = PseudoHeader::decode(section)?.status;
    Ok(status.and_then(|status| std::str::from_utf8(&status).ok()?.parse().ok()))
}

fn is_ours(path_and_query: &str) -> bool {
    match path_and_query.split_once('?') {
        Some((PATH, query)) => query.split('&').any(|parameter| parameter == QUERY),
        _ => false,
    }
}

fn into_frame(section: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(section.len().saturating_add(8));
    frame::encode(frame::HEADERS, &section, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> u16 {
        let mut section = Vec::new();
        field_section::encode_prefix(&mut section);
        for (name, value) in fields {
            field_section::encode_literal(name, value, &mut section);
        }
        answer_request(&section).unwrap()
    }

    #[test]
    fn our_own_request_is_accepted() {
        let encoded = encode_request("[2001:db8::1]:443");
        assert_eq!(answer_request(&encoded[3..]).unwrap(), OK);
    }

    #[test]
    fn only_a_session_on_the_path_of_the_spec_is_accepted() {
        let base = [
            (":method", "CONNECT"),
            (":scheme", "https"),
            (":authority", "192.0.2.1:443"),
            (":path", "/.well-known/libp2p-webtransport?type=noise"),
            (":protocol", "webtransport"),
        ];
        assert_eq!(request(&base), OK);
        let with = |at: usize, value: &'static str| {
            let mut fields = base;
            fields[at].1 = value;
            request(&fields)
        };
        assert_eq!(with(4, "webtransport-h3"), OK);
        assert_eq!(with(3, "/.well-known/libp2p-webtransport?a=b&type=noise"), OK);
        for path in [
            "/",
            "",
            "/.well-known/libp2p-webtransport",
            "/.well-known/libp2p-webtransport?type=tls",
            "/.well-known/libp2p-webtransport/?type=noise",
            "/.well-known/libp2p-webtransport?xtype=noise",
        ] {
            assert_eq!(with(3, path), NOT_FOUND, "{path}");
        }
        assert_eq!(with(0, "GET"), BAD_REQUEST);
        assert_eq!(with(1, "http"), BAD_REQUEST);
        assert_eq!(with(4, "websocket"), BAD_REQUEST);
        for missing in 0..base.len() {
            let fields: Vec<_> = base.iter().enumerate().filter(|(at, _)| *at != missing).collect();
            let fields: Vec<_> = fields.into_iter().map(|(_, field)| *field).collect();
            assert_ne!(request(&fields), OK);
        }
    }

    #[test]
    fn a_status_survives() {
        for status in [OK, NOT_FOUND, 429] {
            let encoded = encode_response(status);
            assert_eq!(decode_response(&encoded[2..]), Ok(Some(status)));
        }
        assert_eq!(decode_response(&[0, 0]), Ok(None));
    }
}
