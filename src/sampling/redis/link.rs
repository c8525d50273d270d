//! One connection to a Redis, with a count of what we ask and of the bytes it takes.
//!
//! The socket is opened here, not by the library, so that every byte can be counted where Redis
//! counts it itself: inside TLS.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, Value, aio::MultiplexedConnection};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::{RedisError, address::Address};
use crate::target::{Metered, Tally};

/// What we asked of Redis since the sampler was made.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Commands by name as `commandstats` has it.
    pub(super) calls: BTreeMap<&'static str, u64>,
    bytes: Arc<Bytes>,
}

#[derive(Debug, Default)]
struct Bytes {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Own {
    /// Bytes sent.
    pub(super) fn sent(&self) -> u64 {
        self.bytes.sent.load(Ordering::Relaxed)
    }

    /// Bytes received.
    pub(super) fn received(&self) -> u64 {
        self.bytes.received.load(Ordering::Relaxed)
    }
}

/// Several commands that are sent at once.
#[derive(Default)]
pub(super) struct Asks {
    pipe: redis::Pipeline,
    names: Vec<&'static str>,
}

impl Asks {
    /// Adds a command.
    pub(super) fn add(&mut self, name: &'static str, args: &[&[u8]]) {
        self.names.push(name);
        self.pipe.cmd(name);
        for arg in args {
            self.pipe.arg(*arg);
        }
    }

    /// Whether there is nothing to ask.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// Why a connection is of no use any more.
#[derive(Debug)]
pub(super) struct Lost(pub(super) String);

/// An open connection.
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// What moves its bytes.
    driver: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// Connects and logs in.
    ///
    /// # Errors
    /// What stands in the way.
    pub(super) async fn open(
        address: &Address,
        tls: Option<&TlsConnector>,
        own: &mut Own,
        within: Duration,
    ) -> Result<Self, RedisError> {
        let silent = |_| RedisError::Silent { address: address.to_string(), within };
        timeout(within, Self::opened(address, tls, own, within)).await.map_err(silent)?
    }

    async fn opened(
        address: &Address,
        tls: Option<&TlsConnector>,
        own: &mut Own,
        within: Duration,
    ) -> Result<Self, RedisError> {
        let socket = TcpStream::connect((address.host.as_str(), address.port))
            .await
            .map_err(|source| RedisError::Unreachable { address: address.to_string(), source })?;
        let _ = socket.set_nodelay(true);
        let mut link = match tls {
            None => Self::over(socket, address, own).await?,
            Some(tls) => {
                let fail = |why: String| RedisError::Tls { address: address.to_string(), why };
                let name = ServerName::try_from(address.host.clone()).map_err(|e| fail(e.to_string()))?;
                // A Redis without TLS takes the greeting for half a command and waits for the rest.
                let greeting = timeout(within.mul_f64(0.8), tls.connect(name, socket)).await;
                let stream = greeting
                    .map_err(|_| fail("it does not answer".into()))?
                    .map_err(|e| fail(e.to_string()))?;
                Self::over(stream, address, own).await?
            }
        };
        link.log_in(address, own).await?;
        Ok(link)
    }

    async fn over<S>(stream: S, address: &Address, own: &Own) -> Result<Self, RedisError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let counted = Metered { socket: stream, meter: Arc::clone(&own.bytes) };
        // Nothing is sent behind our back: every command is counted.
        let settings =
            RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name();
        // Waits end by our own clock; the default here is half a second.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let made = MultiplexedConnection::new_with_config(&settings, counted, config).await;
        let (connection, driver) = made.map_err(|e| RedisError::NotRedis {
            address: address.to_string(),
            said: one_line(&e.to_string()),
        })?;
        Ok(Self { connection, driver: tokio::spawn(driver) })
    }

    async fn log_in(&mut self, address: &Address, own: &mut Own) -> Result<(), RedisError> {
        let mut asks = Asks::default();
        let user = address.user.as_deref().unwrap_or("default");
        if let Some(password) = &address.password {
            match &address.user {
                Some(user) => asks.add("auth", &[user.as_bytes(), password.as_bytes()]),
                // One word is what servers without users understand too.
                None => asks.add("auth", &[password.as_bytes()]),
            }
        }
        if address.db != 0 {
            asks.add("select", &[address.db.to_string().as_bytes()]);
        }
        asks.add("info", &[b"server"]);
        let answers = self
            .send(&asks, own)
            .await
            .map_err(|Lost(said)| RedisError::NotRedis { address: address.to_string(), said })?;
        for (name, answer) in asks.names.iter().zip(answers) {
            if let Value::ServerError(error) = answer {
                let said = one_line(&format!("{} {}", error.code(), error.details().unwrap_or_default()));
                return Err(refusal(address, user, name, &said));
            }
        }
        Ok(())
    }

    /// Asks, and waits for the answers; a command that Redis refuses has its error in its place.
    ///
    /// # Errors
    /// When the connection is gone or nothing comes in time.
    pub(super) async fn ask(
        &mut self,
        asks: &Asks,
        own: &mut Own,
        within: Duration,
    ) -> Result<Vec<Value>, Lost> {
        match timeout(within, self.send(asks, own)).await {
            Ok(answers) => answers,
            Err(_) => Err(Lost(format!("no answer within {:.1} s", within.as_secs_f64()))),
        }
    }

    async fn send(&mut self, asks: &Asks, own: &mut Own) -> Result<Vec<Value>, Lost> {
        for name in &asks.names {
            *own.calls.entry(name).or_default() += 1;
        }
        let count = asks.names.len();
        let sent = self.connection.send_packed_commands(&asks.pipe, 0, count).await;
        let answers = sent.map_err(|e| Lost(one_line(&e.to_string())))?;
        if answers.len() == count {
            Ok(answers)
        } else {
            Err(Lost(format!("{} answers to {count} commands", answers.len())))
        }
    }
}

/// What it means that Redis refused a command of the login.
pub(super) fn refusal(address: &Address, user: &str, command: &str, said: &str) -> RedisError {
    let (address, user) = (address.to_string(), user.to_owned());
    match (command, said.split(' ').next().unwrap_or_default()) {
        (_, "NOAUTH") => RedisError::PasswordNeeded { address },
        ("auth", "WRONGPASS") => RedisError::WrongPassword { address, user },
        (_, "NOPERM") => RedisError::NotAllowed { address, user, command: command.to_uppercase() },
        _ => RedisError::Refused { address, command: command.to_uppercase(), said: said.to_owned() },
    }
}

/// What a server says, short and on one line.
fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().chars().take(160).collect()
}

impl Tally for Bytes {
    fn read(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    fn written(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}
