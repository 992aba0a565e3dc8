use std::net::IpAddr;

use peerloom_core::runtime::BoxFuture;

/// Asks DNS. What it answers is not trusted: numbers and lengths are bounded by who asks.
pub trait Resolver: Send + Sync + 'static {
    /// The IPv4 and IPv6 addresses of a host.
    fn addresses(&self, name: String) -> BoxFuture<'static, Result<Vec<IpAddr>, LookupError>>;

    /// The TXT records of a name, each with its parts put together.
    fn texts(&self, name: String) -> BoxFuture<'static, Result<Vec<String>, LookupError>>;
}

/// Why a question got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// There is no such name, or it has no such records.
    #[error("DNS knows nothing of {name}")]
    NotFound {
        /// The name.
        name: String,
    },
    /// Nobody could be asked, or nobody answered in a way that made sense.
    #[error("cannot ask DNS for {name}: {reason}")]
    Failed {
        /// The name.
        name: String,
        /// What went wrong.
        reason: String,
    },
}
