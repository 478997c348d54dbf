use crate::types::{Hash, List, Set, Zset};

/// An owned value of any type.
#[derive(Debug)]
#[allow(missing_docs, reason = "the variants are the types")]
pub enum Value {
    Str(Vec<u8>),
    List(List),
    Set(Set),
    Hash(Hash),
    Zset(Zset),
}

/// A borrowed value of any type.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the variants are the types")]
pub enum ValueRef<'a> {
    Str(&'a [u8]),
    List(&'a List),
    Set(&'a Set),
    Hash(&'a Hash),
    Zset(&'a Zset),
}

impl Value {
    /// Heap bytes the value points to, itself not included.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Value::Str(bytes) => bytes.capacity(),
            Value::List(list) => list.memory_bytes(),
            Value::Set(set) => set.memory_bytes(),
            Value::Hash(hash) => hash.memory_bytes(),
            Value::Zset(zset) => zset.memory_bytes(),
        }
    }

    /// Of a [shared copy](ValueRef::to_shared), makes the outline its own: where
    /// the pieces are, some bytes for each of them. What it is a copy of has
    /// nothing to copy then but the pieces that it changes.
    pub fn own_outline(&mut self) {
        match self {
            // A list's copy has one.
            Value::Str(_) | Value::List(_) => {}
            Value::Set(set) => set.own_outline(),
            Value::Hash(hash) => hash.own_outline(),
            Value::Zset(zset) => zset.own_outline(),
        }
    }

    /// Borrows the value.
    #[must_use]
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Value::Str(bytes) => ValueRef::Str(bytes),
            Value::List(list) => ValueRef::List(list),
            Value::Set(set) => ValueRef::Set(set),
            Value::Hash(hash) => ValueRef::Hash(hash),
            Value::Zset(zset) => ValueRef::Zset(zset),
        }
    }
}

impl ValueRef<'_> {
    /// Elements of a collection; 1 for a string.
    #[must_use]
    pub fn element_count(self) -> usize {
        match self {
            ValueRef::Str(_) => 1,
            ValueRef::List(list) => list.len(),
            ValueRef::Set(set) => set.len(),
            ValueRef::Hash(hash) => hash.len(),
            ValueRef::Zset(zset) => zset.len(),
        }
    }

    /// A copy that shares nothing with it.
    #[must_use]
    pub fn to_value(self) -> Value {
        let mut copy = self.to_shared();
        match &mut copy {
            Value::Str(_) => {}
            Value::List(list) => list.unshare(),
            Value::Set(set) => set.unshare(),
            Value::Hash(hash) => hash.unshare(),
            Value::Zset(zset) => zset.unshare(),
        }
        copy
    }

    /// A copy that costs little, however large a collection is: of what the two
    /// have in common, a piece is copied when one of them changes it. The first
    /// change of either copies the outline too, see [`Value::own_outline`].
    #[must_use]
    pub fn to_shared(self) -> Value {
        match self {
            ValueRef::Str(bytes) => Value::Str(bytes.to_vec()),
            ValueRef::List(list) => Value::List(list.clone()),
            ValueRef::Set(set) => Value::Set(set.clone()),
            ValueRef::Hash(hash) => Value::Hash(hash.clone()),
            ValueRef::Zset(zset) => Value::Zset(zset.clone()),
        }
    }

    /// Heap bytes of a copy, about.
    #[must_use]
    pub fn memory_bytes(self) -> usize {
        match self {
            ValueRef::Str(bytes) => bytes.len(),
            ValueRef::List(list) => list.memory_bytes(),
            ValueRef::Set(set) => set.memory_bytes(),
            ValueRef::Hash(hash) => hash.memory_bytes(),
            ValueRef::Zset(zset) => zset.memory_bytes(),
        }
    }

    /// Whether it is the same value, however it is kept.
    #[must_use]
    pub fn is_same(self, other: ValueRef<'_>) -> bool {
        match (self, other) {
            (ValueRef::Str(a), ValueRef::Str(b)) => a == b,
            (ValueRef::List(a), ValueRef::List(b)) => a == b,
            (ValueRef::Set(a), ValueRef::Set(b)) => a == b,
            (ValueRef::Hash(a), ValueRef::Hash(b)) => a == b,
            (ValueRef::Zset(a), ValueRef::Zset(b)) => a == b,
            _ => false,
        }
    }

    /// The name `TYPE` answers with.
    #[must_use]
    pub fn type_name(self) -> &'static str {
        match self {
            ValueRef::Str(_) => "string",
            ValueRef::List(_) => "list",
            ValueRef::Set(_) => "set",
            ValueRef::Hash(_) => "hash",
            ValueRef::Zset(_) => "zset",
        }
    }
}
