//! What Redis said, as an error of the plane: whether it may pass, and what is to be done about it.

use std::io;

use redis::{ErrorKind, RedisError};
use tokio_rustls::rustls;

use super::{super::PlaneError, door::Door};

/// Codes and words of conditions that pass, or that somebody can end while we wait.
const PASSING: [&str; 12] = [
    "LOADING",
    "OOM",
    "BUSY",
    "READONLY",
    "MISCONF",
    "MASTERDOWN",
    "NOREPLICAS",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "UNKILLABLE",
    "UNBLOCKED",
    "max number of clients",
];

/// How a call failed. `what` is the command and the key it was about.
pub(super) fn told(door: &Door, what: &str, error: &RedisError) -> PlaneError {
    match error.kind() {
        ErrorKind::Io => PlaneError::Away(format!("at {door} is lost: {error}")),
        ErrorKind::AuthenticationFailed => refused_password(door),
        ErrorKind::Parse => PlaneError::Away(format!("at {door} does not answer as Redis does: {error}")),
        _ => said(door, what, &words(error)),
    }
}

/// The server's own words, in one line.
fn words(error: &RedisError) -> String {
    let code = error.code().unwrap_or_default();
    let text = match error.detail() {
        Some(detail) => format!("{code} {detail}"),
        None => error.to_string(),
    };
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // Where in a script it happened.
    match text.rsplit_once(" script: ") {
        Some((said, place)) if place.contains(", on @") => said.to_owned(),
        _ => text,
    }
}

fn said(door: &Door, what: &str, words: &str) -> PlaneError {
    let has = |word: &str| match word.contains(' ') {
        true => words.contains(word),
        false => words.split(|c: char| !c.is_alphanumeric()).any(|w| w == word),
    };
    // Before others: what a script was refused stands behind another code in older servers.
    let in_script = ["ACL failure", "user executing the script can't"];
    if has("NOPERM") || in_script.iter().any(|part| words.contains(part)) {
        return PlaneError::Refused(format!(
            "at {door} does not let user {:?} {what}: {words}; see its ACL rule there, deploy/plane/users.acl has \
             one that will do",
            door.user()
        ));
    }
    if has("NOAUTH") || has("WRONGPASS") || has("DENIED") {
        return refused_password(door);
    }
    if PASSING.into_iter().any(has) {
        return PlaneError::Away(format!("at {door} says: {words}"));
    }
    PlaneError::Refused(format!("at {door} refuses {what}: {words}"))
}

/// It wants a password, or another one.
fn refused_password(door: &Door) -> PlaneError {
    PlaneError::Refused(if door.has_password() {
        format!("at {door} refuses the password of user {:?}", door.user())
    } else {
        format!("at {door} wants a password: give SPRINGTIDE_PLANE_PASSWORD or --plane-password-file")
    })
}

/// Why no connection came to stand.
pub(super) fn unreachable(door: &Door, error: &io::Error) -> PlaneError {
    PlaneError::Away(format!("at {door} cannot be reached: {error}"))
}

/// Why TLS did not come about.
pub(super) fn tls_failed(door: &Door, error: &io::Error) -> PlaneError {
    let is_ours = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    let text = format!(
        "at {door}: TLS failed: {error}; does it speak TLS, and is its authority trusted (--plane-ca-cert)?"
    );
    // What ends in the middle may have been on its way down.
    if is_ours { PlaneError::Refused(text) } else { PlaneError::Away(text) }
}

/// It does not say anything.
pub(super) fn silent(door: &Door, within: std::time::Duration) -> PlaneError {
    PlaneError::Away(format!("at {door} does not answer within {:.1} s", within.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use redis::make_extension_error;
    use rstest::rstest;

    use super::*;

    fn door(url: &str) -> Door {
        Door::new(url, None, None).unwrap()
    }

    fn of(code: &str, detail: &str) -> PlaneError {
        let error = make_extension_error(code.to_owned(), Some(detail.to_owned()));
        told(&door("redis://ann:se-cret@h"), "append to springtide:r:cmd", &error)
    }

    #[rstest]
    #[case("OOM", "command not allowed when used memory > 'maxmemory'.")]
    #[case("LOADING", "Redis is loading the dataset in memory")]
    #[case("BUSY", "Redis is busy running a script.")]
    #[case("READONLY", "You can't write against a read only replica.")]
    #[case("MISCONF", "Redis is configured to save RDB snapshots, but it is currently unable to persist")]
    #[case("ERR", "max number of clients reached")]
    #[case("ERR", "Error running script (call to f_1): @user_script:1: -OOM command not allowed")]
    fn what_may_pass_is_away_in_its_own_words(#[case] code: &str, #[case] detail: &str) {
        let PlaneError::Away(said) = of(code, detail) else { panic!() };
        assert!(said.contains(detail.trim_end_matches('.')), "{said}");
        assert!(!said.contains("se-cret"), "{said}");
    }

    #[rstest]
    #[case("NOPERM", "this user has no permissions to run the 'xadd' command", "springtide:r:cmd")]
    #[case("ERR", "Error running script: @user_script: 1: -NOPERM No permissions", "\"ann\"")]
    #[case("ERR", "ACL failure in script: No permissions to access a key", "ACL rule")]
    #[case(
        "ERR",
        "The user executing the script can't access one of the keys script: 5b0d, on @user_script:5.",
        "ACL rule"
    )]
    #[case("WRONGPASS", "invalid username-password pair", "refuses the password of user \"ann\"")]
    #[case("WRONGTYPE", "Operation against a key holding the wrong kind of value", "springtide:r:cmd")]
    #[case("ERR", "unknown command 'EVAL'", "unknown command 'EVAL'")]
    fn what_never_works_is_refused(#[case] code: &str, #[case] detail: &str, #[case] part: &str) {
        let error = of(code, detail);
        assert!(!error.is_passing());
        let said = error.to_string();
        assert!(said.contains(part) && !said.contains("@user_script:5"), "{said}");
        assert!(!said.contains("se-cret") && said.lines().count() == 1, "{said}");
    }

    #[test]
    fn who_gave_no_password_is_told_how_to() {
        let error = make_extension_error("NOAUTH".into(), Some("Authentication required.".into()));
        let said = told(&door("redis://h"), "GET", &error).to_string();
        assert!(said.contains("SPRINGTIDE_PLANE_PASSWORD"), "{said}");
        let error = RedisError::from(io::Error::from(io::ErrorKind::ConnectionReset));
        assert!(told(&door("redis://h"), "GET", &error).is_passing());
    }
}
