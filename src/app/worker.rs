//! `springtide worker`: makes load for one manager after another.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use tokio::sync::{Semaphore, watch};

use super::{
    Failure, Out, facts,
    fleet::{door, failure, plane_secret},
    manifest::Manifest,
    preflight,
    run::INTERRUPTED,
    sealed::Credentials,
    wanted::password,
};
use crate::{
    attack::{self, Attack},
    cli::WorkerArgs,
    cluster::worker::{Ask, Served, Worker},
    loadtests::{
        Kit,
        input::Input,
        session::{Account, Accounts},
        user::LOGINS_AT_ONCE,
    },
    plan,
    plane::{
        PlaneError,
        outbox::send_later,
        redis_streams::{After, Lobby, Offer, check},
        worker_end::{Terms, WorkerEnd},
    },
    scenario::Matrix,
    spans::Exporter,
    target::{Origin, Sockets},
    verdict::Exit,
};

/// How long the last words of a run may take to be brought out.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Somebody else's file in the spool is only taken up when nobody has written to it for so long.
const ABANDONED: Duration = Duration::from_secs(60);
/// Pause before a run is joined again, or another try is made.
const PAUSE: Duration = Duration::from_millis(200);

/// What is the same in every run.
struct Standing {
    name: String,
    build_hash: String,
    secret: Option<String>,
    /// The account of the flags and the environment: name, if it was given, and password.
    username: Option<String>,
    password: String,
    /// The matrix that alone is served, and its hash.
    matrix: Option<(PathBuf, String)>,
    spool: PathBuf,
    ask: watch::Receiver<Ask>,
}

/// Serves until told to stop. Says on stdout where it waits and by what name.
///
/// # Errors
/// When the flags or the plane are of no use, or a manager refused it.
pub async fn worker(
    args: WorkerArgs,
    out: &mut Out,
    stop: watch::Receiver<Option<String>>,
) -> Result<Exit, Failure> {
    let standing = Standing::new(&args, asks(stop)).map_err(Failure::usage)?;
    let door = door(&args.plane).map_err(Failure::usage)?;
    let checked = check(&door, args.plane.insecure_plane, None).await;
    checked.map_err(failure)?;
    let lobby = Lobby::at(&door);
    writeln!(out, "worker {} waits at {door}", standing.name)
        .and_then(|()| out.flush())
        .map_err(Failure::runtime)?;
    let mut after = After::Nothing;
    let mut ask = standing.ask.clone();
    loop {
        let offer = tokio::select! {
            biased;
            asked = ask.wait_for(|ask| *ask != Ask::Serve) => {
                let stopped = asked.map_or(Ask::Stop, |ask| *ask) == Ask::Stop;
                return Ok(if stopped { Exit::Interrupted } else { Exit::Pass });
            }
            offer = lobby.next_run(&after) => offer.map_err(failure)?,
        };
        standing.send_leftovers(&lobby).await;
        after = match standing.serve(&args, &lobby, &offer).await {
            Ok(Served::Ended) => {
                tracing::info!("run {} is over", offer.run);
                After::Over(offer)
            }
            Ok(Served::Lost(why)) => {
                tracing::warn!("run {}: {why}", offer.run);
                After::Lost(offer)
            }
            Ok(Served::Refused(why)) => {
                return Err(Failure::usage(anyhow!("refused by the manager of run {}: {why}", offer.run)));
            }
            Ok(Served::Drained) => return Ok(Exit::Pass),
            Ok(Served::Stopped) => return Ok(Exit::Interrupted),
            Err(Unserved::Plane(PlaneError::Gone)) => After::Over(offer),
            Err(Unserved::Plane(error)) if error.is_passing() => {
                tracing::warn!("run {}: {error}", offer.run);
                After::Lost(offer)
            }
            Err(Unserved::Plane(PlaneError::Held { name, .. })) => {
                let why = anyhow!("--name {name}: another worker of the plane goes by it; choose another");
                return Err(Failure::usage(why));
            }
            Err(Unserved::Plane(error)) => return Err(failure(error)),
            Err(Unserved::Here(error)) => return Err(Failure::runtime(error)),
        };
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why a run could not be served.
enum Unserved {
    Plane(PlaneError),
    Here(anyhow::Error),
}

impl From<PlaneError> for Unserved {
    fn from(error: PlaneError) -> Self {
        Self::Plane(error)
    }
}

/// A worker drains when it is terminated, and stops when it is interrupted.
fn asks(mut stop: watch::Receiver<Option<String>>) -> watch::Receiver<Ask> {
    let (sender, receiver) = watch::channel(Ask::Serve);
    tokio::spawn(async move {
        // The sender lives in main until the end.
        if let Ok(why) = stop.wait_for(Option::is_some).await.map(|why| why.clone()) {
            let ask = if why.as_deref() == Some(INTERRUPTED) { Ask::Stop } else { Ask::Drain };
            sender.send_replace(ask);
        }
        sender.closed().await;
    });
    receiver
}

impl Standing {
    fn new(args: &WorkerArgs, ask: watch::Receiver<Ask>) -> Result<Self> {
        let host = facts::host().name;
        let name = args.name.clone().unwrap_or_else(|| {
            let fit: String =
                host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(50).collect();
            format!("{}-{}", fit.trim_matches('-'), std::process::id())
        });
        if name == crate::plane::MANAGER {
            anyhow::bail!("--name {name}: is the manager's; choose another");
        }
        let matrix = match &args.matrix {
            Some(path) => Some((path.clone(), Matrix::load(path).map_err(|e| anyhow!("--{e}"))?.sha256)),
            None => None,
        };
        let username = args.username.clone().filter(|name| !name.is_empty());
        let password = password(args.password_file.as_deref())?;
        if let (Some(name), true) = (&username, password.is_empty()) {
            anyhow::bail!(
                "--username {name} needs a password: set SPRINGTIDE_PASSWORD or name a file with --password-file"
            );
        }
        Ok(Self {
            name,
            build_hash: facts::build_hash().context("cannot read our own program")?,
            secret: plane_secret(&args.plane)?,
            username,
            password,
            matrix,
            spool: args.spool.clone().unwrap_or_else(|| std::env::temp_dir().join("springtide-spool")),
            ask,
        })
    }

    /// Takes part in a run until it is over for us.
    async fn serve(&self, args: &WorkerArgs, lobby: &Lobby, offer: &Offer) -> Result<Served, Unserved> {
        let manifest = match Manifest::read(&offer.manifest) {
            Ok(manifest) => manifest,
            Err(why) => return Ok(Served::Refused(why)),
        };
        let exporter = match args.otlp.as_deref().filter(|url| !url.is_empty()) {
            Some(url) => {
                let exporter = Exporter::new(url, &manifest.run_id).map_err(|e| anyhow!("--otlp: {e}"));
                Some(exporter.map_err(Unserved::Here)?)
            }
            None => None,
        };
        let mut hello = facts::hello(self.build_hash.clone(), manifest.plan.hash());
        let mut attack = None;
        // Another build is sent away by the manager, whatever else there is to say.
        if manifest.build_hash == hello.build_hash {
            match self.get_ready(args, &manifest, exporter.as_ref()).await {
                Ok(ready) => attack = Some(ready),
                Err(why) => hello.trouble = Some(Failure::usage(why).to_string()),
            }
        }
        let terms = Terms {
            name: self.name.clone(),
            lease: Some(manifest.lease.into()),
            spool: Some(self.spool.join(&manifest.run_id)),
            manager: Some(offer.manager),
        };
        tracing::info!("joins run {} of {}, target {}", manifest.run_id, manifest.host, manifest.target);
        let plane = Arc::new(lobby.of_run(&offer.run).await?);
        let end = WorkerEnd::join(plane, &terms, hello).await?;
        let Some(attack) = attack else { return Ok(self.hear_refusal(end).await) };
        let mut worker = Worker {
            end,
            driver: Arc::new(attack),
            run_id: manifest.name,
            settings: manifest.plan.settings,
            ask: self.ask.clone(),
        };
        let served = worker.serve().await;
        let Worker { end, driver, .. } = worker;
        let lost = end.leave(LAST_WORDS).await;
        if lost > 0 {
            tracing::error!("{lost} reports could neither be sent nor put by in {}", self.spool.display());
        }
        // Users hang up; it takes them a moment.
        let _ = tokio::task::spawn_blocking(move || drop(driver)).await;
        if let Some(exporter) = exporter {
            tracing::info!("{}", exporter.finish().await);
        }
        Ok(served)
    }

    /// Waits for the manager to say no, which it must.
    async fn hear_refusal<P: crate::plane::Plane>(&self, mut end: WorkerEnd<P>) -> Served {
        use crate::plane::{Command, worker_end::Word};
        let mut ask = self.ask.clone();
        let served = loop {
            let word = tokio::select! {
                _ = ask.wait_for(|ask| *ask != Ask::Serve) => break Served::Stopped,
                word = end.next() => word,
            };
            match word {
                Word::Command(Command::Refuse { member, why }) if member == *end.member() => {
                    break Served::Refused(why);
                }
                Word::Command(Command::End) => break Served::Ended,
                Word::Lost(why) => break Served::Lost(why),
                Word::Command(_) => {}
            }
        };
        end.leave(LAST_WORDS).await;
        served
    }

    /// Starts the users of a run.
    ///
    /// # Errors
    /// Why it cannot take part, one line with the remedy.
    async fn get_ready(
        &self,
        args: &WorkerArgs,
        manifest: &Manifest,
        exporter: Option<&Exporter>,
    ) -> Result<Attack> {
        let plan = &manifest.plan;
        if let Some((path, sha256)) = self.matrix.as_ref().filter(|(_, sha)| *sha != plan.matrix_sha256) {
            return Err(anyhow!(
                "another matrix: {sha256} here (--matrix {}), the manager's is {} ({}); give both the same file",
                path.display(),
                plan.matrix_sha256,
                plan.matrix_name
            ));
        }
        let is_tls = manifest.target.starts_with("https://");
        let ca = args.ca_cert.as_deref().filter(|_| is_tls);
        let origin = Arc::new(Origin::new(&manifest.target, ca)?);
        let accounts = self.accounts(manifest)?;
        let patience = plan.settings.patience.into();
        preflight::look(&origin, false, patience).await?;
        let users = plan.cells.iter().map(|c| c.users).max().unwrap_or(1);
        facts::allow_open_files(u64::from(users) * 2 + 256).map_err(|e| anyhow!("{e}"))?;
        let threads = args.load_threads.unwrap_or_else(|| attack::threads_for(users, facts::cores()));
        let kit = Arc::new(Kit {
            origin,
            sockets: Arc::new(Sockets::default()),
            input: Input::sent(plan.input.clone(), manifest.input.clone()),
            accounts,
            logins: Semaphore::new(LOGINS_AT_ONCE),
            refresh_after: manifest.refresh_after.into(),
            timeout: patience,
            spans: exporter.map(Exporter::sender),
            title: format!("springtide {}", manifest.run_id),
            most_users: users,
        });
        Attack::launch(users, threads, &kit).context("cannot start the load")
    }

    /// Whose accounts its users use: our own, or what the manager sealed for us.
    fn accounts(&self, manifest: &Manifest) -> Result<Accounts> {
        let sealed = match (&manifest.sealed, &self.secret) {
            (Some(sealed), Some(secret)) => Some(Credentials::open(sealed, secret, &manifest.run_id)?),
            (Some(_), None) if manifest.username.is_none() || self.password.is_empty() => {
                return Err(anyhow!(
                    "the manager sealed the target's accounts and this worker has no secret; set SPRINGTIDE_PLANE_SECRET or name a file with --plane-secret-file"
                ));
            }
            _ => None,
        };
        let (account, key) = sealed.map_or((None, None), |c| (c.account, c.key));
        if manifest.plan.accounts == plan::Accounts::Registered {
            let key = key.unwrap_or_else(|| Manifest::open_key(&manifest.run_id));
            return Ok(Accounts::Registered { prefix: Manifest::prefix(&manifest.run_id), key });
        }
        let username = self.username.clone().or_else(|| manifest.username.clone());
        let own = username.filter(|_| !self.password.is_empty()).map(|u| (u, self.password.clone()));
        let (username, password) = own.or(account).ok_or_else(|| {
            anyhow!(
                "this worker has no password for account {} of the target; set SPRINGTIDE_PASSWORD or name a file with --password-file, or let the manager seal it (SPRINGTIDE_PLANE_SECRET)",
                manifest.username.as_deref().unwrap_or("-")
            )
        })?;
        Ok(Accounts::Shared(Account { username, password }))
    }

    /// Sends what was put by when the plane was away, where its run is still open.
    async fn send_leftovers(&self, lobby: &Lobby) {
        let below = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        for folder in below(&self.spool).filter(|f| f.is_dir()) {
            let Some(run) = folder.file_name().and_then(|n| n.to_str()).map(str::to_owned) else { continue };
            for file in below(&folder).filter(|f| self.is_ours(f)) {
                let sent = match lobby.of_run(&run).await {
                    Ok(plane) => send_later(&plane, &file).await,
                    Err(error) => Err(error),
                };
                match sent {
                    Ok(sent) => tracing::info!("sent {sent} reports of run {run} that were put by"),
                    // The run is over: nobody will ask for them.
                    Err(PlaneError::Gone) => drop(fs::remove_file(&file)),
                    Err(error) => tracing::warn!("{}: {error}; kept for later", file.display()),
                }
            }
            // Only when it is empty.
            let _ = fs::remove_dir(&folder);
        }
    }

    /// Whether nobody else writes to it.
    fn is_ours(&self, file: &Path) -> bool {
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let Some(of) = name.strip_suffix(".spool").and_then(|n| n.rsplit_once('.')) else { return false };
        let written = fs::metadata(file).and_then(|m| m.modified());
        let age = written.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        of.0 == self.name || age.is_some_and(|age| age > ABANDONED)
    }
}
