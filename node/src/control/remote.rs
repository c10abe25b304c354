//! A running node, asked over its socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use unhidra_core::ids::{CommandId, DeviceId};

use super::server::Problem;
use super::{
    ActsAsked, ActsPage, Asked, CancelAsked, ClientsAsked, ClientsPage, CommandRecord, CommandsAsked, CommandsFound,
    Control, ControlError, DeviceRecord, DevicesAsked, DevicesPage, EnrollAsked, Enrolled, Info, KeysStatus, KickAsked,
    Kicked, Minted, PREFIX, RevokeTokensAsked, Revoked, RevokedTokens, RewrapAsked, Rewrapped, RowsAsked, RowsPage,
    SendAsked, SetAsked, SettingRecord, SettingsFound, Storage, SubscribersAsked, SubscribersFound, TagAsked,
    TokenAsked, TokenRecord, UserAct, connect,
};
use crate::backup::Pieces;
use crate::outlets::OutletRecord;
use crate::upstream::UpstreamRecord;

/// The most bytes one answer may have: a page of rows with the largest bodies.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// How long a node may take over one answer: longer than the store takes to reopen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running node. Each question has a connection of its own.
#[derive(Clone, Debug)]
pub struct RemoteControl {
    socket: PathBuf,
}

impl RemoteControl {
    /// The node behind the socket at this path.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    async fn get<T: DeserializeOwned>(&self, path: String) -> Result<T, ControlError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    async fn post<T: DeserializeOwned>(&self, path: String, asked: &impl Serialize) -> Result<T, ControlError> {
        let body = serde_json::to_vec(asked).map_err(|error| ControlError::Invalid(error.to_string()))?;
        self.ask(Method::POST, path, body.into()).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: String, body: Bytes) -> Result<T, ControlError> {
        match tokio::time::timeout(PATIENCE, self.exchange(method, path, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(ControlError::Transport(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    /// Asks for bytes of any number, and hands them on as they come.
    async fn stream(&self, path: &str) -> Result<Pieces, ControlError> {
        let stream = connect(&self.socket).await.map_err(unasked)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(transport)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{PREFIX}{path}"))
            .header(HOST, "localhost")
            .body(Full::new(Bytes::new()))
            .map_err(transport)?;
        // It ends with the last of its answer, or with whoever takes that.
        tokio::spawn(connection);
        let late = |_| ControlError::Transport(format!("no answer within {} s", PATIENCE.as_secs()));
        let sent = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.map_err(late)?;
        let response = sent.map_err(transport)?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(transport)?.to_bytes();
            return Err(problem(status, &body));
        }
        let (send, pieces) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
                let piece = match frame {
                    Ok(None) => return,
                    Ok(Some(Ok(frame))) => frame.into_data().map_err(|_| transport("the answer has trailers")),
                    Ok(Some(Err(error))) => Err(transport(format!("the answer breaks off: {error}"))),
                    Err(late) => Err(transport(format!("nothing more came: {late}"))),
                };
                let ended = piece.is_err();
                if send.send(piece).await.is_err() || ended {
                    return;
                }
            }
        });
        Ok(pieces)
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        body: Bytes,
    ) -> Result<T, ControlError> {
        let stream = connect(&self.socket).await.map_err(unasked)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(transport)?;
        let request = Request::builder()
            .method(method)
            .uri(format!("{PREFIX}{path}"))
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(transport)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(transport)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(transport)?.to_bytes();
            if status.is_success() {
                serde_json::from_slice(&body).map_err(transport)
            } else {
                Err(problem(status, &body))
            }
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection may end in the same instant as the answer is whole.
            _ = connection => answer.await,
        }
    }
}

/// What an answer that is none says.
fn problem(status: StatusCode, body: &[u8]) -> ControlError {
    serde_json::from_slice::<Problem>(body)
        .map_or_else(|_| ControlError::Transport(format!("HTTP status {status}")), |problem| problem.error)
}

fn unasked(error: std::io::Error) -> ControlError {
    ControlError::Unasked(error.to_string())
}

fn transport(error: impl std::fmt::Display) -> ControlError {
    ControlError::Transport(error.to_string())
}

impl Control for RemoteControl {
    fn info(&self) -> Asked<'_, Info> {
        Box::pin(self.get("/info".to_owned()))
    }

    fn clients(&self, asked: ClientsAsked) -> Asked<'_, ClientsPage> {
        Box::pin(async move { self.post("/clients".to_owned(), &asked).await })
    }

    fn subscribers(&self, asked: SubscribersAsked) -> Asked<'_, SubscribersFound> {
        Box::pin(async move { self.post("/subscribers".to_owned(), &asked).await })
    }

    fn outlets(&self) -> Asked<'_, Vec<OutletRecord>> {
        Box::pin(self.get("/outlets".to_owned()))
    }

    fn kick(&self, asked: KickAsked) -> Asked<'_, Kicked> {
        Box::pin(async move { self.post("/clients/kick".to_owned(), &asked).await })
    }

    fn keys(&self) -> Asked<'_, KeysStatus> {
        Box::pin(self.get("/keys".to_owned()))
    }

    fn rotate_keys(&self) -> Asked<'_, KeysStatus> {
        Box::pin(self.ask(Method::POST, "/keys/rotate".to_owned(), Bytes::new()))
    }

    fn rewrap_keys(&self, asked: RewrapAsked) -> Asked<'_, Rewrapped> {
        Box::pin(async move { self.post("/keys/rewrap".to_owned(), &asked).await })
    }

    fn acts(&self, asked: ActsAsked) -> Asked<'_, ActsPage> {
        Box::pin(async move { self.post("/acts".to_owned(), &asked).await })
    }

    fn user_act(&self, asked: UserAct) -> Asked<'_, ()> {
        Box::pin(async move { self.post("/acts/user".to_owned(), &asked).await })
    }

    fn enroll(&self, asked: EnrollAsked) -> Asked<'_, Enrolled> {
        Box::pin(async move { self.post("/devices".to_owned(), &asked).await })
    }

    fn devices(&self, asked: DevicesAsked) -> Asked<'_, DevicesPage> {
        let query = asked.after.map(|after| format!("?after={after}")).unwrap_or_default();
        Box::pin(self.get(format!("/devices{query}")))
    }

    fn device(&self, id: DeviceId) -> Asked<'_, DeviceRecord> {
        Box::pin(self.get(format!("/devices/{id}")))
    }

    fn tag(&self, id: DeviceId, asked: TagAsked) -> Asked<'_, DeviceRecord> {
        Box::pin(async move { self.post(format!("/devices/{id}/tags"), &asked).await })
    }

    fn revoke(&self, id: DeviceId) -> Asked<'_, Revoked> {
        Box::pin(self.ask(Method::POST, format!("/devices/{id}/revoke"), Bytes::new()))
    }

    fn send(&self, asked: SendAsked) -> Asked<'_, CommandRecord> {
        Box::pin(async move { self.post("/commands".to_owned(), &asked).await })
    }

    fn cancel(&self, asked: CancelAsked) -> Asked<'_, CommandRecord> {
        Box::pin(async move { self.post("/commands/cancel".to_owned(), &asked).await })
    }

    fn commands(&self, asked: CommandsAsked) -> Asked<'_, CommandsFound> {
        Box::pin(async move { self.post("/commands/list".to_owned(), &asked).await })
    }

    fn set(&self, asked: SetAsked) -> Asked<'_, SettingRecord> {
        Box::pin(async move { self.post("/settings".to_owned(), &asked).await })
    }

    fn settings(&self, device: DeviceId) -> Asked<'_, SettingsFound> {
        Box::pin(self.get(format!("/settings/{device}")))
    }

    fn command(&self, device: DeviceId, id: CommandId) -> Asked<'_, CommandRecord> {
        Box::pin(self.get(format!("/commands/{device}/{id}")))
    }

    fn rows(&self, asked: RowsAsked) -> Asked<'_, RowsPage> {
        Box::pin(async move { self.post("/rows".to_owned(), &asked).await })
    }

    fn storage(&self) -> Asked<'_, Storage> {
        Box::pin(self.get("/storage".to_owned()))
    }

    fn backup(&self) -> Asked<'_, Pieces> {
        Box::pin(self.stream("/backup"))
    }

    fn upstreams(&self) -> Asked<'_, Vec<UpstreamRecord>> {
        Box::pin(self.get("/upstreams".to_owned()))
    }

    fn mint(&self, asked: TokenAsked) -> Asked<'_, Minted> {
        Box::pin(async move { self.post("/tokens".to_owned(), &asked).await })
    }

    fn tokens(&self) -> Asked<'_, Vec<TokenRecord>> {
        Box::pin(self.get("/tokens".to_owned()))
    }

    fn revoke_tokens(&self, asked: RevokeTokensAsked) -> Asked<'_, RevokedTokens> {
        Box::pin(async move { self.post("/tokens/revoke".to_owned(), &asked).await })
    }
}
