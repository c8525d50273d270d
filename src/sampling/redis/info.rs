//! Reads what `INFO` says.

use std::collections::BTreeMap;

use crate::{micros::Micros, record::RedisFacts, telemetry::redis::RedisSample};

/// The fields of `INFO` by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Info<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Info<'a> {
    /// Reads the lines `name:value`; anything else is passed over.
    pub(super) fn read(text: &'a str) -> Self {
        Self(text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k, v.trim())).collect())
    }

    /// A field as it stands; empty when it is not there.
    pub(super) fn text(&self, name: &str) -> &'a str {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// A number; 0 when it is not there.
    fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }

    fn real(&self, name: &str) -> f64 {
        self.text(name).parse().ok().filter(|x: &f64| x.is_finite()).unwrap_or(0.0)
    }

    /// Whether this is what a Redis says of itself.
    pub(super) fn is_of_redis(&self) -> bool {
        !self.text("run_id").is_empty() && !self.text("used_memory").is_empty()
    }

    /// What goes into the record.
    pub(super) fn facts(&self, url: String) -> RedisFacts {
        RedisFacts {
            url,
            version: self.text("redis_version").to_owned(),
            run_id: self.text("run_id").to_owned(),
            maxmemory: self.number("maxmemory"),
            policy: self.text("maxmemory_policy").to_owned(),
        }
    }

    /// The part of a sample that `INFO` tells.
    pub(super) fn sample(&self) -> RedisSample {
        RedisSample {
            used_memory: self.number("used_memory"),
            used_memory_rss: self.number("used_memory_rss"),
            used_memory_peak: self.number("used_memory_peak"),
            net_input: self.number("total_net_input_bytes"),
            net_output: self.number("total_net_output_bytes"),
            input_kbps: self.real("instantaneous_input_kbps"),
            output_kbps: self.real("instantaneous_output_kbps"),
            blocked_clients: self.number("blocked_clients"),
            connected_clients: self.number("connected_clients"),
            evicted_keys: self.number("evicted_keys"),
            ops_per_second: self.number("instantaneous_ops_per_sec"),
            commands: self.number("total_commands_processed"),
            cpu: Micros(((self.real("used_cpu_sys") + self.real("used_cpu_user")) * 1e6).round() as u64),
            ..RedisSample::default()
        }
    }
}

/// What `commandstats` and `latencystats` say of one command since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Stat {
    pub(super) calls: u64,
    pub(super) busy: Micros,
    pub(super) p99: Option<Micros>,
}

/// Every command by name in lower case; subcommands are `config|get`.
pub(super) fn stats(commands: &str, latencies: &str) -> BTreeMap<String, Stat> {
    let mut all: BTreeMap<String, Stat> = BTreeMap::new();
    for (name, fields) in lines(commands, "cmdstat_") {
        let whole = |key: &str| field(fields, key).and_then(|v| v.parse().ok()).unwrap_or(0);
        let stat = Stat { calls: whole("calls"), busy: Micros(whole("usec")), p99: None };
        all.insert(name, stat);
    }
    for (name, fields) in lines(latencies, "latency_percentiles_usec_") {
        let p99 = field(fields, "p99").and_then(|v| v.parse::<f64>().ok()).filter(|x| x.is_finite());
        if let (Some(stat), Some(p99)) = (all.get_mut(&name), p99) {
            stat.p99 = Some(Micros(p99.round().max(0.0) as u64));
        }
    }
    all
}

fn lines<'a>(text: &'a str, start: &str) -> impl Iterator<Item = (String, &'a str)> {
    text.lines().filter_map(move |line| {
        let (name, fields) = line.trim().strip_prefix(start)?.split_once(':')?;
        Some((name.to_ascii_lowercase(), fields))
    })
}

fn field<'a>(fields: &'a str, key: &str) -> Option<&'a str> {
    fields.split(',').filter_map(|f| f.split_once('=')).find(|(k, _)| *k == key).map(|(_, v)| v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_oddities_are_zero() {
        let text = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\nused_memory:941792\r\nused_cpu_sys:1.25\r\nused_cpu_user:0.5\r\ninstantaneous_input_kbps:nan\r\n";
        let info = Info::read(text);
        assert!(info.is_of_redis());
        let sample = info.sample();
        assert_eq!((sample.used_memory, sample.cpu, sample.input_kbps), (941_792, Micros(1_750_000), 0.0));
        assert_eq!(info.facts("u".into()).version, "7.0.15");
        assert!(!Info::read("HTTP/1.1 400 Bad Request").is_of_redis());
    }

    #[test]
    fn commands_and_their_latencies_meet() {
        let all = stats(
            "# Commandstats\r\ncmdstat_lpush:calls=3,usec=82,usec_per_call=27.33,rejected_calls=0,failed_calls=0\r\ncmdstat_config|get:calls=1,usec=5\r\n",
            "latency_percentiles_usec_lpush:p50=82.431,p99=99.5,p99.9=120\r\nlatency_percentiles_usec_gone:p99=1\r\n",
        );
        assert_eq!(all["lpush"], Stat { calls: 3, busy: Micros(82), p99: Some(Micros(100)) });
        assert_eq!(all["config|get"], Stat { calls: 1, busy: Micros(5), p99: None });
        assert_eq!(all.len(), 2);
    }
}
