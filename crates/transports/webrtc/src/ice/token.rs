//! [`SessionToken`]: how the task of a shared socket knows whose an answer is.

use crate::{stun::TransactionId, ufrag::random};

/// What the transactions of a session begin with: how a socket's task knows whose an answer is. As nobody else knows it, it
/// takes nothing away from what makes transactions hard to guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionToken([u8; 6]);

impl SessionToken {
    pub(crate) fn generate() -> Self {
        Self(random())
    }

    pub(crate) fn transaction_id(self) -> TransactionId {
        let mut id = [0; 12];
        id.iter_mut().zip(self.0.into_iter().chain(random::<6>())).for_each(|(byte, value)| *byte = value);
        id
    }

    /// Whose this transaction is.
    pub(crate) fn of(transaction_id: TransactionId) -> Self {
        let [a, b, c, d, e, f, ..] = transaction_id;
        Self([a, b, c, d, e, f])
    }
}
