//! [`Control`] as HTTP: JSON in, JSON out, under [`PREFIX`].

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use unhidra_core::ids::{CommandId, DeviceId};

use super::{
    Control, ControlError, ControlListener, DevicesAsked, EnrollAsked, RowsAsked, SendAsked, TagAsked, TokenAsked,
};
use crate::http::{self, Limits};

/// Where the routes stand; their version is part of it.
pub const PREFIX: &str = "/control/v1";

/// Connections at once: one operator, some `watch`es, a script.
const CONNECTIONS_MAX: usize = 64;

/// Serves `router` on the socket until `shutdown` holds true, or its sender is gone.
pub async fn serve(listener: ControlListener, router: Router, shutdown: watch::Receiver<bool>) {
    let limits = Limits {
        connections_max: CONNECTIONS_MAX,
        header_timeout: Duration::from_secs(10),
        grace: Duration::from_secs(5),
    };
    http::serve(listener, router, limits, shutdown).await;
}

/// An answer that is none, as JSON.
#[derive(Deserialize, Serialize)]
pub(super) struct Problem {
    /// For programs.
    pub(super) error: ControlError,
    /// For people with curl.
    pub(super) message: String,
}

/// The routes of `control`. What stands under none of them goes to `gateway`, whose WebSocket
/// `watch` speaks over the socket.
pub fn router(control: Arc<dyn Control>, gateway: Router) -> Router {
    let routes = Router::new()
        .route("/info", get(info))
        .route("/devices", get(devices).post(enroll))
        .route("/devices/{id}", get(device))
        .route("/devices/{id}/tags", post(tag))
        .route("/devices/{id}/revoke", post(revoke))
        .route("/commands", post(send))
        .route("/commands/{device}/{id}", get(command))
        .route("/rows", post(rows))
        .route("/tokens", post(mint))
        .method_not_allowed_fallback(unknown)
        .fallback(unknown)
        .with_state(control);
    Router::new().nest(PREFIX, routes).fallback_service(gateway)
}

type Shared = State<Arc<dyn Control>>;
type Answer = Result<Response, ControlError>;

async fn info(State(control): Shared) -> Answer {
    answer(control.info().await)
}

async fn devices(State(control): Shared, asked: Result<Query<DevicesAsked>, QueryRejection>) -> Answer {
    let Query(asked) = asked.map_err(|error| ControlError::Invalid(error.body_text()))?;
    answer(control.devices(asked).await)
}

async fn enroll(State(control): Shared, asked: Result<Json<EnrollAsked>, JsonRejection>) -> Answer {
    answer(control.enroll(body(asked)?).await)
}

async fn device(State(control): Shared, Path(id): Path<String>) -> Answer {
    answer(control.device(device_id(&id)?).await)
}

async fn tag(State(control): Shared, Path(id): Path<String>, asked: Result<Json<TagAsked>, JsonRejection>) -> Answer {
    answer(control.tag(device_id(&id)?, body(asked)?).await)
}

async fn revoke(State(control): Shared, Path(id): Path<String>) -> Answer {
    answer(control.revoke(device_id(&id)?).await)
}

async fn send(State(control): Shared, asked: Result<Json<SendAsked>, JsonRejection>) -> Answer {
    answer(control.send(body(asked)?).await)
}

async fn command(State(control): Shared, Path((device, id)): Path<(String, String)>) -> Answer {
    let id: CommandId = id.parse().map_err(|error| ControlError::Invalid(format!("{id:?}: {error}")))?;
    answer(control.command(device_id(&device)?, id).await)
}

async fn rows(State(control): Shared, asked: Result<Json<RowsAsked>, JsonRejection>) -> Answer {
    answer(control.rows(body(asked)?).await)
}

async fn mint(State(control): Shared, asked: Result<Json<TokenAsked>, JsonRejection>) -> Answer {
    answer(control.mint(body(asked)?).await)
}

async fn unknown(request: axum::extract::Request) -> Response {
    ControlError::Unknown(format!("{} {}", request.method(), request.uri().path())).into_response()
}

fn answer<T: Serialize>(result: Result<T, ControlError>) -> Answer {
    result.map(|value| Json(value).into_response())
}

fn body<T>(asked: Result<Json<T>, JsonRejection>) -> Result<T, ControlError> {
    asked.map(|Json(value)| value).map_err(|error| ControlError::Invalid(error.body_text()))
}

fn device_id(text: &str) -> Result<DeviceId, ControlError> {
    DeviceId::parse(text).map_err(|error| ControlError::Invalid(error.to_string()))
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let message = self.to_string();
        (status, Json(Problem { error: self, message })).into_response()
    }
}
