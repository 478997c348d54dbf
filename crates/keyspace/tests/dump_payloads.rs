//! Redis's serialised values: real ones, round trips, and hostile ones.

use base::{Rng, SeededRng};
use keyspace::dump::{self, DumpError};
use keyspace::types::{Hash, List, Set, Zset};
use keyspace::{EncodingLimits, Value, ValueRef};
use proptest::prelude::*;

fn decode(payload: &[u8]) -> Result<Value, DumpError> {
    dump::decode(payload, 3, &EncodingLimits::default())
}

/// The checksum, bit by bit.
fn crc64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u64::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x95ac_9329_ac4b_c9b5 } else { 0 }
        })
    })
}

/// A payload around any body.
fn seal(body: &[u8], version: u16) -> Vec<u8> {
    let mut payload = [body, &version.to_le_bytes()].concat();
    payload.extend_from_slice(&crc64(&payload).to_le_bytes());
    payload
}

/// A string as the golden file shows it.
fn shown(string: &[u8]) -> String {
    let escape = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |text, &byte| match byte {
            b'"' | b'\\' => text + "\\" + &char::from(byte).to_string(),
            b' '..=b'~' => text + &char::from(byte).to_string(),
            _ => format!("{text}\\x{byte:02x}"),
        })
    };
    if string.len() > 80 {
        let (head, tail) = (&string[..8], &string[string.len() - 8..]);
        format!("{} bytes \"{}\"..\"{}\"", string.len(), escape(head), escape(tail))
    } else {
        format!("\"{}\"", escape(string))
    }
}

/// A value as the golden file shows it: sets and hashes sorted by bytes.
fn render(value: ValueRef<'_>) -> String {
    let mut parts: Vec<String> = match value {
        ValueRef::Str(bytes) => vec![shown(bytes)],
        ValueRef::List(list) => list.iter().map(shown).collect(),
        ValueRef::Set(set) => {
            let mut members: Vec<_> = set.iter().map(|member| member.to_vec()).collect();
            members.sort();
            members.iter().map(|member| shown(member)).collect()
        }
        ValueRef::Hash(hash) => {
            let mut pairs: Vec<_> =
                hash.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect();
            pairs.sort();
            pairs.iter().map(|(field, value)| shown(field) + "=" + &shown(value)).collect()
        }
        ValueRef::Zset(zset) => zset
            .iter()
            .map(|(member, score)| format!("{}={:016x}", shown(member), score.to_bits()))
            .collect(),
    };
    parts.insert(0, value.type_name().to_owned());
    parts.join(" ")
}

struct Golden {
    name: &'static str,
    payload: Vec<u8>,
    value: &'static str,
}

fn golden() -> Vec<Golden> {
    let text = include_str!("dump_golden.txt");
    let records = text.split("\n\n").filter(|record| !record.starts_with('#'));
    let golden: Vec<Golden> = records
        .map(|record| {
            let mut lines = record.lines();
            let (name, hex) = (lines.next().expect("a name"), lines.next().expect("a payload"));
            let payload = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
                .collect();
            Golden { name, payload, value: lines.next().expect("a value") }
        })
        .collect();
    assert!(golden.len() > 30, "the golden file was read");
    golden
}

#[test]
fn redis_payloads_are_understood() {
    for Golden { name, payload, value } in golden() {
        let decoded = decode(&payload).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(render(decoded.as_ref()), value, "{name}");
        if let Value::Zset(zset) = &decoded
            && name.contains("Redis 7.0, ")
        {
            assert!(name.contains(zset.encoding()), "{name}: {}", zset.encoding());
        }
        // Written again and read again, with and without a trailer.
        let again = decode(&dump::encode(decoded.as_ref())).expect(name);
        assert_eq!(render(again.as_ref()), value, "{name}");
        let body = dump::encode_body(decoded.as_ref());
        let again = dump::decode_body(&body, 9, &EncodingLimits::default()).expect(name);
        assert_eq!(render(again.as_ref()), value, "{name}");
    }
}

#[test]
fn strings_are_written_as_redis_writes_them() {
    let golden = golden();
    let strings = golden.iter().filter(|golden| golden.value.starts_with("string "));
    let mut count = 0;
    for Golden { name, payload, .. } in strings {
        let Ok(Value::Str(string)) = decode(payload) else { panic!("{name} is a string") };
        let body = &payload[..payload.len() - 10];
        if !name.starts_with("string-compressed") {
            assert_eq!(dump::encode(ValueRef::Str(&string)), seal(body, dump::VERSION), "{name}");
        }
        count += 1;
    }
    assert_eq!(count, 9);
    let long = dump::encode(ValueRef::Str(&b"abc".repeat(1000)));
    assert!(long.len() < 100, "{} bytes", long.len());
}

#[test]
fn every_flipped_bit_is_noticed() {
    for Golden { name, payload, .. } in golden() {
        for bit in 0..payload.len() * 8 {
            let mut damaged = payload.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = decode(&damaged).expect_err(name);
            assert!(
                matches!(error, DumpError::Checksum { .. } | DumpError::Version { .. }),
                "{name}, bit {bit}: {error}"
            );
            assert_eq!(error.redis_message(), "DUMP payload version or checksum are wrong");
        }
    }
}

#[test]
fn truncated_values_are_refused() {
    for Golden { name, payload, .. } in golden() {
        let body = &payload[..payload.len() - 10];
        for end in 0..payload.len() {
            assert!(decode(&payload[..end]).is_err(), "{name} cut to {end}");
        }
        for end in 0..body.len() {
            let error = decode(&seal(&body[..end], 10)).expect_err(name);
            assert_eq!(error.redis_message(), "Bad data format", "{name} cut to {end}");
        }
        let error = decode(&seal(&[body, b"x"].concat(), 10)).expect_err(name);
        assert!(matches!(error, DumpError::Malformed { offset, .. } if offset == body.len()));
    }
}

#[test]
fn a_newer_version_is_refused() {
    let body = dump::encode_body(ValueRef::Str(b"x"));
    assert!(decode(&seal(&body, 1)).is_ok());
    assert!(decode(&seal(&body, 11)).is_ok());
    assert_eq!(decode(&seal(&body, 12)).unwrap_err(), DumpError::Version { version: 12 });
    assert_eq!(decode(b"123456789").unwrap_err(), DumpError::Short { len: 9 });
}

#[test]
fn malformed_values_are_refused_with_a_reason() {
    let pack = |entries: &[&[u8]], count: u16| {
        let body = entries.concat();
        let size = u32::try_from(body.len() + 7).expect("small");
        [&size.to_le_bytes()[..], &count.to_le_bytes(), &body, &[0xff]].concat()
    };
    let blob = |kind: u8, blob: &[u8]| [&[kind, blob.len() as u8], blob].concat();
    let (a, b, text) = (&b"\x81a\x02"[..], &b"\x81b\x02"[..], &b"\x83nan\x04"[..]);
    let huge_lzf = [&b"\x00\xc3\x01\x81"[..], &(1u64 << 40).to_be_bytes(), b"\x00"].concat();
    let nan = [&b"\x05\x01\x01a"[..], &f64::NAN.to_le_bytes()].concat();
    for (what, body, reason) in [
        ("no type", vec![], "end early"),
        ("unknown type", vec![99], "type is unknown"),
        ("a stream", vec![15, 1], "type is unknown"),
        ("empty list", vec![1, 0], "empty"),
        ("empty set", vec![2, 0], "empty"),
        ("empty hash", vec![4, 0], "empty"),
        ("empty zset", vec![5, 0], "empty"),
        ("empty quicklist", vec![18, 0], "empty"),
        ("quicklist of empty nodes", [&[18, 1, 2][..], &blob(7, &pack(&[], 0))].concat(), ""),
        ("empty hash listpack", blob(16, &pack(&[], 0)), "empty"),
        ("empty zset listpack", blob(17, &pack(&[], 0)), "empty"),
        ("empty set listpack", blob(20, &pack(&[], 0)), "empty"),
        ("empty intset", blob(11, &[2, 0, 0, 0, 0, 0, 0, 0]), "empty"),
        ("empty zipmap", blob(9, &[0, 255]), "empty"),
        ("huge list", vec![1, 0x80, 0xff, 0xff, 0xff, 0xff], "announced"),
        ("huge set", [&[2, 0x81][..], &[0xff; 8]].concat(), "announced"),
        ("huge string", vec![0, 0x80, 0xff, 0xff, 0xff, 0xff], "end early"),
        ("huge compressed string", huge_lzf, "compressed"),
        ("length form", vec![0, 0x82, 0, 0], "unknown form"),
        ("string form", vec![0, 0xc4], "unknown form"),
        ("number as a length", vec![1, 0xc0, 1], "length is expected"),
        ("set with a member twice", b"\x02\x02\x01a\x01a".to_vec(), "twice"),
        ("set with a number twice", b"\x02\x02\xc0\x05\x015".to_vec(), "twice"),
        ("hash with a field twice", b"\x04\x02\x01a\x01b\x01a\x01c".to_vec(), "twice"),
        (
            "zset with a member twice",
            blob(17, &pack(&[a, b"\x01\x01", a, b"\x01\x01"], 4)),
            "twice",
        ),
        ("hash listpack with a field twice", blob(16, &pack(&[a, b, a, b], 4)), "twice"),
        ("hash with an odd field", blob(16, &pack(&[a, b, a], 3)), "pair"),
        ("NaN", nan, "no number"),
        ("NaN of old", b"\x03\x01\x01a\xfd".to_vec(), "no number"),
        ("NaN in text", blob(17, &pack(&[a, text], 2)), "no number"),
        ("listpack count", blob(16, &pack(&[a, b], 3)), "count"),
        ("listpack entry size", blob(16, &pack(&[a, b"\x81b\x03"], 2)), "size is wrong"),
        ("listpack encoding", blob(20, &pack(&[b"\xf5\x01"], 1)), "unknown encoding"),
        ("listpack overrun", blob(20, &pack(&[b"\xbfa\x02"], 1)), "end early"),
        ("intset order", blob(11, &[2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 1, 0]), "order"),
        ("intset width", blob(11, &[3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0]), "wide"),
        ("intset count", blob(11, &[2, 0, 0, 0, 2, 0, 0, 0, 1, 0]), "count"),
        ("list node form", vec![18, 1, 3, 1, b'a'], "unknown form"),
        ("empty plain node", vec![18, 1, 1, 0, 0], "node is empty"),
    ] {
        match decode(&seal(&body, 11)) {
            Err(DumpError::Malformed { what: found, .. }) => {
                assert!(found.contains(reason), "{what}: {found}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// Damaged bodies with a checksum that fits. `ALCID_FUZZ_ITERATIONS` sets how
/// many.
#[test]
fn damage_behind_a_valid_checksum_never_panics() {
    let iterations = std::env::var("ALCID_FUZZ_ITERATIONS")
        .ok()
        .map_or(20_000, |text| text.parse().expect("ALCID_FUZZ_ITERATIONS is a number"));
    let corpus: Vec<Vec<u8>> = golden()
        .into_iter()
        .map(|golden| golden.payload[..golden.payload.len() - 10].to_vec())
        .collect();
    let mut rng = SeededRng::new(0xd0_0d);
    let (mut accepted, mut refused) = (0u64, 0u64);
    for _ in 0..iterations {
        let mut body = corpus[rng.below(corpus.len() as u64) as usize].clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(body.len() as u64) as usize;
            match rng.below(6) {
                0 => body[at] ^= 1 << rng.below(8),
                1 => body[at] = rng.next_u64() as u8,
                2 => {
                    body[at] = [0, 1, 0x3f, 0x7f, 0x80, 0x81, 0xc0, 0xc3, 0xf0, 0xff]
                        [rng.below(10) as usize]
                }
                3 => body.insert(at, rng.next_u64() as u8),
                4 if body.len() > 1 => drop(body.remove(at)),
                _ => {
                    let other = &corpus[rng.below(corpus.len() as u64) as usize];
                    body.truncate(at + 1);
                    body.extend_from_slice(&other[other.len() / 2..]);
                }
            }
        }
        match dump::decode_body(&body, rng.next_u64(), &EncodingLimits::default()) {
            Ok(value) => {
                accepted += 1;
                let again = decode(&dump::encode(value.as_ref())).expect("written by us");
                assert_eq!(render(again.as_ref()), render(value.as_ref()));
            }
            Err(DumpError::Malformed { offset, .. }) => {
                refused += 1;
                assert!(offset <= body.len());
            }
            Err(error) => panic!("a body has no trailer: {error}"),
        }
    }
    assert!(accepted > iterations / 100 && refused > iterations / 4, "{accepted} {refused}");
}

fn string() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..40),
        2 => any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        2 => (-70_000i64..70_000).prop_map(|number| number.to_string().into_bytes()),
        1 => (any::<u8>(), 0usize..20_000).prop_map(|(byte, len)| vec![byte; len]),
        1 => ("[ab]{1,9}", 1usize..100).prop_map(|(text, times)| text.repeat(times).into_bytes()),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let limits = EncodingLimits::default;
    prop_oneof![
        string().prop_map(Value::Str),
        prop::collection::vec(string(), 1..200).prop_map(move |elements| {
            let mut list = List::new();
            elements.iter().for_each(|element| list.push_back(element, &limits()));
            Value::List(list)
        }),
        prop::collection::vec(string(), 1..200).prop_map(move |members| {
            let mut set = Set::new(1);
            for member in members {
                set.add(&member, &limits());
            }
            Value::Set(set)
        }),
        prop::collection::vec((string(), string()), 1..150).prop_map(move |pairs| {
            let mut hash = Hash::new(1);
            for (field, value) in pairs {
                hash.set(&field, &value, &limits());
            }
            Value::Hash(hash)
        }),
        prop::collection::vec((string(), any::<f64>()), 1..200).prop_map(move |pairs| {
            let mut zset = Zset::new(1);
            for (member, score) in pairs {
                let score = if score.is_nan() { f64::INFINITY } else { score };
                zset.insert(&member, score, &limits());
            }
            Value::Zset(zset)
        }),
    ]
}

proptest! {
    #[test]
    fn values_survive_the_round_trip(value in value()) {
        let expected = render(value.as_ref());
        let payload = dump::encode(value.as_ref());
        prop_assert_eq!(render(decode(&payload).expect("ours").as_ref()), &expected[..]);
        let body = dump::encode_body(value.as_ref());
        let read = dump::decode_body(&body, 2, &EncodingLimits::default()).expect("ours");
        prop_assert_eq!(render(read.as_ref()), expected);
        prop_assert!(payload.len() <= body.len() + 10);
    }

    #[test]
    fn any_bytes_are_refused_or_read(kind in 0u8..24, mut body: Vec<u8>) {
        body.insert(0, kind);
        if let Ok(value) = dump::decode_body(&body, 2, &EncodingLimits::default()) {
            prop_assert!(value.as_ref().element_count() > 0);
        }
    }
}
