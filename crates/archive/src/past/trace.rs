//! What a record does to some keys only.

use std::collections::BTreeSet;

use base::DbIndex;
use keyspace::effect::{Cause, Effect, EffectError, Effects};

use super::key::Name;
use crate::elements::Named;

/// What a record does to one key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Nothing.
    Nothing,
    /// It becomes what another key was, or what stood elsewhere.
    Moved,
    /// These effects, which name it first; none if it is gone.
    Done {
        bytes: Vec<u8>,
        /// What the key was before does not matter: it counts as none.
        settles: bool,
        /// Something was done to elements that do not matter.
        leaves_out: bool,
    },
}

/// What effects speak of.
struct Place<'e> {
    db: DbIndex,
    key: Option<&'e [u8]>,
}

impl<'e> Place<'e> {
    /// Follows the effects that say so; answers whether this was one.
    fn follow(&mut self, effect: &Effect<'e>) -> bool {
        match *effect {
            Effect::Database(db) => self.db = db,
            Effect::Key { key, .. } => self.key = Some(key),
            _ => return false,
        }
        true
    }
}

/// What effects do to a key of a database: to it alone, or to the database as a
/// whole. `first_db` is the record's. Where only some elements matter, what is
/// done to others is left out, unless it makes the collection.
pub(super) fn of_key(
    effects: &[u8],
    first_db: DbIndex,
    name: &Name<'_>,
) -> Result<Part, EffectError> {
    let (db, key) = (name.db, name.key);
    let mut place = Place { db: first_db, key: None };
    let mut bytes = Vec::new();
    let (mut is_touched, mut settles, mut leaves_out) = (false, false, false);
    // The record itself has made what the key is.
    let mut is_made = false;
    for effect in Effects::new(effects) {
        let effect = effect?;
        if place.follow(&effect) {
            if let Effect::Key { existed, .. } = effect
                && (place.db, place.key) == (db, Some(key))
            {
                match existed {
                    // It does not tell: nothing can be left out.
                    None if name.named.is_some() => return Ok(Part::Moved),
                    None | Some(true) => {}
                    // What was before it is none of what is made here.
                    Some(false) => (is_made, settles) = (true, true),
                }
            }
            continue;
        }
        let is_flushed = match effect {
            Effect::Rename { db: to_db, key: to, .. } if (to_db, to) == (db, key) => {
                return Ok(Part::Moved);
            }
            Effect::Swap { a, b } if a == db || b == db => return Ok(Part::Moved),
            Effect::Return { db: whole, .. } if whole == db => return Ok(Part::Moved),
            Effect::Flush { db: whole } => whole == db,
            _ => false,
        };
        let is_ours = (place.db, place.key) == (db, Some(key)) && effect.is_on_key();
        if !is_ours && !is_flushed {
            continue;
        }
        is_touched = true;
        let is_gone = is_flushed
            || matches!(
                effect,
                Effect::Delete(_) | Effect::Emptied | Effect::Rename { .. } | Effect::Erase
            );
        if is_gone || matches!(effect, Effect::StrSet { .. } | Effect::Put { .. }) {
            settles = true;
            (is_made, leaves_out) = (true, false);
            bytes.clear();
        }
        let is_other = |named: &Named<'_>| element_of(&effect).is_some_and(|name| !named.has(name));
        if is_gone {
            continue;
        }
        if !is_made && name.named.as_ref().is_some_and(is_other) {
            leaves_out = true;
            continue;
        }
        if bytes.is_empty() {
            Effect::Key { key, existed: None }.encode(&mut bytes);
        }
        effect.encode(&mut bytes);
    }
    Ok(if is_touched { Part::Done { bytes, settles, leaves_out } } else { Part::Nothing })
}

/// The element of a collection that an effect is about, if elements have names.
fn element_of<'e>(effect: &Effect<'e>) -> Option<&'e [u8]> {
    match *effect {
        Effect::HashSet { field, .. }
        | Effect::HashDelete { field }
        | Effect::HashAdd { field, .. } => Some(field),
        Effect::SetAdd { member }
        | Effect::SetRemove { member }
        | Effect::ZsetSet { member, .. }
        | Effect::ZsetRemove { member } => Some(member),
        _ => None,
    }
}

/// Adds the names of the elements that effects change of a key. Answers whether
/// nothing else is done to it, but for its deadline.
pub(super) fn elements(
    effects: &[u8],
    first_db: DbIndex,
    (db, key): (DbIndex, &[u8]),
    names: &mut BTreeSet<Vec<u8>>,
) -> Result<bool, EffectError> {
    let mut place = Place { db: first_db, key: None };
    for effect in Effects::new(effects) {
        let effect = effect?;
        let is_named = place.follow(&effect);
        let is_ours = (place.db, place.key) == (db, Some(key));
        match effect {
            Effect::Key { existed, .. } if is_ours && existed != Some(true) => return Ok(false),
            Effect::Rename { db: to_db, key: to, .. } if (to_db, to) == (db, key) => {
                return Ok(false);
            }
            effect if is_ours && !is_named && effect.is_on_key() => match element_of(&effect) {
                Some(name) => _ = names.insert(name.to_vec()),
                None if matches!(effect, Effect::Deadline(_)) => {}
                None => return Ok(false),
            },
            _ => {}
        }
    }
    Ok(true)
}

/// Tells `each` what effects add to a key that is there before: to it, or to a field
/// of it. Answers whether they do nothing else to it.
pub(super) fn added<'e>(
    effects: &'e [u8],
    first_db: DbIndex,
    (db, key): (DbIndex, &[u8]),
    each: &mut dyn FnMut(Option<&'e [u8]>, i64),
) -> Result<bool, EffectError> {
    let mut place = Place { db: first_db, key: None };
    for effect in Effects::new(effects) {
        let effect = effect?;
        let is_named = place.follow(&effect);
        let is_ours = (place.db, place.key) == (db, Some(key));
        match effect {
            Effect::Key { existed, .. } if is_ours && existed != Some(true) => return Ok(false),
            Effect::Rename { db: to_db, key: to, .. } if (to_db, to) == (db, key) => {
                return Ok(false);
            }
            Effect::StrAdd { delta } if is_ours => each(None, delta),
            Effect::HashAdd { field, delta } if is_ours => each(Some(field), delta),
            effect if is_ours && !is_named && effect.is_on_key() => return Ok(false),
            _ => {}
        }
    }
    Ok(true)
}

/// Adds the keys whose names effects change to `to`, in any database.
pub(super) fn sources(
    effects: &[u8],
    to: &[u8],
    found: &mut Vec<Vec<u8>>,
) -> Result<(), EffectError> {
    let mut place = Place { db: 0, key: None };
    for effect in Effects::new(effects) {
        let effect = effect?;
        place.follow(&effect);
        if let Effect::Rename { key, .. } = effect
            && key == to
        {
            found.extend(place.key.map(<[u8]>::to_vec));
        }
    }
    Ok(())
}

/// What a record has to do with some keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    Nothing,
    /// All of it is about them, or about databases as a whole.
    Whole,
    /// A part is.
    Part,
    /// Another key is given the name of one of them.
    Moved,
}

/// What effects have to do with keys of these names, in any database.
pub(super) fn concern(effects: &[u8], has: impl Fn(&[u8]) -> bool) -> Result<Concern, EffectError> {
    let mut is_ours = false;
    let (mut any, mut others) = (false, false);
    for effect in Effects::new(effects) {
        match effect? {
            Effect::Key { key, .. } => {
                is_ours = has(key);
                any |= is_ours;
                others |= !is_ours;
            }
            Effect::Rename { key, .. } if has(key) && is_ours => {}
            Effect::Rename { key, .. } if has(key) => return Ok(Concern::Moved),
            Effect::Rename { .. } => others = true,
            Effect::Flush { .. } | Effect::Swap { .. } | Effect::Return { .. } => any = true,
            _ => {}
        }
    }
    Ok(match (any, others) {
        (false, _) => Concern::Nothing,
        (true, false) => Concern::Whole,
        (true, true) => Concern::Part,
    })
}

/// The effects on some keys, in any database, and on databases as a whole.
pub(super) fn of_keys(effects: &[u8], has: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, EffectError> {
    let mut place = Place { db: 0, key: None };
    let mut bytes = Vec::new();
    for effect in Effects::new(effects) {
        let effect = effect?;
        place.follow(&effect);
        let is_ours = place.key.is_some_and(&has);
        match effect {
            Effect::Database(_)
            | Effect::Leaves { .. }
            | Effect::Flush { .. }
            | Effect::Swap { .. }
            | Effect::Return { .. } => effect.encode(&mut bytes),
            // What others become does not matter.
            Effect::Rename { key, .. } if is_ours && !has(key) => {
                Effect::Delete(Cause::Client).encode(&mut bytes);
            }
            effect if is_ours && (effect.is_on_key() || matches!(effect, Effect::Key { .. })) => {
                effect.encode(&mut bytes);
            }
            _ => {}
        }
    }
    Ok(bytes)
}

/// Whether effects change a key of a database, or all of it.
pub(super) fn touches(
    effects: &[u8],
    first_db: DbIndex,
    db: DbIndex,
    key: &[u8],
) -> Result<bool, EffectError> {
    let mut place = Place { db: first_db, key: None };
    let mut touches = false;
    for effect in Effects::new(effects) {
        let effect = effect?;
        if !place.follow(&effect) {
            touches |= match effect {
                Effect::Flush { db: whole } | Effect::Return { db: whole, .. } => whole == db,
                Effect::Swap { a, b } => a == db || b == db,
                Effect::Rename { db: to_db, key: to, .. } if (to_db, to) == (db, key) => true,
                effect => effect.is_on_key() && (place.db, place.key) == (db, Some(key)),
            };
        }
    }
    Ok(touches)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn bytes(effects: &[Effect<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        effects.iter().for_each(|effect| effect.encode(&mut bytes));
        bytes
    }

    const ADD: Effect<'static> = Effect::StrAdd { delta: 1 };
    const SET: Effect<'static> = Effect::StrSet { value: b"v", deadline: None };

    fn named(key: &[u8]) -> Effect<'_> {
        Effect::Key { key, existed: Some(true) }
    }

    fn done(effects: &[Effect<'_>], settles: bool) -> Part {
        let name = Effect::Key { key: b"k", existed: None };
        let bytes =
            if effects.is_empty() { Vec::new() } else { bytes(&[&[name], effects].concat()) };
        Part::Done { bytes, settles, leaves_out: false }
    }

    fn some_left_out(part: Part) -> Part {
        match part {
            Part::Done { bytes, settles, .. } => Part::Done { bytes, settles, leaves_out: true },
            part => part,
        }
    }

    #[test]
    fn only_what_concerns_the_key_stays() {
        let part = |effects: &[Effect<'_>]| {
            of_key(&bytes(effects), 0, &Name::new(1, 0, b"k")).expect("ours")
        };
        assert_eq!(part(&[named(b"other"), ADD]), Part::Nothing);
        assert_eq!(part(&[Effect::Database(1), named(b"k"), ADD]), Part::Nothing);
        assert_eq!(part(&[named(b"other"), SET, named(b"k"), ADD]), done(&[ADD], false));
        assert_eq!(part(&[named(b"k"), ADD, SET, named(b"x"), SET]), done(&[SET], true));
        let gone = [named(b"k"), Effect::Delete(Cause::Expired)];
        assert_eq!(part(&gone), done(&[], true));
        assert_eq!(part(&[&gone[..], &[named(b"k"), ADD]].concat()), done(&[ADD], true));
        let to = |key| Effect::Rename { db: 0, key, replaces: None };
        assert_eq!(part(&[named(b"k"), ADD, to(b"x")]), done(&[], true));
        assert_eq!(part(&[named(b"x"), to(b"k")]), Part::Moved);
    }

    #[test]
    fn a_flush_removes_the_key_and_a_database_may_bring_another() {
        let part = |effects: &[Effect<'_>]| {
            of_key(&bytes(effects), 0, &Name::new(1, 0, b"k")).expect("ours")
        };
        let flush = |db| Effect::Flush { db };
        let space = base::SpaceId::first_of(0);
        let back = |db| Effect::Return { db, space, keys: &[0; keyspace::SHARDS] };
        assert_eq!(part(&[flush(0)]), done(&[], true));
        assert_eq!(part(&[flush(1)]), Part::Nothing);
        assert_eq!(part(&[named(b"k"), ADD, flush(1)]), done(&[ADD], false));
        assert_eq!(part(&[named(b"k"), SET, flush(0), named(b"x"), SET]), done(&[], true));
        assert_eq!(part(&[flush(0), named(b"k"), ADD]), done(&[ADD], true));
        assert_eq!(part(&[Effect::Swap { a: 2, b: 0 }]), Part::Moved);
        assert_eq!(part(&[Effect::Swap { a: 2, b: 1 }]), Part::Nothing);
        assert_eq!(part(&[back(0)]), Part::Moved);
        assert_eq!(part(&[back(1)]), Part::Nothing);
    }

    #[test]
    fn what_a_record_has_to_do_with_keys() {
        let told = |effects: &[Effect<'_>]| {
            concern(&bytes(effects), |key| key == b"a" || key == b"b").expect("ours")
        };
        let to = |key| Effect::Rename { db: 0, key, replaces: None };
        let origin = Effect::Origin { command: b"set", user: b"u", address: b"x" };
        assert_eq!(told(&[origin, named(b"c"), SET]), Concern::Nothing);
        assert_eq!(told(&[origin, named(b"a"), SET]), Concern::Whole);
        assert_eq!(told(&[named(b"a"), SET, named(b"c"), SET]), Concern::Part);
        assert_eq!(told(&[named(b"c"), SET, named(b"a"), SET]), Concern::Part);
        assert_eq!(told(&[Effect::Flush { db: 3 }]), Concern::Whole);
        assert_eq!(told(&[Effect::Swap { a: 1, b: 3 }, named(b"c"), SET]), Concern::Part);
        assert_eq!(told(&[named(b"a"), to(b"b")]), Concern::Whole);
        assert_eq!(told(&[named(b"a"), to(b"c")]), Concern::Part);
        assert_eq!(told(&[named(b"c"), to(b"d")]), Concern::Nothing);
        assert_eq!(told(&[named(b"a"), SET, named(b"c"), to(b"a")]), Concern::Moved);
    }

    #[test]
    fn what_is_done_to_other_elements_is_left_out() {
        let part = |effects: &[Effect<'_>]| {
            let name = Name::new(1, 0, b"k").with_elements(Some(&[b"a", b"b"]));
            of_key(&bytes(effects), 0, &name).expect("ours")
        };
        let set = |field| Effect::HashSet { field, value: b"v" };
        let made = Effect::Key { key: b"k", existed: Some(false) };
        let gone = Effect::Emptied;
        let deadline = Effect::Deadline(Some(7));
        let effects = [named(b"k"), set(b"a"), set(b"x"), deadline, named(b"y"), set(b"b")];
        assert_eq!(part(&effects), some_left_out(done(&[set(b"a"), deadline], false)));
        let other = [named(b"k"), Effect::SetAdd { member: b"x" }];
        assert_eq!(part(&other), some_left_out(done(&[], false)));
        assert_eq!(
            part(&[named(b"k"), set(b"a"), set(b"b")]),
            done(&[set(b"a"), set(b"b")], false)
        );
        // Whoever makes the collection decides of what type it is.
        assert_eq!(part(&[made, set(b"x")]), done(&[set(b"x")], true));
        assert_eq!(part(&[named(b"k"), set(b"x"), gone, set(b"y")]), done(&[set(b"y")], true));
        let unknown = Effect::Key { key: b"k", existed: None };
        assert_eq!(part(&[unknown, set(b"a")]), Part::Moved);
    }

    #[test]
    fn elements_are_told_if_nothing_else_is_done() {
        let told = |effects: &[Effect<'_>]| {
            let mut names = BTreeSet::new();
            let only = elements(&bytes(effects), 0, (0, b"k"), &mut names).expect("ours");
            only.then(|| names.into_iter().map(|name| name[0]).collect::<Vec<_>>())
        };
        let set = |field| Effect::HashSet { field, value: b"v" };
        let deadline = Effect::Deadline(None);
        let effects = [named(b"k"), set(b"b"), deadline, set(b"a"), named(b"x"), SET, set(b"c")];
        assert_eq!(told(&effects).as_deref(), Some(&b"ab"[..]));
        let elsewhere = [Effect::Database(1), named(b"k"), Effect::Emptied];
        assert_eq!(told(&elsewhere).as_deref(), Some(&b""[..]));
        let to = |key| Effect::Rename { db: 0, key, replaces: None };
        let made = Effect::Key { key: b"k", existed: Some(false) };
        for effects in [
            &[named(b"k"), set(b"a"), Effect::Emptied][..],
            &[named(b"k"), Effect::ListPushBack { value: b"v" }],
            &[named(b"x"), to(b"k")],
            &[named(b"k"), to(b"x")],
            &[made, set(b"a")],
        ] {
            assert_eq!(told(effects), None, "{effects:?}");
        }
    }

    #[test]
    fn what_is_added_is_told_if_nothing_else_is_done() {
        let told = |effects: &[Effect<'_>]| {
            let (bytes, mut all) = (bytes(effects), Vec::new());
            let mut each = |field: Option<&[u8]>, delta| {
                all.push((field.map(|field| String::from_utf8_lossy(field).into_owned()), delta));
            };
            let only = added(&bytes, 0, (0, b"k"), &mut each).expect("well-formed");
            only.then_some(all)
        };
        let add = |delta| Effect::StrAdd { delta };
        let add_to = |field, delta| Effect::HashAdd { field, delta };
        let to = |key| Effect::Rename { db: 0, key, replaces: None };
        assert_eq!(
            told(&[named(b"k"), add(5), named(b"x"), add(9), named(b"k"), add(-7)]),
            Some(vec![(None, 5), (None, -7)])
        );
        assert_eq!(
            told(&[named(b"k"), add_to(b"f", 5), add_to(b"", 1), named(b"x"), add_to(b"f", 2)]),
            Some(vec![(Some("f".to_owned()), 5), (Some(String::new()), 1)])
        );
        let elsewhere = [named(b"x"), SET, Effect::Database(1), named(b"k"), SET];
        assert_eq!(told(&elsewhere), Some(Vec::new()));
        for effects in [
            &[named(b"k"), add(1), SET][..],
            &[named(b"k"), add(1), Effect::Deadline(Some(7))],
            &[named(b"k"), add_to(b"f", 1), Effect::HashSet { field: b"f", value: b"1" }],
            &[Effect::Key { key: b"k", existed: Some(false) }, add(1)],
            &[named(b"x"), to(b"k")],
            &[named(b"k"), to(b"x")],
        ] {
            assert_eq!(told(effects), None, "{effects:?}");
        }
    }

    #[test]
    fn a_key_that_leaves_the_set_is_gone() {
        let to = |key| Effect::Rename { db: 0, key, replaces: None };
        let keys = BTreeSet::from([b"a".to_vec(), b"b".to_vec()]);
        let effects = bytes(&[named(b"a"), to(b"b"), named(b"c"), SET, named(b"b"), to(b"c")]);
        let expected = [named(b"a"), to(b"b"), named(b"b"), Effect::Delete(Cause::Client)];
        let has = |key: &[u8]| keys.contains(key);
        assert_eq!(of_keys(&effects, has).expect("ours"), bytes(&expected));
        let mut found = Vec::new();
        sources(&effects, b"c", &mut found).expect("ours");
        assert_eq!(found, [b"b".to_vec()]);
    }
}
