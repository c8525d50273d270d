//! A base URL of plain HTTP, taken apart.

use hyper::{
    Uri,
    http::uri::{PathAndQuery, Scheme},
};

/// `http://host:port[/prefix]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// Name or address, an IPv6 one without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// What stands before each path; empty or `/…` without a slash at its end.
    prefix: String,
}

impl Base {
    /// Reads a URL; `None` for anything but plain HTTP to a host, perhaps below a path.
    pub(super) fn read(url: &str) -> Option<Self> {
        let uri: Uri = url.trim().trim_end_matches('/').parse().ok()?;
        let authority = uri.authority()?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let is_plain = uri.scheme() == Some(&Scheme::HTTP) && uri.query().is_none() && !host.is_empty();
        // `http://host:` and `http://host:70000` have something there that is no port.
        let port = match authority.as_str().strip_prefix(authority.host())? {
            "" => 80,
            port => port.strip_prefix(':')?.parse().ok()?,
        };
        is_plain.then(|| Self {
            host: host.to_owned(),
            port,
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// `host:port`, as the header `Host` has it.
    pub(super) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// The target of a request below this base; `None` when the two make none.
    pub(super) fn join(&self, path: &str) -> Option<Uri> {
        let whole = PathAndQuery::try_from(format!("{}{path}", self.prefix)).ok()?;
        Some(Uri::from(whole))
    }

    /// The same request's target here, path and query unchanged.
    pub(super) fn target_of(&self, uri: &Uri) -> Option<Uri> {
        let asked = uri.path_and_query()?;
        if self.prefix.is_empty() || asked.as_str() == "*" {
            return Some(Uri::from(asked.clone()));
        }
        self.join(asked.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_plain_http() {
        let base = Base::read("http://127.0.0.1:8475/").unwrap();
        assert_eq!((base.authority().as_str(), base.prefix.as_str()), ("127.0.0.1:8475", ""));
        let base = Base::read("http://[::1]:1/api/").unwrap();
        assert_eq!((base.authority().as_str(), base.host.as_str()), ("[::1]:1", "::1"));
        assert_eq!(base.join("/tasks").unwrap(), "/api/tasks");
        assert_eq!(Base::read("http://tap").unwrap().port, 80);
        let bad = ["https://x:1", "127.0.0.1:1", "http://", "", "http://x:70000", "http://x:", "http://a@b"];
        for bad in bad.iter().chain(&["http://x/?a=b", "ftp://x", "http://x y"]) {
            assert_eq!(Base::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn targets_keep_path_and_query() {
        let (plain, below) = (Base::read("http://a").unwrap(), Base::read("http://a/b").unwrap());
        for (asked, at_plain, at_below) in [
            ("/tasks?x=1&y", "/tasks?x=1&y", "/b/tasks?x=1&y"),
            ("//x/../y", "//x/../y", "/b//x/../y"),
            ("*", "*", "*"),
            ("http://other/z", "/z", "/b/z"),
        ] {
            let asked: Uri = asked.parse().unwrap_or_else(|_| PathAndQuery::from_static(asked).into());
            assert_eq!(plain.target_of(&asked).unwrap().to_string(), at_plain);
            assert_eq!(below.target_of(&asked).unwrap().to_string(), at_below);
        }
    }
}
