//! What the server remembers of one client between its commands.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{DbIndex, Revision, SeededRng};
use command::Command;
use keyspace::{Buffers, Garbage};

use crate::branch::{Home, Seat};
use crate::client::Client;
use crate::origin::LastOrigin;
use crate::server::save::Background;
use crate::travel::Moment;

/// One client's state, owned by its connection.
#[derive(Debug)]
pub struct Session {
    /// The part of it that others see.
    pub client: Arc<Client>,
    /// Where it begins, and where RESET puts it back.
    pub(crate) home: Arc<Home>,
    /// The database of SELECT.
    pub(crate) db: DbIndex,
    /// The branch of BRANCH USE; `None`: main.
    pub(crate) seat: Option<Seat>,
    /// Its name when the session came to it.
    pub(crate) branch_name: Vec<u8>,
    /// Whether the client may run commands.
    pub authenticated: bool,
    /// Who the client has authenticated as.
    pub(crate) user: String,
    /// The newest revision that replies not yet sent depend on: they leave
    /// when it is committed.
    pub depends_on: Revision,
    /// The client's newest write.
    pub(crate) last_write: Revision,
    /// The newest reply is true of the database at this revision.
    pub revision: Revision,
    /// CLIENT REPLYREV ON: replies carry [`Session::revision`].
    pub(crate) shows_revisions: bool,
    /// Which replies the client wants.
    pub reply_mode: ReplyMode,
    /// The reply of the last command is made of pushes, which CLIENT REPLY does
    /// not keep back.
    pub reply_is_push: bool,
    /// The client wants MONITOR's stream.
    pub monitoring: bool,
    pub(crate) multi: Option<Multi>,
    pub(crate) watched: Vec<Watched>,
    /// Saves that a running EXEC asks for.
    pub(crate) saves_after_exec: Vec<Background>,
    /// CLIENT TRAVEL: where data commands read.
    pub(crate) travel: Option<Moment>,
    /// The last reply is of the past, at this revision.
    pub(crate) shown_view: Option<Revision>,
    /// Until when the last command can be taken back.
    pub(crate) shown_undo: Option<u64>,
    pub(crate) channels: BTreeSet<Vec<u8>>,
    pub(crate) patterns: BTreeSet<Vec<u8>>,
    pub(crate) shard_channels: BTreeSet<Vec<u8>>,
    /// Elsewhere, because few clients track.
    pub(crate) tracking: Box<crate::tracking::TrackingState>,
    pub(crate) no_touch: bool,
    pub(crate) rng: SeededRng,
    /// `None` while they are lent. Elsewhere: they are lent to every command.
    pub(crate) buffers: Option<Box<Buffers>>,
    /// What takes long to drop of what its commands threw away.
    pub(crate) garbage: Vec<Garbage>,
    /// Monotonic time at the end of the last command, which is the beginning
    /// of the next one in a pipeline; 0 between batches.
    pub(crate) tick_ns: u64,
    /// The wall time, in microseconds since 1970, and the monotonic time when
    /// the batch began: later wall times of the batch follow from the ticks,
    /// so that a command reads one clock.
    pub(crate) batch_began: (u64, u64),
    pub(crate) tally: crate::stats::Tally,
    pub(crate) last_origin: LastOrigin,
    /// Keys that a command has brought into memory which was put off each time
    /// because others were still being read.
    pub(crate) brought_in: Cell<u32>,
}

/// `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// Every reply is sent.
    #[default]
    On,
    /// None is, except pushes, until `ON`.
    Off,
    /// The reply of this command and of the next is not sent.
    SkipNext,
    /// The reply of this command is not sent.
    Skip,
}

/// Commands queued since MULTI.
#[derive(Debug, Default)]
pub(crate) struct Multi {
    pub(crate) queue: Vec<Queued>,
    /// A command was refused: EXEC answers EXECABORT.
    pub(crate) aborted: bool,
    /// Bytes of the queued arguments.
    pub(crate) bytes: usize,
}

/// A command with arguments of its own.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) command: &'static Command,
    pub(crate) argv: Vec<Vec<u8>>,
}

/// A key whose change makes EXEC fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) db: DbIndex,
    pub(crate) key: Vec<u8>,
    /// Its revision when WATCH saw it; zero when it did not exist. A key that
    /// was deleted and made again has another one.
    pub(crate) revision: Revision,
}

impl Session {
    /// The client's newest write.
    #[inline]
    #[must_use]
    pub fn last_write(&self) -> Revision {
        self.last_write
    }

    pub(crate) fn new(
        client: Arc<Client>,
        home: Arc<Home>,
        authenticated: bool,
        seed: u64,
    ) -> Session {
        Session {
            client,
            home,
            db: 0,
            seat: None,
            branch_name: keyspace::MAIN.to_vec(),
            authenticated,
            user: "default".to_owned(),
            depends_on: Revision::ZERO,
            last_write: Revision::ZERO,
            revision: Revision::ZERO,
            shows_revisions: false,
            reply_mode: ReplyMode::On,
            reply_is_push: false,
            monitoring: false,
            multi: None,
            watched: Vec::new(),
            saves_after_exec: Vec::new(),
            travel: None,
            shown_view: None,
            shown_undo: None,
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            shard_channels: BTreeSet::new(),
            tracking: Box::default(),
            no_touch: false,
            rng: SeededRng::new(seed),
            buffers: None,
            garbage: Vec::new(),
            tick_ns: 0,
            batch_began: (0, 0),
            tally: crate::stats::Tally::default(),
            last_origin: LastOrigin::default(),
            brought_in: Cell::new(0),
        }
    }

    /// Whether a command of so many keys is put off again and again because what it
    /// brings into memory goes again, as memory is short: it waits for its keys with
    /// its locks held then.
    pub(crate) fn waits_in_vain(&self, keys: impl FnOnce() -> usize) -> bool {
        let brought_in = self.brought_in.get();
        brought_in > 0 && brought_in as usize > keys()
    }

    /// The wall time in milliseconds since 1970, as of the last tick.
    pub(crate) fn now_ms(&self) -> u64 {
        let (wall_us, monotonic_ns) = self.batch_began;
        (wall_us + self.tick_ns.saturating_sub(monotonic_ns) / 1000) / 1000
    }

    /// Lends the buffers of its transactions, until they are put back.
    pub(crate) fn lend_buffers(&mut self) -> Box<Buffers> {
        self.buffers.take().unwrap_or_default()
    }

    /// The buffers of its transactions.
    pub(crate) fn buffers(&mut self) -> &mut Buffers {
        self.buffers.get_or_insert_default()
    }

    /// Commands are about this database from here on.
    pub(crate) fn select(&mut self, db: DbIndex) {
        self.db = db;
        self.client.activity.db.store(usize::from(db), Ordering::Relaxed);
    }

    /// Whether it is subscribed to anything.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        !(self.channels.is_empty() && self.patterns.is_empty() && self.shard_channels.is_empty())
    }

    /// Whether pushes come without being asked for: the client has every reason
    /// to be silent, and under RESP2 few commands are left to it.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.is_subscribed() || self.client.is_watching()
    }

    /// Whether it is between MULTI and EXEC.
    #[must_use]
    pub fn in_multi(&self) -> bool {
        self.multi.is_some()
    }
}
