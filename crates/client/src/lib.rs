//! A RESP client for the tools and the tests.
//!
//! [`Client`] blocks; [`AsyncClient`] (feature `async`) does not. Both speak
//! RESP2 and RESP3, pipeline, keep pushes apart from replies, and reconnect
//! when told to.
//!
//! A request that has left and got no answer may or may not have run. Neither
//! client repeats it: they answer [`ClientError::UnknownOutcome`], and the
//! connection takes no more requests until [`Client::reconnect`].

#[cfg(feature = "async")]
mod asynchronous;
mod blocking;
mod error;
mod inbox;
mod options;

#[cfg(feature = "async")]
pub use asynchronous::AsyncClient;
pub use base::Frame;
pub use blocking::Client;
pub use error::ClientError;
pub use options::Options;
pub use resp::Protocol;
