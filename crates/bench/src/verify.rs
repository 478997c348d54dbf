//! `--verify`: is every answer right, and is the data right afterwards?

use anyhow::{Context, Result, bail};
use base::Frame;
use client::Client;

use crate::plan::Plan;
use crate::workload::{Kind, Values, Workload, digits};

/// Elements that are put in place for tests that take them away.
const PREPARED_MAX: u64 = 100_000;

/// Mismatches that are described; the rest is counted.
const EXAMPLES_MAX: usize = 5;

/// Requests a pipeline of the preparation holds.
const BATCH: usize = 1000;

/// What stood there when the test began.
#[derive(Debug, Default)]
pub(crate) struct Baseline {
    /// The counter of each key number.
    counters: Vec<i64>,
    /// Elements of the collection that the test takes from.
    elements: u64,
}

/// What one thread saw; added up at the end.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How often each key number was written or taken.
    by_key: Vec<u32>,
    /// Elements that were added or taken.
    elements: u64,
    /// Answers that are wrong.
    pub(crate) mismatches: u64,
    /// Answers and facts that were found right.
    pub(crate) checked: u64,
    /// The first mismatches in words.
    pub(crate) examples: Vec<String>,
}

/// Puts in place what the test needs: always a list to read from, and with
/// `--verify` a state in which every answer is known.
pub(crate) fn prepare(plan: &Plan, test: &Workload, values: &Values) -> Result<Baseline> {
    let mut baseline = Baseline::default();
    if !plan.verify && !matches!(test.kind, Kind::Range(_)) {
        return Ok(baseline);
    }
    let mut client = plan.connect()?;
    let keys = || (0..plan.keyspace).map(digits);
    match test.kind {
        Kind::Ping | Kind::Set | Kind::Custom => {}
        Kind::Get => {
            let requests = (0..plan.keyspace).map(|key| {
                [
                    b"SET".to_vec(),
                    format!("key:{}", digits(key)).into_bytes(),
                    values.of(key).to_vec(),
                ]
            });
            run_all(&mut client, requests, |_, _| Ok(()))?;
        }
        Kind::Incr => {
            let requests = keys().map(|key| ["GET".to_owned(), format!("counter:{key}")]);
            run_all(&mut client, requests, |_, reply| {
                baseline.counters.push(counter(&reply)?);
                Ok(())
            })?;
        }
        Kind::Push => clear(&mut client, "mylist")?,
        Kind::Pop => {
            clear(&mut client, "mylist")?;
            baseline.elements = if plan.duration.is_some() {
                PREPARED_MAX
            } else {
                plan.requests.min(PREPARED_MAX)
            };
            fill_list(&mut client, baseline.elements, values)?;
        }
        Kind::Range(count) => {
            if plan.verify {
                clear(&mut client, "mylist")?;
            }
            let here = u64::try_from(integer(&client.command(&["LLEN", "mylist"])?)?)?;
            fill_list(&mut client, u64::from(count).saturating_sub(here), values)?;
        }
        Kind::SetAdd => clear(&mut client, "myset")?,
        Kind::HashSet => clear(&mut client, "myhash")?,
        Kind::SortedSetAdd => clear(&mut client, "myzset")?,
        Kind::SetPop | Kind::SortedSetPop => {
            baseline.elements = u64::from(plan.keyspace).min(PREPARED_MAX);
            let (name, add): (_, &[&str]) = match test.kind {
                Kind::SetPop => ("myset", &["SADD", "myset"]),
                _ => ("myzset", &["ZADD", "myzset", "1"]),
            };
            clear(&mut client, name)?;
            let requests = keys().take(baseline.elements as usize).map(|key| {
                let mut request: Vec<String> = add.iter().map(|word| (*word).to_owned()).collect();
                request.push(format!("element:{key}"));
                request
            });
            run_all(&mut client, requests, |_, _| Ok(()))?;
        }
    }
    Ok(baseline)
}

/// Reads back what the test has written and compares it with the answers.
pub(crate) fn finish(
    plan: &Plan,
    test: &Workload,
    values: &Values,
    baseline: &Baseline,
    tally: &mut Tally,
) -> Result<()> {
    let mut client = plan.connect()?;
    let touched: Vec<u32> = (0u32..)
        .zip(&tally.by_key)
        .filter_map(|(key, count)| (*count > 0).then_some(key))
        .collect();
    let mut size = |command: &str, key: &str| -> Result<u64> {
        Ok(u64::try_from(integer(&client.command(&[command, key])?)?)?)
    };
    match test.kind {
        Kind::Ping | Kind::Get | Kind::Range(_) | Kind::Custom => {}
        Kind::Set => {
            let requests =
                touched.iter().map(|key| ["GET".into(), format!("key:{}", digits(*key))]);
            run_all(&mut client, requests, |index, reply| {
                let key = touched[index];
                tally.expect(is_bulk(&reply, values.of(key)), || {
                    format!("key:{} holds {} after its SET", digits(key), shown(&reply))
                });
                Ok(())
            })?;
        }
        Kind::Incr => {
            let keys = 0..tally.by_key.len() as u32;
            let requests = keys.map(|key| ["GET".into(), format!("counter:{}", digits(key))]);
            run_all(&mut client, requests, |index, reply| {
                let count = tally.by_key[index];
                let (before, after) = (baseline.counters[index], counter(&reply)?);
                tally.expect(after == before + i64::from(count), || {
                    let key = digits(index as u32);
                    format!("counter:{key} went from {before} to {after} with {count} INCRs")
                });
                Ok(())
            })?;
        }
        Kind::Push => {
            let (len, pushed) = (size("LLEN", "mylist")?, tally.elements);
            tally.expect(len == pushed, || {
                format!("mylist has {len} elements after {pushed} pushes")
            });
        }
        Kind::Pop => {
            let len = size("LLEN", "mylist")?;
            tally.expect_taken("mylist", len, baseline.elements);
        }
        Kind::SetAdd => {
            let len = size("SCARD", "myset")?;
            tally.expect_added("myset", len, touched.len());
        }
        Kind::HashSet => {
            let len = size("HLEN", "myhash")?;
            tally.expect_added("myhash", len, touched.len());
        }
        Kind::SortedSetAdd => {
            let len = size("ZCARD", "myzset")?;
            tally.expect_added("myzset", len, touched.len());
        }
        Kind::SetPop | Kind::SortedSetPop => {
            let (command, name) =
                if test.kind == Kind::SetPop { ("SCARD", "myset") } else { ("ZCARD", "myzset") };
            let len = size(command, name)?;
            tally.expect_taken(name, len, baseline.elements);
            let twice = touched.iter().find(|key| tally.by_key[**key as usize] > 1).copied();
            tally.expect(twice.is_none(), || {
                format!("element:{} was popped twice", digits(twice.unwrap_or_default()))
            });
        }
    }
    Ok(())
}

impl Tally {
    pub(crate) fn new(plan: &Plan, test: &Workload) -> Tally {
        let counts_keys = !matches!(
            test.kind,
            Kind::Ping | Kind::Get | Kind::Push | Kind::Pop | Kind::Range(_) | Kind::Custom
        );
        let keys = if counts_keys { plan.keyspace as usize } else { 0 };
        Tally { by_key: vec![0; keys], ..Tally::default() }
    }

    /// Judges one reply that is no error, to a request with these keys.
    pub(crate) fn judge(
        &mut self,
        test: &Workload,
        values: &Values,
        baseline: &Baseline,
        keys: &[u32],
        reply: &Frame,
    ) {
        let first = keys.first().copied().unwrap_or(0);
        let right = match test.kind {
            Kind::Custom => true,
            Kind::Ping => matches!(reply, Frame::Simple(text) if text == "PONG"),
            Kind::Set => {
                keys.iter().for_each(|key| self.count(*key));
                matches!(reply, Frame::Simple(text) if text == "OK")
            }
            Kind::Get => is_bulk(reply, values.of(first)),
            Kind::Incr => {
                self.count(first);
                let before = baseline.counters[first as usize];
                matches!(reply, Frame::Integer(value) if *value > before)
            }
            Kind::Push => {
                self.elements += 1;
                matches!(reply, Frame::Integer(1..))
            }
            Kind::Pop => {
                self.elements += u64::from(*reply != Frame::Null);
                *reply == Frame::Null || is_bulk(reply, values.of(0))
            }
            Kind::SetAdd | Kind::HashSet | Kind::SortedSetAdd => {
                self.count(first);
                self.elements += u64::from(*reply == Frame::Integer(1));
                matches!(reply, Frame::Integer(0 | 1))
            }
            Kind::SetPop => *reply == Frame::Null || self.take(reply),
            Kind::SortedSetPop => match reply {
                Frame::Array(items) => match items.as_slice() {
                    [] => true,
                    [member, _score] => self.take(member),
                    _ => false,
                },
                _ => false,
            },
            Kind::Range(count) => match reply {
                Frame::Array(items) => {
                    items.len() == count as usize
                        && items.iter().all(|item| is_bulk(item, values.of(0)))
                }
                _ => false,
            },
        };
        self.expect(right, || match keys {
            [] => format!("{} was answered {}", test.title, shown(reply)),
            _ => {
                format!("{} of number {} was answered {}", test.title, digits(first), shown(reply))
            }
        });
    }

    pub(crate) fn add(&mut self, other: Tally) {
        for (sum, count) in self.by_key.iter_mut().zip(other.by_key) {
            *sum += count;
        }
        self.elements += other.elements;
        self.mismatches += other.mismatches;
        self.checked += other.checked;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
    }

    fn expect(&mut self, right: bool, describe: impl FnOnce() -> String) {
        if right {
            self.checked += 1;
            return;
        }
        self.mismatches += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(describe());
        }
    }

    fn expect_added(&mut self, name: &str, len: u64, distinct: usize) {
        let added = self.elements;
        self.expect(len == added && added == distinct as u64, || {
            format!(
                "{name} has {len} elements; the answers say {added} were added, the requests \
                 named {distinct}"
            )
        });
    }

    fn expect_taken(&mut self, name: &str, left: u64, before: u64) {
        let taken = self.elements;
        self.expect(left + taken == before, || {
            format!("{name} had {before} elements, gave {taken} and has {left}")
        });
    }

    fn count(&mut self, key: u32) {
        if let Some(count) = self.by_key.get_mut(key as usize) {
            *count += 1;
        }
    }

    /// Whether `member` is one that was put in place; counts it.
    fn take(&mut self, member: &Frame) -> bool {
        self.elements += 1;
        let Frame::Bulk(bytes) = member else { return false };
        let key = std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.strip_prefix("element:")?.parse::<u32>().ok())
            .filter(|key| (*key as usize) < self.by_key.len());
        key.inspect(|key| self.count(*key)).is_some()
    }
}

fn is_bulk(reply: &Frame, expected: &[u8]) -> bool {
    matches!(reply, Frame::Bulk(bytes) if bytes == expected)
}

/// A reply for a message, cut to a line.
fn shown(reply: &Frame) -> String {
    let text = match reply {
        Frame::Bulk(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        other => format!("{other:?}"),
    };
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn integer(reply: &Frame) -> Result<i64> {
    match reply {
        Frame::Integer(value) => Ok(*value),
        other => bail!("expected an integer, got {}", shown(other)),
    }
}

fn counter(reply: &Frame) -> Result<i64> {
    match reply {
        Frame::Null => Ok(0),
        Frame::Bulk(bytes) => base::number::parse_i64(bytes)
            .with_context(|| format!("a counter holds {}, which is no integer", shown(reply))),
        other => bail!("expected a counter, got {}", shown(other)),
    }
}

fn clear(client: &mut Client, key: &str) -> Result<()> {
    client.command(&["DEL", key]).with_context(|| format!("empty {key}"))?;
    Ok(())
}

fn fill_list(client: &mut Client, count: u64, values: &Values) -> Result<()> {
    let requests = (0..count).map(|_| [b"RPUSH", &b"mylist"[..], values.of(0)]);
    run_all(client, requests, |_, _| Ok(()))
}

/// Pipelines all requests; `on_reply` gets each reply with its index.
fn run_all<R, A>(
    client: &mut Client,
    mut requests: impl Iterator<Item = R>,
    mut on_reply: impl FnMut(usize, Frame) -> Result<()>,
) -> Result<()>
where
    R: AsRef<[A]>,
    A: AsRef<[u8]>,
{
    let mut index = 0;
    loop {
        let batch: Vec<R> = requests.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return Ok(());
        }
        for reply in client.pipeline(&batch)? {
            if let Frame::Error(text) = &reply {
                bail!("the server refuses to prepare or read back the data: {text}");
            }
            on_reply(index, reply)?;
            index += 1;
        }
    }
}
