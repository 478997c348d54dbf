//! REMOVE: the keys go whose names begin with a prefix or match a pattern.

use base::{DbIndex, Reply, glob};
use keyspace::{Chosen, IsWanted, Keyspace, Sweep, Txn};

use crate::args::{Args, is_word};
use crate::ctx::{Ctx, DataLimits};
use crate::error::{Error, Result};
use crate::flags::{LOADING, STALE, WRITE, category};
use crate::spec::{CommandSpec, ScopeRule};

type Row = CommandSpec;

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    Row::data("help", 2, LOADING.with(STALE), &[], "alcid 0.1", "", "Returns helpful text about the different subcommands.", help),
    Row::data("match", -3, WRITE, &[], "alcid 0.1", "pattern [DRYRUN] [NOUNDO]", "Removes all keys of the database whose names match a pattern.", remove_match).scope(ScopeRule::All).categories(category::DANGEROUS),
    Row::data("prefix", -3, WRITE, &[], "alcid 0.1", "prefix [DRYRUN] [NOUNDO]", "Removes all keys of the database whose names begin with a prefix.", remove_prefix).scope(ScopeRule::All).categories(category::DANGEROUS),
];

/// What REMOVE is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Removal<'a> {
    names: Names<'a>,
    /// DRYRUN.
    pub is_dry: bool,
    /// NOUNDO.
    pub is_for_good: bool,
}

/// Which keys.
#[derive(Clone, Copy, Debug)]
enum Names<'a> {
    Prefix(&'a [u8]),
    Match(&'a [u8]),
}

impl<'a> Removal<'a> {
    /// Reads the words of REMOVE PREFIX or REMOVE MATCH, both of its own included.
    ///
    /// # Errors
    /// When they are not right.
    ///
    /// # Panics
    /// When there are less than three words.
    pub fn read(argv: &[&'a [u8]]) -> Result<Removal<'a>> {
        let names = if is_word(argv[1], "prefix") { Names::Prefix } else { Names::Match };
        Removal::of(names(argv[2]), &argv[3..])
    }

    fn of(names: Names<'a>, options: &[&'a [u8]]) -> Result<Removal<'a>> {
        let mut removal = Removal { names, is_dry: false, is_for_good: false };
        let mut options = Args::new(options);
        while !options.is_empty() {
            if options.take_word("dryrun") {
                removal.is_dry = true;
            } else if options.take_word("noundo") {
                removal.is_for_good = true;
            } else {
                return Err(Error::SYNTAX);
            }
        }
        Ok(removal)
    }

    /// Finds the keys of the transaction's database.
    ///
    /// # Errors
    /// When the backing cannot be read, or they are too many for one record.
    pub fn choose(&self, txn: &mut Txn<'_>, limits: &DataLimits) -> Result<Chosen> {
        let max = limits.revision_bytes_max;
        txn.choose(&self.names.wanted(), max)?.ok_or_else(|| too_long(max))
    }

    /// Of the keys of a database, which are found by [`Removal::look`] and
    /// [`Removal::settle`].
    #[must_use]
    pub fn sweep<'k>(&self, keyspace: &'k Keyspace, db: DbIndex, limits: &DataLimits) -> Sweep<'k> {
        Sweep::of(keyspace, db, self.names.wanted(), limits.revision_bytes_max)
    }

    /// As [`Sweep::look`].
    ///
    /// # Errors
    /// As [`Removal::choose`].
    pub fn look(&self, sweep: &mut Sweep<'_>, now_ms: u64, limits: &DataLimits) -> Result<usize> {
        sweep.look(now_ms)?.ok_or_else(|| too_long(limits.revision_bytes_max))
    }

    /// As [`Txn::settle_sweep`].
    ///
    /// # Errors
    /// As [`Removal::choose`].
    pub fn settle(
        &self,
        txn: &mut Txn<'_>,
        sweep: &mut Sweep<'_>,
        limits: &DataLimits,
    ) -> Result<bool> {
        txn.settle_sweep(sweep)?.ok_or_else(|| too_long(limits.revision_bytes_max))
    }
}

impl Names<'_> {
    fn wanted(&self) -> IsWanted {
        match *self {
            Names::Prefix(prefix) => {
                let prefix = prefix.to_vec();
                Box::new(move |key| key.starts_with(&prefix))
            }
            Names::Match(pattern) => {
                let pattern = pattern.to_vec();
                Box::new(move |key| glob::matches(&pattern, key))
            }
        }
    }
}

fn too_long(max: usize) -> Error {
    Error::new(format!(
        "ERR the record of so many keys would exceed {max} bytes, the most that one revision takes; remove them by \
         longer prefixes"
    ))
}

fn remove_match(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    run(ctx, Removal::of(Names::Match(args[0]), &args[1..])?, reply)
}

fn remove_prefix(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    run(ctx, Removal::of(Names::Prefix(args[0]), &args[1..])?, reply)
}

fn run(ctx: &mut Ctx<'_, '_>, removal: Removal<'_>, reply: &mut dyn Reply) -> Result {
    let chosen = removal.choose(ctx.tx, ctx.limits)?;
    if !removal.is_dry {
        ctx.tx.remove_chosen(&chosen, removal.is_for_good)?;
    }
    reply.count(chosen.len());
    Ok(())
}

fn help(_: &mut Ctx<'_, '_>, _: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let lines = [
        "REMOVE <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "MATCH <pattern> [DRYRUN] [NOUNDO]",
        "    Remove the keys of the database whose names match the pattern, and return",
        "    how many there were. DRYRUN only counts them. UNDO brings them back for a",
        "    while, unless it was NOUNDO.",
        "PREFIX <prefix> [DRYRUN] [NOUNDO]",
        "    The same, of the keys whose names begin with the prefix.",
        "HELP",
        "    Print this help.",
    ];
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.simple(line));
    Ok(())
}
