//! The control socket's client, for `weft status`, `stats`, `sessions` and `trace`.

use super::{
    ANSWER_BYTES_MAX, CaptureRequest, Error, Sessions, Stats, Status, TraceAnswer, TraceRequest,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// For a question's whole way there and back.
const TIMEOUT: Duration = Duration::from_secs(10);

type Sender = http1::SendRequest<Full<Bytes>>;
type Connection = http1::Connection<TokioIo<UnixStream>, Full<Bytes>>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or the socket is not ours.
    #[error("cannot reach the agent at {}: is `weft agent` running, and are you root?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The agent does not answer.
    #[error("the agent at {} did not answer within {} s", path.display(), TIMEOUT.as_secs())]
    Timeout {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("the agent broke the connection")]
    Broken(#[source] hyper::Error),
    /// The agent refused the question.
    #[error("{0}")]
    Refused(String),
    /// The answer is no answer: the agent is of another version.
    #[error("cannot read the agent's answer: is it of the same version?")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Asks one agent; every question is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client of the agent that listens there.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// What the agent is doing.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// Counters.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        self.get("/v1/stats").await
    }

    /// Tracked connections, at most `limit` of them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn sessions(&self, limit: usize) -> Result<Sessions, ClientError> {
        self.get(&format!("/v1/sessions?limit={limit}")).await
    }

    /// What happens to a packet.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn trace(&self, request: &TraceRequest) -> Result<TraceAnswer, ClientError> {
        self.ask(Method::POST, "/v1/trace", Some(request)).await
    }

    /// Captures frames: hands the file on, piece by piece, until it ends or `write` says false.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn capture(
        &self,
        request: &CaptureRequest,
        mut write: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), ClientError> {
        let (mut sender, connection) = self.connect().await?;
        let driven = tokio::spawn(connection);
        let request = self.request(Method::POST, "/v1/capture", Some(request))?;
        let answer = tokio::time::timeout(TIMEOUT, sender.send_request(request)).await;
        let answer = answer.map_err(|_elapsed| ClientError::Timeout {
            path: self.path.clone(),
        })?;
        let mut answer = answer.map_err(ClientError::Broken)?;
        if !answer.status().is_success() {
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
            let body = body.collect().await.map_err(ClientError::Unreadable)?;
            let error: Error = serde_json::from_slice(&body.to_bytes())
                .map_err(|e| ClientError::Unreadable(e.into()))?;
            return Err(ClientError::Refused(error.error));
        }
        while let Some(frame) = answer.frame().await {
            let frame = frame.map_err(ClientError::Broken)?;
            if frame.data_ref().is_some_and(|bytes| !write(bytes)) {
                break;
            }
        }
        driven.abort();
        Ok(())
    }

    async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        self.ask(Method::GET, path, None::<&()>).await
    }

    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        question: Option<&Q>,
    ) -> Result<A, ClientError> {
        let unreadable = |e: serde_json::Error| ClientError::Unreadable(e.into());
        let request = self.request(method, path, question)?;
        let exchange = tokio::time::timeout(TIMEOUT, self.exchange(request)).await;
        let (status, answer) = exchange.map_err(|_elapsed| ClientError::Timeout {
            path: self.path.clone(),
        })??;
        if status.is_success() {
            return serde_json::from_slice(&answer).map_err(unreadable);
        }
        let error: Error = serde_json::from_slice(&answer).map_err(unreadable)?;
        Err(ClientError::Refused(error.error))
    }

    fn request<Q: Serialize>(
        &self,
        method: Method,
        path: &str,
        question: Option<&Q>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let body = match question {
            Some(question) => {
                serde_json::to_vec(question).map_err(|e| ClientError::Unreadable(e.into()))?
            }
            None => Vec::new(),
        };
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "agent")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| ClientError::Unreadable(e.into()))
    }

    async fn connect(&self) -> Result<(Sender, Connection), ClientError> {
        let stream =
            UnixStream::connect(&self.path)
                .await
                .map_err(|source| ClientError::Connect {
                    path: self.path.clone(),
                    source,
                })?;
        http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ClientError::Broken)
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let (mut sender, connection) = self.connect().await?;
        let answer = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(ClientError::Broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
            let body = body.collect().await.map_err(ClientError::Unreadable)?;
            Ok((status, body.to_bytes()))
        };
        // The connection must be driven while the answer is awaited; it may end first.
        let driven = async {
            let ended = connection.await;
            match ended {
                Ok(()) => std::future::pending().await,
                Err(error) => Err(ClientError::Broken(error)),
            }
        };
        tokio::select! {
            answer = answer => answer,
            error = driven => error,
        }
    }
}
