//! [`ProtocolName`]: what a protocol is called when streams are negotiated.

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

/// The name of a protocol, such as `/ipfs/ping/1.0.0`. Starts with `/`, has at most [`ProtocolName::MAX_BYTES`] and no
/// control characters. Cheap to clone.
#[derive(Clone)]
pub struct ProtocolName(Text);

#[derive(Clone)]
enum Text {
    Static(&'static str),
    Shared(Arc<str>),
}

/// The text cannot be the name of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolNameError {
    /// It does not start with `/`.
    #[error("a protocol name starts with a slash")]
    NoSlash,
    /// It is longer than [`ProtocolName::MAX_BYTES`].
    #[error("protocol name of {0} bytes is longer than 256")]
    TooLong(usize),
    /// A line break or another control character would break the framing of multistream-select, or a log.
    #[error("a protocol name has no control characters")]
    ControlCharacter,
}

impl ProtocolName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// A name that is written in the code; in a `const` it is checked when that is compiled.
    ///
    /// # Panics
    /// If `name` is not a valid name.
    pub const fn from_static(name: &'static str) -> Self {
        assert!(check(name.as_bytes()).is_ok(), "not a protocol name");
        Self(Text::Static(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Static(name) => name,
            Text::Shared(name) => name,
        }
    }
}

const fn check(name: &[u8]) -> Result<(), ProtocolNameError> {
    if name.len() > ProtocolName::MAX_BYTES {
        return Err(ProtocolNameError::TooLong(name.len()));
    }
    let [b'/', rest @ ..] = name else { return Err(ProtocolNameError::NoSlash) };
    let mut rest = rest;
    while let [byte, after @ ..] = rest {
        if byte.is_ascii_control() {
            return Err(ProtocolNameError::ControlCharacter);
        }
        rest = after;
    }
    Ok(())
}

impl FromStr for ProtocolName {
    type Err = ProtocolNameError;
    fn from_str(name: &str) -> Result<Self, ProtocolNameError> {
        check(name.as_bytes())?;
        Ok(Self(Text::Shared(name.into())))
    }
}

impl TryFrom<&str> for ProtocolName {
    type Error = ProtocolNameError;
    fn try_from(name: &str) -> Result<Self, ProtocolNameError> {
        name.parse()
    }
}

impl TryFrom<String> for ProtocolName {
    type Error = ProtocolNameError;
    fn try_from(name: String) -> Result<Self, ProtocolNameError> {
        name.parse()
    }
}

impl PartialEq for ProtocolName {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for ProtocolName {}

impl PartialEq<str> for ProtocolName {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialOrd for ProtocolName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ProtocolName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

/// As that of the text, so that a map of names can be searched by text.
impl Hash for ProtocolName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for ProtocolName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for ProtocolName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");

    #[test]
    fn a_name_is_found_by_its_text_however_it_was_made() {
        let parsed: ProtocolName = "/echo/1.0.0".parse().unwrap();
        assert_eq!(parsed, ECHO);
        assert_eq!(HashMap::from([(parsed, 1)]).get("/echo/1.0.0"), Some(&1));
    }

    #[test]
    fn text_that_is_no_name_is_refused() {
        assert_eq!("".parse::<ProtocolName>(), Err(ProtocolNameError::NoSlash));
        assert_eq!("echo".parse::<ProtocolName>(), Err(ProtocolNameError::NoSlash));
        assert_eq!("/a\nb".parse::<ProtocolName>(), Err(ProtocolNameError::ControlCharacter));
        assert!(format!("/{}", "x".repeat(255)).parse::<ProtocolName>().is_ok());
        let long = format!("/{}", "x".repeat(256));
        assert_eq!(long.parse::<ProtocolName>(), Err(ProtocolNameError::TooLong(257)));
    }
}
