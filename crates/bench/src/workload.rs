//! The tests: what each one sends.

use base::{Rng, SeededRng};

/// Digits of a key number, as redis-benchmark pads them.
const DIGITS: usize = 12;

/// Different values that a size has; see [`Values`].
const VALUE_KINDS: usize = 4096;

/// What a test does, which decides how it is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ping,
    Set,
    Get,
    Incr,
    Push,
    Pop,
    SetAdd,
    HashSet,
    SetPop,
    SortedSetAdd,
    SortedSetPop,
    /// Reads this many elements of a list.
    Range(u32),
    /// A command of the user, which nothing is known about.
    Custom,
}

#[derive(Debug)]
pub(crate) struct Workload {
    /// What `--tests` calls it.
    pub(crate) name: String,
    /// What the report calls it.
    pub(crate) title: String,
    pub(crate) kind: Kind,
    pub(crate) request: Template,
}

/// One encoded request with places to fill in.
#[derive(Debug, Default)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    places: Vec<Place>,
    value_len: usize,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// [`DIGITS`] digits of a random number that names a key or member.
    Key(usize),
    /// [`DIGITS`] digits of a random number that names nothing.
    Number(usize),
    /// The value that belongs to the key before it, or to key 0.
    Value(usize),
}

/// A piece of an argument.
#[derive(Clone, Copy)]
enum Part<'a> {
    Text(&'a str),
    Key,
    Number,
    Value,
}

use Part::{Key, Number, Text, Value};

/// The tests of redis-benchmark, with its names, keys and order.
pub(crate) fn all(size: usize) -> Vec<Workload> {
    let test = |name: &str, title: &str, kind, args: &[&[Part<'_>]]| Workload {
        name: name.to_owned(),
        title: title.to_owned(),
        kind,
        request: Template::new(args, size),
    };
    let key = &[Text("key:"), Key];
    let member = &[Text("element:"), Key];
    let counter = &[Text("counter:"), Key];
    let mut tests = vec![
        Workload {
            name: "ping_inline".into(),
            title: "PING_INLINE".into(),
            kind: Kind::Ping,
            request: Template { bytes: b"PING\r\n".to_vec(), ..Template::default() },
        },
        test("ping_mbulk", "PING_MBULK", Kind::Ping, &[&[Text("PING")]]),
        test("set", "SET", Kind::Set, &[&[Text("SET")], key, &[Value]]),
        test("get", "GET", Kind::Get, &[&[Text("GET")], key]),
        test("incr", "INCR", Kind::Incr, &[&[Text("INCR")], counter]),
    ];
    let list = &[Text("mylist")];
    for (name, kind, takes_value) in [
        ("LPUSH", Kind::Push, true),
        ("RPUSH", Kind::Push, true),
        ("LPOP", Kind::Pop, false),
        ("RPOP", Kind::Pop, false),
    ] {
        let args: [&[Part<'_>]; 3] = [&[Text(name)], list, &[Value]];
        let args = if takes_value { &args[..] } else { &args[..2] };
        tests.push(test(&name.to_lowercase(), name, kind, args));
    }
    let (set, hash, zset) = (&[Text("myset")], &[Text("myhash")], &[Text("myzset")]);
    tests.extend([
        test("sadd", "SADD", Kind::SetAdd, &[&[Text("SADD")], set, member]),
        test("hset", "HSET", Kind::HashSet, &[&[Text("HSET")], hash, member, &[Value]]),
        test("spop", "SPOP", Kind::SetPop, &[&[Text("SPOP")], set]),
        test("zadd", "ZADD", Kind::SortedSetAdd, &[&[Text("ZADD")], zset, &[Number], member]),
        test("zpopmin", "ZPOPMIN", Kind::SortedSetPop, &[&[Text("ZPOPMIN")], zset]),
    ]);
    for count in [100u32, 300, 500, 600] {
        let last = (count - 1).to_string();
        let args: [&[Part<'_>]; 4] = [&[Text("LRANGE")], list, &[Text("0")], &[Text(&last)]];
        let title = format!("LRANGE_{count} (first {count} elements)");
        tests.push(test(&format!("lrange_{count}"), &title, Kind::Range(count), &args));
    }
    let mut args: Vec<&[Part<'_>]> = vec![&[Text("MSET")]];
    for _ in 0..10 {
        args.extend([&key[..], &[Value]]);
    }
    tests.push(test("mset", "MSET (10 keys)", Kind::Set, &args));
    tests
}

/// A command of the user; `__rand_int__` and `__data__` stand for a key number
/// and a value.
pub(crate) fn custom(words: &[String], size: usize) -> Workload {
    let args: Vec<Vec<Part<'_>>> = words.iter().map(|word| parts(word)).collect();
    let args: Vec<&[Part<'_>]> = args.iter().map(Vec::as_slice).collect();
    let name = words.join(" ");
    let request = Template::new(&args, size);
    Workload { title: name.clone(), name, kind: Kind::Custom, request }
}

fn parts(mut word: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    while let Some(at) = word.find("__") {
        let (part, len) = match &word[at..] {
            rest if rest.starts_with("__rand_int__") => (Key, "__rand_int__".len()),
            rest if rest.starts_with("__data__") => (Value, "__data__".len()),
            _ => {
                parts.push(Text(&word[..at + 2]));
                word = &word[at + 2..];
                continue;
            }
        };
        parts.extend([Text(&word[..at]), part]);
        word = &word[at + len..];
    }
    parts.push(Text(word));
    parts
}

impl Template {
    fn new(args: &[&[Part<'_>]], value_len: usize) -> Template {
        let mut template = Template { value_len, ..Template::default() };
        let mut number = itoa::Buffer::new();
        let bytes = &mut template.bytes;
        bytes.push(b'*');
        bytes.extend_from_slice(number.format(args.len()).as_bytes());
        bytes.extend_from_slice(b"\r\n");
        for arg in args {
            let len: usize = arg
                .iter()
                .map(|part| match part {
                    Text(text) => text.len(),
                    Key | Number => DIGITS,
                    Value => value_len,
                })
                .sum();
            bytes.push(b'$');
            bytes.extend_from_slice(number.format(len).as_bytes());
            bytes.extend_from_slice(b"\r\n");
            for part in *arg {
                let at = bytes.len();
                match part {
                    Text(text) => bytes.extend_from_slice(text.as_bytes()),
                    Key | Number => bytes.resize(at + DIGITS, b'0'),
                    Value => bytes.resize(at + value_len, b'x'),
                }
                match part {
                    Text(_) => {}
                    Key => template.places.push(Place::Key(at)),
                    Number => template.places.push(Place::Number(at)),
                    Value => template.places.push(Place::Value(at)),
                }
            }
            bytes.extend_from_slice(b"\r\n");
        }
        template
    }

    /// Bytes of one request.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many key numbers a request has.
    pub(crate) fn key_count(&self) -> usize {
        self.places.iter().filter(|place| matches!(place, Place::Key(_))).count()
    }

    /// Appends one request with keys below `keyspace`; `on_key` is told each.
    pub(crate) fn write(
        &self,
        out: &mut Vec<u8>,
        rng: &mut SeededRng,
        keyspace: u32,
        values: &Values,
        mut on_key: impl FnMut(u32),
    ) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let request = &mut out[start..];
        let mut key = 0;
        for place in &self.places {
            match *place {
                Place::Key(at) => {
                    key = draw(rng, keyspace);
                    write_digits(&mut request[at..at + DIGITS], key);
                    on_key(key);
                }
                Place::Number(at) => {
                    write_digits(&mut request[at..at + DIGITS], draw(rng, keyspace));
                }
                Place::Value(at) => {
                    request[at..at + self.value_len].copy_from_slice(values.of(key));
                }
            }
        }
    }
}

#[inline]
fn draw(rng: &mut SeededRng, keyspace: u32) -> u32 {
    // One key needs no random number, as in a run without -r.
    if keyspace == 1 { 0 } else { rng.below(u64::from(keyspace)) as u32 }
}

#[inline]
fn write_digits(digits: &mut [u8], mut number: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// A key number as it stands in a key.
pub(crate) fn digits(number: u32) -> String {
    format!("{number:0width$}", width = DIGITS)
}

/// The values: each key has its own, the same in every run, so that a value
/// can be checked without remembering what was written.
///
/// They are windows into one block of random letters, which costs the load
/// generator a copy and no computation.
#[derive(Debug)]
pub(crate) struct Values {
    letters: Vec<u8>,
    len: usize,
}

impl Values {
    pub(crate) fn new(len: usize) -> Values {
        let mut rng = SeededRng::new(0x7661_6c75_6573);
        let letters = (0..len + VALUE_KINDS)
            .map(|_| b"abcdefghijklmnopqrstuvwxyz012345"[rng.below(32) as usize]);
        Values { letters: letters.collect(), len }
    }

    #[inline]
    pub(crate) fn of(&self, key: u32) -> &[u8] {
        // Fibonacci hashing, so that neighbours differ by more than a shift.
        let start = (key.wrapping_mul(0x9e37_79b1) >> 20) as usize % VALUE_KINDS;
        &self.letters[start..start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(workload: &Workload, size: usize) -> String {
        let mut out = Vec::new();
        let mut rng = SeededRng::new(1);
        workload.request.write(&mut out, &mut rng, 1, &Values::new(size), |_| {});
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn every_test_writes_one_whole_request() {
        for workload in all(20) {
            let mut out = Vec::new();
            let (mut rng, values) = (SeededRng::new(3), Values::new(20));
            let mut keys = Vec::new();
            workload.request.write(&mut out, &mut rng, 1000, &values, |key| keys.push(key));
            let mut decoder = resp::Decoder::new(resp::Limits::default());
            let request = decoder.decode(&out).expect("valid").expect("complete");
            assert_eq!(request.consumed, out.len(), "{}", workload.name);
            assert_eq!(workload.request.len(), out.len(), "{}", workload.name);
            if workload.kind == Kind::Set {
                let args = request.args();
                for (pair, key) in args[1..].chunks(2).zip(&keys) {
                    assert_eq!(pair[0], format!("key:{}", digits(*key)).as_bytes());
                    assert_eq!(pair[1], values.of(*key));
                }
                assert_eq!(keys.len(), (args.len() - 1) / 2);
            }
        }
    }

    #[test]
    fn placeholders_of_a_command() {
        let words = ["HSET", "u__x:__rand_int__", "a__data__b__"].map(str::to_owned);
        let value = String::from_utf8(Values::new(3).of(0).to_vec()).expect("letters");
        assert_eq!(
            written(&custom(&words, 3), 3),
            format!("*3\r\n$4\r\nHSET\r\n$17\r\nu__x:000000000000\r\n$7\r\na{value}b__\r\n")
        );
    }
}
