//! Where a tap and a run find the token that they share: both read it here, so that what one takes
//! for it is what the other does.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// Environment variable of the token, for when no file says it.
const TOKEN: &str = "SPRINGTIDE_TAP_TOKEN";

/// The first line of the file that a flag names, or else what the environment says, without blanks
/// around it. A variable that is empty is not set; a file that says nothing says an empty token.
pub(super) fn token(flag: &str, file: Option<&Path>) -> Result<Option<String>> {
    let Some(file) = file else {
        return Ok(std::env::var(TOKEN).ok().map(|text| first_line(&text)).filter(|token| !token.is_empty()));
    };
    let text = fs::read_to_string(file).with_context(|| format!("{flag} {}", file.display()))?;
    Ok(Some(first_line(&text)))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}
