//! Asks the system to notice when the other side of a connection is no longer there.

use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

/// Silence after which the other side is asked whether it is still there.
const IDLE: Duration = Duration::from_secs(60);

/// From one such question to the next.
const INTERVAL: Duration = Duration::from_secs(10);

/// Questions without an answer after which the connection is over.
const QUESTIONS: u32 = 6;

/// A host that lost its power hangs up nothing; without this its connection would stay for ever.
///
/// What the system refuses of it is done without.
pub(super) fn keep_alive(stream: &TcpStream) {
    let _ = sockopt::set_tcp_keepidle(stream, IDLE);
    let _ = sockopt::set_tcp_keepintvl(stream, INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(stream, QUESTIONS);
    let _ = sockopt::set_socket_keepalive(stream, true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_over_two_minutes_after_its_host_lost_power() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        keep_alive(&stream);
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        let idle = sockopt::tcp_keepidle(&stream).unwrap();
        let questions = sockopt::tcp_keepintvl(&stream).unwrap() * sockopt::tcp_keepcnt(&stream).unwrap();
        assert_eq!(idle + questions, Duration::from_secs(120));
    }
}
