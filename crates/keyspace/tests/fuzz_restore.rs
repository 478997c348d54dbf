//! Hostile payloads of RESTORE: any bytes are a value or an error, never a
//! panic, and a value that is taken can be written and read again.
//!
//! The corpus holds bodies, without version and checksum, which would refuse
//! nearly every mutation at the door. Clients can put both right.

use keyspace::{EncodingLimits, Value, dump};
use testkit::fuzz;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/restore");

const SEED: u64 = 1;

fn read(body: &[u8]) -> Option<Value> {
    dump::decode_body(body, SEED, &EncodingLimits::default()).ok()
}

#[test]
fn hostile_bodies_are_read_or_refused() {
    fuzz::run(CORPUS, |body| {
        let Some(value) = read(body) else { return };
        let is_string = matches!(value, Value::Str(_));
        assert!(is_string || value.as_ref().element_count() > 0, "no key holds nothing");
        // A little input must not become a lot of memory: compressed strings
        // grow at most as LZF lets them.
        let bytes = value.memory_bytes();
        assert!(bytes <= 4096 + body.len() * 400, "{bytes} bytes from {}", body.len());

        let written = dump::encode_body(value.as_ref());
        let again = read(&written).expect("what was written can be read");
        // Members may stand in another order.
        assert_eq!(again.as_ref().element_count(), value.as_ref().element_count());
        assert_eq!(dump::encode_body(again.as_ref()).len(), written.len());
    });
}

#[test]
fn hostile_payloads_are_read_or_refused() {
    let limits = EncodingLimits::default();
    fuzz::run(CORPUS, |body| {
        // As it is, and with the trailer it would need.
        let _ = dump::decode(body, SEED, &limits);
        if let Some(value) = read(body) {
            let payload = dump::encode(value.as_ref());
            assert!(dump::decode(&payload, SEED, &limits).is_ok());
        }
    });
}
