//! Where the target is: an `http://` or `https://` address, resolved once.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hyper::{
    Uri,
    header::{self, HeaderMap, HeaderValue},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::trust::Trust;

/// The URL under which this machine reaches a server that listens on the address.
pub fn url_of(addr: SocketAddr) -> String {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, addr.port()))
}

/// A target's address with everything needed to connect to it. Cheap to share.
pub struct Origin {
    /// As given, without a trailing slash.
    url: String,
    /// Path in front of every route; empty for most.
    pub(super) prefix: String,
    /// Headers of every request.
    pub(super) headers: HeaderMap,
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
    addrs: Vec<SocketAddr>,
    /// Index of the address that answered last.
    good: AtomicUsize,
}

/// Why an address cannot be a target.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// It is no URL of a kind we speak.
    #[error("{url:?} is no target address: {why}; write http://HOST[:PORT] or https://HOST[:PORT]")]
    Bad {
        /// What was given.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// Its host has no address.
    #[error("{host:?} cannot be resolved: {source}")]
    Unresolved {
        /// The host.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// The certificates to trust cannot be used.
    #[error("CA certificates {path}: {why}")]
    Certificates {
        /// The file, or `of the system`.
        path: String,
        /// What is wrong.
        why: String,
    },
}

impl Origin {
    /// Reads an address and resolves it. With `https`, `ca` is a PEM file of certificates to trust
    /// instead of the system's.
    ///
    /// # Errors
    /// When it is no `http(s)` address, carries credentials, query or fragment, cannot be
    /// resolved, or the certificates cannot be read.
    pub fn new(url: &str, ca: Option<&Path>) -> Result<Self, OriginError> {
        // Whatever stands before an @ may be a password, in an address of whatever form.
        let shown = url.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, host)| format!("…@{host}"));
        let bad = |why: &str| OriginError::Bad { url: shown.clone(), why: why.into() };
        let uri: Uri = url.trim().parse().map_err(|e: hyper::http::uri::InvalidUri| bad(&e.to_string()))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("no http:// or https:// in front")),
        };
        let authority = uri.authority().ok_or_else(|| bad("no host"))?;
        if authority.as_str().contains('@') {
            let hidden = OriginError::Bad {
                url: format!("{}://…@{}", uri.scheme_str().unwrap_or_default(), authority.host()),
                why: "credentials do not belong in the address (use --username and SPRINGTIDE_PASSWORD)"
                    .into(),
            };
            return Err(hidden);
        }
        if uri.query().is_some() {
            return Err(bad("a query does not belong in it"));
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(bad("no host"));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let has_port = authority.as_str().len() > host.len();
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(bad("its port is no number from 1 to 65535"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let addrs: Vec<SocketAddr> = (bare, port)
            .to_socket_addrs()
            .map_err(|source| OriginError::Unresolved { host: bare.into(), source })?
            .collect();
        if addrs.is_empty() {
            let source = io::Error::new(io::ErrorKind::NotFound, "no address");
            return Err(OriginError::Unresolved { host: bare.into(), source });
        }
        let tls = if tls {
            let name = ServerName::try_from(bare.to_owned()).map_err(|e| bad(&e.to_string()))?;
            Some((connector(ca)?, name))
        } else {
            None
        };
        Ok(Self {
            url: url.trim().trim_end_matches('/').to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            headers: headers(HeaderValue::from_str(authority.as_str()).map_err(|e| bad(&e.to_string()))?),
            tls,
            addrs,
            good: AtomicUsize::new(0),
        })
    }

    /// The same, asking for answers of another kind than JSON.
    pub fn accepting(mut self, kinds: &'static str) -> Self {
        self.headers.insert(header::ACCEPT, HeaderValue::from_static(kinds));
        self
    }

    /// The address as given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The socket addresses to try, the one that answered last first.
    pub(super) fn addrs(&self) -> impl Iterator<Item = (usize, SocketAddr)> + '_ {
        let first = self.good.load(Ordering::Relaxed);
        (0..self.addrs.len()).map(move |i| {
            let at = (first + i) % self.addrs.len();
            (at, self.addrs[at])
        })
    }

    pub(super) fn answered(&self, index: usize) {
        self.good.store(index, Ordering::Relaxed);
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

fn headers(host: HeaderValue) -> HeaderMap {
    let agent = HeaderValue::from_static(concat!("springtide/", env!("CARGO_PKG_VERSION")));
    let json = HeaderValue::from_static("application/json");
    [(header::HOST, host), (header::USER_AGENT, agent), (header::ACCEPT, json)].into_iter().collect()
}

/// What opens TLS connections to servers that the system trusts, or only to those that the file
/// vouches for.
///
/// # Errors
/// When there is no certificate to trust.
pub(crate) fn connector(ca: Option<&Path>) -> Result<TlsConnector, OriginError> {
    let (mut roots, mut given) = (RootCertStore::empty(), Vec::new());
    let fail = |path: &dyn fmt::Display, why: &dyn fmt::Display| OriginError::Certificates {
        path: path.to_string(),
        why: why.to_string(),
    };
    match ca {
        Some(path) => {
            for cert in CertificateDer::pem_file_iter(path).map_err(|e| fail(&path.display(), &e))? {
                let cert = cert.map_err(|e| fail(&path.display(), &e))?;
                given.push(cert.clone());
                roots.add(cert).map_err(|e| fail(&path.display(), &e))?;
            }
        }
        None => {
            for cert in rustls_native_certs::load_native_certs().certs {
                // One odd certificate of the system does not matter; an empty store does.
                let _ = roots.add(cert);
            }
        }
    }
    if roots.is_empty() {
        return Err(fail(&ca.map_or("of the system".into(), |p| p.display().to_string()), &"there are none"));
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let trust = Trust::new(roots, given, Arc::clone(&provider)).map_err(|e| fail(&"of the system", &e))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| fail(&"of the system", &e))?
        .dangerous()
        .with_custom_certificate_verifier(trust)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A URL that may be wrong in any way, without what stands before its last `@`.
pub(crate) fn without_credentials(url: &str) -> String {
    match url.rsplit_once('@') {
        None => url.to_owned(),
        Some((before, after)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://…@{after}"),
            None => format!("…@{after}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("localhost:5000", "no http://")]
    #[case("ftp://localhost", "no http://")]
    #[case("http://", "no target address")]
    #[case("http://user:secret@localhost", "credentials do not belong")]
    #[case("http://localhost/?a=b", "a query does not belong")]
    #[case("http://localhost:99999", "port")]
    #[case("http://localhost:", "port")]
    #[case("http://localhost:0", "port")]
    #[case("ann:secret@yaptide:5000", "no http://")]
    #[case("ftp://ann:secret@yaptide", "no http://")]
    #[case("http://ann:secret@yaptide:port", "no target address")]
    fn a_bad_address_is_refused(#[case] url: &str, #[case] why: &str) {
        let said = Origin::new(url, None).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }

    #[test]
    fn an_ipv6_address_is_no_port() {
        for url in ["http://[::1]", "http://[::1]:5000"] {
            assert_eq!(Origin::new(url, None).unwrap().url(), url);
        }
    }

    #[test]
    fn a_prefix_is_kept_and_a_slash_is_not() {
        let origin = Origin::new("http://127.0.0.1:5000/api/", None).unwrap();
        assert_eq!((origin.url(), origin.prefix.as_str()), ("http://127.0.0.1:5000/api", "/api"));
    }
}
