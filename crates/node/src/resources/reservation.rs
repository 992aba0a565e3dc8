//! What is reserved, for as long as it is.

use super::{Amounts, LimitExceeded, ResourceScope, Resources, accounts::AccountId};

/// Amounts in some scopes, given back when dropped.
pub(super) struct Reservation {
    resources: Resources,
    accounts: Vec<AccountId>,
    amounts: Amounts,
}

impl Reservation {
    pub(super) fn new(
        resources: &Resources,
        scopes: &[ResourceScope],
        amounts: Amounts,
    ) -> Result<Self, LimitExceeded> {
        let accounts = resources.0.accounts.lock().reserve(scopes, &amounts)?;
        Ok(Self { resources: resources.clone(), accounts, amounts })
    }

    /// The same in the place of `other`, which stays as it is if that cannot be.
    pub(super) fn instead_of(
        other: &mut Option<Self>,
        resources: &Resources,
        scopes: &[ResourceScope],
        amounts: Amounts,
    ) -> Result<Self, LimitExceeded> {
        let Some(old) = other else { return Self::new(resources, scopes, amounts) };
        let held = (&*old.accounts, &old.amounts);
        let accounts = resources.0.accounts.lock().exchange(held, scopes, &amounts)?;
        // Given back already.
        old.accounts.clear();
        *other = None;
        Ok(Self { resources: resources.clone(), accounts, amounts })
    }

    /// Changes the memory in it.
    pub(super) fn resize_memory(&mut self, bytes: usize) -> Result<(), LimitExceeded> {
        let by = |memory| Amounts { memory, ..Amounts::NONE };
        let mut books = self.resources.0.accounts.lock();
        match bytes.checked_sub(self.amounts.memory) {
            Some(more) => books.extend(&self.accounts, &by(more))?,
            None => books.reduce(&self.accounts, &by(self.amounts.memory.saturating_sub(bytes))),
        }
        self.amounts.memory = bytes;
        Ok(())
    }

    pub(super) fn memory(&self) -> usize {
        self.amounts.memory
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.accounts.is_empty() {
            self.resources.0.accounts.lock().release(&self.accounts, &self.amounts);
        }
    }
}
