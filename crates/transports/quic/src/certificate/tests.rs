use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_millis(700)
}

#[derive(Debug, Clone, Default)]
struct SharedStore(Arc<Mutex<Option<Vec<u8>>>>);

impl CertificateStore for SharedStore {
    fn load(&self) -> std::io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().clone())
    }
    fn save(&self, pem: &[u8]) -> std::io::Result<()> {
        *self.0.lock().unwrap() = Some(pem.to_vec());
        Ok(())
    }
    fn place(&self) -> String {
        "the test".to_owned()
    }
}

#[derive(Debug)]
struct BrokenStore;

impl CertificateStore for BrokenStore {
    fn load(&self) -> std::io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
    fn save(&self, _pem: &[u8]) -> std::io::Result<()> {
        Err(std::io::ErrorKind::StorageFull.into())
    }
    fn place(&self) -> String {
        "a full disk".to_owned()
    }
}

#[test]
fn over_sixty_days_the_served_certificate_is_always_advertised_and_acceptable() {
    let store = SharedStore::default();
    let mut certificates = Certificates::load_or_create(store.clone(), start()).unwrap();
    let mut advertised = vec![certificates.advertised()];
    for hours in 0..60 * 24 {
        let now = start() + HOUR * hours;
        assert_eq!(certificates.rotate(now).unwrap(), {
            let changed = advertised.last() != Some(&certificates.advertised());
            if changed {
                advertised.push(certificates.advertised());
            }
            changed
        });
        // A restart at any time changes nothing.
        if hours % 37 == 0 {
            let again = Certificates::load_or_create(store.clone(), now).unwrap();
            assert_eq!(again.advertised(), certificates.advertised());
            assert_eq!(again.confirmed(), certificates.confirmed());
            assert_eq!(again.rotate_at(), certificates.rotate_at());
        }
        let current = certificates.current().certificate();
        assert!(certificates.advertised().contains(&current.hash()));
        assert!(current.not_after().duration_since(current.not_before()).unwrap() <= 14 * DAY);
        // Also for clients whose clocks are off by almost an hour.
        for their_now in [now - HOUR + Duration::from_secs(1), now, now + HOUR - Duration::from_secs(1)] {
            current.accept(&certificates.advertised(), their_now).unwrap();
        }
        // Everything in the current and in the last set that names the served certificate is confirmed.
        let confirmed: HashSet<Vec<u8>> =
            certificates.confirmed().iter().map(|hash| hash.as_bytes().to_vec()).collect();
        for set in advertised.iter().rev().take(2).filter(|set| set.contains(&current.hash())) {
            assert!(set.iter().all(|hash| confirmed.contains(hash.as_bytes())));
        }
        assert!(certificates.rotate_at() > now);
    }
    assert_eq!(advertised.len(), 5, "60 days are four rotations");
    for pair in advertised.windows(2) {
        assert_eq!(pair[0][1], pair[1][0], "consecutive sets overlap");
    }
}

#[test]
fn after_a_long_stop_a_fresh_pair_is_made() {
    let store = SharedStore::default();
    let before = Certificates::load_or_create(store.clone(), start()).unwrap();
    let after = Certificates::load_or_create(store.clone(), start() + 40 * DAY).unwrap();
    assert!(before.advertised().iter().all(|hash| !after.confirmed().contains(hash)));
    after.current().certificate().accept(&after.advertised(), start() + 40 * DAY).unwrap();
}

#[test]
fn a_clock_set_back_makes_certificates_that_are_valid_now() {
    let mut certificates = Certificates::load_or_create(MemoryStore, start()).unwrap();
    let now = start() - 3 * DAY;
    assert!(certificates.rotate(now).unwrap());
    certificates.current().certificate().accept(&certificates.advertised(), now).unwrap();
}

#[test]
fn a_full_disk_stops_the_first_start_but_not_a_rotation() {
    let error = Certificates::load_or_create(BrokenStore, start()).unwrap_err();
    assert!(error.to_string().contains("a full disk"), "{error}");

    let (current, next) = fresh_pair(start()).unwrap();
    let mut certificates = Certificates { store: Box::new(BrokenStore), previous: None, current, next };
    let expected = certificates.next().certificate().hash();
    assert!(certificates.rotate(start() + 14 * DAY).is_err());
    assert_eq!(certificates.current().certificate().hash(), expected);
}

#[test]
fn damaged_stores_are_refused_with_their_place() {
    let store = SharedStore::default();
    Certificates::load_or_create(store.clone(), start()).unwrap();
    let whole = String::from_utf8(store.load().unwrap().unwrap()).unwrap();
    let sections: Vec<&str> = whole.split_inclusive("-----END PRIVATE KEY-----\n").collect();
    let split = |section: &str| {
        let (certificate, key) = section.split_at(section.find("-----BEGIN PRIVATE KEY").unwrap());
        (certificate.to_owned(), key.to_owned())
    };
    let ((certificate_1, key_1), (certificate_2, key_2)) = (split(sections[0]), split(sections[1]));
    let damaged = [
        String::new(),
        "garbage".to_owned(),
        whole.split_at(whole.len() - 60).0.to_owned(),
        whole.replacen("MII", "MIJ", 1),
        sections[0].to_owned(),
        format!("{key_1}{certificate_1}"),
        format!("{certificate_1}{key_2}{certificate_2}{key_1}"),
        format!("{whole}{whole}"),
        "x".repeat(MAX_STORED + 1),
    ];
    for damaged in damaged {
        store.save(damaged.as_bytes()).unwrap();
        match Certificates::load_or_create(store.clone(), start()) {
            Err(error @ CertificateError::Damaged { .. }) => assert!(error.to_string().contains("the test")),
            other => panic!("accepted {damaged:?} as {other:?}"),
        }
    }
}

#[test]
fn a_directory_keeps_the_file_for_its_owner_only() {
    let directory = std::env::temp_dir().join(format!("peerloom-certificates-{}", std::process::id()));
    let store = DirectoryStore::new(directory.join("made/when/needed"));
    assert_eq!(store.load().unwrap(), None);
    let first = Certificates::load_or_create(store.clone(), start()).unwrap();
    let second = Certificates::load_or_create(store.clone(), start()).unwrap();
    assert_eq!(first.advertised(), second.advertised());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(store.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_client_refuses_what_a_browser_would() {
    let keyed = KeyedCertificate::generate(start()).unwrap();
    let certificate = keyed.certificate();
    let hashes = [certificate.hash()];
    assert_eq!(certificate.accept(&hashes, start()), Ok(()));
    assert_eq!(certificate.accept(&[], start()), Err(UnacceptableCertificate::UnknownHash));
    for now in [start() - DAY, start() + 15 * DAY] {
        assert_eq!(certificate.accept(&hashes, now), Err(UnacceptableCertificate::NotValidNow));
    }

    let make = |algorithm, days: u64| {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let mut parameters = rcgen::CertificateParams::default();
        parameters.not_before = start().into();
        parameters.not_after = (start() + days as u32 * DAY).into();
        Certificate::parse(parameters.self_signed(&key).unwrap().der().clone())
    };
    assert!(make(&rcgen::PKCS_ECDSA_P256_SHA256, 14).is_ok());
    assert_eq!(make(&rcgen::PKCS_ECDSA_P256_SHA256, 15).unwrap_err(), UnacceptableCertificate::TooLong);
    assert_eq!(make(&rcgen::PKCS_ECDSA_P384_SHA384, 14).unwrap_err(), UnacceptableCertificate::NotP256);
    assert_eq!(make(&rcgen::PKCS_ED25519, 14).unwrap_err(), UnacceptableCertificate::NotP256);
    let truncated = CertificateDer::from(certificate.der[..certificate.der.len() - 1].to_vec());
    assert!(matches!(Certificate::parse(truncated), Err(UnacceptableCertificate::Malformed(_))));
    let followed = CertificateDer::from([&certificate.der[..], &[0]].concat());
    assert!(matches!(Certificate::parse(followed), Err(UnacceptableCertificate::Malformed(_))));
}
