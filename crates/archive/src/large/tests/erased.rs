//! What purges leave of records and in the base, and what is damaged.

use keyspace::Purge;

use super::*;
use crate::compaction::Erasure;
use crate::elements::Named;
use crate::state::{At, State};

/// Erases what keys were before a revision.
fn erase(world: &World, key: &[u8], is_prefix: bool, at: Revision) {
    let purge = Purge { db: 0, key: key.to_vec(), is_prefix, at };
    let erasure = Erasure { branch: base::BranchId::MAIN, purge, spaces: vec![SPACE] };
    world.base.erase(Revision::ZERO, vec![erasure]).expect("it can be merged");
}

/// Table files with these bytes.
fn files_with(world: &World, bytes: &[u8]) -> usize {
    let tables = world.base.dir().join("base/tables");
    let files = std::fs::read_dir(tables).expect("there").map(|file| file.expect("there").path());
    let has = |file: &std::path::PathBuf| {
        let content = std::fs::read(file).expect("it can be read");
        content.windows(bytes.len()).any(|window| window == bytes)
    };
    files.filter(has).count()
}

/// What the record of a purge does to a key that holds a hash.
fn begin_anew(world: &mut World, key: &[u8]) -> Revision {
    let mut hash = keyspace::types::Hash::new(1);
    let limits = EncodingLimits::default();
    for field in ["a", "b"] {
        hash.set(field.as_bytes(), b"Marvin", &limits);
    }
    let body = keyspace::dump::encode_body(keyspace::ValueRef::Hash(&hash));
    let named = Effect::Key { key, existed: None };
    world.run(&[named, Effect::Erase, Effect::Put { body: &body, deadline: None }]);
    world.write()
}

#[test]
fn a_record_that_a_purge_rewrote_is_applied() {
    let mut world = World::new();
    world.run(&[new(b"hash"), set(b"a", b"1"), set(b"b", b"2")]);
    world.write();
    world.reads();
    world.run(&[old(b"hash"), set(b"a", b"3"), Effect::Erased]);
    assert_eq!(world.reads(), 0);
    world.write();
    assert_eq!(world.now(b"hash").as_deref(), Some("a=3 b=2"));
}

#[test]
fn nothing_is_left_of_elements() {
    let long = [vec![b'x'; 40_000], b"ylem".to_vec()].concat();
    for (key, asked, is_prefix) in [
        (&b"short"[..], &b"short"[..], false),
        (b"short", b"s", true),
        (&long, &long, false),
        (&long, &long[..39_000], true),
    ] {
        let mut world = World::new();
        let other = [b"y", key].concat();
        for key in [key, &other] {
            world.run(&[new(key), set(b"a", b"Zaphod"), set(b"b", b"Zaphod"), set(b"Zaphod", b"")]);
        }
        world.write();
        // What it was called is left of an element that is gone.
        for key in [key, &other] {
            world.run(&[old(key), Effect::HashDelete { field: b"Zaphod" }]);
        }
        world.write();
        let before = world.base.revision();
        world.run(&[old(&other), set(b"a", b"Trillian"), set(b"b", b"Trillian")]);
        let at = begin_anew(&mut world, key);
        erase(&world, asked, is_prefix, at);
        assert_eq!(world.now(key).as_deref(), Some("a=Marvin b=Marvin"));
        // That one has other elements, which are still read.
        assert_eq!(
            world.at(before, &other).as_ref().map(text).as_deref(),
            Some("a=Zaphod b=Zaphod")
        );
        let at = begin_anew(&mut world, &other);
        erase(&world, &other, false, at);
        assert_eq!(files_with(&world, b"Zaphod"), 0, "prefix: {is_prefix}");
        assert_eq!(world.now(&other).as_deref(), Some("a=Marvin b=Marvin"));
    }
}

#[test]
fn what_a_database_has_now_is_erased_by_nobody() {
    let mut world = World::new();
    world.run(&[new(b"string"), Effect::StrSet { value: b"v", deadline: None }]);
    world.run(&[new(b"hash"), set(b"a", b"1"), set(b"b", b"2")]);
    world.run(&[new(b"gone"), set(b"a", b"Zaphod"), set(b"b", b"Zaphod")]);
    world.write();
    world.run(&[old(b"gone"), GONE]);
    world.run(&[old(b"hash"), set(b"a", b"3")]);
    let at = world.write().next();
    // No record of it wrote them anew, as where they stood elsewhere by then.
    erase(&world, b"", true, at);
    assert_eq!(world.now(b"string").as_deref(), Some("v"));
    assert_eq!(world.now(b"hash").as_deref(), Some("a=3 b=2"));
    assert_eq!(files_with(&world, b"Zaphod"), 0);
}

#[test]
fn damage_of_one_element_is_not_forgotten_over_the_next() {
    let mut world = World::new();
    world.run(&[new(b"hash"), set(b"a", b"1"), set(b"b", b"2")]);
    let born = world.write();
    let hash = keyspace::hash_of(1, b"hash");
    let mut element = codec::head_key(SPACE, hash, b"hash");
    elements::put_born(&mut element, born);
    elements::put_name(&mut element, b"a");
    let mut batch = world.base.batch().expect("a file can be made");
    batch.put(&element, b"\x02\x63?").expect("it can be written");
    let revision = born.next();
    let directory = (*world.base.directory()).clone();
    let directory = crate::directory::Directory { revision, ..directory };
    batch.finish(directory).expect("it can be made durable");
    let state = State::new(world.base.clone(), At::Newest, EncodingLimits::default());
    let fetch = |names: &[&[u8]]| {
        let named = Named::new(names);
        state.fetch_named(SPACE, hash, b"hash", &named).map(|found| found.is_some())
    };
    assert_eq!(fetch(&[b"b"]).ok(), Some(true));
    for names in [&[&b"a"[..]][..], &[b"a", b"b"], &[b"b", b"a"]] {
        let error = fetch(names).expect_err("it is damaged").to_string();
        assert!(error.contains("an element has an unknown form"), "{error}");
    }
}
