//! Verification of ECDSA signatures on secp256k1 (SEC 1, section 4.1.4; SEC 2, section 2.4.1) for pages, whose WebCrypto does
//! not know the curve.
//!
//! Small before fast, because the page has it for the few peers with such keys: the general library is an eighth of all
//! the Wasm. Nothing here is secret, so nothing has to take the same time for all inputs.
//!
//! Numbers are eight limbs, the lowest first. The arithmetic is on u64, where nothing of two limbs and two carries overflows.

/// A number below 2^256.
type Number = [u32; 8];

const ZERO: Number = [0; 8];
const ONE: Number = [1, 0, 0, 0, 0, 0, 0, 0];
/// The field's prime.
const P: Number = [0xffff_fc2f, 0xffff_fffe, u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX];
/// The group's order.
const N: Number =
    [0xd036_4141, 0xbfd2_5e8c, 0xaf48_a03b, 0xbaae_dce6, 0xffff_fffe, u32::MAX, u32::MAX, u32::MAX];
/// (P + 1) / 4: a power that is a square root, because P is 3 modulo 4.
const SQUARE_ROOT: Number =
    [0xbfff_ff0c, u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX, 0x3fff_ffff];
const GENERATOR_X: Number =
    [0x16f8_1798, 0x59f2_815b, 0x2dce_28d9, 0x029b_fcdb, 0xce87_0b07, 0x55a0_6295, 0xf9dc_bbac, 0x79be_667e];
const GENERATOR_Y: Number =
    [0xfb10_d4b8, 0x9c47_d08f, 0xa685_5419, 0xfd17_b448, 0x0e11_08a8, 0x5da4_fbfc, 0x26a3_c465, 0x483a_da77];

/// Whether `signature` (r, s) is one of the holder of `key`, a compressed point, for a message with this SHA-256. As other
/// libp2p implementations do, it takes both of the two values that s may have.
pub(super) fn is_valid(key: &[u8; 33], digest: &[u8; 32], signature: &[u8; 64]) -> bool {
    try_verify(key, digest, signature).is_some_and(|valid| valid)
}

fn try_verify(key: &[u8; 33], digest: &[u8; 32], signature: &[u8; 64]) -> Option<bool> {
    let (field, scalars) = (Modulus::new(P), Modulus::new(N));
    let curve = Curve { one: field.enter(&ONE), field };
    let key = curve.decompress(key)?;
    let (r, s) = signature.split_first_chunk::<32>()?;
    let (r, s) = (from_bytes(r), from_bytes(s.first_chunk()?));
    let in_range = |number: &Number| *number != ZERO && less(number, &N);
    if !in_range(&r) || !in_range(&s) {
        return None;
    }
    // u1 = e / s, u2 = r / s. A factor that has entered cancels the other's Montgomery form, so the products have left it.
    let inverse = scalars.power(&scalars.enter(&s), &subtract(&N, &[2, 0, 0, 0, 0, 0, 0, 0]).0);
    let digest = scalars.reduce(from_bytes(digest), false);
    let u1 = scalars.multiply(&digest, &inverse);
    let u2 = scalars.multiply(&r, &inverse);
    let generator = curve.point(&GENERATOR_X, &GENERATOR_Y);
    let sum = curve.multiply_and_add(&u1, &generator, &u2, &key);
    if sum.z == ZERO {
        return Some(false);
    }
    // r is x modulo N, and x is X / Z² modulo P, which leaves r and, if that is below P, r + N.
    let z2 = curve.field.multiply(&sum.z, &sum.z);
    let is_x = |x: &Number| curve.field.multiply(&curve.field.enter(x), &z2) == sum.x;
    let (r_plus_n, overflow) = add(&r, &N);
    Some(is_x(&r) || !overflow && less(&r_plus_n, &P) && is_x(&r_plus_n))
}

/// A point in Jacobian coordinates (x / z², y / z³), in Montgomery form; at infinity if z is 0.
#[derive(Clone, Copy)]
struct Point {
    x: Number,
    y: Number,
    z: Number,
}

/// y² = x³ + 7.
struct Curve {
    field: Modulus,
    one: Number,
}

impl Curve {
    fn point(&self, x: &Number, y: &Number) -> Point {
        Point { x: self.field.enter(x), y: self.field.enter(y), z: self.one }
    }

    /// SEC 1, section 2.3.4.
    fn decompress(&self, bytes: &[u8; 33]) -> Option<Point> {
        let (sign, x) = bytes.split_first()?;
        let x = from_bytes(x.first_chunk()?);
        if !matches!(sign, 2 | 3) || !less(&x, &P) {
            return None;
        }
        let field = &self.field;
        let x = field.enter(&x);
        let square = field.add(&field.cube(&x), &field.enter(&[7, 0, 0, 0, 0, 0, 0, 0]));
        let y = field.power(&square, &SQUARE_ROOT);
        if field.multiply(&y, &y) != square {
            return None;
        }
        let is_odd = field.leave(&y)[0] & 1 == 1;
        let y = if is_odd == (*sign == 3) { y } else { field.subtract(&ZERO, &y) };
        Some(Point { x, y, z: self.one })
    }

    /// a × p + b × q, bit by bit for both at once.
    fn multiply_and_add(&self, a: &Number, p: &Point, b: &Number, q: &Point) -> Point {
        let both = self.add(p, q);
        let mut sum = Point { x: ZERO, y: ZERO, z: ZERO };
        for (a, b) in bits(a).zip(bits(b)) {
            sum = self.double(&sum);
            let summand = match (a, b) {
                (true, true) => &both,
                (true, false) => p,
                (false, true) => q,
                (false, false) => continue,
            };
            sum = self.add(&sum, summand);
        }
        sum
    }

    fn double(&self, p: &Point) -> Point {
        let field = &self.field;
        let y2 = field.multiply(&p.y, &p.y);
        let s = field.times(4, &field.multiply(&p.x, &y2));
        let m = field.times(3, &field.multiply(&p.x, &p.x));
        let x = field.subtract(&field.multiply(&m, &m), &field.times(2, &s));
        let y4 = field.times(8, &field.multiply(&y2, &y2));
        let y = field.subtract(&field.multiply(&m, &field.subtract(&s, &x)), &y4);
        Point { x, y, z: field.times(2, &field.multiply(&p.y, &p.z)) }
    }

    fn add(&self, p: &Point, q: &Point) -> Point {
        if p.z == ZERO {
            return *q;
        }
        if q.z == ZERO {
            return *p;
        }
        let field = &self.field;
        let u1 = field.multiply(&p.x, &field.multiply(&q.z, &q.z));
        let u2 = field.multiply(&q.x, &field.multiply(&p.z, &p.z));
        let s1 = field.multiply(&p.y, &field.cube(&q.z));
        let s2 = field.multiply(&q.y, &field.cube(&p.z));
        let h = field.subtract(&u2, &u1);
        let r = field.subtract(&s2, &s1);
        if h == ZERO {
            let infinity = Point { x: ZERO, y: ZERO, z: ZERO };
            return if r == ZERO { self.double(p) } else { infinity };
        }
        let h3 = field.cube(&h);
        let v = field.multiply(&u1, &field.multiply(&h, &h));
        let x = field.subtract(&field.subtract(&field.multiply(&r, &r), &h3), &field.times(2, &v));
        let y = field.subtract(&field.multiply(&r, &field.subtract(&v, &x)), &field.multiply(&s1, &h3));
        Point { x, y, z: field.multiply(&h, &field.multiply(&p.z, &q.z)) }
    }
}

/// Arithmetic modulo an odd number above 2^255, with products in Montgomery form: a number `x` is kept as `x` × 2^256.
struct Modulus {
    modulus: Number,
    /// -1 / modulus, modulo 2^32.
    negative_inverse: u32,
    /// 2^512 modulo the modulus.
    square: Number,
}

impl Modulus {
    fn new(modulus: Number) -> Self {
        // Newton's method: each step doubles the bits that are right, and an odd number is its own inverse modulo 8.
        let lowest = modulus[0];
        let inverse = (0..4)
            .fold(lowest, |inverse, _| inverse.wrapping_mul(2u32.wrapping_sub(lowest.wrapping_mul(inverse))));
        let mut this = Self { modulus, negative_inverse: inverse.wrapping_neg(), square: ONE };
        this.square = (0..512).fold(ONE, |power, _| this.add(&power, &power));
        this
    }

    /// Into Montgomery form.
    fn enter(&self, number: &Number) -> Number {
        self.multiply(number, &self.square)
    }

    /// Out of Montgomery form.
    fn leave(&self, number: &Number) -> Number {
        self.multiply(number, &ONE)
    }

    /// `number`, and 2^256 if there is a carry, less the modulus if that is not more.
    fn reduce(&self, number: Number, carry: bool) -> Number {
        if carry || !less(&number, &self.modulus) { subtract(&number, &self.modulus).0 } else { number }
    }

    fn add(&self, a: &Number, b: &Number) -> Number {
        let (sum, carry) = add(a, b);
        self.reduce(sum, carry)
    }

    fn subtract(&self, a: &Number, b: &Number) -> Number {
        let (difference, borrow) = subtract(a, b);
        if borrow { add(&difference, &self.modulus).0 } else { difference }
    }

    fn times(&self, factor: u32, number: &Number) -> Number {
        (1..factor).fold(*number, |sum, _| self.add(&sum, number))
    }

    fn cube(&self, number: &Number) -> Number {
        self.multiply(number, &self.multiply(number, number))
    }

    /// a × b / 2^256 (Koç, Acar and Kaliski 1996, "CIOS").
    fn multiply(&self, a: &Number, b: &Number) -> Number {
        let mut sum = ZERO;
        let mut top = 0u64;
        for b in b {
            let mut carry = 0u64;
            for (limb, a) in sum.iter_mut().zip(a) {
                let value = u64::from(*limb) + u64::from(*a) * u64::from(*b) + carry;
                *limb = value as u32;
                carry = value >> 32;
            }
            top += carry;
            // A multiple of the modulus makes the lowest limb zero, and all move down by one.
            let factor = u64::from(sum[0].wrapping_mul(self.negative_inverse));
            let mut carry = (u64::from(sum[0]) + factor * u64::from(self.modulus[0])) >> 32;
            let mut shifted = ZERO;
            let rest = sum.iter().zip(&self.modulus).skip(1);
            for (limb, (value, modulus)) in shifted.iter_mut().zip(rest) {
                let value = u64::from(*value) + factor * u64::from(*modulus) + carry;
                *limb = value as u32;
                carry = value >> 32;
            }
            top += carry;
            shifted[7] = top as u32;
            top >>= 32;
            sum = shifted;
        }
        self.reduce(sum, top != 0)
    }

    /// In Montgomery form, as is `base`; `exponent` is not.
    fn power(&self, base: &Number, exponent: &Number) -> Number {
        bits(exponent).fold(self.enter(&ONE), |power, bit| {
            let square = self.multiply(&power, &power);
            if bit { self.multiply(&square, base) } else { square }
        })
    }
}

fn add(a: &Number, b: &Number) -> (Number, bool) {
    let mut sum = ZERO;
    let mut carry = 0;
    for (sum, (a, b)) in sum.iter_mut().zip(a.iter().zip(b)) {
        let value = u64::from(*a) + u64::from(*b) + carry;
        *sum = value as u32;
        carry = value >> 32;
    }
    (sum, carry != 0)
}

fn subtract(a: &Number, b: &Number) -> (Number, bool) {
    let mut difference = ZERO;
    let mut borrow = false;
    for (difference, (a, b)) in difference.iter_mut().zip(a.iter().zip(b)) {
        let (value, first) = a.overflowing_sub(*b);
        let (value, second) = value.overflowing_sub(borrow.into());
        *difference = value;
        borrow = first || second;
    }
    (difference, borrow)
}

fn less(a: &Number, b: &Number) -> bool {
    subtract(a, b).1
}

/// The highest first.
fn bits(number: &Number) -> impl Iterator<Item = bool> {
    number.iter().rev().flat_map(|limb| (0..32).rev().map(move |bit| limb >> bit & 1 == 1))
}

fn from_bytes(big_endian: &[u8; 32]) -> Number {
    let mut number = ZERO;
    for (limb, bytes) in number.iter_mut().zip(big_endian.rchunks_exact(4)) {
        *limb = bytes.iter().fold(0, |limb, byte| limb << 8 | u32::from(*byte));
    }
    number
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use aws_lc_rs::{
        digest,
        rand::SystemRandom,
        signature::{
            ECDSA_P256K1_SHA256_FIXED, ECDSA_P256K1_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
            UnparsedPublicKey,
        },
    };
    use proptest::prelude::*;

    use super::*;

    fn key(secret: &[u8; 32]) -> Option<(EcdsaKeyPair, [u8; 33])> {
        let modulus = Modulus::new(P);
        let curve = Curve { one: modulus.enter(&ONE), field: modulus };
        let generator = curve.point(&GENERATOR_X, &GENERATOR_Y);
        let point = curve.multiply_and_add(&from_bytes(secret), &generator, &ZERO, &generator);
        let (x, y) = affine(&curve, &point)?;
        let uncompressed = [&[4], &to_bytes(&x)[..], &to_bytes(&y)].concat();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256K1_SHA256_FIXED_SIGNING,
            secret,
            &uncompressed,
        )
        .ok()?;
        assert_eq!(pair.public_key().as_ref(), uncompressed);
        let mut compressed = [2 + (y[0] & 1) as u8; 33];
        compressed[1..].copy_from_slice(&to_bytes(&x));
        Some((pair, compressed))
    }

    fn affine(curve: &Curve, point: &Point) -> Option<(Number, Number)> {
        let field = &curve.field;
        let inverse = field.power(&point.z, &subtract(&P, &[2, 0, 0, 0, 0, 0, 0, 0]).0);
        let inverse2 = field.multiply(&inverse, &inverse);
        let x = field.leave(&field.multiply(&point.x, &inverse2));
        let y = field.leave(&field.multiply(&point.y, &field.multiply(&inverse, &inverse2)));
        (point.z != ZERO).then_some((x, y))
    }

    fn to_bytes(number: &Number) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (bytes, limb) in bytes.rchunks_exact_mut(4).zip(number) {
            bytes.copy_from_slice(&limb.to_be_bytes());
        }
        bytes
    }

    fn sha256(message: &[u8]) -> [u8; 32] {
        digest::digest(&digest::SHA256, message).as_ref().try_into().unwrap()
    }

    /// What aws-lc says, after we have said the same.
    fn agreed(key: &[u8; 33], message: &[u8], signature: &[u8; 64]) -> bool {
        let theirs =
            UnparsedPublicKey::new(&ECDSA_P256K1_SHA256_FIXED, key).verify(message, signature).is_ok();
        assert_eq!(
            is_valid(key, &sha256(message), signature),
            theirs,
            "{key:x?} {message:x?} {signature:x?}"
        );
        theirs
    }

    #[test]
    fn numbers_at_the_edges_are_refused() {
        let (pair, key) = key(&[7; 32]).unwrap();
        let good: [u8; 64] =
            pair.sign(&SystemRandom::new(), b"message").unwrap().as_ref().try_into().unwrap();
        assert!(agreed(&key, b"message", &good));
        let n_minus_1 = subtract(&N, &ONE).0;
        for edge in
            [ZERO, ONE, n_minus_1, N, add(&N, &ONE).0, P, [u32::MAX; 8]].map(|number| to_bytes(&number))
        {
            let (r, s) = good.split_at(32);
            for changed in [[&edge, s].concat(), [r, &edge].concat(), [edge, edge].concat()] {
                assert!(!agreed(&key, b"message", &changed.try_into().unwrap()));
            }
        }
    }

    #[test]
    fn smallest_and_largest_secrets_give_keys_that_verify() {
        let mut one = [0; 32];
        one[31] = 1;
        let mut two = one;
        two[31] = 2;
        for secret in [one, two, to_bytes(&subtract(&N, &ONE).0)] {
            let (pair, key) = key(&secret).unwrap();
            let signature = pair.sign(&SystemRandom::new(), b"m").unwrap().as_ref().try_into().unwrap();
            assert!(agreed(&key, b"m", &signature));
        }
    }

    #[test]
    fn points_that_are_not_on_the_curve_are_refused() {
        let signature = [1; 64];
        let mut refused = 0;
        for low in 0..40 {
            let mut key = [0; 33];
            (key[0], key[32]) = (2, low);
            // aws-lc refuses these too; that the signature is wrong hides it.
            refused += u8::from(try_verify(&key, &[0; 32], &signature).is_none());
        }
        assert!((10..30).contains(&refused), "half of all numbers are no x: {refused}");
        for sign in [0, 1, 4, 5, 6, 0xff] {
            let mut key = key(&[7; 32]).unwrap().1;
            key[0] = sign;
            assert_eq!(try_verify(&key, &[0; 32], &signature), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn aws_lc_agrees(secret: [u8; 32], message: Vec<u8>, flip in 0usize..64 * 8) {
            let Some((pair, key)) = key(&secret) else { return Ok(()) };
            let mut signature: [u8; 64] =
                pair.sign(&SystemRandom::new(), &message).unwrap().as_ref().try_into().unwrap();
            prop_assert!(agreed(&key, &message, &signature));
            // The other s is as good.
            let s = from_bytes(signature[32..].try_into().unwrap());
            let mut other = signature;
            other[32..].copy_from_slice(&to_bytes(&subtract(&N, &s).0));
            prop_assert!(agreed(&key, &message, &other));
            let mut other_key = key;
            other_key[0] ^= 1;
            prop_assert!(!agreed(&other_key, &message, &signature));
            signature[flip / 8] ^= 1 << (flip % 8);
            prop_assert!(!agreed(&key, &message, &signature));
        }

        #[test]
        fn products_are_those_of_the_schoolbook(a: [u32; 8], b: [u32; 8]) {
            for modulus in [P, N] {
                let modulus = Modulus::new(modulus);
                let (a, b) = (modulus.reduce(a, false), modulus.reduce(b, false));
                let expected = bits(&a).fold(ZERO, |sum, bit| {
                    let doubled = modulus.add(&sum, &sum);
                    if bit { modulus.add(&doubled, &b) } else { doubled }
                });
                prop_assert_eq!(modulus.leave(&modulus.multiply(&modulus.enter(&a), &modulus.enter(&b))), expected);
            }
        }
    }
}
