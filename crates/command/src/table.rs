//! The table of all commands.

use std::sync::OnceLock;

use keyspace::Txn;
use smallvec::SmallVec;

use crate::flags::{ADMIN, BLOCKING, FAST, Flags, MOVABLE_KEYS, PUBSUB, READONLY, WRITE, category};
use crate::keys::{Begin, Find, KeyRef};
use crate::spec::{CommandSpec, Family, Group, Known, ScopeRule};

/// Every family, in the order of `docs/COMMANDS.md`.
const FAMILIES: &[Family] = &[
    crate::connection::FAMILY,
    crate::generic::FAMILY,
    crate::expire::FAMILY,
    crate::string::FAMILY,
    crate::hash::FAMILY,
    crate::list::FAMILY,
    crate::set::FAMILY,
    crate::zset::FAMILY,
    crate::transactions::FAMILY,
    crate::pubsub::FAMILY,
    crate::server::FAMILY,
    crate::history::FAMILY,
    crate::branch::FAMILY,
    crate::generic::DATABASES,
];

/// A row with what follows from it.
#[derive(Debug)]
pub struct Command {
    /// The row.
    pub spec: &'static CommandSpec,
    /// Its group.
    pub group: Group,
    /// Lowercase; `container|sub` for a subcommand.
    pub full_name: String,
    /// A number from 0, dense over all commands, for counters.
    pub id: usize,
    /// The row's flags and those that follow from it.
    pub flags: Flags,
    /// ACL categories.
    pub categories: Flags,
    /// Subcommands of a container.
    pub subcommands: Vec<Command>,
    /// The command's only key is its first argument, and it locks no more than
    /// that key's shard.
    pub single_key: bool,
    /// How many words name it: one, or two for a subcommand.
    names: usize,
}

impl Command {
    fn new(
        spec: &'static CommandSpec,
        group: Group,
        container: Option<&str>,
        id: &mut usize,
    ) -> Command {
        let full_name = match container {
            Some(container) => format!("{container}|{}", spec.name),
            None => spec.name.to_owned(),
        };
        let own_id = *id;
        *id += 1;
        let subcommands = spec
            .subcommands
            .iter()
            .map(|sub| Command::new(sub, group, Some(spec.name), id))
            .collect();
        let movable = spec
            .keys
            .iter()
            .any(|key| !matches!((key.begin, key.find), (Begin::Index(_), Find::Range { .. })));
        let locks_keys = matches!(spec.scope, ScopeRule::Keys);
        let single_key = matches!(
            spec.keys,
            [key] if locks_keys
                && matches!(key.begin, Begin::Index(1))
                && matches!(key.find, Find::Range { last: 0, limit: 0, .. })
        );
        Command {
            spec,
            group,
            full_name,
            id: own_id,
            flags: if movable { spec.flags | MOVABLE_KEYS } else { spec.flags },
            categories: categories(spec, group),
            subcommands,
            single_key,
            names: 1 + usize::from(container.is_some()),
        }
    }

    /// The subcommand of this name, in any case.
    #[must_use]
    pub fn subcommand(&self, name: &[u8]) -> Option<&Command> {
        self.subcommands.iter().find(|sub| sub.spec.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The arguments that are keys; `argv` includes the name.
    #[must_use]
    pub fn keys(&self, argv: &[&[u8]]) -> SmallVec<[KeyRef; 4]> {
        let mut keys = SmallVec::new();
        self.spec.keys.iter().for_each(|spec| spec.collect(argv, &mut keys));
        keys
    }

    /// The arguments; `argv` includes the name.
    #[inline]
    #[must_use]
    pub fn arguments<'a>(&self, argv: &'a [&'a [u8]]) -> &'a [&'a [u8]] {
        &argv[self.names.min(argv.len())..]
    }

    /// What is to be known of its keys before its handler runs with these words.
    #[must_use]
    pub fn known(&self, argv: &[&[u8]]) -> Known {
        let mut known = self.spec.known;
        while let Known::ByArguments(choose) = known {
            known = choose(self.arguments(argv));
        }
        known
    }

    /// Finds out what is to be known of its keys. Answers whether anything is.
    ///
    /// # Panics
    /// When the shard of one of them is not locked and there is a backing.
    pub fn learn_keys(&self, txn: &mut Txn<'_>, argv: &[&[u8]]) -> bool {
        let learn = match self.known(argv) {
            Known::Value if self.spec.by_element => {
                txn.look_at(argv[1], &argv[2..]);
                return true;
            }
            Known::Outline => {
                let key = self.keys(argv).first().map_or(1, |key| key.index);
                txn.look_at(argv[key], &[]);
                return true;
            }
            Known::Value => Txn::purge,
            Known::Existence => Txn::look_for,
            Known::Nothing | Known::ByArguments(_) => return false,
        };
        if self.single_key {
            learn(txn, argv[1]);
        } else {
            self.keys(argv).iter().for_each(|key| learn(txn, argv[key.index]));
        }
        true
    }

    /// First key, last key and step, as `COMMAND INFO` shows them.
    #[must_use]
    pub fn legacy_range(&self) -> (i64, i64, i64) {
        let mut all: Option<(i64, i64, i64)> = None;
        for key in self.spec.keys {
            let (Begin::Index(begin), Find::Range { last, step, limit: _ }) = (key.begin, key.find)
            else {
                continue;
            };
            let begin = begin as i64;
            let last = if last >= 0 { begin + last as i64 } else { last as i64 };
            all = Some(match all {
                None => (begin, last, step as i64),
                Some((first, end, step)) => {
                    (first, if end < 0 { end } else { last.max(end) }, step)
                }
            });
        }
        all.unwrap_or((0, 0, 0))
    }
}

/// The categories that Redis derives from flags and group, and the row's own.
fn categories(spec: &CommandSpec, group: Group) -> Flags {
    let mut all = spec.categories | group.category();
    let implied = [
        (WRITE, category::WRITE),
        (READONLY, category::READ),
        (ADMIN, category::ADMIN | category::DANGEROUS),
        (PUBSUB, category::PUBSUB),
        (FAST, category::FAST),
        (BLOCKING, category::BLOCKING),
    ];
    for (flag, category) in implied {
        if spec.flags.has(flag) {
            all = all | category;
        }
    }
    if !spec.flags.has(FAST) {
        all = all | category::SLOW;
    }
    all
}

/// All commands, found by name.
#[derive(Debug)]
pub struct Table {
    commands: Vec<Command>,
    /// Indices into `commands` by the hash of the name, open addressing; its
    /// length is a power of two and at most a quarter full.
    slots: Vec<u16>,
    /// Commands and subcommands together.
    count: usize,
}

const FREE: u16 = u16::MAX;

impl Table {
    fn new() -> Table {
        let mut id = 0;
        let commands: Vec<Command> = FAMILIES
            .iter()
            .flat_map(|family| family.commands.iter().map(|spec| (spec, family.group)))
            .map(|(spec, group)| Command::new(spec, group, None, &mut id))
            .collect();
        let mut slots = vec![FREE; (commands.len() * 4).next_power_of_two()];
        for (index, command) in commands.iter().enumerate() {
            let mut slot = name_hash(command.full_name.as_bytes()) & (slots.len() - 1);
            while slots[slot] != FREE {
                slot = (slot + 1) & (slots.len() - 1);
            }
            slots[slot] = u16::try_from(index).expect("fewer than 65535 commands");
        }
        Table { commands, slots, count: id }
    }

    /// The command of this name, in any case.
    #[must_use]
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<&Command> {
        let mask = self.slots.len() - 1;
        let mut slot = name_hash(name) & mask;
        loop {
            let index = self.slots[slot];
            if index == FREE {
                return None;
            }
            let command = &self.commands[usize::from(index)];
            if command.spec.name.as_bytes().eq_ignore_ascii_case(name) {
                return Some(command);
            }
            slot = (slot + 1) & mask;
        }
    }

    /// The commands, subcommands inside their containers.
    #[must_use]
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// How many ids are in use; ids are below it.
    #[must_use]
    pub fn id_count(&self) -> usize {
        self.count
    }

    /// Commands and subcommands.
    pub fn all(&self) -> impl Iterator<Item = &Command> {
        self.commands
            .iter()
            .flat_map(|command| std::iter::once(command).chain(&command.subcommands))
    }
}

/// Cheap rather than good: names are ours, and a collision costs a compare.
#[inline]
fn name_hash(name: &[u8]) -> usize {
    let mut hash = name.len() as u64;
    for &byte in name.iter().take(16) {
        hash = (hash ^ u64::from(byte | 0x20)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash ^ (hash >> 17)) as usize
}

/// The one table of this process.
#[must_use]
pub fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(Table::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{DENYOOM, NO_MANDATORY_KEYS};
    use crate::spec::Run;

    #[test]
    fn names_are_unique_lowercase_and_found_in_any_case() {
        let mut names: Vec<_> = table().all().map(|c| c.full_name.as_str()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "two rows share a name");
        for command in table().commands() {
            assert_eq!(command.spec.name, command.spec.name.to_ascii_lowercase());
            let upper = command.spec.name.to_ascii_uppercase();
            assert_eq!(table().find(upper.as_bytes()).map(|c| c.id), Some(command.id));
        }
        assert!(table().find(b"no-such-command").is_none());
        assert!(table().find(b"").is_none());
    }

    #[test]
    fn a_command_reads_or_writes_and_names_its_keys() {
        for command in table().all() {
            let (spec, name) = (command.spec, &command.full_name);
            assert!(!spec.flags.has(WRITE | READONLY), "{name} both reads and writes");
            if spec.flags.has(DENYOOM) {
                assert!(spec.flags.has(WRITE), "{name} is refused for memory but writes nothing");
            }
            let names_keys = !spec.keys.is_empty();
            if let (Run::Data(_), true, ScopeRule::Keys) =
                (spec.run, spec.flags.has(WRITE), spec.scope)
            {
                assert!(
                    names_keys || spec.flags.has(NO_MANDATORY_KEYS),
                    "{name} writes keys it does not name"
                );
            }
            for key in spec.keys {
                if let Begin::Index(index) = key.begin {
                    let optional = spec.flags.has(NO_MANDATORY_KEYS);
                    // A list of channels may be empty; a key is always there.
                    let may_be_absent = optional || key.flags.has(crate::keys::key_flags::NOT_KEY);
                    let fits = index < spec.arity.unsigned_abs() as usize;
                    assert!(may_be_absent || fits, "{name}: key {index} is beyond its arity");
                }
            }
            assert!(
                !spec.summary.is_empty() && spec.summary.ends_with('.'),
                "{name} needs a summary"
            );
            assert!(spec.since.contains('.'), "{name} needs the version it came with");
        }
    }

    #[test]
    fn arity_is_as_redis_counts() {
        let get = table().find(b"get").expect("get").spec;
        assert!(get.accepts(2) && !get.accepts(1) && !get.accepts(3));
        let set = table().find(b"set").expect("set").spec;
        assert!(set.accepts(3) && set.accepts(9) && !set.accepts(2));
    }
}
