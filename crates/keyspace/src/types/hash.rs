use std::sync::Arc;

use base::Rng;

use super::SHARED_BYTES;
use super::packed::Packed;
use crate::limits::EncodingLimits;
use crate::table::{Keyed, SharedTable};

/// A map from fields to values.
///
/// Small ones are pairs in one allocation, in order of insertion; past the
/// limits of [`EncodingLimits`] they become a table and stay one.
#[derive(Clone, Debug)]
pub struct Hash {
    seed: u64,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// Field, value, field, value, …
    Packed(Packed),
    /// Shared with copies until one of them changes.
    Table(Arc<Fields>),
}

#[derive(Clone, Debug)]
struct Fields {
    table: SharedTable<Field>,
    /// Heap bytes of the fields.
    field_bytes: usize,
}

/// A field and its value in one allocation: the field's length (LEB128), the
/// field, the value.
#[derive(Clone, Debug)]
struct Field(Box<[u8]>);

impl Field {
    fn new(field: &[u8], value: &[u8]) -> Field {
        let mut bytes = Vec::with_capacity(field.len() + value.len() + 5);
        let mut len = field.len();
        while len >= 0x80 {
            bytes.push(len as u8 | 0x80);
            len >>= 7;
        }
        bytes.push(len as u8);
        bytes.extend_from_slice(field);
        bytes.extend_from_slice(value);
        Field(bytes.into_boxed_slice())
    }

    fn pair(&self) -> (&[u8], &[u8]) {
        let (mut len, mut shift, mut at) = (0, 0, 0);
        loop {
            let byte = self.0[at];
            at += 1;
            len |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return self.0[at..].split_at(len);
            }
        }
    }
}

impl Keyed for Field {
    fn key(&self) -> &[u8] {
        self.pair().0
    }
}

impl Fields {
    fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        let new = Field::new(field, value);
        self.field_bytes += new.0.len();
        let old = self.table.insert(self.table.hash_of(field), new);
        self.field_bytes -= old.as_ref().map_or(0, |old| old.0.len());
        old.is_none()
    }
}

impl Hash {
    /// An empty hash whose table, if it gets one, hashes with `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Hash {
        Hash { seed, form: Form::Packed(Packed::new()) }
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Packed(pairs) => pairs.len() / 2,
            Form::Table(fields) => fields.table.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What `OBJECT ENCODING` says.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match &self.form {
            Form::Packed(_) => "listpack",
            Form::Table(_) => "hashtable",
        }
    }

    /// Heap bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match &self.form {
            Form::Packed(pairs) => pairs.memory_bytes(),
            Form::Table(fields) => {
                SHARED_BYTES
                    + size_of::<Fields>()
                    + fields.table.memory_bytes()
                    + fields.field_bytes
            }
        }
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        match &self.form {
            Form::Packed(pairs) => {
                let mut pairs = pairs.iter();
                while let (Some(found), Some(value)) = (pairs.next(), pairs.next()) {
                    if found == field {
                        return Some(value);
                    }
                }
                None
            }
            Form::Table(fields) => {
                fields.table.get(fields.table.hash_of(field), field).map(|f| f.pair().1)
            }
        }
    }

    /// Sets a field; answers whether it is new.
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: &EncodingLimits) -> bool {
        if let Form::Packed(pairs) = &mut self.form {
            let longest = field.len().max(value.len());
            let found = pairs.iter().step_by(2).position(|found| found == field);
            let len = pairs.len() / 2 + usize::from(found.is_none());
            if longest <= limits.hash_max_listpack_value && len <= limits.hash_max_listpack_entries
            {
                match found {
                    Some(index) => pairs.replace(index * 2 + 1, value),
                    None => {
                        pairs.push_back(field);
                        pairs.push_back(value);
                    }
                }
                return found.is_none();
            }
        }
        self.fields().set(field, value)
    }

    /// Removes a field; answers whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.form {
            Form::Packed(pairs) => {
                let found = pairs.iter().step_by(2).position(|found| found == field);
                if let Some(index) = found {
                    pairs.remove_range(index * 2, 2);
                }
                found.is_some()
            }
            Form::Table(fields) => {
                let fields = Arc::make_mut(fields);
                let removed = fields.table.remove(fields.table.hash_of(field), field);
                fields.field_bytes -= removed.as_ref().map_or(0, |removed| removed.0.len());
                removed.is_some()
            }
        }
    }

    /// Fields and values.
    #[must_use]
    pub fn iter(&self) -> Box<dyn Iterator<Item = (&[u8], &[u8])> + '_> {
        match &self.form {
            Form::Packed(pairs) => {
                let mut pairs = pairs.iter();
                Box::new(std::iter::from_fn(move || Some((pairs.next()?, pairs.next()?))))
            }
            Form::Table(fields) => Box::new(fields.table.iter().map(Field::pair)),
        }
    }

    /// The fields and their values, but for some that another hash has as well
    /// because one is a copy of the other.
    pub(crate) fn iter_unshared<'a>(
        &'a self,
        other: &'a Hash,
    ) -> Box<dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'a> {
        match (&self.form, &other.form) {
            (Form::Table(fields), Form::Table(others)) => {
                Box::new(fields.table.iter_unshared(&others.table).map(Field::pair))
            }
            _ => self.iter(),
        }
    }

    /// A field chosen uniformly, with its value.
    #[must_use]
    pub fn random(&self, rng: &mut dyn Rng) -> Option<(&[u8], &[u8])> {
        if self.is_empty() {
            return None;
        }
        match &self.form {
            Form::Packed(pairs) => {
                let index = rng.below(self.len() as u64) as usize;
                Some((pairs.get(index * 2)?, pairs.get(index * 2 + 1)?))
            }
            Form::Table(fields) => fields.table.random(rng).map(Field::pair),
        }
    }

    /// Visits about `count` fields from `cursor` on; see `Table::scan`. A
    /// small hash is visited whole.
    pub fn scan(&self, cursor: u64, count: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> u64 {
        match &self.form {
            Form::Packed(_) => {
                self.iter().for_each(|(field, value)| visit(field, value));
                0
            }
            Form::Table(fields) => fields.table.scan(cursor, count, &mut |field| {
                let (field, value) = field.pair();
                visit(field, value);
            }),
        }
    }

    /// See `Value::own_outline`.
    pub(crate) fn own_outline(&mut self) {
        if let Form::Table(fields) = &mut self.form {
            Arc::make_mut(fields);
        }
    }

    /// Makes what it has its own, if it is a copy.
    pub(crate) fn unshare(&mut self) {
        if let Form::Table(fields) = &mut self.form {
            Arc::make_mut(fields).table.unshare();
        }
    }

    /// The table, made from the pairs if there is none yet.
    fn fields(&mut self) -> &mut Fields {
        if let Form::Packed(_) = self.form {
            let mut fields = Fields { table: SharedTable::new(self.seed), field_bytes: 0 };
            self.iter().for_each(|(field, value)| {
                fields.set(field, value);
            });
            self.form = Form::Table(Arc::new(fields));
        }
        match &mut self.form {
            Form::Table(fields) => Arc::make_mut(fields),
            Form::Packed(_) => unreachable!("just converted"),
        }
    }
}

/// Equal fields and values, whatever the encoding or the order.
impl PartialEq for Hash {
    fn eq(&self, other: &Hash) -> bool {
        let is_there = |(field, value)| other.get(field) == Some(value);
        self.len() == other.len() && self.iter_unshared(other).all(is_there)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base::SeededRng;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_map(
            steps in prop::collection::vec((0u8..40, prop::collection::vec(any::<u8>(), 0..12), 0u8..3), 0..200),
        ) {
            let limits = EncodingLimits {
                hash_max_listpack_entries: 8,
                hash_max_listpack_value: 10,
                ..EncodingLimits::default()
            };
            let mut hash = Hash::new(3);
            let mut model = BTreeMap::new();
            for (field, value, what) in steps {
                let field = format!("f{field}").into_bytes();
                if what > 0 {
                    prop_assert_eq!(hash.set(&field, &value, &limits), model.insert(field, value).is_none());
                } else {
                    prop_assert_eq!(hash.remove(&field), model.remove(&field).is_some());
                }
                prop_assert_eq!(hash.len(), model.len());
                if let Form::Table(fields) = &hash.form {
                    let bytes: usize = fields.table.iter().map(|f| f.0.len()).sum();
                    prop_assert_eq!(fields.field_bytes, bytes);
                }
            }
            let mut found: Vec<_> = hash.iter().map(|(f, v)| (f.to_vec(), v.to_vec())).collect();
            found.sort();
            let expected: Vec<_> = model.clone().into_iter().collect();
            prop_assert_eq!(&found, &expected);
            let mut scanned = Vec::new();
            let mut cursor = 0;
            loop {
                cursor = hash.scan(cursor, 3, &mut |f, v| scanned.push((f.to_vec(), v.to_vec())));
                if cursor == 0 { break; }
            }
            scanned.sort();
            prop_assert_eq!(&scanned, &expected);
            let random = hash.random(&mut SeededRng::new(1)).map(|(f, v)| (f.to_vec(), v.to_vec()));
            prop_assert_eq!(random.is_some(), !model.is_empty());
            prop_assert!(random.is_none_or(|(f, v)| model.get(&f) == Some(&v)));
            prop_assert_eq!(hash.clone(), hash);
        }
    }

    #[test]
    fn long_fields_and_empty_values() {
        let limits = EncodingLimits::default();
        let mut hash = Hash::new(0);
        let long = vec![b'x'; 70_000];
        assert!(hash.set(&long, b"", &limits));
        assert!(hash.set(b"", &long, &limits));
        assert_eq!(hash.get(&long), Some(&b""[..]));
        assert_eq!(hash.get(b""), Some(long.as_slice()));
        assert_eq!(hash.encoding(), "hashtable");
    }
}
