//! Rows of the commands about the past; their handlers are in `engine`.

use smallvec::SmallVec;

use crate::args::is_word;
use crate::flags::{
    ADMIN, DENYOOM, FAST, Flags, NO_MANDATORY_KEYS, NO_MULTI, NOSCRIPT, READONLY, WRITE, category,
};
use crate::keys::{Begin, Find, KeyRef, KeySpec, key_flags::*};
use crate::spec::{CommandSpec, Family, Group};
use crate::table::table;

type Row = CommandSpec;

/// They may read the disk, which nobody does who holds the locks of an EXEC.
const LOOK_BACK: Flags = READONLY.with(NO_MULTI);

const WATCH: Flags = READONLY.with(NOSCRIPT).with(NO_MULTI);

const BRING_BACK: Flags = WRITE.with(DENYOOM).with(NO_MULTI);
const UPKEEP: Flags = ADMIN.with(NOSCRIPT).with(NO_MULTI);
const CHANGE_RULES: Flags = UPKEEP.with(WRITE);

/// The rows.
#[rustfmt::skip]
pub const FAMILY: Family = Family {
    group: Group::History,
    commands: &[
        Row::engine("at", -3, LOOK_BACK, "alcid 0.1", "when [BRANCH branch] command [arg [arg ...]]", "Runs a command that reads on the state of an earlier time.").keys(&[KeySpec { flags: RO.with(ACCESS), begin: Begin::Index(2), find: Find::Custom(keys_of_inner) }]),
        Row::engine("blame", 2, LOOK_BACK, "alcid 0.1", "key", "Tells for each element of a key which revision last changed it, when, and whose.").keys(&[KeySpec::one(1, RO.with(ACCESS))]),
        Row::engine("changes", -1, LOOK_BACK, "alcid 0.1", "[FROM when] [TO when] [MATCH pattern] [COUNT count]", "Lists what has happened to the keys of the database, oldest first."),
        Row::engine("history", -2, LOOK_BACK, "alcid 0.1", "key [FIELD field | MEMBER member] [FROM when] [TO when] [COUNT count] [REV] [VALUES]", "Lists the changes of a key, newest first.").keys(&[KeySpec::one(1, RO.with(ACCESS))]),
        Row::engine("history.compact", -1, UPKEEP, "alcid 0.1", "[BEFORE when]", "Lets go of the history before a revision, as far as nobody holds it.").categories(category::DANGEROUS),
        Row::container("history.policy", Flags(0), "alcid 0.1", "A container for commands on how much of the past of which keys is kept.", POLICY),
        Row::engine("history.purge", -3, CHANGE_RULES, "alcid 0.1", "<key | PREFIX prefix> CONFIRM", "Erases the past of a key, or of many, from every file; what they are stays.").keys(&[KeySpec { flags: OW.with(UPDATE), begin: Begin::Index(1), find: Find::Custom(key_of_purge) }]).categories(category::DANGEROUS),
        Row::engine("history.stats", 1, UPKEEP, "alcid 0.1", "", "Tells how much history there is and who holds it."),
        Row::engine("revert", -4, BRING_BACK, "alcid 0.1", "<key | PREFIX prefix | ALL> TO when [DRYRUN] [MSG text]", "Makes a key, or many, what they were at an earlier time, as a new revision.").keys(&[KeySpec { flags: OW.with(UPDATE), begin: Begin::Index(1), find: Find::Custom(key_of_revert) }]).categories(category::DANGEROUS),
        Row::engine("timeline", -1, LOOK_BACK, "alcid 0.1", "[FROM when] [TO when] [BY <COMMAND | USER | PREFIX>] [BUCKET duration]", "Counts changes by time and by what made them."),
        Row::engine("undo", -1, BRING_BACK, "alcid 0.1", "[COUNT count] [USER user] [DRYRUN] | LIST [COUNT count]", "Brings back what the last FLUSHALL, FLUSHDB, REMOVE or BRANCH DELETE took away, as a new revision, or lists what can be.").categories(category::DANGEROUS),
        Row::engine("undelete", -2, BRING_BACK, "alcid 0.1", "key [AT when]", "Brings back a key that is gone, as a new revision.").keys(&[KeySpec::one(1, OW.with(INSERT))]),
        Row::engine("unwatchfrom", 2, WATCH.with(FAST), "alcid 0.1", "<watch-id | ALL>", "Closes a watch, or all of the connection."),
        Row::engine("watchfrom", -2, WATCH.with(NO_MANDATORY_KEYS), "alcid 0.1", "<when | NOW> [KEY key [key ...] | PREFIX prefix [prefix ...] | MATCH pattern [pattern ...]] [EVENTS event [event ...]] [OLD] [NEW] [PROGRESS duration] [BRANCH branch]", "Tells every change from a revision on, each once and in order, as it is made.").keys(&[KeySpec { flags: RO.with(ACCESS), begin: Begin::Index(2), find: Find::Custom(keys_of_watch) }]),
    ],
};

#[rustfmt::skip]
const POLICY: &[CommandSpec] = &[
    Row::engine("del", 3, CHANGE_RULES, "alcid 0.1", "pattern", "Takes back the rule for a pattern, and answers how many there were."),
    Row::engine("get", 3, UPKEEP, "alcid 0.1", "key", "Returns the rule in force for a key: pattern and what it keeps; nil when there is none.").keys(&[KeySpec::one(2, RO)]),
    Row::engine("help", 2, Flags(0), "alcid 0.1", "", "Returns helpful text about the different subcommands."),
    Row::engine("list", 2, UPKEEP, "alcid 0.1", "", "Returns all rules, in the order in which they are tried."),
    Row::engine("set", -5, CHANGE_RULES, "alcid 0.1", "pattern KEEP <duration | count VERSIONS | FOREVER | NONE>", "Keeps so much of the past of the keys that match a pattern."),
];

/// Where in the words of AT, its name included, those of the command to run
/// begin, and the branch that it names. Nothing may stand there.
#[must_use]
pub fn inner_of_at<'a>(argv: &[&'a [u8]]) -> (usize, Option<&'a [u8]>) {
    match argv {
        [_, _, word, rest @ ..] if is_word(word, "branch") => {
            (3 + rest.len().min(1), rest.first().copied())
        }
        _ => (2, None),
    }
}

/// The keys of the command that AT runs.
fn keys_of_inner(argv: &[&[u8]]) -> SmallVec<[KeyRef; 4]> {
    keys_from(argv, inner_of_at(argv).0)
}

/// The keys of the command whose words begin at `begin`, behind a prefix.
pub(crate) fn keys_from(argv: &[&[u8]], begin: usize) -> SmallVec<[KeyRef; 4]> {
    let Some(inner) = argv.get(begin..).filter(|inner| !inner.is_empty()) else {
        return SmallVec::new();
    };
    let command = table().find(inner[0]).and_then(|command| {
        let name = inner.get(1).filter(|_| !command.subcommands.is_empty());
        name.map_or(Some(command), |name| command.subcommand(name))
    });
    let shift = |key: KeyRef| KeyRef { index: key.index + begin, ..key };
    // A prefix behind a prefix is refused, and looked for no deeper here either.
    let command = command.filter(|command| !matches!(command.spec.name, "at" | "whatif"));
    command
        .map_or_else(SmallVec::new, |command| command.keys(inner).into_iter().map(shift).collect())
}

/// The key of REVERT; none where it is about many.
fn key_of_revert(argv: &[&[u8]]) -> SmallVec<[KeyRef; 4]> {
    let is_key = argv.get(2).is_some_and(|word| is_word(word, "to")) && !is_word(argv[1], "all");
    is_key.then_some(KeyRef { index: 1, flags: OW.with(UPDATE) }).into_iter().collect()
}

/// The words that end a list of names of WATCHFROM.
pub const WATCH_OPTIONS: &[&str] =
    &["key", "prefix", "match", "events", "old", "new", "progress", "branch"];

/// The keys that WATCHFROM names; none where it is about all, or patterns.
fn keys_of_watch(argv: &[&[u8]]) -> SmallVec<[KeyRef; 4]> {
    let mut keys = SmallVec::new();
    let mut option = "";
    // Whether a name has to come, which may be a word too.
    let mut is_name_due = false;
    for (index, word) in argv.iter().enumerate().skip(2) {
        let next = WATCH_OPTIONS.iter().find(|option| is_word(word, option));
        match next.filter(|_| !is_name_due) {
            Some(next) => {
                option = next;
                is_name_due = !matches!(option, "old" | "new");
            }
            None => {
                is_name_due = false;
                if option == "key" {
                    keys.push(KeyRef { index, flags: RO.with(ACCESS) });
                }
            }
        }
    }
    keys
}

/// The key of HISTORY.PURGE; none where it is about many.
fn key_of_purge(argv: &[&[u8]]) -> SmallVec<[KeyRef; 4]> {
    let is_key = argv.len() == 3;
    is_key.then_some(KeyRef { index: 1, flags: OW.with(UPDATE) }).into_iter().collect()
}
