//! The spec's test vectors, and certificates with one thing wrong with each.

use peerloom_core::Keypair;
use rcgen::PublicKeyData as _;

use super::*;
use crate::tls::own_certificate::{self, signed_key as encode_signed_key};

const ED25519: &str = "\
    308201ae30820156a0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c696270\
    32702e696f310a300806035504051301313020170d3735303130313133303030305a180f343039363031303131333030\
    30305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d\
    020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd60133\
    1c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea37c307a3078060a2b0601040183a25a\
    0101046a3068042408011220a77f1d92fedb59dddaea5a1c4abd1ac2fbde7d7b879ed364501809923d7c11b90440d90d\
    2769db992d5e6195dbb08e706b6651e024fda6cfb8846694a435519941cac215a8207792e42849cccc6cd8136c6e4bde\
    92a58c5e08cfd4206eb5fe0bf909300a06082a8648ce3d0403020346003043021f50f6b6c52711a881778718238f650c\
    9fb48943ae6ee6d28427dc6071ae55e702203625f116a7a454db9c56986c82a25682f7248ea1cb764d322ea983ed36a3\
    1b77";

const ECDSA: &str = "\
    308201f63082019da0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c696270\
    32702e696f310a300806035504051301313020170d3735303130313133303030305a180f343039363031303131333030\
    30305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d\
    020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd60133\
    1c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea381c23081bf3081bc060a2b06010401\
    83a25a01010481ad3081aa045f0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004bf30511f\
    909414ebdd3242178fd290f093a551cf75c973155de0bb5a96fedf6cb5d52da7563e794b512f66e60c7f55ba8a3acf3d\
    d72a801980d205e8a1ad29f2044730450220064ea8124774caf8f50e57f436aa62350ce652418c019df5d98a3ac666c9\
    386a022100aa59d704a931b5f72fb9222cb6cc51f954d04a4e2e5450f8805fe8918f71eaae300a06082a8648ce3d0403\
    0203470030440220799395b0b6c1e940a7e4484705f610ab51ed376f19ff9d7c16757cfbf61b8d4302206205c03fbb0f\
    95205c779be86581d3e31c01871ad5d1f3435bcf375cb0e5088a";

const SECP256K1: &str = "\
    308201ba3082015fa0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c696270\
    32702e696f310a300806035504051301313020170d3735303130313133303030305a180f343039363031303131333030\
    30305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d\
    020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd60133\
    1c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea38184308181307f060a2b0601040183\
    a25a01010471306f0425080212210206dc6968726765b820f050263ececf7f71e4955892776c0970542efd689d238204\
    4630440220145e15a991961f0d08cd15425bb95ec93f6ffa03c5a385eedc34ecf464c7a8ab022026b3109b8a3f40ef83\
    3169777eb2aa337cfb6282f188de0666d1bcec2a4690dd300a06082a8648ce3d0403020349003046022100e1a217eeef\
    9ec9204b3f774a08b70849646b6a1e6b8b27f93dc00ed58545d9fe022100b00dafa549d0f03547878338c7b15e750288\
    8f6d45db387e5ae6b5d46899cef0";

const INVALID: &str = "\
    308201f73082019da0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c696270\
    32702e696f310a300806035504051301313020170d3735303130313133303030305a180f343039363031303131333030\
    30305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d\
    020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd60133\
    1c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea381c23081bf3081bc060a2b06010401\
    83a25a01010481ad3081aa045f0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004bf30511f\
    909414ebdd3242178fd290f093a551cf75c973155de0bb5a96fedf6cb5d52da7563e794b512f66e60c7f55ba8a3acf3d\
    d72a801980d205e8a1ad29f204473045022100bb6e03577b7cc7a3cd1558df0da2b117dfdcc0399bc2504ebe7de6f65c\
    ade72802206de96e2a5be9b6202adba24ee0362e490641ac45c240db71fe955f2c5cf8df6e300a06082a8648ce3d0403\
    020348003045022100e847f267f43717358f850355bdcabbefb2cfbf8a3c043b203a14788a092fe8db022027c1d04a2d\
    41fd6b57a7e8b3989e470325de4406e52e084e34a3fd56eef0d0df";

const ED25519_PEER: &str = "12D3KooWM6CgA9iBFZmcYAHA6A2qvbAxqfkmrYiRQuz3XEsk4Ksv";
const ECDSA_PEER: &str = "QmfXbAwNjJLXfesgztEHe8HwgVDCMMpZ9Eax1HYq6hn9uE";
const SECP256K1_PEER: &str = "16Uiu2HAkutTMoTzDw1tCvSRtu6YoixJwS46S1ZFxW8hSx9fWHiPs";

/// 2026-01-01.
const NOW: u64 = 1_767_225_600;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

fn vector(hex: &str) -> CertificateDer<'static> {
    data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap().into()
}

fn verify(der: &CertificateDer<'_>) -> Result<PeerId, CertificateError> {
    let certificate = PeerCertificate::parse(der)?;
    certificate.verify(at(NOW))?;
    Ok(certificate.public_key().peer_id())
}

#[test]
fn valid_vectors_of_the_spec_prove_their_peers() {
    for (certificate, peer) in [(ED25519, ED25519_PEER), (ECDSA, ECDSA_PEER), (SECP256K1, SECP256K1_PEER)] {
        assert_eq!(verify(&vector(certificate)), Ok(peer.parse().unwrap()));
    }
}

#[test]
fn invalid_vector_of_the_spec_is_refused() {
    assert_eq!(verify(&vector(INVALID)), Err(CertificateError::IdentitySignature));
}

#[test]
fn any_changed_bit_of_what_is_signed_and_of_the_signature_is_refused() {
    let whole = vector(ED25519);
    // Without the headers around the two, and the algorithm between them, which stands in the first too.
    for position in (4..350).chain(365..whole.len()) {
        for bit in 0..8 {
            let mut changed = whole.to_vec();
            changed[position] ^= 1 << bit;
            assert!(verify(&changed.into()).is_err(), "byte {position}, bit {bit}");
        }
    }
}

#[test]
fn truncated_and_prolonged_certificates_are_refused() {
    let whole = vector(ED25519);
    for length in 0..whole.len() {
        assert!(matches!(verify(&whole[..length].to_vec().into()), Err(CertificateError::Malformed(_))));
    }
    let prolonged = [&whole, &[0][..]].concat();
    assert!(matches!(verify(&prolonged.into()), Err(CertificateError::Malformed(_))));
    let long = vec![0x30; MAX_CERTIFICATE_BYTES + 1];
    assert!(matches!(verify(&long.into()), Err(CertificateError::Malformed(_))));
}

type Change = fn(&mut rcgen::CertificateParams);

/// A certificate of ours, with `change` made to it before its key signs it.
fn changed(algorithm: &'static rcgen::SignatureAlgorithm, change: Change) -> CertificateDer<'static> {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let identity = Keypair::from_seed([1; 32]);
    let mut parameters = own_certificate::parameters(&identity, &key.subject_public_key_info());
    change(&mut parameters);
    parameters.self_signed(&key).unwrap().der().clone()
}

fn with(change: Change) -> Result<PeerId, CertificateError> {
    verify(&changed(&rcgen::PKCS_ECDSA_P256_SHA256, change))
}

#[test]
fn our_certificates_prove_us_whatever_the_algorithm_of_their_key() {
    let us = Keypair::from_seed([1; 32]).peer_id();
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        assert_eq!(verify(&changed(algorithm, |_| {})), Ok(us));
    }
}

#[test]
fn a_key_of_an_unknown_algorithm_is_refused() {
    let refused = verify(&changed(&rcgen::PKCS_ECDSA_P521_SHA512, |_| {}));
    assert!(matches!(refused, Err(CertificateError::UnsupportedAlgorithm(_))), "{refused:?}");
}

/// js-libp2p looks at no other.
#[test]
fn the_libp2p_extension_comes_first() {
    let der = own_certificate::generate(&Keypair::generate()).unwrap().cert[0].clone();
    let (_, x509) = X509Certificate::from_der(&der).unwrap();
    let first = &x509.extensions()[0];
    assert_eq!(first.oid.to_id_string(), "1.3.6.1.4.1.53594.1.1");
    assert!(!first.critical);
    assert!(verify(&der).is_ok());
}

#[test]
fn a_certificate_outside_of_its_dates_is_refused() {
    let der = changed(&rcgen::PKCS_ECDSA_P256_SHA256, |parameters| {
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2026, 1, 2);
    });
    let certificate = PeerCertificate::parse(&der).unwrap();
    let day = 24 * 60 * 60;
    for (seconds, valid) in
        [(NOW - 1, false), (NOW, true), (NOW + day, true), (NOW + day + 1, false), (u64::MAX, false)]
    {
        let expected = if valid { Ok(()) } else { Err(CertificateError::NotValidNow) };
        assert_eq!(certificate.verify(at(seconds)), expected, "{seconds}");
    }
}

#[test]
fn a_certificate_without_the_extension_is_refused() {
    let refused = with(|parameters| {
        parameters.custom_extensions.clear();
        parameters.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    });
    assert_eq!(refused, Err(CertificateError::NoExtension));
    assert_eq!(with(|parameters| parameters.custom_extensions.clear()), Err(CertificateError::NoExtension));
}

#[test]
fn a_certificate_with_two_of_the_extension_is_refused() {
    let refused =
        with(|parameters| parameters.custom_extensions.extend(parameters.custom_extensions.clone()));
    assert!(matches!(refused, Err(CertificateError::Malformed(_))), "{refused:?}");
}

#[test]
fn the_extension_may_be_critical_and_come_last() {
    let accepted = with(|parameters| {
        parameters.custom_extensions[0].set_criticality(true);
        parameters.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        parameters.is_ca = rcgen::IsCa::ExplicitNoCa;
        parameters.subject_alt_names = vec![rcgen::SanType::DnsName("libp2p.io".try_into().unwrap())];
    });
    assert!(accepted.is_ok(), "{accepted:?}");
}

#[test]
fn an_unknown_extension_is_ignored_unless_it_is_critical() {
    fn unknown() -> rcgen::CustomExtension {
        rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])
    }
    assert!(with(|parameters| parameters.custom_extensions.push(unknown())).is_ok());
    let refused = with(|parameters| {
        let mut critical = unknown();
        critical.set_criticality(true);
        parameters.custom_extensions.push(critical);
    });
    assert_eq!(refused, Err(CertificateError::UnknownCriticalExtension("1.2.3.4".to_owned())));
}

#[test]
fn a_key_that_may_not_sign_is_refused() {
    let refused = with(|parameters| parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign]);
    assert_eq!(refused, Err(CertificateError::NotForSignatures));
}

#[test]
fn an_extension_that_is_no_signed_key_is_refused() {
    fn replace(parameters: &mut rcgen::CertificateParams, content: Vec<u8>) {
        parameters.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(EXTENSION_OID, content)];
    }
    for change in [
        (|parameters| replace(parameters, Vec::new())) as Change,
        |parameters| replace(parameters, vec![0x30, 0x80]),
        |parameters| replace(parameters, vec![0x30, 3, 4, 1, 7]),
        |parameters| replace(parameters, [encode_signed_key(&[1], &[2]), vec![0]].concat()),
    ] {
        assert!(matches!(with(change), Err(CertificateError::Malformed(_))));
    }
    let refused = with(|parameters| replace(parameters, encode_signed_key(&[8, 9, 18, 0], &[2])));
    assert!(matches!(refused, Err(CertificateError::IdentityKey(_))), "{refused:?}");
}

#[test]
fn a_key_that_the_identity_did_not_sign_is_refused() {
    // The extension of one certificate in another.
    let refused = with(|parameters| {
        let identity = Keypair::from_seed([1; 32]);
        let other = rcgen::KeyPair::generate().unwrap();
        *parameters = own_certificate::parameters(&identity, &other.subject_public_key_info());
    });
    assert_eq!(refused, Err(CertificateError::IdentitySignature));
}

#[test]
fn a_certificate_that_another_key_signed_is_refused() {
    let [key, other] = [(); 2].map(|()| rcgen::KeyPair::generate().unwrap());
    let parameters =
        own_certificate::parameters(&Keypair::from_seed([1; 32]), &key.subject_public_key_info());
    let issuer = rcgen::Issuer::new(parameters.clone(), other);
    let der = parameters.signed_by(&key, &issuer).unwrap().der().clone();
    assert_eq!(verify(&der), Err(CertificateError::SelfSignature));
}

#[test]
fn long_signed_keys_are_encoded_with_long_lengths() {
    let (key, signature) = (vec![1; 127], vec![2; 70_000]);
    assert_eq!(split_signed_key(&encode_signed_key(&key, &signature)), Some((key, signature)));
}
