//! The routes that springtide calls.

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

    /// Whether sending it twice does no harm, so that it may be sent again when a connection
    /// kept open turns out to be closed.
    pub fn is_safe(self) -> bool {
        self.method() == hyper::Method::GET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_stand_in_the_order_of_their_numbers() {
        assert!(Endpoint::ALL.into_iter().enumerate().all(|(i, e)| e as usize == i));
    }
}
