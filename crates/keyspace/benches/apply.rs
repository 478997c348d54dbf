//! What applying a record costs: `cargo bench -p keyspace`.
//!
//! Strings of 32 bytes, chosen at random, are overwritten: by the commonest
//! record, which has a path of its own, and by one that does the same with an
//! effect more, which has not. Among a million keys the processor waits for
//! memory most of the time; among a thousand it works.

use base::{Clock, Revision, Rng, SeededRng, SystemClock};
use keyspace::effect::Effect;
use keyspace::{Buffers, EncodingLimits, Keyspace};

const RECORDS: u64 = 4_000_000;
const VALUE_BYTES: usize = 32;
const NOW_MS: u64 = 1_700_000_000_000;

fn main() {
    for keys in [1_000_000, 1_000] {
        println!("overwriting {VALUE_BYTES} bytes of one of {keys} keys");
        overwrites(keys, "one string", None);
        overwrites(keys, "one string and an effect more", Some(Effect::Database(0)));
    }
}

/// Records, end to end, as in a log.
struct Records {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

fn records(keys: impl Iterator<Item = u64>, existed: bool, more: Option<Effect<'_>>) -> Records {
    let mut records = Records { bytes: Vec::new(), ends: Vec::new() };
    for (number, key) in keys.enumerate() {
        let key = format!("key:{key:012}");
        let value = [number as u8; VALUE_BYTES];
        let effect = Effect::Key { key: key.as_bytes(), existed: Some(existed) };
        effect.encode(&mut records.bytes);
        Effect::StrSet { value: &value, deadline: None }.encode(&mut records.bytes);
        more.iter().for_each(|effect| effect.encode(&mut records.bytes));
        records.ends.push(records.bytes.len());
    }
    records
}

fn apply(keyspace: &Keyspace, records: &Records) {
    let (limits, mut buffers) = (EncodingLimits::default(), Buffers::default());
    let (mut begin, mut revision) = (0, Revision::ZERO);
    for &end in &records.ends {
        revision = revision.next();
        let effects = &records.bytes[begin..end];
        keyspace
            .apply(revision, NOW_MS, 0, effects, &limits, &mut buffers)
            .expect("it fits what was applied before");
        begin = end;
    }
}

fn overwrites(keys: u64, name: &str, more: Option<Effect<'_>>) {
    let keyspace = Keyspace::new(16, 1);
    apply(&keyspace, &records(0..keys, false, None));
    let mut rng = SeededRng::new(1);
    let records = records((0..RECORDS).map(|_| rng.below(keys)), true, more);
    let (started_ns, before) = (SystemClock.monotonic_ns(), cpu());
    apply(&keyspace, &records);
    let (after, ns) = (cpu(), SystemClock.monotonic_ns() - started_ns);
    let cpu = match (before, after) {
        (Some(before), Some(after)) => format!("{} ns", (after - before) * 10_000_000 / RECORDS),
        _ => "an unknown amount".to_owned(),
    };
    println!("  {name}: {} ns and {cpu} of CPU a record", ns / RECORDS);
}

/// Processor time of this process so far, in Linux's ticks of 10 ms; nothing
/// elsewhere.
fn cpu() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name before the last ")" may hold anything; user and system time are
    // the 12th and 13th field behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}
