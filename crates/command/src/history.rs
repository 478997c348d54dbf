//! Rows of the commands about the past; their handlers are in `engine`.

use smallvec::SmallVec;

use crate::args::is_word;
use crate::flags::{Flags, NO_MULTI, READONLY};
use crate::keys::{Begin, Find, KeyRef, KeySpec, key_flags::*};
use crate::spec::{CommandSpec, Family, Group};
use crate::table::table;

type Row = CommandSpec;

/// They may read the disk, which nobody does who holds the locks of an EXEC.
const LOOK_BACK: Flags = READONLY.with(NO_MULTI);

/// The rows.
#[rustfmt::skip]
pub const FAMILY: Family = Family {
    group: Group::History,
    commands: &[
        Row::engine("at", -3, LOOK_BACK, "alcid 0.1", "when [BRANCH branch] command [arg [arg ...]]", "Runs a command that reads on the state of an earlier time.").keys(&[KeySpec { flags: RO.with(ACCESS), begin: Begin::Index(2), find: Find::Custom(keys_of_inner) }]),
    ],
};

/// Where in the words of AT, its name included, those of the command to run
/// begin, and the branch that it names.
#[must_use]
pub fn inner_of_at<'a>(argv: &[&'a [u8]]) -> (usize, Option<&'a [u8]>) {
    match argv {
        [_, _, word, branch, _, ..] if is_word(word, "branch") => (4, Some(branch)),
        _ => (2, None),
    }
}

/// The keys of the command that AT runs.
fn keys_of_inner(argv: &[&[u8]]) -> SmallVec<[KeyRef; 4]> {
    let (begin, _) = inner_of_at(argv);
    let Some(inner) = argv.get(begin..).filter(|inner| !inner.is_empty()) else {
        return SmallVec::new();
    };
    let command = table().find(inner[0]).and_then(|command| {
        let name = inner.get(1).filter(|_| !command.subcommands.is_empty());
        name.map_or(Some(command), |name| command.subcommand(name))
    });
    let shift = |key: KeyRef| KeyRef { index: key.index + begin, ..key };
    // AT in AT is refused, and looked for no deeper here either.
    let command = command.filter(|command| command.spec.name != "at");
    command
        .map_or_else(SmallVec::new, |command| command.keys(inner).into_iter().map(shift).collect())
}
