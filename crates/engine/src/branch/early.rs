//! Commands that are too early: what they look at is still on its way into the
//! archive, or takes long to read from there.
//!
//! They are tried again in a moment, so that no thread, and nobody who holds a
//! lock, waits for it. A command that names its keys finds out by itself
//! (`Txn::has_later`); here is what it cannot find out when it runs.

use std::sync::atomic::Ordering;

use base::DbIndex;
use command::{Command, KeyRef, Known, Run};
use keyspace::{Buffers, Scope, Txn};
use smallvec::SmallVec;

use super::LiveBranch;
use crate::engine::{Engine, Live};
use crate::execute::borrow;
use crate::session::Session;
use crate::travel::Unchanged;

/// Commands about all keys that look at none.
const NEED_NOTHING: &[&str] = &["dbsize", "flushall", "flushdb", "swapdb"];

/// What has to be known of a key.
#[derive(Clone, Copy)]
enum Need<'n> {
    Value,
    /// Its elements of these names.
    Elements(&'n [&'n [u8]]),
    Existence,
}

/// A key, its database and what has to be known of it.
type Needed<'n> = (DbIndex, &'n [u8], Need<'n>);

impl Engine {
    /// Whether a command is too early.
    pub(crate) fn is_too_early(
        &self,
        session: &Session,
        live: &Live,
        command: &Command,
        argv: &[&[u8]],
        now_ms: u64,
    ) -> bool {
        let branch = match &session.seat {
            Some(seat) => &*seat.branch,
            None => &self.main,
        };
        if session.travel.is_some() || !branch.keyspace.is_backed() {
            return false;
        }
        match (command.spec.run, &session.multi) {
            (Run::Data(_), None) => !self.is_settled(branch) && self.looks_at_all(command, argv),
            (Run::Engine, None) if command.full_name == "watch" => {
                let keys = argv[1..].iter().map(|key| (session.db, *key, Need::Value));
                !self.brings_in(session, branch, live, now_ms, &keys.collect::<Vec<_>>())
            }
            (Run::Engine, Some(_)) if matches!(&*command.full_name, "exec" | "whatif") => {
                self.is_too_early_for_exec(session, branch, live, command, now_ms)
            }
            (Run::Engine, None) if command.full_name == "whatif" => {
                let named = command.keys(argv);
                let value = |key: &KeyRef| (session.db, argv[key.index], Need::Value);
                let keys: Vec<_> = named.iter().map(value).collect();
                // What names no key may look at all.
                keys.is_empty() && !self.is_settled(branch)
                    || !self.brings_in(session, branch, live, now_ms, &keys)
            }
            _ => false,
        }
    }

    /// Whether what was queued is too early.
    fn is_too_early_for_exec(
        &self,
        session: &Session,
        branch: &LiveBranch,
        live: &Live,
        command: &Command,
        now_ms: u64,
    ) -> bool {
        // To try a command is to look at what it changes.
        let looks = command.full_name != "exec";
        let queue = session.multi.iter().flat_map(|multi| &multi.queue);
        let queue = queue.filter(|queued| matches!(queued.command.spec.run, Run::Data(_)));
        let queue: Vec<(&Command, SmallVec<[&[u8]; 8]>)> =
            queue.map(|queued| (queued.command, borrow(&queued.argv))).collect();
        let mut keys: Vec<Needed<'_>> =
            session.watched.iter().map(|it| (it.db, &it.key[..], Need::Value)).collect();
        for (queued, argv) in &queue {
            if !self.is_settled(branch) && self.looks_at_all(queued, argv) {
                return true;
            }
            let need = match queued.known(argv) {
                _ if looks => Need::Value,
                Known::Value if queued.spec.by_element => Need::Elements(&argv[2..]),
                Known::Value | Known::ByArguments(_) => Need::Value,
                Known::Outline => Need::Elements(&[]),
                Known::Existence | Known::Nothing => Need::Existence,
            };
            let named = queued.keys(argv);
            keys.extend(named.iter().map(|key| (session.db, argv[key.index], need)));
        }
        !self.brings_in(session, branch, live, now_ms, &keys)
    }

    /// Whether what a branch begins with is in the archive.
    pub(crate) fn is_settled(&self, branch: &LiveBranch) -> bool {
        if branch.is_settled.load(Ordering::Relaxed) {
            return true;
        }
        let Some(branching) = self.branches.branching.get() else { return true };
        let is_settled = branching.has_reached(branch.begins);
        branch.is_settled.store(is_settled, Ordering::Relaxed);
        // Who need not wait hears why from what it reads.
        is_settled || branching.is_hindered(branch.begins)
    }

    /// Whether the archive has the record that made a branch. One that was there
    /// before the start may have its beginning from a log that the archive lags
    /// behind.
    pub(crate) fn has_forked(&self, branch: &LiveBranch) -> bool {
        let forked =
            self.branches.known.read().get(branch.id).map_or(branch.begins, |row| row.forked);
        let branching = self.branches.branching.get();
        branching.is_none_or(|it| it.has_reached(forked) || it.is_hindered(forked))
    }

    /// Whether a data command looks at keys that it does not name.
    fn looks_at_all(&self, command: &Command, argv: &[&[u8]]) -> bool {
        let needs_nothing = NEED_NOTHING.contains(&command.full_name.as_str());
        !needs_nothing && !matches!(self.scope(command, argv), Scope::Shards(_))
    }

    /// Brings keys into memory as far as what is to be known of them needs that;
    /// answers whether none takes long. What cannot be read is for the command
    /// itself to report.
    fn brings_in(
        &self,
        session: &Session,
        branch: &LiveBranch,
        live: &Live,
        now_ms: u64,
        keys: &[Needed<'_>],
    ) -> bool {
        if session.waits_in_vain(|| keys.len()) {
            return true;
        }
        let shards = keys.iter().map(|(_, key, _)| branch.keyspace.shard_of(key)).collect();
        let (scope, mut buffers) = (Scope::Shards(shards), Buffers::default());
        let options = self.txn_options(live, now_ms, false);
        let mut txn = Txn::begin(&branch.keyspace, &scope, &Unchanged, &mut buffers, options);
        txn.set_patience(false);
        // Nothing is removed yet.
        txn.keep_due();
        for (db, key, need) in keys {
            match need {
                Need::Value => txn.load_in(*db, key),
                Need::Elements(names) => {
                    txn.select(*db);
                    txn.look_at(key, names);
                }
                Need::Existence => txn.look_for_in(*db, key),
            }
        }
        let has_later = txn.has_later();
        let loaded = txn.finish().loaded;
        if has_later {
            let before = session.brought_in.get();
            session.brought_in.set(before.saturating_add(loaded));
        }
        !has_later
    }
}
