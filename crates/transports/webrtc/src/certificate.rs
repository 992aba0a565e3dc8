//! The certificate of a listener, kept so that the hash in its addresses stays the same, and that of a dial.

use std::{fs, io, path::Path};

use peerloom_core::Multihash;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use rtc_dtls::{
    crypto::{Certificate as DtlsCertificate, CryptoPrivateKey},
    crypto_provider::default_provider,
};
use rtc_shared::error::Error as DtlsError;

use crate::dtls::{DtlsConfig, dtls_config};

/// The file's name in a data directory.
const FILE: &str = "webrtc-certificate.pem";

/// The largest file that is taken for ours.
const MAX_FILE: usize = 64 * 1024;

/// A self-signed ECDSA P-256 certificate with its key.
///
/// Browsers limit the life of a WebRTC certificate only for their own, and peers compare its hash and nothing else, so it
/// need not be rotated: addresses stay valid as long as the file does.
pub struct Certificate {
    der: Vec<u8>,
    key: KeyPair,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The file cannot be read or written.
    #[error("WebRTC certificate {path}: {reason}")]
    Io {
        /// The file.
        path: String,
        /// The operating system in its own words.
        reason: io::Error,
    },
    /// The file does not hold one private key and one certificate.
    #[error("WebRTC certificate {path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// What was wrong.
        reason: String,
    },
    /// No certificate could be made.
    #[error("cannot make a WebRTC certificate: {0}")]
    Generate(String),
}

impl Certificate {
    /// Makes a new one.
    pub fn generate() -> Result<Self, CertificateError> {
        let failed = |error: rcgen::Error| CertificateError::Generate(error.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        // The time of day of a listener is nobody's business, and a clock that is wrong must not spoil a certificate.
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        let der = params.self_signed(&key).map_err(failed)?.der().to_vec();
        Ok(Self { der, key })
    }

    /// The one in `directory`, or a new one that is put there, readable by the owner alone.
    pub fn load_or_generate(directory: &Path) -> Result<Self, CertificateError> {
        let path = directory.join(FILE);
        match fs::read_to_string(&path) {
            Ok(pem) => Self::from_pem(&pem)
                .map_err(|reason| CertificateError::Damaged { path: path.display().to_string(), reason }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let certificate = Self::generate()?;
                write_private(&path, &certificate.to_pem())
                    .map_err(|reason| CertificateError::Io { path: path.display().to_string(), reason })?;
                Ok(certificate)
            }
            Err(reason) => Err(CertificateError::Io { path: path.display().to_string(), reason }),
        }
    }

    /// Private key and certificate.
    fn to_pem(&self) -> String {
        let certificate = pem::encode(&pem::Pem::new("CERTIFICATE", self.der.clone()));
        format!("{}{certificate}", self.key.serialize_pem())
    }

    fn from_pem(text: &str) -> Result<Self, String> {
        if text.len() > MAX_FILE {
            return Err("too large".to_owned());
        }
        let blocks = pem::parse_many(text).map_err(|error| error.to_string())?;
        let certificate = blocks.iter().find(|block| block.tag() == "CERTIFICATE").ok_or("no certificate")?;
        let key = KeyPair::from_pem_and_sign_algo(text, &PKCS_ECDSA_P256_SHA256)
            .map_err(|error| error.to_string())?;
        Ok(Self { der: certificate.contents().to_vec(), key })
    }

    /// What `/certhash` in a listener's addresses says.
    pub fn hash(&self) -> Multihash {
        Multihash::sha2_256_of(&self.der)
    }

    pub(crate) fn dtls_config(&self, is_client: bool) -> Result<DtlsConfig, DtlsError> {
        let provider = default_provider().map_err(|error| DtlsError::Crypto(error.to_string()))?;
        let certificate = DtlsCertificate {
            certificate: vec![self.der.clone().into()],
            private_key: CryptoPrivateKey::from_key_pair(&self.key, provider.crypto())?,
        };
        dtls_config(certificate, is_client)
    }
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    let temporary = path.with_extension("pem.new");
    // One that is there already would keep its mode.
    if let Err(error) = fs::remove_file(&temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    drop(file);
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("peerloom-webrtc-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn certificate_survives_a_restart() {
        let directory = Directory::new("restart");
        let first = Certificate::load_or_generate(&directory.0).unwrap();
        let second = Certificate::load_or_generate(&directory.0).unwrap();
        assert_eq!(first.hash(), second.hash());
        assert!(second.dtls_config(false).is_ok());
        let files: Vec<_> =
            fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, [FILE]);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_the_key() {
        use std::os::unix::fs::PermissionsExt;
        let directory = Directory::new("mode");
        // What an earlier attempt may have left there does not loosen it.
        fs::write(directory.0.join("webrtc-certificate.pem.new"), "left over").unwrap();
        Certificate::load_or_generate(&directory.0).unwrap();
        let mode = fs::metadata(directory.0.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn damaged_file_is_an_error_and_not_replaced() {
        let directory = Directory::new("damaged");
        let path = directory.0.join(FILE);
        let good = Certificate::generate().unwrap().to_pem();
        let without_certificate = good.split("-----BEGIN CERTIFICATE").next().unwrap().to_owned();
        for text in ["", "not PEM", &without_certificate, &"x".repeat(MAX_FILE + 1)] {
            fs::write(&path, text).unwrap();
            let error = Certificate::load_or_generate(&directory.0).err().unwrap();
            assert!(matches!(error, CertificateError::Damaged { .. }), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn directory_that_is_not_there_is_an_error() {
        let error = Certificate::load_or_generate(Path::new("/nonexistent/peerloom")).err().unwrap();
        assert!(matches!(error, CertificateError::Io { .. }), "{error}");
    }
}
