//! [`Control`] as HTTP: JSON in, JSON out, under [`PREFIX`].

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use unhidra_core::ids::{CommandId, DeviceId};

use super::{
    ActsAsked, CancelAsked, ClientsAsked, CommandsAsked, Control, ControlError, ControlListener, DevicesAsked,
    EnrollAsked, KickAsked, Peer, RevokeTokensAsked, RewrapAsked, RowsAsked, SendAsked, SetAsked, SubscribersAsked,
    TagAsked, TokenAsked, UserAct,
};
use crate::actor;
use crate::http::{self, Limits};

/// Where the routes stand; their version is part of it.
pub const PREFIX: &str = "/control/v1";

/// The most bytes a question may have: a command with the largest body in base64, twice.
const QUESTION_MAX: usize = 256 * 1024;

/// How long it may take to be told. Whoever asks has it whole.
const QUESTION_PATIENCE: Duration = Duration::from_secs(10);

/// Connections at once: one operator, some `watch`es, a script.
const CONNECTIONS_MAX: usize = 64;

/// Serves `router` on the socket until `shutdown` holds true, or its sender is gone.
pub async fn serve(listener: ControlListener, router: Router, shutdown: watch::Receiver<bool>) {
    let limits = Limits {
        connections_max: CONNECTIONS_MAX,
        header_timeout: Duration::from_secs(10),
        // A backup, or somebody who watches, takes as long as it takes.
        lifetime: None,
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
        .route("/commands/cancel", post(cancel))
        .route("/commands/list", post(commands))
        .route("/commands/{device}/{id}", get(command))
        .route("/settings", post(set))
        .route("/settings/{device}", get(settings))
        .route("/rows", post(rows))
        .route("/storage", get(storage))
        .route("/backup", post(backup))
        .route("/tokens", get(tokens).post(mint))
        .route("/tokens/revoke", post(revoke_tokens))
        .route("/clients", post(clients))
        .route("/clients/kick", post(kick))
        .route("/subscribers", post(subscribers))
        .route("/keys", get(keys))
        .route("/keys/rotate", post(rotate_keys))
        .route("/keys/rewrap", post(rewrap_keys))
        .route("/acts", post(acts))
        .route("/outlets", get(outlets))
        .route("/acts/user", post(user_act))
        .route("/upstreams", get(upstreams))
        .method_not_allowed_fallback(unknown)
        .fallback(unknown)
        .with_state(control);
    Router::new().nest(PREFIX, routes).fallback_service(gateway).layer(from_fn(in_the_name_of_the_peer))
}

/// Whatever is asked for here is done in the name of the user at the other end.
async fn in_the_name_of_the_peer(request: Request, next: Next) -> Response {
    match request.extensions().get::<Peer>() {
        Some(Peer { uid }) => actor::by(actor::user(*uid), next.run(request)).await,
        None => next.run(request).await,
    }
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

async fn enroll(State(control): Shared, Question(asked): Question<EnrollAsked>) -> Answer {
    answer(control.enroll(asked).await)
}

async fn device(State(control): Shared, Path(id): Path<String>) -> Answer {
    answer(control.device(device_id(&id)?).await)
}

async fn tag(State(control): Shared, Path(id): Path<String>, Question(asked): Question<TagAsked>) -> Answer {
    answer(control.tag(device_id(&id)?, asked).await)
}

async fn revoke(State(control): Shared, Path(id): Path<String>) -> Answer {
    answer(control.revoke(device_id(&id)?).await)
}

async fn send(State(control): Shared, Question(asked): Question<SendAsked>) -> Answer {
    answer(control.send(asked).await)
}

async fn command(State(control): Shared, Path((device, id)): Path<(String, String)>) -> Answer {
    let id: CommandId = id.parse().map_err(|error| ControlError::Invalid(format!("{id:?}: {error}")))?;
    answer(control.command(device_id(&device)?, id).await)
}

async fn cancel(State(control): Shared, Question(asked): Question<CancelAsked>) -> Answer {
    answer(control.cancel(asked).await)
}

async fn commands(State(control): Shared, Question(asked): Question<CommandsAsked>) -> Answer {
    answer(control.commands(asked).await)
}

async fn set(State(control): Shared, Question(asked): Question<SetAsked>) -> Answer {
    answer(control.set(asked).await)
}

async fn settings(State(control): Shared, Path(device): Path<String>) -> Answer {
    answer(control.settings(device_id(&device)?).await)
}

async fn rows(State(control): Shared, Question(asked): Question<RowsAsked>) -> Answer {
    answer(control.rows(asked).await)
}

async fn storage(State(control): Shared) -> Answer {
    answer(control.storage().await)
}

/// The bytes as they are made: a failure midway breaks the answer off.
async fn backup(State(control): Shared) -> Answer {
    let mut pieces = control.backup().await?;
    let stream = futures_util::stream::poll_fn(move |context| pieces.poll_recv(context));
    Ok(([(CONTENT_TYPE, "application/octet-stream")], Body::from_stream(stream)).into_response())
}

async fn mint(State(control): Shared, Question(asked): Question<TokenAsked>) -> Answer {
    answer(control.mint(asked).await)
}

async fn tokens(State(control): Shared) -> Answer {
    answer(control.tokens().await)
}

async fn revoke_tokens(State(control): Shared, Question(asked): Question<RevokeTokensAsked>) -> Answer {
    answer(control.revoke_tokens(asked).await)
}

async fn clients(State(control): Shared, Question(asked): Question<ClientsAsked>) -> Answer {
    answer(control.clients(asked).await)
}

async fn subscribers(State(control): Shared, Question(asked): Question<SubscribersAsked>) -> Answer {
    answer(control.subscribers(asked).await)
}

async fn keys(State(control): Shared) -> Answer {
    answer(control.keys().await)
}

async fn rotate_keys(State(control): Shared) -> Answer {
    answer(control.rotate_keys().await)
}

async fn rewrap_keys(State(control): Shared, Question(asked): Question<RewrapAsked>) -> Answer {
    answer(control.rewrap_keys(asked).await)
}

async fn acts(State(control): Shared, Question(asked): Question<ActsAsked>) -> Answer {
    answer(control.acts(asked).await)
}

async fn outlets(State(control): Shared) -> Answer {
    answer(control.outlets().await)
}

async fn user_act(State(control): Shared, Question(asked): Question<UserAct>) -> Answer {
    answer(control.user_act(asked).await)
}

async fn upstreams(State(control): Shared) -> Answer {
    answer(control.upstreams().await)
}

async fn kick(State(control): Shared, Question(asked): Question<KickAsked>) -> Answer {
    answer(control.kick(asked).await)
}

async fn unknown(request: Request) -> Response {
    ControlError::Unknown(format!("{} {}", request.method(), request.uri().path())).into_response()
}

fn answer<T: Serialize>(result: Result<T, ControlError>) -> Answer {
    result.map(|value| Json(value).into_response())
}

/// A question in JSON, of a bounded size and told within a bounded time.
struct Question<T>(T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Question<T> {
    type Rejection = ControlError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ControlError> {
        let read = tokio::time::timeout(QUESTION_PATIENCE, to_bytes(request.into_body(), QUESTION_MAX)).await;
        let late =
            |_| ControlError::Invalid(format!("the question was not told within {} s", QUESTION_PATIENCE.as_secs()));
        let large =
            |_| ControlError::Invalid(format!("the question breaks off, or has more than {QUESTION_MAX} bytes"));
        let text = read.map_err(late)?.map_err(large)?;
        serde_json::from_slice(&text).map(Self).map_err(|error| ControlError::Invalid(format!("the question: {error}")))
    }
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
