//! Rows of publish and subscribe; their handlers are in `engine`.

use crate::flags::{FAST, Flags, LOADING, MAY_REPLICATE, NOSCRIPT, PUBSUB, STALE};
use crate::keys::{KeySpec, key_flags::NOT_KEY};
use crate::spec::{CommandSpec, Family, Group};

type Row = CommandSpec;

const LISTEN: Flags = PUBSUB.with(NOSCRIPT).with(LOADING).with(STALE);
const SEND: Flags = PUBSUB.with(LOADING).with(STALE).with(FAST).with(MAY_REPLICATE);
const ASK: Flags = PUBSUB.with(LOADING).with(STALE);

/// The rows.
#[rustfmt::skip]
pub const FAMILY: Family = Family {
    group: Group::PubSub,
    commands: &[
        Row::engine("psubscribe", -2, LISTEN, "2.0.0", "pattern [pattern ...]", "Listens for messages published to channels that match one or more patterns."),
        Row::engine("publish", 3, SEND, "2.0.0", "channel message", "Posts a message to a channel."),
        Row::container("pubsub", Flags(0), "2.8.0", "A container for Pub/Sub commands.", PUBSUB_COMMANDS),
        Row::engine("punsubscribe", -1, LISTEN, "2.0.0", "[pattern [pattern ...]]", "Stops listening to messages published to channels that match one or more patterns."),
        Row::engine("spublish", 3, SEND, "7.0.0", "shardchannel message", "Post a message to a shard channel.").keys(&[KeySpec::one(1, NOT_KEY)]),
        Row::engine("ssubscribe", -2, LISTEN, "7.0.0", "shardchannel [shardchannel ...]", "Listens for messages published to shard channels.").keys(&[KeySpec::range(1, -1, 1, NOT_KEY)]),
        Row::engine("subscribe", -2, LISTEN, "2.0.0", "channel [channel ...]", "Listens for messages published to channels."),
        Row::engine("sunsubscribe", -1, LISTEN, "7.0.0", "[shardchannel [shardchannel ...]]", "Stops listening to messages posted to shard channels.").keys(&[KeySpec::range(1, -1, 1, NOT_KEY)]),
        Row::engine("unsubscribe", -1, LISTEN, "2.0.0", "[channel [channel ...]]", "Stops listening to messages posted to channels."),
    ],
};

#[rustfmt::skip]
const PUBSUB_COMMANDS: &[CommandSpec] = &[
    Row::engine("channels", -2, ASK, "2.8.0", "[pattern]", "Returns the active channels."),
    Row::engine("help", 2, LOADING.with(STALE), "6.2.0", "", "Returns helpful text about the different subcommands."),
    Row::engine("numpat", 2, ASK, "2.8.0", "", "Returns a count of unique pattern subscriptions."),
    Row::engine("numsub", -2, ASK, "2.8.0", "[channel [channel ...]]", "Returns a count of subscribers to channels."),
    Row::engine("shardchannels", -2, ASK, "7.0.0", "[pattern [pattern ...]]", "Returns the active shard channels."),
    Row::engine("shardnumsub", -2, ASK, "7.0.0", "[shardchannel [shardchannel ...]]", "Returns the count of subscribers of shard channels."),
];
