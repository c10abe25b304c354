//! The routes, and what every answer and request must satisfy.

use std::net::IpAddr;
use std::sync::{Arc, Weak};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::error::TokenRefused;
use crate::net::websocket;
use crate::{Shared, Tasks, console};

/// Bytes of the body of a request: a token.
const BODY_MAX: usize = 4096;

/// No script, style or connection but our own, in no frame, under no other type than the one said.
const SECURITY: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

#[derive(Clone)]
pub(crate) struct App {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tasks: Weak<Tasks>,
}

pub(crate) fn router(shared: Arc<Shared>, tasks: &Arc<Tasks>) -> Router {
    let app = App { shared, tasks: Arc::downgrade(tasks) };
    let mut router = Router::new()
        .route("/v1/session", post(session).fallback(method_not_allowed))
        .route("/v1/ws", get(websocket::upgrade).fallback(method_not_allowed));
    for asset in console::ASSETS {
        let serve = move |request: Request| async move { serve_asset(asset, &request) };
        router = router.route(asset.path, get(serve).fallback(method_not_allowed));
    }
    router.fallback(any(not_found)).layer(from_fn_with_state(app.clone(), guard)).with_state(app)
}

/// Why a request is not served, as JSON with the status beside it.
#[derive(Debug, Serialize)]
pub(crate) struct Refusal {
    #[serde(skip)]
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(&self)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

/// What every request must satisfy, and what every answer carries.
async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut response = match admit(&app.shared, request.headers(), request.uri()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            app.shared.metrics.refuse(refusal.code);
            refusal.into_response()
        }
    };
    let headers = response.headers_mut();
    for (name, value) in SECURITY {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn admit(shared: &Shared, headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
    let host = host(headers, uri).ok_or_else(|| {
        Refusal::new(StatusCode::BAD_REQUEST, "no_host", "the request names no host, or more than one")
    })?;
    if !is_own_name(host, &shared.config.hosts) {
        let message = "this name is not one of this node's; see gateway.hosts";
        return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, "foreign_host", message));
    }
    Ok(())
}

/// The host and port a request was meant for.
fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, None) => uri.authority().map(axum::http::uri::Authority::as_str),
        _ => None,
    }
}

/// Whether a name is one this node goes by. A page of a foreign name that has been made to resolve
/// to this machine (DNS rebinding) carries that name here; a plain address cannot be rebound.
fn is_own_name(host: &str, names: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|own| own.eq_ignore_ascii_case(name) || own.eq_ignore_ascii_case(host))
}

/// Refuses pages of other origins: a browser lets any page connect here, and says only whose it is.
pub(crate) fn check_origin(shared: &Shared, headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let own = host(headers, uri).is_some_and(|host| {
        let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        rest.is_some_and(|rest| rest.eq_ignore_ascii_case(host))
    });
    if own || shared.config.origins.iter().any(|allowed| allowed == origin) {
        return Ok(());
    }
    let message = "pages of this origin may not connect; see gateway.origins";
    Err(Refusal::new(StatusCode::FORBIDDEN, "foreign_origin", message))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    token: String,
}

#[derive(Serialize)]
struct Exchanged {
    token: String,
    expires_at: u64,
}

/// Gives a session token for a one-time token.
async fn session(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let shared = &app.shared;
    let (parts, body) = request.into_parts();
    check_origin(shared, &parts.headers, &parts.uri)?;
    let body = read_body(shared, body).await?;
    let Exchange { token } = serde_json::from_slice(&body)
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "bad_request", r#"the body is {"token": "..."}"#))?;
    match shared.doors.authority.exchange(&token) {
        Ok(session) => {
            let exchanged = Exchanged { token: session.token, expires_at: session.expires_at.as_ms() };
            Ok(axum::Json(exchanged).into_response())
        }
        Err(refused) => {
            let code = match refused {
                TokenRefused::Unknown => "token_refused",
                TokenRefused::Expired => "token_expired",
            };
            shared.metrics.refuse(code);
            Err(Refusal::new(StatusCode::UNAUTHORIZED, code, refused.to_string()))
        }
    }
}

async fn read_body(shared: &Shared, body: Body) -> Result<axum::body::Bytes, Refusal> {
    match timeout(shared.config.request_timeout(), to_bytes(body, BODY_MAX)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => {
            let message = format!("a body has at most {BODY_MAX} bytes");
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message))
        }
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not come in time")),
    }
}

fn serve_asset(asset: &'static console::Asset, request: &Request) -> Response {
    let fresh = request.headers().get(header::IF_NONE_MATCH).is_some_and(|tag| tag == console::ETAG.as_str());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.media_type)),
        // Asked about each time, so that page and node are of one build.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, HeaderValue::from_str(&console::ETAG).unwrap_or(HeaderValue::from_static(""))),
    ];
    if fresh { (StatusCode::NOT_MODIFIED, headers).into_response() } else { (headers, asset.body).into_response() }
}

async fn not_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here; the console is at /")
}

async fn method_not_allowed(method: Method) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", format!("{method} is not served here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_and_plain_addresses_are_served() {
        let names = ["gate.example.org".to_owned()];
        for own in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080", "10.1.2.3"] {
            assert!(is_own_name(own, &names), "{own}");
        }
        assert!(is_own_name("gate.example.org", &names) && is_own_name("Gate.Example.org:443", &names));
        for foreign in ["", "evil.example", "localhost.evil.example:8080", "127.0.0.1.evil.example", "::1x", ":8080"] {
            assert!(!is_own_name(foreign, &names), "{foreign}");
        }
    }
}
