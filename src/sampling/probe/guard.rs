//! What ends a probe when springtide is killed and cannot do it itself.
//!
//! A small shell waits for the end of its input, which only springtide holds open. If the word that
//! all is well comes before, it goes; if not, springtide is dead, and it ends the group as
//! springtide would have. The kernel's own way (`PR_SET_PDEATHSIG`) needs unsafe code, is bound to a thread
//! and reaches one process, not a group.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::timeout,
};

const SCRIPT: &str = r#"read -r word; [ "$word" = done ] && exit
for how in "INT 10" "TERM 5" "KILL 0"; do
    kill -s "${how% *}" -- "-$1" || exit 0
    left=${how#* }
    while [ "$left" -gt 0 ] && kill -s 0 -- "-$1"; do sleep 1; left=$((left - 1)); done
done"#;

/// The shell.
pub(super) struct Guard(Child);

impl Guard {
    /// Watches over a group; `None` when there is no shell, and then nothing does.
    pub(super) fn over(group: i32) -> Option<Self> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "springtide-guard"]).arg(group.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Not of our group: Ctrl-C is for springtide.
        command.env_clear().env("PATH", "/usr/bin:/bin").process_group(0);
        match command.spawn() {
            Ok(child) => Some(Self(child)),
            Err(e) => {
                tracing::debug!("no guard over a probe: {e}");
                None
            }
        }
    }

    /// The group is gone: there is nothing left to watch over.
    pub(super) async fn dismiss(mut self) {
        if let Some(mut input) = self.0.stdin.take() {
            let _ = input.write_all(b"done\n").await;
        }
        let _ = timeout(Duration::from_secs(1), self.0.wait()).await;
    }
}
