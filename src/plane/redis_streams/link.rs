//! The connections to a plane's Redis, made anew when they break.
//!
//! Commands of all tasks share one. A read that waits has one to itself, so that it never holds a
//! renewal up, and takes it along when it is given up: Redis forgets who hangs up. Whoever does not
//! answer in time is hung up on as well, since a link that was cut says nothing.

use std::{
    sync::{
        Arc, Mutex as StdMutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Cmd, FromRedisValue, RedisConnectionInfo, Value, aio::MultiplexedConnection,
};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::Handle,
    sync::Mutex,
    task::JoinHandle,
    time::timeout,
};

use super::{
    super::PlaneError,
    door::Door,
    told::{silent, tls_failed, told, unreachable},
};

/// How long a reply may take, and how long one waits for a connection.
const REPLY: Duration = Duration::from_secs(1);
/// How long a connection may take to stand. Who waits for it gives up sooner, the next one finds it.
const DIAL: Duration = Duration::from_secs(5);
/// After so long without a word the system asks whether the other end is there, so often, so many times.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(10), Duration::from_secs(5), 3);
/// Readers that are kept for the next read.
const READERS: usize = 2;

/// One connection. Dropping it hangs up.
#[derive(Debug)]
pub(super) struct Connection {
    inner: MultiplexedConnection,
    driver: JoinHandle<()>,
    /// Whoever waited for a reply in vain says so.
    is_silent: AtomicBool,
}

impl Connection {
    fn stands(&self) -> bool {
        !self.driver.is_finished() && !self.is_silent.load(Ordering::Relaxed)
    }

    /// Sends a command and waits for its reply, no longer than that.
    async fn ask<T: FromRedisValue>(
        &self,
        door: &Door,
        what: &str,
        command: &Cmd,
        within: Duration,
    ) -> Result<T, PlaneError> {
        let mut inner = self.inner.clone();
        match timeout(within, command.query_async(&mut inner)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(told(door, what, &error)),
            Err(_) => {
                self.is_silent.store(true, Ordering::Relaxed);
                Err(silent(door, within))
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Connects, and says who we are.
async fn dial(door: Door, greeting: RedisConnectionInfo) -> Result<Connection, PlaneError> {
    let connect = async {
        let stream = TcpStream::connect(door.host()).await.map_err(|e| unreachable(&door, &e))?;
        watch_over(&stream).map_err(|e| unreachable(&door, &e))?;
        let Some(tls) = door.tls() else { return greet(&door, &greeting, stream).await };
        let name = door.host().0.to_owned().try_into();
        let name =
            name.map_err(|_| PlaneError::Refused(format!("at {door} has a name that TLS cannot check")))?;
        let stream = tls.connect(name, stream).await.map_err(|e| tls_failed(&door, &e))?;
        greet(&door, &greeting, stream).await
    };
    timeout(DIAL, connect).await.unwrap_or_else(|_| Err(silent(&door, DIAL)))
}

async fn greet<S>(door: &Door, greeting: &RedisConnectionInfo, stream: S) -> Result<Connection, PlaneError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Replies are waited for where they are asked for.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let (inner, driver) = MultiplexedConnection::new_with_config(greeting, stream, config)
        .await
        .map_err(|e| told(door, "AUTH", &e))?;
    Ok(Connection { inner, driver: tokio::spawn(driver), is_silent: AtomicBool::new(false) })
}

fn watch_over(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (idle, every, times) = KEEPALIVE;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, idle)?;
    sockopt::set_tcp_keepintvl(stream, every)?;
    sockopt::set_tcp_keepcnt(stream, times)?;
    Ok(())
}

/// A connection that is being made; it goes on when whoever waits for it gives up.
#[derive(Debug, Default)]
struct Dialing(Option<JoinHandle<Result<Connection, PlaneError>>>);

impl Dialing {
    async fn done(&mut self, door: &Door, home: &Handle) -> Result<Connection, PlaneError> {
        loop {
            let dialing = self.0.get_or_insert_with(|| home.spawn(dial(door.clone(), door.greeting())));
            let is_old = dialing.is_finished();
            let dialed = dialing.await;
            self.0 = None;
            match dialed {
                // That was some time ago.
                Ok(Err(_)) if is_old => {}
                Ok(dialed) => return dialed,
                Err(error) => return Err(PlaneError::Away(format!("at {door} cannot be reached: {error}"))),
            }
        }
    }
}

/// One Redis, and the connections to it.
#[derive(Debug)]
pub(super) struct Link {
    door: Door,
    /// Where connections live: the runtime that was the first to use them. Others may be busy.
    home: OnceLock<Handle>,
    commands: Mutex<(Option<Arc<Connection>>, Dialing)>,
    readers: StdMutex<Vec<Connection>>,
    next_reader: Mutex<Dialing>,
}

impl Link {
    /// Connects to nothing yet.
    pub(super) fn new(door: Door) -> Self {
        Self {
            door,
            home: OnceLock::new(),
            commands: Mutex::default(),
            readers: StdMutex::default(),
            next_reader: Mutex::default(),
        }
    }

    /// Where it leads.
    pub(super) fn door(&self) -> &Door {
        &self.door
    }

    /// Sends a command that is answered at once. `what` says in an error what was asked for.
    ///
    /// # Errors
    /// When it is not answered, or refused. It may have been carried out nevertheless.
    pub(super) async fn call<T: FromRedisValue>(&self, what: &str, command: &Cmd) -> Result<T, PlaneError> {
        let connection =
            timeout(REPLY, self.standing()).await.unwrap_or_else(|_| Err(silent(&self.door, REPLY)))?;
        connection.ask(&self.door, what, command, REPLY).await
    }

    /// Sends a command that Redis answers after `wait` at the latest. May be given up at any moment.
    ///
    /// # Errors
    /// When it is not answered, or refused.
    pub(super) async fn read(&self, what: &str, command: &Cmd, wait: Duration) -> Result<Value, PlaneError> {
        let kept = self.readers().pop().filter(Connection::stands);
        let reader = match kept {
            Some(reader) => reader,
            None => {
                let dialed = async { self.next_reader.lock().await.done(&self.door, self.home()).await };
                timeout(REPLY, dialed).await.unwrap_or_else(|_| Err(silent(&self.door, REPLY)))?
            }
        };
        let read = reader.ask(&self.door, what, command, wait + REPLY).await?;
        let mut readers = self.readers();
        if readers.len() < READERS {
            readers.push(reader);
        }
        Ok(read)
    }

    async fn standing(&self) -> Result<Arc<Connection>, PlaneError> {
        let mut slot = self.commands.lock().await;
        let (standing, dialing) = &mut *slot;
        if let Some(connection) = standing.as_ref().filter(|c| c.stands()) {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(dialing.done(&self.door, self.home()).await?);
        *standing = Some(Arc::clone(&connection));
        Ok(connection)
    }

    fn home(&self) -> &Handle {
        self.home.get_or_init(Handle::current)
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether Redis answers somebody who gave no password.
///
/// # Errors
/// When it cannot be reached.
pub(super) async fn is_open_to_all(door: &Door) -> Result<bool, PlaneError> {
    let dialed = timeout(DIAL, dial(door.clone(), door.anonymous())).await;
    let connection = dialed.unwrap_or_else(|_| Err(silent(door, DIAL)))?;
    match connection.ask::<String>(door, "PING", &redis::cmd("PING"), REPLY).await {
        Ok(_) => Ok(true),
        Err(PlaneError::Refused(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
