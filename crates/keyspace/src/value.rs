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
