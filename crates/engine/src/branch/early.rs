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

use super::{LiveBranch, Seat};
use crate::engine::{Engine, Live};
use crate::execute::borrow;
use crate::session::Session;
use crate::travel::Unchanged;

/// Commands about all keys that look at none.
const NEED_NOTHING: &[&str] = &["dbsize", "flushall", "flushdb", "swapdb"];

impl Engine {
    /// Whether a command on a branch is too early.
    pub(crate) fn is_too_early(
        &self,
        session: &Session,
        live: &Live,
        command: &Command,
        argv: &[&[u8]],
        now_ms: u64,
    ) -> bool {
        let Some(Seat { branch, .. }) = &session.seat else { return false };
        if session.travel.is_some() || !branch.keyspace.is_backed() {
            return false;
        }
        match (command.spec.run, &session.multi) {
            (Run::Data(_), None) => !self.is_settled(branch) && self.looks_at_all(command, argv),
            (Run::Engine, None) if command.full_name == "watch" => {
                let keys = argv[1..].iter().map(|key| (session.db, *key, Known::Value));
                !self.brings_in(branch, live, now_ms, &keys.collect::<Vec<_>>())
            }
            (Run::Engine, Some(_)) if matches!(&*command.full_name, "exec" | "whatif") => {
                self.is_too_early_for_exec(session, branch, live, command, now_ms)
            }
            (Run::Engine, None) if command.full_name == "whatif" => {
                let named = command.keys(argv);
                let value = |key: &KeyRef| (session.db, argv[key.index], Known::Value);
                let keys: Vec<_> = named.iter().map(value).collect();
                // What names no key may look at all.
                keys.is_empty() && !self.is_settled(branch)
                    || !self.brings_in(branch, live, now_ms, &keys)
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
        let mut keys: Vec<(DbIndex, &[u8], Known)> =
            session.watched.iter().map(|it| (it.db, &it.key[..], Known::Value)).collect();
        for queued in session.multi.iter().flat_map(|multi| &multi.queue) {
            let argv = borrow(&queued.argv);
            if matches!(queued.command.spec.run, Run::Data(_)) {
                if !self.is_settled(branch) && self.looks_at_all(queued.command, &argv) {
                    return true;
                }
                let named = queued.command.keys(&argv);
                let known = if looks { Known::Value } else { queued.command.known(&argv) };
                let of = |key: &KeyRef| (session.db, &queued.argv[key.index][..], known);
                keys.extend(named.iter().map(of));
            }
        }
        !self.brings_in(branch, live, now_ms, &keys)
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
        branch: &LiveBranch,
        live: &Live,
        now_ms: u64,
        keys: &[(DbIndex, &[u8], Known)],
    ) -> bool {
        let shards = keys.iter().map(|(_, key, _)| branch.keyspace.shard_of(key)).collect();
        let (scope, mut buffers) = (Scope::Shards(shards), Buffers::default());
        let options = self.txn_options(live, now_ms, false);
        let mut txn = Txn::begin(&branch.keyspace, &scope, &Unchanged, &mut buffers, options);
        txn.set_patience(false);
        for (db, key, known) in keys {
            match known {
                Known::Value | Known::ByArguments(_) => txn.load_in(*db, key),
                Known::Existence | Known::Nothing => txn.look_for_in(*db, key),
            }
        }
        let has_later = txn.has_later();
        txn.finish();
        !has_later
    }
}
