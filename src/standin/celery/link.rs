//! The connection for commands, made anew when it breaks.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, Pipeline, RedisError, Value};
use tokio::sync::Mutex;
use tokio_rustls::rustls::crypto::ring;

use super::broker::{Broker, BrokerError};
use super::record::Record;

/// How often commands are tried again on a new connection, the first time at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    retries: u32,
    /// The second pause; each next one is longer by as much.
    step: Duration,
    longest: Duration,
}

/// For results (celery/backends/base.py, `retry_policy`).
pub(super) const RESULTS: Patience =
    Patience { retries: 20, step: Duration::from_secs(1), longest: Duration::from_secs(1) };

/// For messages (celery/app/defaults.py, `task_publish_retry_policy`).
pub(super) const PUBLISHING: Patience =
    Patience { retries: 3, step: Duration::from_millis(200), longest: Duration::from_secs(1) };

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(3);

/// How long a reply may take. The largest one is the list of all results of a job.
const REPLY: Duration = Duration::from_secs(60);

/// One Redis, and the connection to it.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
    pub(super) record: Record,
}

impl Link {
    /// Reads the URL; connects to nothing.
    pub(super) fn to(broker: &Broker) -> Result<Self, BrokerError> {
        let bad = |error: RedisError| BrokerError::Url { reason: error.to_string() };
        let info: ConnectionInfo = broker.url.as_str().into_connection_info().map_err(bad)?;
        // The client asks for the process's choice and panics without one. Somebody else's is as good.
        let _ = ring::default_provider().install_default();
        let client = match &broker.ca {
            None => Client::open(info),
            Some(path) => {
                let read = std::fs::read(path);
                let pem = read.map_err(|source| BrokerError::Ca { path: path.clone(), source })?;
                Client::build_with_tls(
                    info,
                    redis::TlsCertificates { client_tls: None, root_cert: Some(pem) },
                )
            }
        };
        Ok(Self { client: client.map_err(bad)?, connection: Mutex::default(), record: Record::default() })
    }

    /// Host and port, as errors show them.
    pub(super) fn at(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    /// A connection of one's own.
    pub(super) async fn fresh(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(REPLY));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Sends the commands and returns their replies, in order.
    ///
    /// # Errors
    /// Redis refuses one of them, or cannot be reached for as long as there is patience.
    pub(super) async fn run(
        &self,
        commands: &Pipeline,
        patience: Patience,
    ) -> Result<Vec<Value>, RedisError> {
        let mut nth = 0;
        loop {
            let error = match self.once(commands).await {
                Ok(replies) => return Ok(replies),
                Err(error) if is_lost(&error) && nth < patience.retries => error,
                Err(error) => return Err(error),
            };
            tracing::debug!(%error, nth, "Redis is away");
            tokio::time::sleep(patience.longest.min(patience.step * nth)).await;
            nth += 1;
        }
    }

    /// The same without a second try.
    pub(super) async fn once(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let mut connection = self.connected().await?;
        self.record.went(commands);
        match commands.query_async::<Value>(&mut connection).await {
            Ok(reply) => {
                self.record.came(&reply);
                Ok(if let Value::Array(replies) = reply { replies } else { vec![reply] })
            }
            Err(error) => {
                if is_lost(&error) {
                    self.record.lost();
                    *self.connection.lock().await = None;
                }
                Err(error)
            }
        }
    }

    async fn connected(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        let fresh = self.fresh().await?;
        *connection = Some(fresh.clone());
        Ok(fresh)
    }
}

/// Whether another connection, or a little later, may do better.
pub(super) fn is_lost(error: &RedisError) -> bool {
    let loading = redis::ErrorKind::Server(redis::ServerErrorKind::BusyLoading);
    error.is_io_error() || error.is_connection_dropped() || error.is_timeout() || error.kind() == loading
}
