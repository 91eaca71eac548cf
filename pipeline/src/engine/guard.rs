//! Who may speak to the engine.
//!
//! On the loopback everybody on this machine may, but no page in a browser: a request with a foreign `Host` (a name that was rebound to
//! 127.0.0.1) or a foreign `Origin` is refused. With a token every request needs it, but those for health. Functions and jobs
//! are not given the token: they have an address with a secret of this engine's run in its path, below which they may post events and read.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Method, StatusCode};
use sha2::{Digest, Sha256};

use super::{Engine, api};

#[derive(Debug)]
pub(crate) struct Guard {
    address: SocketAddr,
    token: Option<String>,
    secret: String,
}

impl Guard {
    pub(crate) fn new(address: SocketAddr, token: Option<String>) -> Self {
        Self { address, token, secret: uuid::Uuid::new_v4().simple().to_string() }
    }

    /// Where the engine's own processes post events, and below which they read `v1/...`.
    pub(crate) fn sink(&self) -> String {
        let ip = match self.address.ip() {
            ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        let address = SocketAddr::new(ip, self.address.port());
        match self.token {
            Some(_) => format!("http://{address}/sink/{}/", self.secret),
            None => format!("http://{address}/"),
        }
    }

    /// The path that is asked for, without the secret; or why not.
    fn admitted<'a>(
        &self,
        method: &Method,
        path: &'a str,
        headers: &HeaderMap,
    ) -> Result<&'a str, (StatusCode, &'static str)> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if self.address.ip().is_loopback() {
            let is_own = |host: &str| {
                let (name, port) = match host.rsplit_once(':') {
                    Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
                    _ => (host, Some(80)),
                };
                let is_named =
                    ["localhost", "127.0.0.1", "[::1]"].iter().any(|own| own.eq_ignore_ascii_case(name))
                        || name.trim_matches(['[', ']']).parse() == Ok(self.address.ip());
                is_named && port == Some(self.address.port())
            };
            if !headers.get_all(HOST).iter().all(|host| host.to_str().is_ok_and(is_own)) {
                return Err((StatusCode::FORBIDDEN, "this host name is not the engine's"));
            }
            if headers.contains_key(ORIGIN)
                && !text(ORIGIN).and_then(|origin| origin.strip_prefix("http://")).is_some_and(is_own)
            {
                return Err((StatusCode::FORBIDDEN, "requests from other pages are refused"));
            }
        }
        let Some(token) = &self.token else { return Ok(path) };
        if path.starts_with("/health/") {
            return Ok(path);
        }
        if let Some(rest) = path.strip_prefix("/sink/") {
            let (secret, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let rest = if rest.is_empty() { "/" } else { rest };
            let is_right = is_same(secret, &self.secret) && (rest == "/" || method == Method::GET);
            let refusal = (StatusCode::UNAUTHORIZED, "this is not the sink of a running pipeline");
            return if is_right { Ok(rest) } else { Err(refusal) };
        }
        let given = text(AUTHORIZATION).and_then(|value| value.split_once(' '));
        let is_right = given.is_some_and(|(scheme, given)| {
            scheme.eq_ignore_ascii_case("bearer") && is_same(given.trim(), token)
        });
        if is_right { Ok(path) } else { Err((StatusCode::UNAUTHORIZED, "a bearer token is needed")) }
    }
}

/// Compared by their digests: how long it takes says nothing about the secret.
fn is_same(given: &str, secret: &str) -> bool {
    Sha256::digest(given) == Sha256::digest(secret)
}

/// In front of all routes, which see the path without the secret.
pub(crate) async fn check(State(engine): State<Arc<Engine>>, mut request: Request, next: Next) -> Response {
    let asked = request.uri().path();
    let path = match engine.guard.admitted(request.method(), asked, request.headers()) {
        Ok(path) => path,
        Err((status, text)) => return api::refused(status, text),
    };
    if path.len() < asked.len() {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        // What is left of a path and query that were well-formed is so too.
        if let Ok(path) = PathAndQuery::try_from(format!("{path}{query}")) {
            *request.uri_mut() = Uri::from(path);
        }
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(guard: &Guard, method: &Method, path: &str, pairs: &[(&str, &str)]) -> u16 {
        let headers = pairs
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::try_from(*name).unwrap(), http::HeaderValue::try_from(*value).unwrap())
            })
            .collect();
        guard.admitted(method, path, &headers).map_or_else(|(status, _)| status.as_u16(), |_| 200)
    }

    #[test]
    fn pages_of_others_do_not_reach_the_loopback() {
        let guard = Guard::new("127.0.0.1:8090".parse().unwrap(), None);
        for (headers, expected) in [
            (&[("host", "127.0.0.1:8090")][..], 200),
            (&[("host", "Localhost:8090")], 200),
            (&[("host", "[::1]:8090")], 200),
            (&[("host", "localhost")], 403),
            (&[("host", "localhost:8091")], 403),
            (&[("host", "evil.example:8090")], 403),
            (&[("host", "127.0.0.1.evil.example:8090")], 403),
            (&[("host", "localhost:8090"), ("host", "evil.example:8090")], 403),
            (&[("host", "localhost:8090"), ("origin", "http://localhost:8090")], 200),
            (&[("host", "localhost:8090"), ("origin", "https://evil.example")], 403),
            (&[("host", "localhost:8090"), ("origin", "http://localhost:3000")], 403),
            (&[("host", "localhost:8090"), ("origin", "null")], 403),
        ] {
            assert_eq!(status(&guard, &Method::POST, "/", headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn with_a_token_only_health_and_the_own_sink_are_open() {
        let guard = Guard::new("0.0.0.0:8090".parse().unwrap(), Some("secret".into()));
        let sink = guard.sink();
        let path = sink.strip_prefix("http://127.0.0.1:8090").unwrap();
        for (path, headers, expected) in [
            ("/", &[][..], 401),
            ("/", &[("authorization", "Bearer secret")], 200),
            ("/", &[("authorization", "bearer secret")], 200),
            ("/", &[("authorization", "Bearer secre")], 401),
            ("/", &[("authorization", "secret")], 401),
            ("/health/readiness", &[], 200),
            ("/v1/events", &[], 401),
            ("/metrics", &[], 401),
            (path, &[], 200),
            (path.trim_end_matches('/'), &[], 200),
            (&format!("{path}v1/deliveries/requeue"), &[], 401),
            ("/sink/guess", &[], 401),
            ("/sink/guess", &[("authorization", "Bearer secret")], 401),
        ] {
            assert_eq!(status(&guard, &Method::POST, path, headers), expected, "{path} {headers:?}");
        }
        let records = format!("{path}v1/runs");
        assert_eq!(guard.admitted(&Method::GET, &records, &HeaderMap::new()), Ok("/v1/runs"));
        assert_eq!(status(&guard, &Method::GET, "/sink/guess/v1/runs", &[]), 401);
    }
}
