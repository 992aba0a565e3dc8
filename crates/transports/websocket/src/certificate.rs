//! The certificate of a WebSocket server, from files that somebody renews.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use peerloom_core::runtime::Instant;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// How often the files are looked at, at most: with a handshake that comes so long after the last look.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A certificate chain and its private key, as PEM files. Handshakes use what they hold: once they are replaced, by a tool
/// that renews certificates for example, the new certificate goes into use as a whole, or not at all.
pub struct CertificateFiles {
    chain: PathBuf,
    key: PathBuf,
    state: Mutex<State>,
}

struct State {
    certified: Arc<CertifiedKey>,
    /// Of the files when they were read last, with success or not.
    stamps: Option<[Stamp; 2]>,
    looked_at: Instant,
}

/// What tells a file from the one that was there before.
type Stamp = (SystemTime, u64);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateFileError {
    /// A file cannot be read, or is not PEM.
    #[error("{file}: {reason}")]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is none that TLS can use, or not the certificate's.
    #[error("{chain} and {key} do not fit: {source}")]
    Mismatch {
        /// The file with the certificate chain.
        chain: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
}

impl CertificateFiles {
    /// Reads the certificate, the server's own first, then those above it, and the private key (PKCS #8, SEC1 or PKCS #1).
    pub fn load(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, CertificateFileError> {
        let (chain, key) = (chain.into(), key.into());
        // Before they are read: what is written meanwhile is read again.
        let stamps = stamps(&chain, &key).ok();
        let certified = read(&chain, &key)?;
        let state = State { certified, stamps, looked_at: Instant::now() };
        Ok(Self { chain, key, state: Mutex::new(state) })
    }

    pub(crate) fn server_config(self: &Arc<Self>) -> io::Result<Arc<ServerConfig>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn current(&self, now: Instant) -> Arc<CertifiedKey> {
        let mut state = self.state.lock();
        if now.saturating_duration_since(state.looked_at) >= LOOK_INTERVAL {
            state.looked_at = now;
            self.renew(&mut state);
        }
        state.certified.clone()
    }

    fn renew(&self, state: &mut State) {
        let stamps = match stamps(&self.chain, &self.key) {
            Ok(stamps) if state.stamps != Some(stamps) => stamps,
            // Unchanged, or gone for a moment while they are replaced.
            _ => return,
        };
        state.stamps = Some(stamps);
        match read(&self.chain, &self.key) {
            Ok(certified) => {
                tracing::info!(chain = %self.chain.display(), "certificate renewed");
                state.certified = certified;
            }
            // One of them may be written before the other. What was there stays in use until both fit.
            Err(error) => tracing::warn!(%error, "certificate not renewed"),
        }
    }
}

fn stamps(chain: &Path, key: &Path) -> io::Result<[Stamp; 2]> {
    let stamp = |path: &Path| {
        let file = fs::metadata(path)?;
        Ok::<_, io::Error>((file.modified()?, file.len()))
    };
    Ok([stamp(chain)?, stamp(key)?])
}

fn read(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>, CertificateFileError> {
    let failed = |file: &Path, reason: String| CertificateFileError::File { file: file.to_owned(), reason };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect)
        .map_err(|error| failed(chain, error.to_string()))?;
    if certificates.is_empty() {
        return Err(failed(chain, "no certificate in it".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, error.to_string()))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(certificates, private, &provider).map(Arc::new).map_err(|source| {
        CertificateFileError::Mismatch { chain: chain.to_owned(), key: key.to_owned(), source }
    })
}

impl ResolvesServerCert for CertificateFiles {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current(Instant::now()))
    }
}

impl fmt::Debug for CertificateFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateFiles").field("chain", &self.chain).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        directory: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().unwrap() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn write(&self, name: &str, content: &str, seconds: u64) {
            fs::write(self.path(name), content).unwrap();
            let written = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            fs::File::options().write(true).open(self.path(name)).unwrap().set_modified(written).unwrap();
        }
    }

    fn certificate() -> (String, String) {
        let certificate = rcgen::generate_simple_self_signed(vec!["example.org".to_owned()]).unwrap();
        (certificate.cert.pem(), certificate.signing_key.serialize_pem())
    }

    #[test]
    fn replaced_files_are_used_as_soon_as_both_fit_and_not_before() {
        let files = Files::new();
        let (first, second) = (certificate(), certificate());
        files.write("chain", &first.0, 1);
        files.write("key", &first.1, 1);
        let loaded = CertificateFiles::load(files.path("chain"), files.path("key")).unwrap();
        let start = Instant::now();
        let original = loaded.current(start);
        let mut now = start;
        let mut later = || {
            now += LOOK_INTERVAL;
            loaded.current(now)
        };
        assert!(Arc::ptr_eq(&later(), &original));
        files.write("chain", &second.0, 2);
        assert!(Arc::ptr_eq(&later(), &original));
        fs::remove_file(files.path("key")).unwrap();
        assert!(Arc::ptr_eq(&later(), &original));
        files.write("key", &second.1, 2);
        let renewed = later();
        assert_ne!(renewed.cert, original.cert);
        files.write("chain", "garbage", 3);
        assert!(Arc::ptr_eq(&later(), &renewed));
    }

    #[test]
    fn files_are_not_looked_at_with_every_handshake() {
        let files = Files::new();
        let (first, second) = (certificate(), certificate());
        files.write("chain", &first.0, 1);
        files.write("key", &first.1, 1);
        let loaded = CertificateFiles::load(files.path("chain"), files.path("key")).unwrap();
        let start = Instant::now();
        let original = loaded.current(start + LOOK_INTERVAL);
        files.write("chain", &second.0, 2);
        files.write("key", &second.1, 2);
        assert!(Arc::ptr_eq(&loaded.current(start + LOOK_INTERVAL * 3 / 2), &original));
        assert!(!Arc::ptr_eq(&loaded.current(start + LOOK_INTERVAL * 2), &original));
    }

    #[test]
    fn unusable_files_are_refused_with_their_name() {
        let files = Files::new();
        let (first, second) = (certificate(), certificate());
        files.write("chain", &first.0, 1);
        files.write("key", &first.1, 1);
        files.write("other", &second.1, 1);
        files.write("empty", "", 1);
        for (chain, key, named) in [
            ("absent", "key", "absent"),
            ("chain", "absent", "absent"),
            ("empty", "key", "empty: no certificate in it"),
            ("chain", "empty", "empty"),
            ("chain", "other", "do not fit"),
        ] {
            let error = CertificateFiles::load(files.path(chain), files.path(key)).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
