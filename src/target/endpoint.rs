//! The routes that springtide calls.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// One route with its method. Requests are counted by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Endpoint {
    /// Is anybody there?
    Hello,
    /// Make an account.
    Register,
    /// Open a session.
    Login,
    /// Renew a session.
    Refresh,
    /// Submit a job.
    Submit,
    /// Ask for a job's state.
    Poll,
    /// Cancel a job.
    Cancel,
    /// Fetch results.
    Results,
    /// The account's jobs, as the target has them.
    Simulations,
}

impl Endpoint {
    /// Every endpoint, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Hello,
        Self::Register,
        Self::Login,
        Self::Refresh,
        Self::Submit,
        Self::Poll,
        Self::Cancel,
        Self::Results,
        Self::Simulations,
    ];

    /// Its HTTP method.
    pub fn method(self) -> hyper::Method {
        match self {
            Self::Register => hyper::Method::PUT,
            Self::Login | Self::Submit => hyper::Method::POST,
            Self::Cancel => hyper::Method::DELETE,
            Self::Hello | Self::Refresh | Self::Poll | Self::Results | Self::Simulations => {
                hyper::Method::GET
            }
        }
    }

    /// The same as a word.
    pub fn method_name(self) -> &'static str {
        match self {
            Self::Register => "PUT",
            Self::Login | Self::Submit => "POST",
            Self::Cancel => "DELETE",
            Self::Hello | Self::Refresh | Self::Poll | Self::Results | Self::Simulations => "GET",
        }
    }

    /// Its path, which is also its name in reports.
    pub fn path(self) -> &'static str {
        match self {
            Self::Hello => "/",
            Self::Register => "/auth/register",
            Self::Login => "/auth/login",
            Self::Refresh => "/auth/refresh",
            Self::Submit | Self::Cancel => "/jobs/direct",
            Self::Poll => "/jobs",
            Self::Results => "/results",
            Self::Simulations => "/user/simulations",
        }
    }

    /// Whether it is about one job, and so a part of that job's trace.
    pub fn is_of_job(self) -> bool {
        matches!(self, Self::Submit | Self::Poll | Self::Cancel | Self::Results)
    }

    /// Whether sending it twice does no harm, so that it may be sent again when a connection
    /// kept open turns out to be closed.
    pub fn is_safe(self) -> bool {
        self.method() == hyper::Method::GET
    }
}

/// The query that names a job, its id escaped: ids are opaque, and one with `&` or a space in it
/// must not become another question.
pub fn of_job(id: &str) -> String {
    format!("job_id={}", utf8_percent_encode(id, OPAQUE))
}

/// Everything but the characters that RFC 3986 calls unreserved.
const OPAQUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_escaped() {
        assert_eq!(of_job("20261122-d23c_DIRECT"), "job_id=20261122-d23c_DIRECT");
        assert_eq!(of_job("a b&c=ü#"), "job_id=a%20b%26c%3D%C3%BC%23");
    }

    #[test]
    fn a_method_is_called_by_its_name() {
        assert!(Endpoint::ALL.into_iter().all(|e| e.method().as_str() == e.method_name()));
    }

    #[test]
    fn they_stand_in_the_order_of_their_numbers() {
        assert!(Endpoint::ALL.into_iter().enumerate().all(|(i, e)| e as usize == i));
    }
}
