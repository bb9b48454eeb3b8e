//! The join token: a text that lets one newcomer in, once, and lets the newcomer know the cluster.
//!
//! ```text
//! sct1-<id>-<secret>-<fingerprint>-<check>        108 characters, base32 in small letters, no padding
//!       8    32       52            8
//! ```
//!
//! - *id* (40 random bits) finds the token in the state; it is not secret and may be listed and logged.
//! - *secret* (160 random bits) is what the holder proves. The state keeps only its SHA-256: with so many random bits a plain hash
//!   cannot be searched, and a snapshot that leaks lets nobody in.
//! - *fingerprint* is the SHA-256 of the authority's certificate: the newcomer checks the scheduler by it, before it sends the secret.
//! - *check* (40 bits of SHA-256 over the rest) tells a mistyped token, which one types again, from a refused one, which is used up,
//!   expired or foreign.
//!
//! Base32 and not base64: it has no case, no sign that a terminal breaks a selection at, and none that a shell minds.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::ca_certificate::{CaCertificate, Fingerprint};

const PREFIX: &str = "sct1";
const ID_BYTES: usize = 5;
const SECRET_BYTES: usize = 20;
const CHECK_BYTES: usize = 5;
/// Longer texts are not looked at.
const MAX_CHARACTERS: usize = 256;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// SHA-256 of a token's secret: what the state stores.
pub type SecretHash = [u8; 32];

/// A join token. It prints in full only through [`Token::reveal`].
#[derive(Clone)]
pub struct Token {
    id: String,
    secret: [u8; SECRET_BYTES],
    fingerprint: Fingerprint,
}

/// Why a text is no token. None of them means that the token was refused: no scheduler was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is something else altogether.
    #[error("expected a join token, which starts with {PREFIX}-")]
    NotAToken,
    /// It is a token of a version this program does not know.
    #[error("expected a join token of version {PREFIX}, found a newer one: this program is too old for it")]
    Version,
    /// A character is wrong, missing or too many.
    #[error("the join token is mistyped or cut off: its check characters do not match")]
    Mistyped,
}

impl Token {
    /// Makes a token for the cluster of `ca`, from the machine's randomness.
    pub fn generate(ca: &CaCertificate) -> Result<Self, getrandom::Error> {
        let mut id = [0; ID_BYTES];
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        Ok(Self { id: encode(&id), secret, fingerprint: ca.fingerprint() })
    }

    /// The token's id: 8 characters, not secret.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The fingerprint of the authority that the scheduler must show.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// What the state stores of the secret.
    #[must_use]
    pub fn secret_hash(&self) -> SecretHash {
        Sha256::digest(self.secret).into()
    }

    /// Whether the secret is the one whose hash is stored. Takes the same time wherever they differ.
    #[must_use]
    pub fn matches(&self, stored: &[u8]) -> bool {
        self.secret_hash().ct_eq(stored).into()
    }

    /// The text, secret included: to be shown once, to whoever made the token, and sent once, to the scheduler.
    #[must_use]
    pub fn reveal(&self) -> String {
        let secret = encode(&self.secret);
        let fingerprint = encode(&self.fingerprint.0);
        let body = format!("{PREFIX}-{}-{secret}-{fingerprint}", self.id);
        let check = check(&body);
        format!("{body}-{check}")
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > MAX_CHARACTERS {
            return Err(TokenError::NotAToken);
        }
        let text = text.to_ascii_lowercase();
        let parts: Vec<&str> = text.split('-').collect();
        match parts.first().and_then(|prefix| prefix.strip_prefix("sct")) {
            Some("1") => {}
            Some(version) if !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()) => {
                return Err(TokenError::Version);
            }
            _ => return Err(TokenError::NotAToken),
        }
        let [_, id, secret, fingerprint, found] = parts.as_slice() else {
            return Err(TokenError::Mistyped);
        };
        let body = format!("{PREFIX}-{id}-{secret}-{fingerprint}");
        if check(&body) != **found {
            return Err(TokenError::Mistyped);
        }
        let id = decode::<ID_BYTES>(id).ok_or(TokenError::Mistyped)?;
        Ok(Self {
            id: encode(&id),
            secret: decode(secret).ok_or(TokenError::Mistyped)?,
            fingerprint: Fingerprint(decode(fingerprint).ok_or(TokenError::Mistyped)?),
        })
    }
}

/// Without the secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

fn check(body: &str) -> String {
    encode(&Sha256::digest(body)[..CHECK_BYTES])
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut held, mut bits) = (0_u32, 0);
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(character(held >> bits));
        }
    }
    if bits > 0 {
        text.push(character(held << (5 - bits)));
    }
    text
}

fn character(value: u32) -> char {
    char::from(ALPHABET[(value & 31) as usize])
}

/// Exactly `N` bytes, or nothing. Bits left over at the end must be zero, so that each value has one spelling.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = Vec::with_capacity(N);
    let (mut held, mut bits) = (0_u32, 0);
    for letter in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == letter)?;
        held = ((held << 5) | u32::try_from(value).ok()?) & 0xFFFF;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((held >> bits) & 0xFF).ok()?);
        }
    }
    let spelled_once = held & ((1 << bits) - 1) == 0 && bits < 5;
    if spelled_once { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(secret: [u8; SECRET_BYTES], fingerprint: [u8; 32]) -> Token {
        Token { id: encode(&[1, 2, 3, 4, 5]), secret, fingerprint: Fingerprint(fingerprint) }
    }

    proptest! {
        #[test]
        fn survives_its_text(secret: [u8; SECRET_BYTES], fingerprint: [u8; 32]) {
            let made = token(secret, fingerprint);
            let text = made.reveal();
            prop_assert_eq!(text.len(), 108);
            for spelling in [text.clone(), format!("  {}\n", text.to_uppercase())] {
                let read: Token = spelling.parse().unwrap();
                prop_assert_eq!(read.id(), made.id());
                prop_assert_eq!(read.fingerprint(), made.fingerprint());
                prop_assert!(read.matches(&made.secret_hash()));
            }
        }

        #[test]
        fn a_wrong_character_is_noticed(secret: [u8; SECRET_BYTES], place in 5_usize..108, other in 0_usize..32) {
            let text = token(secret, [7; 32]).reveal();
            let letter = char::from(ALPHABET[other]);
            prop_assume!(text.as_bytes()[place] != ALPHABET[other]);
            let wrong = format!("{}{letter}{}", &text[..place], &text[place + 1..]);
            prop_assert_eq!(wrong.parse::<Token>().unwrap_err(), TokenError::Mistyped);
        }
    }

    #[test]
    fn tells_a_mistyped_token_from_other_things() {
        let text = token([9; SECRET_BYTES], [7; 32]).reveal();
        let read = |text: &str| text.parse::<Token>().unwrap_err();
        assert_eq!(read(&text[..107]), TokenError::Mistyped);
        assert_eq!(read(&format!("{text}a")), TokenError::Mistyped);
        assert_eq!(read(&text.replacen("sct1", "sct2", 1)), TokenError::Version);
        for other in ["", "hunter2", "sct-a-b", &"a".repeat(500)] {
            assert_eq!(read(other), TokenError::NotAToken, "{other}");
        }
    }

    #[test]
    fn another_secret_does_not_match_and_nothing_prints_it() {
        let one = token([1; SECRET_BYTES], [7; 32]);
        let two = token([2; SECRET_BYTES], [7; 32]);
        assert!(!one.matches(&two.secret_hash()));
        assert!(!one.matches(&[]));
        assert!(!format!("{one:?}").contains(&encode(&one.secret)));
    }

    #[test]
    fn base32_is_the_standard_one() {
        assert_eq!(encode(b"foobar"), "mzxw6ytboi");
        assert_eq!(decode::<6>("mzxw6ytboi"), Some(*b"foobar"));
        assert_eq!(decode::<6>("mzxw6ytboj"), None, "bits left over");
        assert_eq!(decode::<6>("mzxw6ytb1i"), None, "not of the alphabet");
    }
}
