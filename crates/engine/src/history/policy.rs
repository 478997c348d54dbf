//! HISTORY.POLICY: how much of the past of which keys is kept.

use base::Frame;
use base::units::parse_duration_ms;
use command::args::shown;
use command::{Args, Error, Result};
use keyspace::{Keep, Rule, Scope, Txn};

use crate::call::{Call, Handler, help};
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[
    ("history.policy|del", del),
    ("history.policy|get", get),
    ("history.policy|help", policy_help),
    ("history.policy|list", list),
    ("history.policy|set", set),
];

/// Units of a duration, largest first, in milliseconds.
const UNITS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

fn set(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let glob = args.next()?;
    if !args.take_word("keep") {
        return Err(Error::SYNTAX);
    }
    let keep = keep(&mut args)?;
    args.end()?;
    let past = call.engine.needs_past()?;
    // Until the rule holds what there is now, the horizon must not move past it.
    let _held = call.engine.hold_branches(true);
    let oldest = past.oldest();
    change(call, |txn| txn.keep_past(glob, keep, oldest));
    call.reply.ok();
    Ok(Outcome::Done)
}

/// What stands after KEEP.
fn keep(args: &mut Args<'_>) -> Result<Keep> {
    if args.take_word("forever") {
        return Ok(Keep::Forever);
    }
    if args.take_word("none") {
        return Ok(Keep::Nothing);
    }
    let amount = args.next()?;
    let text = std::str::from_utf8(amount).unwrap_or_default();
    if args.take_word("versions") {
        let count = text.parse().ok().filter(|&count| count > 0);
        return count.map(Keep::Versions).ok_or_else(|| {
            wrong(amount, "is no number of versions above zero; KEEP NONE keeps none")
        });
    }
    // A bare number could mean either.
    let has_unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
    let ms = parse_duration_ms(text, 1).filter(|&ms| ms > 0 && has_unit);
    ms.map(Keep::Age).ok_or_else(|| {
        wrong(amount, "is neither a duration above zero (30s, 10m, 12h, 7d) nor <n> VERSIONS, FOREVER or NONE")
    })
}

fn wrong(given: &[u8], what: &str) -> Error {
    Error::new(format!("ERR KEEP '{}' {what}", shown(given)))
}

fn del(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.engine.needs_past()?;
    let glob = call.args[0];
    let mut is_gone = false;
    change(call, |txn| is_gone = txn.forget_rule(glob));
    call.reply.frame(&Frame::Integer(i64::from(is_gone)));
    Ok(Outcome::Done)
}

/// Runs a transaction that changes rules.
fn change(call: &mut Call<'_, '_>, change: impl FnOnce(&mut Txn<'_>)) {
    let (engine, session) = (call.engine, &mut *call.session);
    let mut buffers = session.lend_buffers();
    let options = engine.txn_options(call.live, call.now_ms, false);
    let scope = Scope::Shards(smallvec::SmallVec::new());
    let journal = &*engine.replicator;
    let mut txn = Txn::begin(&engine.keyspace, &scope, journal, &mut buffers, options);
    engine.originate(&mut txn, call.live, session, call.command);
    change(&mut txn);
    txn.revision().into_iter().for_each(|revision| engine.note_declared(revision));
    let finished = txn.finish();
    session.buffers = Some(buffers);
    engine.settle(session, &finished, true);
}

fn get(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.engine.needs_past()?;
    let rules = call.engine.keyspace.past_rules();
    call.reply.frame(&rules.rule_of(call.args[0]).map_or(Frame::Null, row));
    Ok(Outcome::Done)
}

fn list(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.engine.needs_past()?;
    let rules = call.engine.keyspace.past_rules();
    // In the order in which they are tried.
    call.reply.frame(&Frame::Array(rules.rules().iter().rev().map(row).collect()));
    Ok(Outcome::Done)
}

fn row(rule: &Rule) -> Frame {
    Frame::Array(vec![Frame::bulk(&rule.glob), Frame::bulk(text(rule.keep))])
}

/// As it may stand after KEEP.
fn text(keep: Keep) -> String {
    match keep {
        Keep::Age(ms) => {
            let (unit, size) =
                UNITS.iter().find(|(_, size)| ms.is_multiple_of(*size)).expect("1 divides all");
            format!("{}{unit}", ms / size)
        }
        Keep::Versions(count) => format!("{count} VERSIONS"),
        Keep::Forever => "FOREVER".to_owned(),
        Keep::Nothing => "NONE".to_owned(),
    }
}

fn policy_help(call: &mut Call<'_, '_>) -> Result<Outcome> {
    help(
        call,
        "HISTORY.POLICY",
        &[
            "DEL <pattern>",
            "    Take back the rule for a pattern. Answers how many there were.",
            "GET <key>",
            "    Return the rule in force for a key: pattern and what it keeps.",
            "LIST",
            "    Return all rules, in the order in which they are tried.",
            "SET <pattern> KEEP <duration | count VERSIONS | FOREVER | NONE>",
            "    Keep so much of the past of the keys that match. The newest rule comes first.",
        ],
    )
}
