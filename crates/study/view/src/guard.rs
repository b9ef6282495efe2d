//! Who may ask: requests to this machine by its address, with the token if there is one.
//!
//! A page elsewhere can make a browser send requests here, but it cannot read answers (no CORS header is ever sent),
//! unless its own name resolves to this machine (DNS rebinding). Its requests then carry that name in `Host`, which is
//! refused: an address cannot be rebound. With a token that check is not needed, for the rebound page has no cookie, and
//! a machine may then be called by its name.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;

/// Nothing but what this server itself sends: no inline script, no other origin, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Least characters of a token: 16 of 64 letters are 96 bits.
const TOKEN_MIN: usize = 16;

/// What a request must bring.
#[derive(Debug)]
pub(crate) struct Guard {
    token: Option<String>,
    /// Cookies do not know ports; the name does.
    cookie: String,
}

impl Guard {
    pub(crate) fn new(token: Option<String>, port: u16) -> Self {
        Self { token, cookie: format!("triptych_{port}") }
    }

    /// Whether a token may be used.
    pub(crate) fn is_sound(token: &str) -> bool {
        token.len() >= TOKEN_MIN && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    }

    fn host(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("");
        if self.token.is_some() || is_address(host) {
            return Ok(());
        }
        let message = format!("this page is not called '{host}': use its address, such as http://127.0.0.1");
        Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, message))
    }

    /// The token that the request brings, from the address, the header or the cookie.
    fn brings<'a>(&self, request: &'a Request) -> Option<(&'a str, bool)> {
        if let Some(token) = in_query(request.uri().query().unwrap_or("")) {
            return Some((token, true));
        }
        let text = |name: HeaderName| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
        if let Some(token) = text(header::AUTHORIZATION).strip_prefix("Bearer ") {
            return Some((token, false));
        }
        let mut cookies = text(header::COOKIE).split(';').filter_map(|c| c.trim().split_once('='));
        cookies.find(|(name, _)| *name == self.cookie).map(|(_, token)| (token, false))
    }
}

/// `127.0.0.1:8080`, `[::1]`, `localhost`: anything that no name server can make up.
fn is_address(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((v6, _)) => return v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn in_query(query: &str) -> Option<&str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(k, _)| *k == "token").map(|(_, v)| v)
}

/// Takes as long for a wrong token as for the right one.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

/// Refuses what may not ask, and puts the headers on every answer.
pub(crate) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let mut response = match admit(&guard, &request) {
        Ok(None) => next.run(request).await,
        Ok(Some(redirect)) => redirect,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// `Some`: the token came in the address; it is put into a cookie and out of sight.
fn admit(guard: &Guard, request: &Request) -> Result<Option<Response>, ApiError> {
    guard.host(request.headers())?;
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this page only answers GET"));
    }
    let Some(token) = &guard.token else { return Ok(None) };
    let Some((brought, in_address)) = guard.brings(request).filter(|(t, _)| same(t, token)) else {
        let message = "the token is missing or wrong: open the address that `triptych view` printed";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, message));
    };
    if !(in_address && request.uri().path() == "/") {
        return Ok(None);
    }
    let cookie = format!("{}={brought}; Path=/; HttpOnly; SameSite=Strict", guard.cookie);
    Ok(Some(
        (StatusCode::SEE_OTHER, [(header::SET_COOKIE, cookie), (header::LOCATION, "/".into())])
            .into_response(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_pass_as_host() {
        for host in
            ["127.0.0.1", "127.0.0.1:80", "localhost:9", "LOCALHOST", "[::1]:80", "[::1]", "10.1.2.3:4"]
        {
            assert!(is_address(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:80",
            "127.0.0.1.evil.example",
            "localhost.evil.example:1",
            "[x]",
        ] {
            assert!(!is_address(host), "{host}");
        }
    }

    #[test]
    fn tokens_are_long_and_plain() {
        assert!(Guard::is_sound("abcdefgh-_345678"));
        assert!(!Guard::is_sound("short") && !Guard::is_sound("a token with spaces"));
        assert!(same("abc", "abc") && !same("abc", "abd") && !same("abc", "ab"));
    }
}
