use std::time::Duration;

use resp::{Protocol, ReplyLimits};

/// Whom to connect to, and as whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port`; an IPv6 address stands in brackets.
    pub addr: String,
    /// For each address the host name stands for.
    pub connect_timeout: Duration,
    /// For one reply, or one batch of a pipeline; `None` waits for ever, which
    /// blocking commands may need.
    pub reply_timeout: Option<Duration>,
    /// The protocol version to ask for.
    pub protocol: Protocol,
    /// The user to authenticate as; `default` when only a password is given.
    pub user: Option<String>,
    /// The password; no authentication without one.
    pub password: Option<String>,
    /// The name that `CLIENT LIST` shows.
    pub name: Option<String>,
    /// The database to select.
    pub db: u16,
    /// What is accepted from the server.
    pub reply_limits: ReplyLimits,
}

impl Options {
    /// RESP2, no password, five seconds to connect, no limit on replies' time.
    #[must_use]
    pub fn new(addr: impl Into<String>) -> Options {
        Options {
            addr: addr.into(),
            connect_timeout: Duration::from_secs(5),
            reply_timeout: None,
            protocol: Protocol::Resp2,
            user: None,
            password: None,
            name: None,
            db: 0,
            reply_limits: ReplyLimits::default(),
        }
    }

    /// The requests that bring a new connection into the wanted state. Each
    /// must be answered without an error.
    pub(crate) fn handshake(&self) -> Vec<Vec<String>> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let user = self.user.as_deref().unwrap_or("default");
        let mut requests: Vec<Vec<String>> = Vec::new();
        match self.protocol {
            Protocol::Resp2 => {
                // A password alone works with servers older than ACLs too.
                match (&self.user, &self.password) {
                    (Some(user), Some(password)) => {
                        requests.push(words(&["AUTH", user, password]));
                    }
                    (None, Some(password)) => requests.push(words(&["AUTH", password])),
                    _ => {}
                }
            }
            Protocol::Resp3 => {
                let mut hello: Vec<String> = words(&["HELLO", "3"]);
                if let Some(password) = &self.password {
                    hello.extend::<Vec<String>>(words(&["AUTH", user, password]));
                }
                requests.push(hello);
            }
        }
        if let Some(name) = &self.name {
            requests.push(words(&["CLIENT", "SETNAME", name]));
        }
        if self.db != 0 {
            requests.push(words(&["SELECT", &self.db.to_string()]));
        }
        requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(options: &Options) -> Vec<String> {
        options.handshake().iter().map(|words| words.join(" ")).collect()
    }

    #[test]
    fn handshakes() {
        let plain = Options::new("h:1");
        assert!(lines(&plain).is_empty());

        let full = Options {
            user: Some("ada".into()),
            password: Some("pw".into()),
            name: Some("tool".into()),
            db: 3,
            ..plain.clone()
        };
        assert_eq!(lines(&full), ["AUTH ada pw", "CLIENT SETNAME tool", "SELECT 3"]);
        let three = Options { protocol: Protocol::Resp3, ..full };
        assert_eq!(lines(&three), ["HELLO 3 AUTH ada pw", "CLIENT SETNAME tool", "SELECT 3"]);

        let password = Options { password: Some("pw".into()), ..plain.clone() };
        assert_eq!(lines(&password), ["AUTH pw"]);
        let three = Options { protocol: Protocol::Resp3, ..password };
        assert_eq!(lines(&three), ["HELLO 3 AUTH default pw"]);
        let three = Options { protocol: Protocol::Resp3, ..plain };
        assert_eq!(lines(&three), ["HELLO 3"]);
    }
}
