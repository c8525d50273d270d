//! Where secrets come from: the first line of a file that a flag names, or else the environment. Tap
//! and run read the token that they share here, so that what one takes for it is what the other does.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// Environment variable of the tap's token.
pub(super) const TAP_TOKEN: &str = "SPRINGTIDE_TAP_TOKEN";
/// Environment variable of the password of the target's Redis.
pub(super) const REDIS_PASSWORD: &str = "SPRINGTIDE_REDIS_PASSWORD";

/// Environment variable of the password of the plane's Redis.
pub(super) const PLANE_PASSWORD: &str = "SPRINGTIDE_PLANE_PASSWORD";
/// Environment variable of what manager and workers share beside the plane.
pub(super) const PLANE_SECRET: &str = "SPRINGTIDE_PLANE_SECRET";
/// Environment variable of the password of the account that all users share.
pub(super) const PASSWORD: &str = "SPRINGTIDE_PASSWORD";

/// The first line of the file that a flag names, or else what the variable says, without blanks
/// around it. A variable that is empty is not set; a file that says nothing says an empty secret.
pub(super) fn secret(flag: &str, file: Option<&Path>, variable: &str) -> Result<Option<String>> {
    let Some(file) = file else {
        let said = std::env::var(variable).ok().map(|text| first_line(&text));
        return Ok(said.filter(|secret| !secret.is_empty()));
    };
    let text = fs::read_to_string(file).with_context(|| format!("{flag} {}", file.display()))?;
    Ok(Some(first_line(&text)))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}
