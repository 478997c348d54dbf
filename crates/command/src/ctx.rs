//! What a handler sees besides its arguments.

use base::Rng;
use keyspace::Txn;
use smallvec::SmallVec;

/// Limits on values that handlers enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataLimits {
    /// `proto-max-bulk-len`: the longest string, in bytes.
    pub string_bytes_max: usize,
    /// Bytes that one revision may bring back, merge, or take to tell what goes.
    pub revision_bytes_max: usize,
}

impl Default for DataLimits {
    fn default() -> DataLimits {
        DataLimits { string_bytes_max: 512 << 20, revision_bytes_max: 1 << 30 }
    }
}

/// A running command's surroundings.
pub struct Ctx<'c, 't> {
    /// The transaction, with the command's shards locked and the session's
    /// database selected.
    pub tx: &'c mut Txn<'t>,
    /// The random source.
    pub rng: &'c mut dyn Rng,
    /// Limits on values.
    pub limits: &'c DataLimits,
    /// Whether the command may wait. False inside MULTI and scripts, where
    /// blocking commands answer at once, as after a timeout.
    pub can_block: bool,
    /// Set by a handler that wants to wait; it has written no reply then.
    pub block: Option<Block>,
}

/// A request to wait until one of some keys holds something.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The keys, in the order the client prefers them.
    pub keys: SmallVec<[Vec<u8>; 2]>,
    /// The type that ends the wait.
    pub wait_for: WaitFor,
    /// How long, in milliseconds; `None`: for ever.
    pub timeout_ms: Option<u64>,
    /// The reply when the time is over.
    pub on_timeout: TimeoutReply,
}

/// The type of value a blocked client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the types")]
pub enum WaitFor {
    List,
    Zset,
}

/// What a blocked client hears when its time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are replies")]
pub enum TimeoutReply {
    Null,
    NullArray,
}

impl Ctx<'_, '_> {
    /// Asks to wait, or answers as after a timeout where waiting is not
    /// possible. The caller returns right after.
    pub fn wait(&mut self, block: Block, reply: &mut dyn base::Reply) {
        if self.can_block {
            self.block = Some(block);
        } else {
            block.on_timeout.write(reply);
        }
    }
}

impl TimeoutReply {
    /// Writes the reply.
    pub fn write(self, reply: &mut dyn base::Reply) {
        match self {
            TimeoutReply::Null => reply.null(),
            TimeoutReply::NullArray => reply.null_array(),
        }
    }
}
