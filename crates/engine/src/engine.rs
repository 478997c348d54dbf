//! The engine: everything that all connections share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use base::{Clock, DbIndex, Rng, SeededRng};
use command::{Command, DataLimits, Run, table};
use keyspace::{EncodingLimits, Keyspace, TxnOptions};
use parking_lot::{Mutex, RwLock};
use settings::{MappedBranch, Settings};

use crate::blocking::Blocking;
use crate::branch::{Home, LiveBranch, LiveBranches};
use crate::call::Handler;
use crate::checkpoint::Archive;
use crate::client::{Client, Clients};
use crate::commit_queue::CommitQueue;
use crate::eviction::{AtLimit, Eviction, accesses_under};
use crate::gauges::Gauges;
use crate::history::{Feeds, UndoMarks, WritersHeld, revision_bytes_max};
use crate::past::Past;
use crate::pause::Pause;
use crate::pubsub::PubSub;
use crate::reclaim::Reclaimer;
use crate::replicator::Replicator;
use crate::revisions::RevisionWaits;
use crate::room::Room;
use crate::scratches::Scratches;
use crate::server::backups::Backups;
use crate::server::latency::Latency;
use crate::server::process::machine_bytes;
use crate::server::save::Saves;
use crate::server::slowlog::SlowLog;
use crate::session::Session;
use crate::stats::Stats;
use crate::tier::Tier;
use crate::tracking::Tracking;

/// Everything that all connections share. Front-ends hold it in an `Arc` and
/// nothing else of Alcid.
pub struct Engine {
    /// The current state of main.
    pub keyspace: Arc<Keyspace>,
    pub(crate) main: LiveBranch,
    pub(crate) branches: LiveBranches,
    /// The commit rule.
    pub replicator: Arc<dyn Replicator>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Connected clients.
    pub clients: Clients,
    /// Counters.
    pub stats: Stats,
    /// What `INFO server` says that only the binary knows.
    pub identity: Identity,
    pub(crate) pubsub: PubSub,
    pub(crate) blocking: Blocking,
    pub(crate) revision_waits: RevisionWaits,
    pub(crate) tracking: Tracking,
    pub(crate) feeds: Feeds,
    pub(crate) pause: Pause,
    pub(crate) writers_held: WritersHeld,
    pub(crate) slowlog: SlowLog,
    pub(crate) latency: Latency,
    pub(crate) gauges: Gauges,
    pub(crate) after_commit: CommitQueue,
    pub(crate) reclaimer: Reclaimer,
    /// Settings as a whole, for CONFIG; what the hot path reads is in `live`.
    settings: RwLock<Settings>,
    live: RwLock<Arc<Live>>,
    /// Counts changes of `live`, so that sessions reload their copy only then.
    live_version: AtomicU64,
    /// Handlers of the commands that the engine runs, by command id.
    handlers: Vec<Option<Handler>>,
    pub(crate) rng: Mutex<SeededRng>,
    /// DEBUG SET-ACTIVE-EXPIRE.
    pub(crate) active_expire: AtomicBool,
    /// DEBUG PAUSE-CRON.
    pub(crate) cron_paused: AtomicBool,
    pub(crate) started_ms: u64,
    pub(crate) hooks: Hooks,
    pub(crate) saves: Saves,
    /// A backup is being made.
    pub(crate) backs_up: AtomicBool,
    pub(crate) backups: Backups,
    pub(crate) tier: Tier,
    pub(crate) eviction: Eviction,
    pub(crate) archive: OnceLock<Arc<dyn Archive>>,
    pub(crate) past: OnceLock<Arc<dyn Past>>,
    /// What can be taken back.
    pub undo_marks: UndoMarks,
    pub(crate) scratches: Scratches,
    pub(crate) room: Room,
}

/// What only the binary can do or know.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// 40 hexadecimal digits, new for every start.
    pub run_id: String,
    /// The configuration file, if there is one.
    pub config_file: Option<std::path::PathBuf>,
    /// The program's file.
    pub executable: String,
    /// The RESP port.
    pub tcp_port: u16,
}

type ConfigHook = Box<dyn Fn(&Settings) -> Result<(), String> + Send + Sync>;
/// Replays the log into the place of the keyspace.
pub type ReloadHook = Box<dyn Fn(&Engine) -> Result<(), String> + Send + Sync>;

/// Calls into the binary.
#[derive(Default)]
pub struct Hooks {
    /// Ends the process in an orderly way: SHUTDOWN.
    pub shutdown: Option<Box<dyn Fn() + Send + Sync>>,
    /// Takes over settings that live outside the engine, such as the level of
    /// the diagnostics.
    pub settings_changed: Option<ConfigHook>,
    /// Writes the configuration file: CONFIG REWRITE.
    pub rewrite_config: Option<ConfigHook>,
    /// Replays the log from disk and puts what comes out in the place of the
    /// keyspace: DEBUG RELOAD.
    pub reload: Option<ReloadHook>,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

/// The settings that commands read, in the form they read them.
#[derive(Clone, Debug)]
pub struct Live {
    /// When collections leave their compact encodings.
    pub encoding: EncodingLimits,
    /// Limits on values.
    pub data: DataLimits,
    /// Bits of `keyspace::class`.
    pub event_classes: u32,
    /// Bytes of memory for data; 0 without limit.
    pub max_memory: u64,
    /// What happens at that limit.
    pub(crate) at_limit: AtLimit,
    /// Nanoseconds from which a command enters the slow log; `u64::MAX` never.
    pub slow_ns: u64,
    /// Nanoseconds from which LATENCY samples an event; `u64::MAX` never.
    pub latency_threshold_ns: u64,
    /// Numbers that SELECT takes for databases of branches.
    pub select_branches: Vec<MappedBranch>,
    /// The settings themselves.
    pub settings: Settings,
}

fn saturating(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The keyspace's words for a setting.
#[must_use]
pub fn encoding_limits(settings: &Settings) -> EncodingLimits {
    let encoding = &settings.encoding;
    EncodingLimits {
        hash_max_listpack_entries: saturating(encoding.hash_max_listpack_entries),
        hash_max_listpack_value: saturating(encoding.hash_max_listpack_value),
        list_max_listpack_size: encoding.list_max_listpack_size,
        set_max_intset_entries: saturating(encoding.set_max_intset_entries),
        set_max_listpack_entries: saturating(encoding.set_max_listpack_entries),
        set_max_listpack_value: saturating(encoding.set_max_listpack_value),
        zset_max_listpack_entries: saturating(encoding.zset_max_listpack_entries),
        zset_max_listpack_value: saturating(encoding.zset_max_listpack_value),
        listpack_lists_and_sets: encoding.listpack_lists_and_sets,
    }
}

impl Live {
    /// How long a deletion can be taken back, in milliseconds; 0 if not at all.
    pub(crate) fn undo_window_ms(&self) -> u64 {
        self.settings.undo_window_s.saturating_mul(1000)
    }

    fn new(settings: &Settings) -> Live {
        Live {
            encoding: encoding_limits(settings),
            data: DataLimits {
                string_bytes_max: saturating(settings.bulk_length_max),
                revision_bytes_max: revision_bytes_max(machine_bytes(), settings.max_memory),
            },
            event_classes: crate::notify::parse_classes(&settings.notify_keyspace_events)
                .expect("the settings table checks the letters"),
            max_memory: settings.max_memory,
            at_limit: AtLimit::of(settings.policy),
            slow_ns: u64::try_from(settings.slowlog_slower_than_us)
                .map_or(u64::MAX, |us| us.saturating_mul(1000)),
            latency_threshold_ns: match settings.latency_monitor_threshold_ms {
                0 => u64::MAX,
                ms => ms.saturating_mul(1_000_000),
            },
            select_branches: settings::mapped_branches(&settings.select_branches)
                .expect("the settings table checks it"),
            settings: settings.clone(),
        }
    }
}

impl Engine {
    /// An engine over a keyspace that recovery has filled.
    ///
    /// # Panics
    /// When a row of the command table says that the engine runs a command and
    /// it has no handler for it.
    #[must_use]
    pub fn new(
        keyspace: impl Into<Arc<Keyspace>>,
        replicator: Arc<dyn Replicator>,
        clock: Arc<dyn Clock>,
        seed: u64,
        settings: Settings,
        identity: Identity,
        hooks: Hooks,
    ) -> Engine {
        let handlers: Vec<Option<Handler>> = {
            let mut by_id = vec![None; table().id_count()];
            for command in table().all().filter(|c| matches!(c.spec.run, Run::Engine)) {
                let handler = crate::call::handler(&command.full_name);
                assert!(handler.is_some(), "no handler for {}", command.full_name);
                by_id[command.id] = handler;
            }
            by_id
        };
        let keyspace: Arc<Keyspace> = keyspace.into();
        keyspace.note_accesses(accesses_under(&settings));
        Engine {
            main: LiveBranch::main(keyspace.clone(), replicator.clone()),
            branches: LiveBranches::default(),
            gauges: Gauges::new(keyspace.memory_bytes() as u64),
            keyspace,
            started_ms: clock.now_ms(),
            after_commit: CommitQueue::default(),
            replicator,
            clock,
            clients: Clients::default(),
            stats: Stats::new(table().id_count()),
            identity,
            pubsub: PubSub::default(),
            blocking: Blocking::default(),
            revision_waits: RevisionWaits::default(),
            tracking: Tracking::default(),
            feeds: Feeds::default(),
            pause: Pause::default(),
            writers_held: WritersHeld::default(),
            slowlog: SlowLog::default(),
            latency: Latency::default(),
            reclaimer: Reclaimer::start(),
            live: RwLock::new(Arc::new(Live::new(&settings))),
            live_version: AtomicU64::new(1),
            settings: RwLock::new(settings),
            handlers,
            rng: Mutex::new(SeededRng::new(seed)),
            active_expire: AtomicBool::new(true),
            cron_paused: AtomicBool::new(false),
            hooks,
            room: Room::default(),
            saves: Saves::default(),
            backs_up: AtomicBool::new(false),
            backups: Backups::default(),
            tier: Tier::default(),
            eviction: Eviction::default(),
            archive: OnceLock::new(),
            past: OnceLock::new(),
            undo_marks: UndoMarks::default(),
            scratches: Scratches::default(),
        }
    }

    /// A session for a new client, which begins at `home`.
    pub fn connect(&self, addr: String, laddr: String, home: Arc<Home>) -> Session {
        let client = self.clients.connect(addr, laddr, self.clock.now_ms());
        self.stats.connections_received.fetch_add(1, Ordering::Relaxed);
        let needs_password = !self.settings.read().requirepass.is_empty();
        let seed = self.rng.lock().next_u64();
        let mut session = Session::new(client, home, !needs_password, seed);
        self.go_home(&mut session);
        session
    }

    /// Forgets a client: its subscriptions, its place in queues, its tracking.
    pub fn disconnect(&self, session: &mut Session) {
        session.tally.flush(&self.stats);
        self.end_turn(session);
        self.pubsub.forget(session);
        self.tracking.forget(session.client.id);
        self.close_watches(&session.client);
        self.clients.disconnect(session.client.id);
    }

    /// The settings that commands read.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        self.live.read().clone()
    }

    /// Changes with every change of [`Engine::live`].
    #[must_use]
    pub fn live_version(&self) -> u64 {
        self.live_version.load(Ordering::Acquire)
    }

    /// A copy of the settings.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings.read().clone()
    }

    /// Changes settings; `change` works on a copy, and nothing changes when it
    /// fails.
    ///
    /// # Errors
    /// What `change` or a taker of settings says.
    pub fn change_settings<E: From<String>>(
        &self,
        change: impl FnOnce(&mut Settings) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut settings = self.settings.write();
        let mut changed = settings.clone();
        change(&mut changed)?;
        if let Some(hook) = &self.hooks.settings_changed {
            hook(&changed)?;
        }
        self.replicator.reconfigure(&changed);
        let live = Arc::new(Live::new(&changed));
        *self.live.write() = live.clone();
        let policy_changed = settings.policy != changed.policy;
        *settings = changed;
        self.live_version.fetch_add(1, Ordering::Release);
        drop(settings);
        self.each_keyspace(|keyspace| keyspace.note_accesses(accesses_under(&live.settings)));
        self.limit_tracked_keys(&live);
        if policy_changed {
            // What one policy left in the archive, the other wants in memory.
            self.load_anew();
        } else {
            self.tier_moved();
        }
        Ok(())
    }

    /// Brings keys that the session's next commands will look up near the
    /// processor. A hint that changes nothing.
    pub fn warm(&self, session: &mut Session, keys: &[&[u8]]) {
        let branch = self.branch_of(session);
        branch.keyspace.look_ahead(session.db, keys, session.buffers());
    }

    pub(crate) fn handler_of(&self, command: &Command) -> Handler {
        self.handlers[command.id].expect("checked when the engine was made")
    }

    /// How a transaction runs now.
    pub(crate) fn txn_options<'t>(
        &self,
        live: &'t Live,
        now_ms: u64,
        touch: bool,
    ) -> TxnOptions<'t> {
        TxnOptions {
            now_ms,
            limits: &live.encoding,
            event_classes: live.event_classes,
            always_record: self.has_effect_readers(),
            expire: true,
            touch,
        }
    }

    /// Whether blocked clients or tracking clients read effects.
    pub(crate) fn has_effect_readers(&self) -> bool {
        !self.blocking.is_empty() || !self.tracking.is_empty()
    }

    /// Bytes that count against `maxmemory`.
    #[must_use]
    pub fn used_memory(&self) -> u64 {
        let mut bytes = 0;
        self.each_keyspace(|keyspace| bytes += keyspace.memory_bytes() as u64);
        bytes
    }

    /// Disconnects those who hold the most memory until all clients together
    /// hold no more than maxmemory-clients. `CLIENT NO-EVICT` protects.
    pub fn evict_clients(&self) {
        let limit = self.live.read().settings.client_memory;
        if limit == 0 {
            return;
        }
        let mut clients: Vec<_> =
            self.clients.all().into_iter().map(|client| (client.memory_bytes(), client)).collect();
        let mut total: u64 = clients.iter().map(|(bytes, _)| *bytes as u64).sum();
        if total <= limit {
            return;
        }
        clients.retain(|(_, client)| !client.activity.no_evict.load(Ordering::Relaxed));
        clients.sort_by_key(|(bytes, _)| *bytes);
        while total > limit
            && let Some((bytes, client)) = clients.pop()
        {
            tracing::warn!(
                client = client.id,
                "closed: all clients hold {total} bytes, above maxmemory-clients ({limit}), and it \
                 holds the most ({bytes})"
            );
            self.stats.evicted_clients.fetch_add(1, Ordering::Relaxed);
            client.kill();
            total -= bytes as u64;
        }
    }

    /// Everybody connected, by id.
    #[must_use]
    pub fn all_clients(&self) -> Vec<Arc<Client>> {
        self.clients.all()
    }

    /// How many databases there are.
    #[must_use]
    pub fn databases(&self) -> DbIndex {
        self.keyspace.databases()
    }
}
