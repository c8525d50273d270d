//! Finds the tap and the Toxiproxy of a run before anything starts, and starts the tap of the
//! stand-in.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use rand::RngExt;

use super::secret::{TAP_TOKEN, secret};
use crate::{
    cli::LoadArgs,
    cluster::rig::{Harm, Rig},
    fault::FaultMode,
    plan::Plan,
    post::TapHello,
    record::{RiggingFacts, TapFacts, ToxiproxyFacts},
    route::Route,
    sampling::Samplers,
    standin::StandIn,
    tap::{self, BUFFER, Link, Tap},
    toxiproxy::Toxiproxy,
};

/// What stands between the target's workers and its API.
pub(super) struct Rigging {
    /// For the run's record.
    pub(super) facts: RiggingFacts,
    link: Option<Link>,
    toxiproxy: Option<Toxiproxy>,
    /// The tap of the stand-in; it lives as long as the run.
    built_in: Option<Tap>,
}

impl Rigging {
    /// Finds what the flags name.
    ///
    /// # Errors
    /// When it is not there, does not do what the plan asks for, or nothing was named that could.
    pub(super) async fn find(args: &LoadArgs, plan: &Plan) -> Result<Self> {
        let mut rigging =
            Self { facts: RiggingFacts::default(), link: None, toxiproxy: None, built_in: None };
        let named = |flag: &'static str, value: &Option<String>| {
            value.clone().filter(|v| !v.is_empty()).map(|v| (flag, v))
        };
        let (tap, toxiproxy) = (named("--tap", &args.tap), named("--toxiproxy", &args.toxiproxy));
        if let (None, Some((flag, value))) = (&args.host, tap.as_ref().or(toxiproxy.as_ref())) {
            bail!(
                "{flag} {value}: the stand-in brings a tap of its own; give a target with --host, or leave it out"
            );
        }
        if let Some((_, url)) = tap {
            let token = secret("--tap-token-file", args.tap_token_file.as_deref(), TAP_TOKEN)?;
            let token = token.filter(|t| !t.is_empty());
            let link = Link::new(&url, token).map_err(|e| anyhow!("--tap: {e}"))?;
            let hello = link.hello().await.map_err(|e| anyhow!("--tap: {e}"))?;
            let canary = link.canary(Route::Tasks, 0, args.patience.into()).await;
            if canary.status.is_none_or(|s| s == 502) {
                let upstream = &hello.upstream;
                bail!(
                    "--tap {url}: its upstream {upstream} gives no answer; is the target running, and is the tap's --upstream right?"
                );
            }
            rigging.facts.tap = Some(facts(&link, hello, false));
            rigging.link = Some(link);
        }
        if let (Some((_, url)), Some(name)) = (toxiproxy, &args.toxiproxy_proxy) {
            let mut proxy = Toxiproxy::new(&url, name).map_err(|e| anyhow!("--toxiproxy: {e}"))?;
            for fault in plan.cells.iter().map(|c| &c.fault).filter(|f| !f.is_none()) {
                Toxiproxy::check(fault).map_err(|e| anyhow!("--toxiproxy: {e}"))?;
            }
            for cleaned in proxy.open().await.map_err(|e| anyhow!("--toxiproxy: {e}"))? {
                tracing::warn!("an earlier run left something behind: {cleaned}");
            }
            let listen = proxy.listen().to_owned();
            rigging.facts.toxiproxy = Some(ToxiproxyFacts { url, proxy: name.clone(), listen });
            rigging.toxiproxy = Some(proxy);
        }
        let harmful = plan.scenarios.iter().find(|s| s.fault != FaultMode::None);
        let can_harm = args.host.is_none() || rigging.link.is_some() || rigging.toxiproxy.is_some();
        if let (Some(s), false) = (harmful, can_harm) {
            bail!(
                "--scenario {}: its fault {} needs a tap between the target's workers and its API (--tap), or a Toxiproxy (--toxiproxy)",
                s.id,
                s.fault
            );
        }
        Ok(rigging)
    }

    /// Sends one canary through the tap that was named: is the target behind it?
    ///
    /// # Errors
    /// When nothing answers there.
    pub(super) async fn look(&self, patience: Duration) -> Result<()> {
        let (Some(link), None) = (&self.link, &self.built_in) else { return Ok(()) };
        let canary = link.canary(Route::Tasks, 0, patience).await;
        if canary.status.is_none_or(|status| status == 502) {
            let upstream = self.facts.tap.as_ref().map(|t| t.upstream.as_str()).unwrap_or_default();
            bail!(
                "the tap {} reaches nothing at its upstream {upstream}; is the target running, and is the tap's --upstream right?",
                link.url()
            );
        }
        Ok(())
    }

    /// Puts a tap between the stand-in's workers and the stand-in.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn stand_before(&mut self, stand_in: &StandIn) -> Result<()> {
        // Nobody else on this machine has any business with its faults.
        let token = format!("{:032x}", rand::rng().random::<u128>());
        let tap = Tap::start(tap::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            upstream: stand_in.url().to_owned(),
            token: Some(token.clone()),
            buffer: BUFFER,
        })?;
        stand_in.post_through(tap.url())?;
        let link = Link::new(tap.url(), Some(token))?;
        self.facts.tap = Some(TapFacts {
            url: tap.url().to_owned(),
            upstream: stand_in.url().to_owned(),
            version: env!("CARGO_PKG_VERSION").into(),
            built_in: true,
        });
        self.link = Some(link);
        self.built_in = Some(tap);
        Ok(())
    }

    /// Sets the rig of the run up; `None` when there is nothing to read and nothing to do.
    pub(super) fn set_up(&mut self, run_id: &str, samplers: Samplers) -> Option<Rig> {
        let harm = match (self.toxiproxy.take(), &self.link) {
            (Some(proxy), _) => Some(Harm::Toxiproxy(Box::new(proxy))),
            (None, Some(link)) => Some(Harm::Tap(link.clone())),
            (None, None) => None,
        };
        let is_needed = harm.is_some() || !samplers.is_empty();
        is_needed.then(|| Rig::set_up(run_id, self.link.clone(), harm, samplers))
    }
}

fn facts(link: &Link, hello: TapHello, built_in: bool) -> TapFacts {
    TapFacts { url: link.url().to_owned(), upstream: hello.upstream, version: hello.version, built_in }
}
