//! The one gate: bearer tokens, and on the admin port also the `Host` and `Origin` that browsers send.
//!
//! Browsers are why the latter matter: a web page can post to `127.0.0.1` (any method, with some effort also DELETE),
//! and a name that resolves to it later passes for same-origin. So the admin port serves only hosts that it knows and
//! no page but its own.

use std::sync::Arc;

use http::{HeaderMap, Method, Uri, header};

use super::TokenFile;
use crate::error::{Code, Error, Result};

/// Longest token looked at.
const MAX_TOKEN: usize = 4096;

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Data,
    Admin,
}

/// Decides on every request of one port, before anything else does.
#[derive(Debug, Clone)]
pub struct Gate {
    role: Role,
    admin: Option<Arc<TokenFile>>,
    data: Option<Arc<TokenFile>>,
    hosts: Arc<[String]>,
}

/// Health checks come from probes that hold no token, and tell nothing.
const OPEN: [&str; 4] = ["/livez", "/readyz", "/v2/health/live", "/v2/health/ready"];

impl Gate {
    /// A gate for a port. `hosts` are names, besides addresses and `localhost`, that the admin port is called by.
    pub fn new(
        role: Role,
        admin: Option<Arc<TokenFile>>,
        data: Option<Arc<TokenFile>>,
        hosts: Vec<String>,
    ) -> Self {
        Self { role, admin, data, hosts: hosts.into() }
    }

    /// May this request go on?
    ///
    /// # Errors
    /// `NO_CREDENTIALS`, `WRONG_ROLE`, `HOST_REFUSED` or `ORIGIN_REFUSED`.
    pub fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<()> {
        if self.role == Role::Admin {
            self.check_browser(uri, headers)?;
        }
        if (method == Method::GET || method == Method::HEAD) && OPEN.contains(&uri.path()) {
            return Ok(());
        }
        let required = match self.role {
            Role::Admin => &self.admin,
            Role::Data => &self.data,
        };
        if required.is_none() {
            return Ok(());
        }
        let token = bearer(headers).ok_or_else(|| {
            Error::new(Code::NoCredentials, "this port requires the header Authorization: Bearer <token>")
        })?;
        let accepted = |file: &Option<Arc<TokenFile>>| file.as_ref().is_some_and(|file| file.accepts(token));
        // Whoever may change models may also call them.
        match (self.role, accepted(&self.admin), accepted(&self.data)) {
            (_, true, _) | (Role::Data, _, true) => Ok(()),
            (Role::Admin, false, true) => {
                Err(Error::new(Code::WrongRole, "this token is for the data port, not for the admin port"))
            }
            _ => Err(Error::new(Code::NoCredentials, "the bearer token is not one of this server's")),
        }
    }

    fn check_browser(&self, uri: &Uri, headers: &HeaderMap) -> Result<()> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        // HTTP/2 carries the host in the URI.
        let host = host.or_else(|| uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default();
        if !self.knows(host) {
            return Err(Error::new(
                Code::HostRefused,
                "this port is not known by the name in the Host header; start the server with --admin-host NAME to \
                 serve it under a name",
            ));
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default();
        let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if own == Some(host) {
            return Ok(());
        }
        Err(Error::new(Code::OriginRefused, "a page of another origin may not call the admin port"))
    }

    fn knows(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<std::net::IpAddr>().is_ok()
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// The one bearer token of a request; none if there are several headers or another scheme.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty() && token.len() <= MAX_TOKEN)
        .then_some(token)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(token: &str) -> Arc<TokenFile> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        writeln!(file, "{token}").expect("written");
        TokenFile::open(file.path()).expect("tokens")
    }

    fn check(gate: &Gate, method: &str, path: &str, headers: &[(&str, &str)]) -> Option<Code> {
        let mut map = HeaderMap::new();
        map.insert(header::HOST, "localhost:8081".parse().expect("a host"));
        for (name, value) in headers {
            let name: header::HeaderName = name.parse().expect("a name");
            let value = value.parse().expect("a value");
            if name == header::AUTHORIZATION {
                map.append(name, value);
            } else {
                map.insert(name, value);
            }
        }
        gate.check(&method.parse().expect("a method"), &path.parse().expect("a path"), &map)
            .err()
            .map(|error| error.code())
    }

    const ADMIN: &str = "admin-token-0123456789";
    const DATA: &str = "data-token-0123456789";

    #[test]
    fn tokens_by_role() {
        let (admin, data) = (Some(file(ADMIN)), Some(file(DATA)));
        let admin_gate = Gate::new(Role::Admin, admin.clone(), data.clone(), vec![]);
        let data_gate = Gate::new(Role::Data, admin, data, vec![]);
        let bearer = |token: &str| format!("Bearer {token}");
        for (gate, headers, expected) in [
            (&admin_gate, vec![], Some(Code::NoCredentials)),
            (&admin_gate, vec![("authorization", bearer(ADMIN))], None),
            (&admin_gate, vec![("authorization", bearer(DATA))], Some(Code::WrongRole)),
            (
                &admin_gate,
                vec![("authorization", bearer("wrong-token-0123456789"))],
                Some(Code::NoCredentials),
            ),
            (&admin_gate, vec![("authorization", ADMIN.to_owned())], Some(Code::NoCredentials)),
            (&admin_gate, vec![("authorization", format!("Basic {ADMIN}"))], Some(Code::NoCredentials)),
            (&admin_gate, vec![("authorization", bearer(""))], Some(Code::NoCredentials)),
            (&admin_gate, vec![("authorization", bearer(&"x".repeat(1 << 20)))], Some(Code::NoCredentials)),
            (
                &admin_gate,
                vec![("authorization", bearer(ADMIN)), ("authorization", bearer(DATA))],
                Some(Code::NoCredentials),
            ),
            (&data_gate, vec![], Some(Code::NoCredentials)),
            (&data_gate, vec![("authorization", bearer(ADMIN))], None),
            (&data_gate, vec![("authorization", format!("bearer {DATA}"))], None),
        ] {
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(check(gate, "POST", "/v1/models", &headers), expected, "{headers:.60?}");
        }
        assert_eq!(check(&admin_gate, "GET", "/livez", &[]), None);
        assert_eq!(check(&admin_gate, "POST", "/livez", &[]), Some(Code::NoCredentials));
    }

    #[test]
    fn browsers_of_other_origins_are_refused_whatever_the_method() {
        let gate = Gate::new(Role::Admin, None, None, vec!["baton.example".to_owned()]);
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            for origin in ["http://evil.example", "null", "https://localhost:9999", "http://localhost"] {
                let refused = check(&gate, method, "/v1/models/a", &[("origin", origin)]);
                assert_eq!(refused, Some(Code::OriginRefused), "{method} {origin}");
            }
            assert_eq!(check(&gate, method, "/", &[("origin", "http://localhost:8081")]), None);
            assert_eq!(
                check(&gate, method, "/", &[("host", "rebound.example:8081")]),
                Some(Code::HostRefused)
            );
        }
        for host in ["127.0.0.1:8081", "[::1]:8081", "10.0.0.7", "LOCALHOST", "baton.example:8081"] {
            assert_eq!(check(&gate, "GET", "/", &[("host", host)]), None, "{host}");
        }
    }
}
