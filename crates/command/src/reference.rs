//! `docs/COMMANDS.md`, made from the table.

use crate::flags::COMMAND_FLAGS;
use crate::flags::category::ACL_CATEGORIES;
use crate::spec::{Group, Run};
use crate::table::{Command, Table, table};

/// The groups in the order of the document, with their headings.
const GROUPS: &[(Group, &str)] = &[
    (Group::Connection, "Connection"),
    (Group::Generic, "Keys of any type"),
    (Group::String, "Strings"),
    (Group::Hash, "Hashes"),
    (Group::List, "Lists"),
    (Group::Set, "Sets"),
    (Group::SortedSet, "Sorted sets"),
    (Group::Transactions, "Transactions"),
    (Group::PubSub, "Publish and subscribe"),
    (Group::Server, "Server"),
    (Group::History, "History and time travel"),
    (Group::Branches, "Branches and tags"),
];

/// The text of `docs/COMMANDS.md`.
#[must_use]
pub fn reference() -> String {
    render(table())
}

fn render(table: &Table) -> String {
    let mut out = String::from(INTRO);
    for (group, title) in GROUPS {
        let mut rows: Vec<&Command> =
            table.all().filter(|command| command.group == *group && is_callable(command)).collect();
        rows.sort_by(|a, b| a.full_name.cmp(&b.full_name));
        out.push_str(&format!("\n## {title}\n\n{HEAD}"));
        rows.iter().for_each(|command| row(command, &mut out));
    }
    out
}

/// A container is nothing one can call; its subcommands are listed.
fn is_callable(command: &Command) -> bool {
    !matches!(command.spec.run, Run::Container)
}

fn row(command: &Command, out: &mut String) {
    let name = command.full_name.replace('|', " ").to_ascii_uppercase();
    let call = format!("{name} {}", command.spec.syntax);
    let flags: Vec<&str> = command.flags.names(COMMAND_FLAGS).collect();
    let categories: Vec<String> =
        command.categories.names(ACL_CATEGORIES).map(|name| format!("@{name}")).collect();
    out.push_str(&format!(
        "| `{}` | {} | {} | {} | {} |\n",
        // A bar would end the cell, inside code too.
        call.trim_end().replace('|', "\\|"),
        command.spec.since,
        flags.join(" "),
        categories.join(" "),
        command.spec.summary,
    ));
}

const HEAD: &str = "\
| Command | Since | Flags | ACL categories | Summary |
| --- | --- | --- | --- | --- |
";

const INTRO: &str = "\
# Commands

<!-- Made from the command table in crates/command/src. After a change there:
     UPDATE_EXPECT=1 cargo test -p command --test reference -->

Every command that Alcid answers. *Since* is the version of Redis that brought the command; how it
answers is Redis 7.2's way; what says *alcid* there is Alcid's own. Flags and categories are what `COMMAND INFO` says; `COMMAND DOCS`
and the prompt of `alcid cli` know the rest of each row too. What is missing, and what differs,
is in [COMPATIBILITY.md](COMPATIBILITY.md).

In the syntax, `[…]` may be left out, `<… | …>` is a choice, `...` repeats.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_row() {
        let text = reference();
        for command in table().all().filter(|command| is_callable(command)) {
            let name = command.full_name.replace('|', " ").to_ascii_uppercase();
            let starts = [format!("| `{name} "), format!("| `{name}` ")];
            let count: usize =
                starts.iter().map(|start| text.matches(start.as_str()).count()).sum();
            assert!(count >= 1, "{name} is missing: has its group a place in GROUPS?");
        }
    }

    #[test]
    fn a_bar_in_the_syntax_stays_in_its_cell() {
        for line in reference().lines().filter(|line| line.starts_with("| `")) {
            let bars = line.replace("\\|", "").matches('|').count();
            assert_eq!(bars, 6, "{line}");
        }
    }
}
