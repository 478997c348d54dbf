//! BRANCH INFO: what is known of a branch, and how far it is from what it began
//! with.
//!
//! Memory counts what a branch changes. What one had changed before the server
//! started is read once, when somebody asks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{BranchId, Reply, Revision, SpaceId};
use command::Result;
use keyspace::{Branch, OwnKeys};

use super::commands::number;
use super::{Held, LiveBranch};
use crate::aside::{self, Aside};
use crate::call::{Call, Handler};
use crate::engine::Engine;
use crate::execute::Outcome;

pub(super) const HANDLERS: &[(&str, Handler)] = &[("branch|info", info)];

fn info(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let (engine, now_ms) = (call.engine, call.now_ms);
    let branch = engine.branch_named(call.args[0])?;
    if let Some(far) = engine.far_in_memory(&branch) {
        engine.write_info(&branch, far, now_ms, call.reply);
        return Ok(Outcome::Done);
    }
    let id = branch.id;
    aside::run(call, move |engine, reply| {
        let branch = engine.branch(id).ok_or_else(|| super::no_branch(&engine.branch_name(id)))?;
        let far = engine.far(&branch)?;
        engine.write_info(&branch, far, now_ms, reply);
        Ok(Aside { depends_on: engine.replicator.newest(), ..Aside::default() })
    })
}

/// How far a branch is from what it began with.
#[derive(Clone, Copy, Debug)]
struct Far {
    /// Its newest change.
    head: Revision,
    /// Keys that it has changed, at most.
    keys: u64,
}

impl Engine {
    /// When a branch was given its databases; 0 for main.
    fn forked(&self, branch: BranchId) -> Revision {
        self.branches.known.read().get(branch).map_or(Revision::ZERO, |row| row.forked)
    }

    /// What memory knows; `None` if that is not all.
    fn far_in_memory(&self, branch: &LiveBranch) -> Option<Far> {
        let forked = self.forked(branch.id);
        let (newest, own) = branch.keyspace.own();
        let head = newest.max(Revision(branch.head.load(Ordering::Acquire))).max(forked);
        if !branch.is_counted.load(Ordering::Acquire) {
            return None;
        }
        if branch.id == BranchId::MAIN {
            // It began with nothing.
            return Some(Far { head, keys: own.iter().map(|own| own.keys).sum() });
        }
        let stands = |own: &OwnKeys| own.space == SpaceId { born: forked, db: own.db };
        let is_all = own.iter().all(stands);
        is_all.then(|| Far { head, keys: own.iter().map(|own| own.changed).sum() })
    }

    /// The same, and what the archive has to be asked for.
    fn far(&self, branch: &Held<'_>) -> Result<Far> {
        if branch.id == BranchId::MAIN {
            let newest = self.past().map(|past| past.newest_of(branch.id)).transpose()?.flatten();
            let newest = newest.unwrap_or_else(|| self.replicator.newest());
            let known = branch.head.fetch_max(newest.0, Ordering::AcqRel);
            branch.is_counted.store(true, Ordering::Release);
            let (head, own) = branch.keyspace.own();
            let head = head.max(newest).max(Revision(known));
            return Ok(Far { head, keys: own.iter().map(|own| own.keys).sum() });
        }
        let (forked, branching) = (self.forked(branch.id), self.needs_branching()?);
        if !branch.is_counted.load(Ordering::Acquire) {
            for (_, space, _) in branch.keyspace.spaces() {
                // To empty a database is a change as well.
                let mut head = space.born;
                branching.own_keys(space, &mut |hash, revision| {
                    head = head.max(revision);
                    if revision > forked {
                        branch.keyspace.add_own(space, hash);
                    }
                })?;
                branch.head.fetch_max(head.0, Ordering::AcqRel);
            }
            branch.is_counted.store(true, Ordering::Release);
        }
        let (newest, own) = branch.keyspace.own();
        let head = newest.max(Revision(branch.head.load(Ordering::Acquire))).max(forked);
        let then = branching.state(branch.id, forked)?.own().1;
        let keys = own.iter().zip(then).map(|(now, then)| match now.space == then.space {
            true => now.changed,
            // Emptied or exchanged: all that was there, and all that is.
            false => now.keys + then.keys,
        });
        Ok(Far { head, keys: keys.sum() })
    }

    /// The name of a branch's parent. Of one that is deleted, the name that it had
    /// and that it is; its number where no more is known of it.
    fn parent_name(&self, row: &Branch) -> Vec<u8> {
        let known = self.branches.known.read();
        if row.parent == BranchId::MAIN || known.get(row.parent).is_some_and(|it| !it.is_deleted())
        {
            return known.name_of(row.parent).expect("it is there").to_vec();
        }
        match known.lineage(row.parent, row.base) {
            Some(parent) => [&parent.name[..], b" (deleted)"].concat(),
            None => format!("#{} (deleted)", row.parent.0).into_bytes(),
        }
    }

    fn write_info(
        self: &Arc<Self>,
        branch: &LiveBranch,
        far: Far,
        now_ms: u64,
        reply: &mut dyn Reply,
    ) {
        let row = self.branches.known.read().get(branch.id).cloned();
        let parent = row.as_ref().map(|row| self.parent_name(row));
        let ttl_ms =
            row.as_ref().and_then(|row| row.deadline_ms).map(|at| at.saturating_sub(now_ms));
        reply.map(11);
        reply.bulk(b"parent");
        reply.optional_bulk(parent.as_deref());
        reply.bulk(b"base_rev");
        reply.integer(row.as_ref().map_or(0, |row| number(row.base.0)));
        reply.bulk(b"head_rev");
        reply.integer(number(far.head.0));
        reply.bulk(b"keys_changed");
        reply.integer(number(far.keys));
        reply.bulk(b"bytes");
        reply.integer(number(branch.keyspace.memory_bytes() as u64));
        reply.bulk(b"own_bytes");
        reply.integer(number(branch.keyspace.own_bytes() as u64));
        reply.bulk(b"ttl");
        reply.integer(ttl_ms.map_or(-1, number));
        reply.bulk(b"quota");
        reply.integer(row.as_ref().map_or(0, |row| number(row.quota_bytes)));
        reply.bulk(b"protection");
        let protections = row.iter().flat_map(|row| {
            [
                (row.is_readonly, "readonly"),
                (row.is_kept, "no-delete"),
                (row.is_merge_only, "merge-only"),
            ]
        });
        let protections: Vec<&str> =
            protections.filter(|(is, _)| *is).map(|(_, name)| name).collect();
        reply.array(protections.len());
        protections.iter().for_each(|name| reply.bulk(name.as_bytes()));
        reply.bulk(b"created_ms");
        reply.integer(row.as_ref().map_or(0, |row| number(row.created_ms)));
        reply.bulk(b"created_by");
        reply.optional_bulk(row.as_ref().map(|row| &row.created_by[..]));
    }
}
