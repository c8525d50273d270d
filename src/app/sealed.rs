//! What the manager sends its workers of the target's accounts, sealed with the plane's secret, so that
//! whoever reads the plane's logs learns nothing of it.
//!
//! ChaCha20-Poly1305 (RFC 8439) with a random nonce; the key is made of the secret by PBKDF2 with
//! HMAC-SHA-256 (RFC 8018), salted with the run's name, which is bound to the text besides. A secret
//! that people made up is still worth less than a drawn one.

use std::num::NonZeroU32;

use anyhow::{Result, anyhow, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use rand::RngExt;
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    pbkdf2::{PBKDF2_HMAC_SHA256, derive},
};
use serde::{Deserialize, Serialize};

/// Rounds of PBKDF2: a quarter of a second, once a run.
const ROUNDS: NonZeroU32 = NonZeroU32::new(600_000).expect("it is not zero");

/// What is sealed.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Credentials {
    /// The account that all users share, name and password.
    pub(super) account: Option<(String, String)>,
    /// What the passwords of registered accounts are made of.
    pub(super) key: Option<String>,
}

impl Credentials {
    /// Sealed for a run.
    pub(super) fn seal(&self, secret: &str, run_id: &str) -> String {
        let nonce: [u8; NONCE_LEN] = rand::rng().random();
        let mut text = serde_json::to_vec(self).expect("credentials are plain data");
        key(secret, run_id)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(run_id.as_bytes()),
                &mut text,
            )
            .expect("they are far shorter than what can be sealed");
        STANDARD.encode([&nonce[..], &text].concat())
    }

    /// What was sealed for a run.
    ///
    /// # Errors
    /// When the secret is another.
    pub(super) fn open(sealed: &str, secret: &str, run_id: &str) -> Result<Self> {
        let other = || {
            anyhow!(
                "the manager sealed the target's accounts with another secret than ours (SPRINGTIDE_PLANE_SECRET or --plane-secret-file)"
            )
        };
        let mut bytes = STANDARD.decode(sealed).map_err(|_| other())?;
        if bytes.len() < NONCE_LEN {
            bail!(other());
        }
        let mut text = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| other())?;
        let opened = key(secret, run_id).open_in_place(nonce, Aad::from(run_id.as_bytes()), &mut text);
        serde_json::from_slice(opened.map_err(|_| other())?).map_err(|_| other())
    }
}

fn key(secret: &str, run_id: &str) -> LessSafeKey {
    let mut key = [0; 32];
    let salt = format!("springtide plane {run_id}");
    derive(PBKDF2_HMAC_SHA256, ROUNDS, salt.as_bytes(), secret.as_bytes(), &mut key);
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).expect("the key has the right length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_secret_and_run_open_it() {
        let ours = Credentials { account: Some(("ann".into(), "s3cret".into())), key: None };
        let sealed = ours.seal("correct horse", "r1");
        assert!(!sealed.contains("s3cret") && !sealed.contains("ann"));
        let opened = Credentials::open(&sealed, "correct horse", "r1").unwrap();
        assert_eq!((opened.account, opened.key), (ours.account.clone(), None));
        for (secret, run) in [("wrong horse", "r1"), ("correct horse", "r2")] {
            let Err(error) = Credentials::open(&sealed, secret, run) else { panic!() };
            assert!(error.to_string().contains("another secret"), "{error}");
        }
        assert_ne!(ours.seal("correct horse", "r1"), sealed, "each is sealed with a nonce of its own");
        for broken in ["", "AAAA", "no base64", &sealed[..20]] {
            assert!(Credentials::open(broken, "correct horse", "r1").is_err());
        }
    }
}
