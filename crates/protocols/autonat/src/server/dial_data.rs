//! What a client pays for a dial to another address than its own. autonat-v2 spec, "Amplification Attack Prevention".

#![warn(clippy::arithmetic_side_effects)]

use std::ops::RangeInclusive;

use crate::message::MAX_DATA_LENGTH;

/// What is asked for, in bytes: several times what a handshake costs whom it is sent to.
pub const DIAL_DATA: RangeInclusive<u64> = 30_000..=100_000;
/// The least that a message but the last may carry, so that no one has us read thousands of them.
const MIN_DATA_LENGTH: u64 = 100;

/// The dial data that are still to come.
#[derive(Debug)]
pub struct DialData {
    left: u64,
}

/// Why a client's data do not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialDataError {
    /// A message carries too little.
    #[error("a message with only {length} bytes of dial data")]
    TooLittle {
        /// How much, in bytes.
        length: usize,
    },
    /// A message carries more than 4096 bytes.
    #[error("a message with {length} bytes of dial data")]
    TooMuch {
        /// How much, in bytes.
        length: usize,
    },
}

impl DialData {
    /// So many bytes are to come.
    pub fn new(bytes: u64) -> Self {
        Self { left: bytes }
    }

    /// A message with so many has come. Whether it was the last.
    pub fn received(&mut self, length: usize) -> Result<bool, DialDataError> {
        if length > MAX_DATA_LENGTH {
            return Err(DialDataError::TooMuch { length });
        }
        let bytes = u64::try_from(length).unwrap_or(u64::MAX);
        self.left = self.left.saturating_sub(bytes);
        match self.left {
            0 => Ok(true),
            _ if bytes < MIN_DATA_LENGTH => Err(DialDataError::TooLittle { length }),
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn data_count_by_the_byte_and_the_last_message_may_be_of_any_length() {
        let mut data = DialData::new(5000);
        assert_eq!(data.received(4096), Ok(false));
        assert_eq!(data.received(904), Ok(true));
        let mut data = DialData::new(5000);
        assert_eq!(data.received(4096), Ok(false));
        assert_eq!(data.received(4096), Ok(true), "more than was asked for");
        assert_eq!(DialData::new(4097).received(4096), Ok(false));
        assert_eq!(DialData::new(500).received(4097), Err(DialDataError::TooMuch { length: 4097 }));
        assert_eq!(DialData::new(500).received(99), Err(DialDataError::TooLittle { length: 99 }));
        assert_eq!(DialData::new(50).received(50), Ok(true));
    }

    proptest! {
        #[test]
        fn nobody_has_a_dial_for_less_or_sends_without_end(
            wanted in DIAL_DATA, lengths in prop::collection::vec(0..5000_usize, 0..2000),
        ) {
            let mut data = DialData::new(wanted);
            let accepted = lengths.iter().map_while(|length| Some((*length, data.received(*length).ok()?)));
            let accepted: Vec<_> = accepted.collect();
            let paid = accepted.iter().position(|(_, done)| *done);
            let needed = lengths.iter().scan(0_u64, |sent, length| {
                *sent = sent.saturating_add(*length as u64);
                Some(*sent)
            });
            if let Some(paid) = paid {
                prop_assert_eq!(Some(paid), needed.into_iter().position(|sent| sent >= wanted));
            }
            let unpaid = accepted.iter().take_while(|(_, done)| !done).count() as u64;
            prop_assert!(unpaid <= wanted / MIN_DATA_LENGTH);
        }
    }
}
