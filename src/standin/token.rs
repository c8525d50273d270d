//! Session tokens and update keys: JWTs signed with HS256 (RFC 7515, RFC 7519),
//! so that the server needs no table of sessions.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::draw::{self, About};

/// Life of an update key: 7 days.
const KEY_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a token says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// Unix seconds; with a fraction, so that tests can use short lives.
    exp: f64,
    iat: f64,
    /// The user, in session tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sub: Option<String>,
    /// The simulation, in update keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) simulation_id: Option<String>,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Invalid,
    Expired,
}

/// Signs and reads tokens with the secrets of this server's life.
#[derive(Debug)]
pub(super) struct Mint {
    access: [u8; 32],
    refresh: [u8; 32],
    access_life: Duration,
    refresh_life: Duration,
}

/// A fresh token and when it ends.
pub(super) struct Token {
    pub(super) text: String,
    pub(super) expires_us: u64,
}

impl Mint {
    /// `started_us` keeps the tokens of two starts with one seed apart, as a restart does.
    pub(super) fn new(seed: u64, started_us: u64, access_life: Duration, refresh_life: Duration) -> Self {
        let secret =
            |which| Sha256::digest(draw::bits(seed, About::Secret, started_us, which).to_be_bytes()).into();
        Self { access: secret(0), refresh: secret(1), access_life, refresh_life }
    }

    pub(super) fn access(&self, user: u64, now_us: u64) -> Token {
        let sub = Some(user.to_string());
        token(&self.access, now_us, self.access_life, sub, None)
    }

    pub(super) fn refresh(&self, user: u64, now_us: u64) -> Token {
        let sub = Some(user.to_string());
        token(&self.refresh, now_us, self.refresh_life, sub, None)
    }

    /// Update keys are signed with the secret of the access tokens, as the target does.
    pub(super) fn update_key(&self, simulation: u64, now_us: u64) -> String {
        token(&self.access, now_us, KEY_LIFE, None, Some(simulation.to_string())).text
    }

    pub(super) fn read_access(&self, token: &str, now_us: u64) -> Result<Claims, Refusal> {
        read(&self.access, token, now_us)
    }

    pub(super) fn read_refresh(&self, token: &str, now_us: u64) -> Result<Claims, Refusal> {
        read(&self.refresh, token, now_us)
    }
}

fn token(
    secret: &[u8; 32],
    now_us: u64,
    life: Duration,
    sub: Option<String>,
    simulation_id: Option<String>,
) -> Token {
    let expires_us = now_us + u64::try_from(life.as_micros()).unwrap_or(u64::MAX / 2);
    let seconds = |micros: u64| (micros / 1000) as f64 / 1000.0;
    let claims = Claims { exp: seconds(expires_us), iat: seconds(now_us), sub, simulation_id };
    let claims = serde_json::to_vec(&claims).expect("claims are plain JSON");
    let head = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let mut text = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims));
    let mark = URL_SAFE_NO_PAD.encode(hmac_sha256(secret, text.as_bytes()));
    text.push('.');
    text.push_str(&mark);
    Token { text, expires_us }
}

fn read(secret: &[u8; 32], token: &str, now_us: u64) -> Result<Claims, Refusal> {
    let (signed, mark) = token.rsplit_once('.').ok_or(Refusal::Invalid)?;
    if URL_SAFE_NO_PAD.encode(hmac_sha256(secret, signed.as_bytes())) != mark {
        return Err(Refusal::Invalid);
    }
    let (_, claims) = signed.split_once('.').ok_or(Refusal::Invalid)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| Refusal::Invalid)?;
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| Refusal::Invalid)?;
    if claims.exp <= now_us as f64 / 1e6 {
        return Err(Refusal::Expired);
    }
    Ok(claims)
}

/// RFC 2104, for a key that is shorter than a block.
fn hmac_sha256(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Mint, Refusal, hmac_sha256};

    const NOW: u64 = 1_800_000_000_000_000;

    fn mint() -> Mint {
        Mint::new(1, NOW, Duration::from_secs(600), Duration::from_secs(7200))
    }

    #[test]
    fn hmac_is_the_known_one() {
        // RFC 4231, test case 1, its key padded with zeros (which HMAC does as well).
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let mark: String = hmac_sha256(&key, b"Hi There").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(mark, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    }

    #[test]
    fn tokens_last_as_long_as_they_should() {
        let mint = mint();
        let token = mint.access(7, NOW);
        assert!((130..160).contains(&token.text.len()), "{}", token.text.len());
        assert_eq!(token.expires_us, NOW + 600_000_000);
        assert_eq!(mint.read_access(&token.text, NOW).unwrap().sub.as_deref(), Some("7"));
        assert_eq!(mint.read_access(&token.text, NOW + 600_000_000), Err(Refusal::Expired));
        assert_eq!(mint.read_refresh(&token.text, NOW), Err(Refusal::Invalid));
    }

    #[test]
    fn a_restart_voids_everything() {
        let key = mint().update_key(3, NOW);
        assert_eq!(mint().read_access(&key, NOW).unwrap().simulation_id.as_deref(), Some("3"));
        let life = Duration::from_secs(600);
        let restarted = Mint::new(1, NOW + 1, life, life);
        assert_eq!(restarted.read_access(&key, NOW), Err(Refusal::Invalid));
        assert_eq!(restarted.read_access("garbage", NOW), Err(Refusal::Invalid));
    }
}
