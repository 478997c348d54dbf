//! Rows of the commands about branches and tags; their handlers are in
//! `engine`.

use smallvec::SmallVec;

use crate::args::is_word;
use crate::flags::{FAST, Flags, LOADING, NO_MULTI, NOSCRIPT, READONLY, STALE, WRITE, category};
use crate::history::keys_from;
use crate::keys::{Begin, Find, KeyRef, KeySpec, key_flags::*};
use crate::spec::{CommandSpec, Family, Group};

type Row = CommandSpec;

/// What WHATIF is asked for besides the command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WhatIf<'a> {
    /// Where in the words, WHATIF included, those of the command begin.
    pub begin: usize,
    /// VALUES.
    pub values: bool,
    /// What follows COUNT.
    pub count: Option<&'a [u8]>,
}

/// Reads the words of WHATIF up to the command; there may be none.
#[must_use]
pub fn read_whatif<'a>(argv: &[&'a [u8]]) -> WhatIf<'a> {
    let mut asked = WhatIf { begin: 1, ..WhatIf::default() };
    loop {
        match argv.get(asked.begin..) {
            Some([word, ..]) if is_word(word, "values") => {
                asked.values = true;
                asked.begin += 1;
            }
            Some([word, count, ..]) if is_word(word, "count") => {
                asked.count = Some(count);
                asked.begin += 2;
            }
            // COUNT without its number is no command either.
            Some([word]) if is_word(word, "count") => asked.begin += 1,
            _ => return asked,
        }
    }
}

fn keys_of_inner(argv: &[&[u8]]) -> SmallVec<[KeyRef; 4]> {
    keys_from(argv, read_whatif(argv).begin)
}

/// They are records of their own, which no EXEC can hold.
const CHANGE: Flags = WRITE.with(NOSCRIPT).with(NO_MULTI);
const MOVE: Flags = NOSCRIPT.with(NO_MULTI).with(FAST);
const ASK: Flags = READONLY.with(NO_MULTI);
const HELP: Flags = LOADING.with(STALE);

/// The rows.
#[rustfmt::skip]
pub const FAMILY: Family = Family {
    group: Group::Branches,
    commands: &[
        Row::container("branch", Flags(0), "alcid 0.1", "A container for commands about branches.", BRANCH_COMMANDS),
        Row::container("tag", Flags(0), "alcid 0.1", "A container for commands about tags, names for revisions.", TAG_COMMANDS),
        Row::engine("whatif", -2, ASK, "alcid 0.1", "[VALUES] [COUNT count] command [arg [arg ...]]", "Tells what a command would do and answer, and does nothing.").keys(&[KeySpec { flags: RO.with(ACCESS), begin: Begin::Index(1), find: Find::Custom(keys_of_inner) }]),
    ],
};

#[rustfmt::skip]
const BRANCH_COMMANDS: &[CommandSpec] = &[
    Row::engine("abort", 3, CHANGE, "alcid 0.1", "merge", "Gives up a merge that waits for decisions."),
    Row::engine("conflicts", 3, ASK, "alcid 0.1", "merge", "Lists what a merge cannot decide."),
    Row::engine("create", -3, CHANGE, "alcid 0.1", "name [FROM branch] [AT when] [TTL duration] [QUOTA size] [READONLY]", "Makes a branch, which begins with what its parent has."),
    Row::engine("current", 2, MOVE, "alcid 0.1", "", "Names the connection's branch."),
    Row::engine("delete", -3, CHANGE, "alcid 0.1", "name [FORCE] [NOUNDO]", "Deletes a branch and what was written to it.").categories(category::DANGEROUS),
    Row::engine("diff", -4, ASK, "alcid 0.1", "a[@when] b[@when] [MATCH pattern] [COUNT count] [CURSOR cursor] [VALUES] [SUMMARY]", "Lists the keys in which two branches differ."),
    Row::engine("help", 2, HELP, "alcid 0.1", "", "Returns helpful text about the different subcommands."),
    Row::engine("info", 3, ASK, "alcid 0.1", "name", "Tells what a branch begins with and how far it is from that."),
    Row::engine("list", -2, ASK, "alcid 0.1", "[MATCH pattern]", "Names the branches."),
    Row::engine("merge", -3, CHANGE, "alcid 0.1", "name [INTO name] [MATCH pattern] [ON CONFLICT <FAIL | OURS | THEIRS | MANUAL>] [DRYRUN] [MSG text]", "Takes what another branch has changed since both were the same."),
    Row::engine("protect", -3, CHANGE, "alcid 0.1", "name [NO-DELETE] [MERGE-ONLY] [REQUIRE hook]", "Says what is not to be done to a branch; nothing: everything may be done again."),
    Row::engine("rename", 4, CHANGE, "alcid 0.1", "name newname", "Gives a branch another name."),
    Row::engine("reset", 5, CHANGE, "alcid 0.1", "name TO <when | PARENT>", "Makes a branch what it was at an earlier time, or begin anew with what its parent has now.").categories(category::DANGEROUS),
    Row::engine("resolve", -5, CHANGE, "alcid 0.1", "merge key <OURS | THEIRS | VALUE value>", "Decides what becomes of a key that a merge cannot decide.").keys(&[KeySpec::one(3, OW.with(UPDATE))]),
    Row::engine("use", 3, MOVE, "alcid 0.1", "name", "Puts the connection on a branch."),
];

#[rustfmt::skip]
const TAG_COMMANDS: &[CommandSpec] = &[
    Row::engine("create", -3, CHANGE, "alcid 0.1", "tag [BRANCH branch] [AT when]", "Names a revision, which stays readable as long as the tag exists."),
    Row::engine("delete", 3, CHANGE, "alcid 0.1", "tag", "Forgets a tag."),
    Row::engine("help", 2, HELP, "alcid 0.1", "", "Returns helpful text about the different subcommands."),
    Row::engine("list", 2, ASK, "alcid 0.1", "", "Lists the tags."),
];
