//! The Redis serialization protocol, versions 2 and 3, and inline commands.
//!
//! Four directions, each in its own file and none with any I/O:
//!
//! | From | To | Who uses it |
//! | --- | --- | --- |
//! | request bytes | [`Request`] (borrowed arguments) by [`Decoder`] | the server |
//! | [`base::Reply`] calls | reply bytes by [`Encoder`] | the server |
//! | arguments | request bytes by [`encode_command`] | clients |
//! | reply bytes | [`base::Frame`] by [`ReplyDecoder`] | clients |
//!
//! The bytes always come from someone else, so both decoders
//! * take memory only for bytes that have arrived, never for a length that was
//!   merely announced;
//! * are strict about numbers (`+5`, `05`, `-0`, 20 digits are refused);
//! * keep their place between calls: a peer that sends one byte at a time
//!   costs time in proportion to the bytes, not to their square;
//! * give the same answer however the bytes are split.

mod attribute;
mod encode;
mod inline;
mod peek;
mod reply;
mod request;

pub use encode::{Encoder, Protocol, encode_command};
pub use inline::split_args;
pub use peek::peek_second_word;
pub use reply::{Progress, ReplyDecoder, ReplyError, ReplyLimits};
pub use request::{Args, Decoder, Limits, ProtocolError, Request, is_http_start};
