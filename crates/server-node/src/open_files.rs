//! How many files, and so connections, the process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, as Go programs do: the soft one, 1,024 on most systems, is kept low for programs that
/// call select(2), and a full node has more TCP connections than that.
pub(crate) fn raise_limit() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    match soft < hard {
        true => setrlimit(Resource::RLIMIT_NOFILE, hard, hard),
        false => Ok(()),
    }
}
