//! Random changes of a few keys.

use base::{DbIndex, Rng, SeededRng};
use keyspace::types::{Hash, List, Set, Zset};
use keyspace::{Editor, Txn, Value, ValueRef};

use crate::random::DATABASES;

const KEYS: u64 = 40;

/// Changes below this make a key a string without a look at what it is.
const OVERWRITES: u64 = 70;

/// Those below this need to know whether the key exists, and no more.
const EXISTENCE: u64 = 130;

/// Those from here on only look at elements of a collection by their names.
const LOOKS: u64 = 400;

/// One change. Which it is depends on the numbers.
#[derive(Debug)]
pub struct Change {
    what: u64,
    n: u64,
    db: DbIndex,
    key: Vec<u8>,
    other: Vec<u8>,
    a: Vec<u8>,
    b: Vec<u8>,
}

impl Change {
    pub fn random(rng: &mut SeededRng) -> Change {
        Change {
            what: rng.below(440),
            n: rng.below(9),
            db: rng.below(DATABASES.into()) as DbIndex,
            key: random_key(rng),
            other: random_key(rng),
            a: element(rng),
            b: element(rng),
        }
    }

    fn of(what: u64, db: DbIndex, key: &[u8], a: &[u8]) -> Change {
        let (key, a) = (key.to_vec(), a.to_vec());
        Change { what, n: 8, db, key, other: Vec::new(), a, b: Vec::new() }
    }

    pub fn set(db: DbIndex, key: &[u8], value: &[u8]) -> Change {
        Change::of(0, db, key, value)
    }

    pub fn delete(db: DbIndex, key: &[u8]) -> Change {
        Change::of(140, db, key, b"")
    }

    /// Removes a key of which only that it exists need be known.
    pub fn delete_unread(db: DbIndex, key: &[u8]) -> Change {
        Change { other: b"none".to_vec(), ..Change::of(120, db, key, b"") }
    }

    pub fn expire(db: DbIndex, key: &[u8], expires: bool) -> Change {
        Change { n: if expires { 0 } else { 8 }, ..Change::of(190, db, key, b"") }
    }

    pub fn rename(db: DbIndex, key: &[u8], to: &[u8]) -> Change {
        Change { n: 0, other: to.to_vec(), ..Change::of(160, db, key, b"") }
    }

    /// Makes a list longer.
    pub fn push(db: DbIndex, key: &[u8], element: &[u8]) -> Change {
        Change { b: element.to_vec(), ..Change::of(250, db, key, b"") }
    }

    pub fn db(&self) -> DbIndex {
        self.db
    }

    pub fn key(&self) -> &[u8] {
        &self.key
    }

    pub fn flush(db: DbIndex) -> Change {
        Change::of(396, db, b"", b"")
    }
}

pub fn random_key(rng: &mut SeededRng) -> Vec<u8> {
    match rng.below(300) {
        // Longer than the tree takes.
        0 => vec![b'x'; 40_000],
        n => format!("key:{}", n % KEYS).into_bytes(),
    }
}

fn element(rng: &mut SeededRng) -> Vec<u8> {
    let len = [1, 5, 20, 90][rng.below(4) as usize];
    vec![b'a' + rng.below(20) as u8; len]
}

/// Makes changes, in one transaction. Answers which keys existed, where it asked.
pub fn make(changes: &[Change], txn: &mut Txn<'_>) -> Vec<bool> {
    let mut existed = Vec::new();
    for Change { what, n, db, key, other, a, b } in changes {
        let (db, now_ms) = (*db, txn.now_ms());
        let to_db = (db + *n as DbIndex) % DATABASES;
        txn.select(db);
        let deadline = (*n == 0).then_some(now_ms + 400);
        if *what < OVERWRITES {
            txn.overwrite(key, a, deadline).expect("the archive can be read");
            continue;
        }
        if *what < EXISTENCE {
            for key in [key, other] {
                txn.look_for(key);
            }
            txn.check_backing().expect("the archive can be read");
            let exists = txn.contains(key);
            existed.extend([exists, txn.contains(other)]);
            match n {
                0 => _ = txn.delete(other),
                1..4 if exists => txn.overwrite(key, a, None).expect("it is known"),
                1..4 => {}
                4 if !exists => txn.overwrite(key, b, deadline).expect("it is known"),
                4 => {}
                _ => existed.push(txn.delete(key)),
            }
            // What was found out before does not count any more.
            existed.push(txn.contains(key));
            txn.purge(key);
            existed.push(txn.contains(key));
            continue;
        }
        if *what >= LOOKS {
            if *n < 4 {
                txn.look_at(key, &[]);
                txn.check_backing().expect("the archive can be read");
                let info = txn.info(key);
                existed.extend([info.is_some(), info.is_some_and(|it| it.deadline.is_some())]);
                let counts = [
                    txn.element_count::<Hash>(key),
                    txn.element_count::<Set>(key),
                    txn.element_count::<Zset>(key),
                    txn.element_count::<List>(key),
                ];
                existed.extend(counts.iter().map(Result::is_ok));
                let counts = counts.into_iter().flatten();
                existed
                    .extend(counts.flat_map(|count| (0..8).map(move |bit| count >> bit & 1 == 1)));
                continue;
            }
            txn.look_at(key, &[a, b]);
            txn.check_backing().expect("the archive can be read");
            existed.push(match txn.look(key) {
                Some(ValueRef::Hash(hash)) => hash.get(a).is_some_and(|value| value == b),
                Some(ValueRef::Set(set)) => set.contains(a),
                Some(ValueRef::Zset(zset)) => zset.score(a) == Some(*n as f64 / 3.0),
                Some(ValueRef::Str(_) | ValueRef::List(_)) => true,
                None => false,
            });
            continue;
        }
        txn.purge(key);
        txn.check_backing().expect("the archive can be read");
        // Commands of another type than the key's change nothing.
        match what {
            130..=139 => txn.set_string(key, a, deadline),
            140..=159 => _ = txn.delete(key),
            160..=189 => _ = txn.rename(key, to_db, other),
            190..=209 => _ = txn.set_deadline(key, deadline),
            210..=249 => {
                _ = txn.update_or_create(key, |hash: &mut Editor<'_, '_, Hash>| match n {
                    0..3 => _ = hash.remove(a),
                    _ => _ = hash.set(a, b),
                });
            }
            250..=289 => {
                _ = txn.update_or_create(key, |list: &mut Editor<'_, '_, List>| match n {
                    0 if !list.is_empty() => list.drop_front(1),
                    1 if !list.is_empty() => list.drop_back(1),
                    2 if !list.is_empty() => list.insert(list.len() / 2, b),
                    3..=5 => list.push_front(a),
                    _ => list.push_back(b),
                });
            }
            290..=329 => {
                _ = txn.update_or_create(key, |set: &mut Editor<'_, '_, Set>| match n {
                    0..4 => set.remove(a),
                    _ => set.add(a),
                });
            }
            330..=369 => {
                _ = txn.update_or_create(key, |zset: &mut Editor<'_, '_, Zset>| match n {
                    0..4 => _ = zset.remove(a),
                    _ => _ = zset.set(a, *n as f64 / 3.0),
                });
            }
            370..=394 => txn.put(key, Value::Str(a.clone()), deadline),
            395..=397 => txn.flush(db),
            _ => txn.swap(db, (db + 1) % DATABASES),
        }
    }
    existed
}
