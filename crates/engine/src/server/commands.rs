//! COMMAND: what the command table says about commands.

use base::{Reply, glob};
use command::args::is_word;
use command::flags::category::ACL_CATEGORIES;
use command::flags::{COMMAND_FLAGS, Flags, NO_MANDATORY_KEYS};
use command::keys::key_flags;
use command::{Args, Begin, Command, Error, Find, KeySpec, Result, table};

use crate::call::{Call, Handler, help};
use crate::execute::{Outcome, find};
use crate::server::docs;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[
    ("command", info),
    ("command|count", count),
    ("command|docs", docs),
    ("command|getkeys", |call| get_keys(call, false)),
    ("command|getkeysandflags", |call| get_keys(call, true)),
    ("command|help", command_help),
    ("command|info", info),
    ("command|list", list),
];

fn command_help(call: &mut Call<'_, '_>) -> Result<Outcome> {
    help(
        call,
        "COMMAND",
        &[
            "(no subcommand)",
            "    Return details about all Redis commands.",
            "COUNT",
            "    Return the total number of commands in this Redis server.",
            "LIST",
            "    Return a list of all commands in this Redis server.",
            "INFO [<command-name> ...]",
            "    Return details about multiple Redis commands.",
            "    If no command names are given, documentation details for all",
            "    commands are returned.",
            "DOCS [<command-name> ...]",
            "    Return documentation details about multiple Redis commands.",
            "    If no command names are given, documentation details for all",
            "    commands are returned.",
            "GETKEYS <full-command>",
            "    Return the keys from a full Redis command.",
            "GETKEYSANDFLAGS <full-command>",
            "    Return the keys and the access flags from a full Redis command.",
        ],
    )
}

fn count(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.reply.count(table().commands().len());
    Ok(Outcome::Done)
}

/// A command by `name` or `container|sub`.
pub(crate) fn by_full_name(name: &[u8]) -> Option<&'static Command> {
    match name.iter().position(|&byte| byte == b'|') {
        None => table().find(name),
        Some(bar) => table().find(&name[..bar])?.subcommand(&name[bar + 1..]),
    }
}

fn info(call: &mut Call<'_, '_>) -> Result<Outcome> {
    if call.args.is_empty() {
        call.reply.array(table().commands().len());
        table().commands().iter().for_each(|command| write_info(command, call.reply));
        return Ok(Outcome::Done);
    }
    call.reply.array(call.args.len());
    for name in call.args {
        match by_full_name(name) {
            Some(command) => write_info(command, call.reply),
            None => call.reply.null(),
        }
    }
    Ok(Outcome::Done)
}

fn write_info(command: &Command, reply: &mut dyn Reply) {
    let (first, last, step) = command.legacy_range();
    reply.array(10);
    reply.bulk(command.full_name.as_bytes());
    reply.integer(i64::from(command.spec.arity));
    write_flags(command.flags, COMMAND_FLAGS, "", reply);
    reply.integer(first);
    reply.integer(last);
    reply.integer(step);
    write_flags(command.categories, ACL_CATEGORIES, "@", reply);
    // Hints for proxies of a sharded cluster.
    reply.set(0);
    reply.set(command.spec.keys.len());
    command.spec.keys.iter().for_each(|spec| write_key_spec(spec, reply));
    // As Redis: none is an empty set, some are an array.
    if command.subcommands.is_empty() {
        return reply.set(0);
    }
    reply.array(command.subcommands.len());
    command.subcommands.iter().for_each(|sub| write_info(sub, reply));
}

fn write_flags(
    flags: Flags,
    names: &'static [(Flags, &'static str)],
    prefix: &str,
    reply: &mut dyn Reply,
) {
    reply.set(flags.names(names).count());
    flags.names(names).for_each(|name| reply.simple(&format!("{prefix}{name}")));
}

fn write_key_spec(spec: &KeySpec, reply: &mut dyn Reply) {
    reply.map(3);
    reply.bulk(b"flags");
    write_flags(spec.flags, key_flags::NAMES, "", reply);
    reply.bulk(b"begin_search");
    match spec.begin {
        Begin::Index(index) => write_rule("index", &[("index", index as i64)], reply),
        Begin::Keyword { word, from } => {
            reply.map(2);
            write_pair("type", "keyword", reply);
            reply.bulk(b"spec");
            reply.map(2);
            write_pair("keyword", word, reply);
            reply.bulk(b"startfrom");
            reply.integer(from as i64);
        }
    }
    reply.bulk(b"find_keys");
    match spec.find {
        Find::Range { last, step, limit } => write_rule(
            "range",
            &[("lastkey", last as i64), ("keystep", step as i64), ("limit", limit as i64)],
            reply,
        ),
        Find::Count { count, first, step } => write_rule(
            "keynum",
            &[("keynumidx", count as i64), ("firstkey", first as i64), ("keystep", step as i64)],
            reply,
        ),
        Find::Custom(_) => write_rule("unknown", &[], reply),
    }
}

fn write_rule(kind: &str, numbers: &[(&str, i64)], reply: &mut dyn Reply) {
    reply.map(2);
    write_pair("type", kind, reply);
    reply.bulk(b"spec");
    reply.map(numbers.len());
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(*number);
    }
}

fn write_pair(name: &str, value: &str, reply: &mut dyn Reply) {
    reply.bulk(name.as_bytes());
    reply.bulk(value.as_bytes());
}

fn docs(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let chosen: Vec<&Command> = if call.args.is_empty() {
        table().commands().iter().collect()
    } else {
        call.args.iter().filter_map(|name| by_full_name(name)).collect()
    };
    call.reply.map(chosen.len());
    chosen.into_iter().for_each(|command| docs::write(command, call.reply));
    Ok(Outcome::Done)
}

fn get_keys(call: &mut Call<'_, '_>, with_flags: bool) -> Result<Outcome> {
    let argv = call.args;
    let command = find(argv).map_err(|_| Error::new("ERR Invalid command specified"))?;
    if command.spec.keys.is_empty() {
        return Err(Error::new("ERR The command has no key arguments"));
    }
    if !command.spec.accepts(argv.len()) {
        return Err(Error::new("ERR Invalid number of arguments specified for command"));
    }
    let keys = command.keys(argv);
    if keys.is_empty() && !command.flags.has(NO_MANDATORY_KEYS) {
        return Err(Error::new("ERR Invalid arguments specified for command"));
    }
    call.reply.array(keys.len());
    for key in keys {
        if with_flags {
            call.reply.array(2);
        }
        call.reply.bulk(argv[key.index]);
        if with_flags {
            write_flags(flags_of(command, key.flags, argv), key_flags::NAMES, "", call.reply);
        }
    }
    Ok(Outcome::Done)
}

/// What a call does with a key, where that depends on its arguments.
fn flags_of(command: &Command, flags: Flags, argv: &[&[u8]]) -> Flags {
    if !flags.has(key_flags::VARIABLE_FLAGS) {
        return flags;
    }
    // SET answers the old value only when it is asked to.
    let reads = command.full_name != "set" || argv[3..].iter().any(|word| is_word(word, "get"));
    let access = if reads { key_flags::RW | key_flags::ACCESS } else { key_flags::OW };
    access | key_flags::UPDATE
}

/// Which commands COMMAND LIST shows.
enum Filter<'a> {
    All,
    /// Alcid has no Redis modules.
    Nothing,
    Category(Option<Flags>),
    Pattern(&'a [u8]),
}

fn list(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let filter = if args.is_empty() {
        Filter::All
    } else if args.len() == 3 && args.take_word("filterby") {
        if args.take_word("module") {
            Filter::Nothing
        } else if args.take_word("aclcat") {
            let wanted = args.next()?;
            Filter::Category(
                ACL_CATEGORIES
                    .iter()
                    .find(|(_, name)| wanted.eq_ignore_ascii_case(name.as_bytes()))
                    .map(|(category, _)| *category),
            )
        } else if args.take_word("pattern") {
            Filter::Pattern(args.next()?)
        } else {
            return Err(Error::SYNTAX);
        }
    } else {
        return Err(Error::SYNTAX);
    };
    let names: Vec<&str> = table()
        .all()
        .filter(|command| match filter {
            Filter::All => true,
            Filter::Nothing => false,
            Filter::Category(category) => {
                category.is_some_and(|category| command.categories.has(category))
            }
            Filter::Pattern(pattern) => {
                glob::matches_ignore_case(pattern, command.full_name.as_bytes())
            }
        })
        .map(|command| command.full_name.as_str())
        .collect();
    call.reply.set(names.len());
    names.iter().for_each(|name| call.reply.bulk(name.as_bytes()));
    Ok(Outcome::Done)
}
