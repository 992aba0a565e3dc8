//! The certificates that a browser accepts by their hash: self-signed, ECDSA P-256, valid for at most 14 days.
//!
//! Two exist at a time, the second beginning where the first ends; both are advertised. So an address that somebody
//! wrote down stays good for at least one period after it was current. libp2p webtransport spec, "Certificates".
//!
//! [`Certificates`] does no I/O but through its [`CertificateStore`] and takes the time as an argument.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use peerloom_core::Multihash;
use rustls::{
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer,
        pem::{PemObject, SectionKind},
    },
    sign::CertifiedKey,
};
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};

pub use self::store::{CertificateStore, DirectoryStore, MemoryStore};

mod store;

/// What a browser allows: `WebTransportOptions.serverCertificateHashes`, "custom certificate requirements".
const MAX_VALIDITY: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Both ends of a certificate's validity belong to it (RFC 5280, section 4.1.2.5), so this is 14 days exactly.
const VALIDITY: Duration = Duration::from_secs(MAX_VALIDITY.as_secs() - 1);

/// By how much a client's clock may differ from ours, either way: a certificate is served from this long after its
/// validity begins until this long before it ends.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// A stored file is five short PEM sections; more than this is not ours.
const MAX_STORED: usize = 64 * 1024;

/// Why there are no certificates to serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The store cannot be read or written.
    #[error("cannot access the WebTransport certificates in {place}: {source}")]
    Store {
        /// Where they are kept.
        place: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// What the store holds is not what was put there. Deleting it makes new certificates, and addresses that contain
    /// the old ones' hashes stop working.
    #[error("the WebTransport certificates in {place} are damaged: {reason}")]
    Damaged {
        /// Where they are kept.
        place: String,
        /// What is wrong with them.
        reason: String,
    },
    /// The cryptographic library failed.
    #[error("cannot make a certificate: {0}")]
    Generate(String),
}

/// The certificates that a server holds: the one it serves, the one it will serve next, and what is left of the last.
#[derive(Debug)]
pub struct Certificates {
    store: Box<dyn CertificateStore>,
    previous: Option<Certificate>,
    current: KeyedCertificate,
    next: KeyedCertificate,
}

impl Certificates {
    /// The certificates in `store`, brought up to `now`; a first pair if it is empty.
    pub fn load_or_create(
        store: impl CertificateStore + 'static,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let store: Box<dyn CertificateStore> = Box::new(store);
        let stored =
            store.load().map_err(|source| CertificateError::Store { place: store.place(), source })?;
        match stored {
            Some(stored) => {
                let (previous, current, next) = decode(&stored)
                    .map_err(|reason| CertificateError::Damaged { place: store.place(), reason })?;
                let mut certificates = Self { store, previous, current, next };
                certificates.rotate(now)?;
                Ok(certificates)
            }
            None => {
                let (current, next) = fresh_pair(now)?;
                let certificates = Self { store, previous: None, current, next };
                certificates.save()?;
                Ok(certificates)
            }
        }
    }

    /// The certificate to serve.
    pub fn current(&self) -> &KeyedCertificate {
        &self.current
    }

    /// The certificate to serve from [`rotate_at`](Self::rotate_at) on.
    pub fn next(&self) -> &KeyedCertificate {
        &self.next
    }

    /// The hashes that belong into our addresses.
    pub fn advertised(&self) -> [Multihash; 2] {
        [self.current.certificate.hash(), self.next.certificate.hash()]
    }

    /// The hashes to confirm in the Noise handshake: all that an address may contain whose certificate is still served.
    /// The last one's is among them, because addresses that name it name the current one too.
    pub fn confirmed(&self) -> Vec<Multihash> {
        self.previous.iter().map(Certificate::hash).chain(self.advertised()).collect()
    }

    /// When [`rotate`](Self::rotate) has something to do.
    pub fn rotate_at(&self) -> SystemTime {
        self.current.certificate.serve_until()
    }

    /// Brings the certificates up to `now`. Returns whether they changed. On an error of the store they are changed all
    /// the same: serving an expired certificate would be worse than advertising one that a restart forgets.
    pub fn rotate(&mut self, now: SystemTime) -> Result<bool, CertificateError> {
        let current = &self.current.certificate;
        // A clock that was wrong when the certificate was made leaves one that nobody accepts yet.
        if current.not_before <= now && now < current.serve_until() {
            return Ok(false);
        }
        let next = &self.next.certificate;
        if next.not_before <= now && now < next.serve_until() {
            let after_next = KeyedCertificate::generate(next.serve_until())?;
            let current = std::mem::replace(&mut self.current, std::mem::replace(&mut self.next, after_next));
            self.previous = Some(current.certificate);
        } else {
            (self.current, self.next) = fresh_pair(now)?;
            self.previous = None;
        }
        self.save()?;
        Ok(true)
    }

    fn save(&self) -> Result<(), CertificateError> {
        let mut pem = String::new();
        if let Some(previous) = &self.previous {
            encode_section(&mut pem, "CERTIFICATE", &previous.der);
        }
        for keyed in [&self.current, &self.next] {
            encode_section(&mut pem, "CERTIFICATE", &keyed.certificate.der);
            encode_section(&mut pem, "PRIVATE KEY", keyed.key.secret_pkcs8_der());
        }
        self.store
            .save(pem.as_bytes())
            .map_err(|source| CertificateError::Store { place: self.store.place(), source })
    }
}

fn fresh_pair(now: SystemTime) -> Result<(KeyedCertificate, KeyedCertificate), CertificateError> {
    let current = KeyedCertificate::generate(now)?;
    let next = KeyedCertificate::generate(current.certificate.serve_until())?;
    Ok((current, next))
}

/// A certificate with its private key.
#[derive(Debug)]
pub struct KeyedCertificate {
    certificate: Certificate,
    key: PrivatePkcs8KeyDer<'static>,
    tls: Arc<CertifiedKey>,
}

impl KeyedCertificate {
    /// The certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Certificate and key as rustls serves them.
    pub(crate) fn tls(&self) -> Arc<CertifiedKey> {
        self.tls.clone()
    }

    /// A certificate to be served from `from` on.
    fn generate(from: SystemTime) -> Result<Self, CertificateError> {
        let failed = |error: rcgen::Error| CertificateError::Generate(error.to_string());
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "libp2p");
        // Chromium refuses a certificate without extensions.
        parameters.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let from: time::OffsetDateTime = (from - CLOCK_SKEW).into();
        // X.509 knows whole seconds.
        parameters.not_before = from.replace_nanosecond(0).unwrap_or(from);
        parameters.not_after = parameters.not_before + VALIDITY;
        let der = parameters.self_signed(&key).map_err(failed)?.der().clone();
        Self::new(der, key.serialize_der().into()).map_err(CertificateError::Generate)
    }

    fn new(der: CertificateDer<'static>, key: PrivatePkcs8KeyDer<'static>) -> Result<Self, String> {
        let certificate = Certificate::parse(der).map_err(|error| error.to_string())?;
        let signer =
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::Pkcs8(key.clone_key()))
                .map_err(|error| error.to_string())?;
        let tls = CertifiedKey::new(vec![certificate.der.clone()], signer);
        tls.keys_match().map_err(|_| "a private key does not belong to its certificate".to_owned())?;
        Ok(Self { certificate, key, tls: Arc::new(tls) })
    }
}

/// Why a certificate is not one that may be accepted by its hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnacceptableCertificate {
    /// Not X.509.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// Not an ECDSA key on P-256.
    #[error("the certificate's key is not ECDSA P-256")]
    NotP256,
    /// Valid for more than 14 days.
    #[error("the certificate is valid for more than 14 days")]
    TooLong,
    /// Not valid at present.
    #[error("the certificate is expired or not yet valid")]
    NotValidNow,
    /// Another certificate than those that were named.
    #[error("the certificate's hash is not one of those in the address")]
    UnknownHash,
}

/// A certificate of the kind that may be accepted by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Certificate {
    /// Reads `der` and checks everything about it that does not depend on time or address.
    pub fn parse(der: CertificateDer<'static>) -> Result<Self, UnacceptableCertificate> {
        let malformed = |reason: &dyn ToString| UnacceptableCertificate::Malformed(reason.to_string());
        let (rest, x509) = x509_parser::parse_x509_certificate(&der).map_err(|error| malformed(&error))?;
        if !rest.is_empty() {
            return Err(malformed(&"it is followed by other bytes"));
        }
        let algorithm = &x509.public_key().algorithm;
        let curve = algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        if algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
            return Err(UnacceptableCertificate::NotP256);
        }
        let time = |seconds: i64| {
            let seconds = u64::try_from(seconds).map_err(|_| malformed(&"it dates from before 1970"))?;
            SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(seconds))
                .ok_or_else(|| malformed(&"its dates are out of range"))
        };
        let not_before = time(x509.validity().not_before.timestamp())?;
        let not_after = time(x509.validity().not_after.timestamp())?;
        match not_after.duration_since(not_before) {
            Ok(validity) if validity <= MAX_VALIDITY => Ok(Self { der, not_before, not_after }),
            Ok(_) => Err(UnacceptableCertificate::TooLong),
            Err(_) => Err(malformed(&"it ends before it begins")),
        }
    }

    /// SHA-256 of the DER: what `/certhash` holds.
    pub fn hash(&self) -> Multihash {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, &self.der).as_ref());
        Multihash::sha2_256(sha256)
    }

    /// The first moment of its validity.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// The last second of its validity.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Checks what a browser does with `serverCertificateHashes`.
    pub(crate) fn accept(
        &self,
        hashes: &[Multihash],
        now: SystemTime,
    ) -> Result<(), UnacceptableCertificate> {
        if !hashes.contains(&self.hash()) {
            return Err(UnacceptableCertificate::UnknownHash);
        }
        if now < self.not_before || self.not_after < now {
            return Err(UnacceptableCertificate::NotValidNow);
        }
        Ok(())
    }

    fn serve_until(&self) -> SystemTime {
        self.not_after - CLOCK_SKEW
    }
}

fn encode_section(pem: &mut String, label: &str, der: &[u8]) {
    pem.push_str(&format!("-----BEGIN {label}-----\n"));
    let base64 = data_encoding::BASE64.encode(der);
    let mut rest = base64.as_str();
    // RFC 7468, section 2: lines of 64 characters.
    while let Some((line, tail)) = rest.split_at_checked(64) {
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    if !rest.is_empty() {
        pem.push_str(rest);
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
}

type Stored = (Option<Certificate>, KeyedCertificate, KeyedCertificate);

/// What `save` wrote: the previous certificate without its key, if there is one, then the current and the next with
/// theirs.
fn decode(stored: &[u8]) -> Result<Stored, String> {
    if stored.len() > MAX_STORED {
        return Err("the file is too large".to_owned());
    }
    let mut previous = None;
    let mut keyed = Vec::new();
    let mut without_key: Option<CertificateDer<'static>> = None;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(stored) {
        match section.map_err(|error| error.to_string())? {
            (SectionKind::Certificate, der) => {
                if let Some(der) = without_key.replace(der.into()) {
                    previous = Some(Certificate::parse(der).map_err(|error| error.to_string())?);
                }
            }
            (SectionKind::PrivateKey, key) => {
                let der = without_key.take().ok_or("a private key without a certificate")?;
                keyed.push(KeyedCertificate::new(der, key.into())?);
            }
            (kind, _) => return Err(format!("unexpected PEM section {kind:?}")),
        }
    }
    let two: Result<[KeyedCertificate; 2], _> = keyed.try_into();
    match (two, without_key) {
        (Ok([current, next]), None) => Ok((previous, current, next)),
        _ => Err("it must hold two certificates with their keys".to_owned()),
    }
}

#[cfg(test)]
mod tests;
