//! [`Entry`]: a key with its revision, its deadline and its value behind one
//! 8-byte pointer, in one allocation.
//!
//! A million keys of 16 bytes with 32-byte values cost 64 bytes of heap each
//! here; the nearest safe layouts (a boxed slice in a 16-byte slot, a
//! reference-counted slice) cost a third to a half more, see
//! `docs/decisions/0001-entry-layout.md`.
//!
//! # The allocation
//!
//! ```text
//! offset 0   Header (16 bytes)
//!        16  deadline, u64              when HAS_DEADLINE
//!        +8  length of the key, u64     when LONG_KEY (65,535 bytes or more)
//!        +8  pointer to the boxed value when BOXED
//!        ..  the key's bytes
//!        ..  the value's bytes          unless BOXED
//! ```
//!
//! # Invariants every `unsafe` block rests on
//!
//! 1. `ptr` comes from `alloc` with `layout(size())` and is owned by exactly
//!    one `Entry`; `Drop` frees it once.
//! 2. `size()` is a pure function of the header and the long key length,
//!    which never change after construction except by [`Entry::set_inline`],
//!    which changes `value_len` only where the size stays the same.
//! 3. All bytes the header speaks of are initialised.
//! 4. With BOXED set, the pointer field holds the result of `Box::into_raw`
//!    and owns it.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// The longest value kept inside the entry, in bytes.
pub const INLINE_BYTES_MAX: usize = 4096;

const HAS_DEADLINE: u32 = 1;
const LONG_KEY: u32 = 1 << 1;
const BOXED: u32 = 1 << 2;
const MARKED: u32 = 1 << 3;
const NOTED: u32 = 1 << 6;
/// Two bits that count accesses up to three, and passes without one down.
const HEAT: u32 = 3 << HEAT_SHIFT;
const HEAT_SHIFT: u32 = 4;
const FLAG_BITS: u32 = 8;

/// Sizes are rounded up to this, so that small changes of a value's length
/// reuse the allocation. The allocators in use round to it anyway.
const GRANULE: usize = 16;

#[repr(C)]
struct Header {
    revision: u64,
    /// Low 8 bits: flags; high 24 bits: the access field.
    /// Atomic, so that reads under a shared borrow can note their access; every
    /// other change goes through `&mut`.
    access_and_flags: AtomicU32,
    /// `u16::MAX` with LONG_KEY set: the length stands in its own field.
    key_len: u16,
    value_len: u16,
}

const HEADER_BYTES: usize = size_of::<Header>();

/// A key and its value. See the crate's documentation.
pub struct Entry<V> {
    ptr: NonNull<Header>,
    owns: PhantomData<Box<V>>,
}

/// What an entry holds.
#[derive(Debug)]
pub enum Content<'a, V> {
    /// Bytes inside the entry's own allocation.
    Inline(&'a [u8]),
    /// A value in an allocation of its own.
    Boxed(&'a V),
}

/// What an entry holds, to change in place.
#[derive(Debug)]
pub enum ContentMut<'a, V> {
    /// Bytes inside the entry's own allocation; their number is fixed.
    Inline(&'a mut [u8]),
    /// A value in an allocation of its own.
    Boxed(&'a mut V),
}

enum Body<'a, V> {
    Inline(&'a [u8]),
    Boxed(NonNull<V>),
}

/// What stays when an entry is laid out anew.
#[derive(Clone, Copy, Default)]
struct Meta {
    revision: u64,
    access: u32,
    marked: bool,
    noted: bool,
    heat: u32,
    deadline: Option<u64>,
}

// SAFETY: an Entry owns its allocation and its V; nothing is shared.
unsafe impl<V: Send> Send for Entry<V> {}
// SAFETY: through `&Entry` only reads of owned bytes and `&V` are possible.
unsafe impl<V: Sync> Sync for Entry<V> {}

impl<V> Entry<V> {
    /// An entry whose value is kept inside.
    ///
    /// # Panics
    /// When `value` is longer than [`INLINE_BYTES_MAX`].
    #[must_use]
    pub fn inline(key: &[u8], value: &[u8], deadline: Option<u64>) -> Entry<V> {
        assert!(value.len() <= INLINE_BYTES_MAX, "{} bytes do not fit inline", value.len());
        let meta = Meta { deadline, ..Meta::default() };
        Entry::build(key, Body::Inline(value), meta)
    }

    /// An entry whose value has an allocation of its own.
    #[must_use]
    pub fn boxed(key: &[u8], value: Box<V>, deadline: Option<u64>) -> Entry<V> {
        let meta = Meta { deadline, ..Meta::default() };
        Entry::build(key, Body::Boxed(leak(value)), meta)
    }

    /// Where it stands in memory, which is not looked at.
    #[must_use]
    pub fn address(&self) -> usize {
        self.ptr.as_ptr().addr()
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        // SAFETY: invariants 1-3: key_len initialised bytes stand at key_offset.
        unsafe { std::slice::from_raw_parts(self.at(self.key_offset()), self.key_len()) }
    }

    /// The value.
    #[must_use]
    pub fn content(&self) -> Content<'_, V> {
        if self.has(BOXED) {
            // SAFETY: invariant 4; the borrow of self covers the borrow of V.
            Content::Boxed(unsafe { self.boxed_ptr().as_ref() })
        } else {
            // SAFETY: invariants 1-3: value_len bytes follow the key.
            Content::Inline(unsafe {
                std::slice::from_raw_parts(self.at(self.value_offset()), self.value_len())
            })
        }
    }

    /// The value, to change in place.
    #[must_use]
    pub fn content_mut(&mut self) -> ContentMut<'_, V> {
        if self.has(BOXED) {
            // SAFETY: invariant 4; self is borrowed mutably for as long as V.
            ContentMut::Boxed(unsafe { self.boxed_ptr().as_mut() })
        } else {
            // SAFETY: invariants 1-3; self is borrowed mutably.
            ContentMut::Inline(unsafe {
                std::slice::from_raw_parts_mut(self.at(self.value_offset()), self.value_len())
            })
        }
    }

    /// Replaces the value by bytes kept inside; answers the boxed value that
    /// stood there before, so the caller can drop it where it likes.
    ///
    /// # Panics
    /// When `value` is longer than [`INLINE_BYTES_MAX`].
    pub fn set_inline(&mut self, value: &[u8]) -> Option<Box<V>> {
        assert!(value.len() <= INLINE_BYTES_MAX, "{} bytes do not fit inline", value.len());
        if !self.has(BOXED) && round_up(self.value_offset() + value.len()) == self.size() {
            let target = self.at(self.value_offset());
            // SAFETY: value_offset + value.len() is within size(); `value`
            // cannot overlap, since self is borrowed mutably.
            unsafe { target.copy_from_nonoverlapping(value.as_ptr(), value.len()) };
            self.header_mut().value_len = value.len() as u16;
            return None;
        }
        let rebuilt = Entry::build(self.key(), Body::Inline(value), self.meta());
        std::mem::replace(self, rebuilt).into_boxed()
    }

    /// Replaces the value by one in an allocation of its own; answers the
    /// boxed value that stood there before.
    pub fn set_boxed(&mut self, value: Box<V>) -> Option<Box<V>> {
        let rebuilt = Entry::build(self.key(), Body::Boxed(leak(value)), self.meta());
        std::mem::replace(self, rebuilt).into_boxed()
    }

    /// The boxed value, if there is one; the key goes.
    #[must_use]
    pub fn into_boxed(self) -> Option<Box<V>> {
        let mut entry = ManuallyDrop::new(self);
        // SAFETY: invariant 4; the entry is never used again.
        let boxed = entry.has(BOXED).then(|| unsafe { Box::from_raw(entry.boxed_ptr().as_ptr()) });
        // SAFETY: ManuallyDrop: nothing uses the entry after this.
        unsafe { entry.free() };
        boxed
    }

    /// When the key is due to expire, in milliseconds since 1970.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        // SAFETY: with HAS_DEADLINE the field at HEADER_BYTES is initialised
        // (invariant 3) and aligned to 8.
        self.has(HAS_DEADLINE).then(|| unsafe { self.at(HEADER_BYTES).cast::<u64>().read() })
    }

    /// Sets or removes the deadline.
    pub fn set_deadline(&mut self, deadline: Option<u64>) {
        if let (true, Some(deadline)) = (self.has(HAS_DEADLINE), deadline) {
            // SAFETY: as in `deadline`, and self is borrowed mutably.
            unsafe { self.at(HEADER_BYTES).cast::<u64>().write(deadline) };
            return;
        }
        if self.has(HAS_DEADLINE) == deadline.is_some() {
            return;
        }
        let meta = Meta { deadline, ..self.meta() };
        let rebuilt = match self.content() {
            Content::Inline(value) => Entry::build(self.key(), Body::Inline(value), meta),
            Content::Boxed(_) => Entry::build(self.key(), Body::Boxed(self.boxed_ptr()), meta),
        };
        // The new allocation owns a boxed value now, so the old one is freed
        // without it.
        let mut old = ManuallyDrop::new(std::mem::replace(self, rebuilt));
        // SAFETY: ManuallyDrop: nothing uses the old entry after this.
        unsafe { old.free() };
    }

    /// The revision of the last change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.header().revision
    }

    /// Sets the revision of the last change.
    pub fn set_revision(&mut self, revision: u64) {
        self.header_mut().revision = revision;
    }

    /// 24 bits for the eviction policy: a clock or a counter of accesses.
    #[must_use]
    pub fn access(&self) -> u32 {
        self.access_and_flags() >> FLAG_BITS
    }

    /// Sets the access field; bits above 24 are dropped. Two threads that set
    /// it at once keep one of the two.
    pub fn set_access(&self, access: u32) {
        let word = self.access_and_flags();
        self.change_word(word, (access << FLAG_BITS) | (word & ((1 << FLAG_BITS) - 1)));
    }

    /// Sets the access field and counts one more access. Two threads at once
    /// may count as one.
    pub fn touch(&self, access: u32) {
        let word = self.access_and_flags();
        let flags = word & ((1 << FLAG_BITS) - 1);
        let warmer = if flags & HEAT == HEAT { flags } else { flags + (1 << HEAT_SHIFT) };
        self.change_word(word, (access << FLAG_BITS) | warmer);
    }

    /// How often [`Entry::touch`] was called, up to three, less the calls of
    /// [`Entry::cool`].
    #[must_use]
    pub fn heat(&self) -> u32 {
        (self.access_and_flags() & HEAT) >> HEAT_SHIFT
    }

    /// Takes one off the accesses counted, if there are any.
    pub fn cool(&self) {
        let word = self.access_and_flags();
        self.change_word(word, if word & HEAT == 0 { word } else { word - (1 << HEAT_SHIFT) });
    }

    fn change_word(&self, word: u32, wanted: u32) {
        // Not dirtying the cache line is worth the comparison.
        if word != wanted {
            self.header().access_and_flags.store(wanted, Ordering::Relaxed);
        }
    }

    /// A bit for the owner's use.
    #[must_use]
    pub fn marked(&self) -> bool {
        self.has(MARKED)
    }

    /// Sets the owner's bit.
    pub fn set_marked(&mut self, marked: bool) {
        self.set_flag(MARKED, marked);
    }

    /// Another bit for the owner's use.
    #[must_use]
    pub fn noted(&self) -> bool {
        self.has(NOTED)
    }

    /// Sets the owner's other bit.
    pub fn set_noted(&mut self, noted: bool) {
        self.set_flag(NOTED, noted);
    }

    fn set_flag(&mut self, flag: u32, is_set: bool) {
        let word = self.access_and_flags();
        let wanted = if is_set { word | flag } else { word & !flag };
        self.header().access_and_flags.store(wanted, Ordering::Relaxed);
    }

    /// Heap bytes of the entry itself; a boxed value's own are not counted.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.size()
    }

    fn build(key: &[u8], body: Body<'_, V>, meta: Meta) -> Entry<V> {
        let long_key = key.len() >= usize::from(u16::MAX);
        let mut flags = 0;
        flags |= if meta.deadline.is_some() { HAS_DEADLINE } else { 0 };
        flags |= if long_key { LONG_KEY } else { 0 };
        flags |= if matches!(body, Body::Boxed(_)) { BOXED } else { 0 };
        flags |= if meta.marked { MARKED } else { 0 };
        flags |= if meta.noted { NOTED } else { 0 };
        flags |= meta.heat << HEAT_SHIFT;
        let value = match &body {
            Body::Inline(value) => *value,
            Body::Boxed(_) => &[],
        };
        let size = round_up(key_offset(flags) + key.len() + value.len());
        let layout = layout(size);
        // SAFETY: the layout's size is at least HEADER_BYTES, so not zero.
        let Some(ptr) = NonNull::new(unsafe { alloc(layout) }.cast::<Header>()) else {
            handle_alloc_error(layout)
        };
        let header = Header {
            revision: meta.revision,
            access_and_flags: AtomicU32::new((meta.access << FLAG_BITS) | flags),
            key_len: if long_key { u16::MAX } else { key.len() as u16 },
            value_len: value.len() as u16,
        };
        let entry = Entry { ptr, owns: PhantomData };
        // SAFETY: every field below lies within `size` by key_offset's and
        // `size`'s arithmetic; 8-byte fields stand at multiples of 8; the
        // allocation is new, so nothing overlaps.
        unsafe {
            ptr.write(header);
            let mut offset = HEADER_BYTES;
            if let Some(deadline) = meta.deadline {
                entry.at(offset).cast::<u64>().write(deadline);
                offset += 8;
            }
            if long_key {
                entry.at(offset).cast::<u64>().write(key.len() as u64);
                offset += 8;
            }
            if let Body::Boxed(boxed) = body {
                entry.at(offset).cast::<NonNull<V>>().write(boxed);
                offset += 8;
            }
            entry.at(offset).copy_from_nonoverlapping(key.as_ptr(), key.len());
            offset += key.len();
            entry.at(offset).copy_from_nonoverlapping(value.as_ptr(), value.len());
        }
        entry
    }

    fn meta(&self) -> Meta {
        Meta {
            revision: self.revision(),
            access: self.access(),
            marked: self.marked(),
            noted: self.noted(),
            heat: self.heat(),
            deadline: self.deadline(),
        }
    }

    fn header(&self) -> &Header {
        // SAFETY: invariants 1 and 3.
        unsafe { self.ptr.as_ref() }
    }

    fn header_mut(&mut self) -> &mut Header {
        // SAFETY: invariants 1 and 3; self is borrowed mutably.
        unsafe { self.ptr.as_mut() }
    }

    fn access_and_flags(&self) -> u32 {
        self.header().access_and_flags.load(Ordering::Relaxed)
    }

    fn has(&self, flag: u32) -> bool {
        self.access_and_flags() & flag != 0
    }

    /// The byte at `offset`, which callers keep within `size()`.
    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= isize::MAX as usize);
        self.ptr.as_ptr().cast::<u8>().wrapping_add(offset)
    }

    fn key_offset(&self) -> usize {
        key_offset(self.access_and_flags())
    }

    fn key_len(&self) -> usize {
        if self.has(LONG_KEY) {
            let offset = HEADER_BYTES + if self.has(HAS_DEADLINE) { 8 } else { 0 };
            // SAFETY: with LONG_KEY the field is initialised and aligned to 8.
            unsafe { self.at(offset).cast::<u64>().read() as usize }
        } else {
            usize::from(self.header().key_len)
        }
    }

    fn value_len(&self) -> usize {
        usize::from(self.header().value_len)
    }

    fn value_offset(&self) -> usize {
        self.key_offset() + self.key_len()
    }

    fn size(&self) -> usize {
        round_up(self.value_offset() + self.value_len())
    }

    fn boxed_ptr(&self) -> NonNull<V> {
        debug_assert!(self.has(BOXED));
        // SAFETY: with BOXED the pointer stands in the 8 bytes before the key.
        unsafe { self.at(self.key_offset() - 8).cast::<NonNull<V>>().read() }
    }

    /// Frees the allocation, not the boxed value.
    ///
    /// # Safety
    /// The entry must not be used afterwards, not even dropped.
    unsafe fn free(&mut self) {
        let layout = layout(self.size());
        // SAFETY: invariant 1 and 2.
        unsafe { dealloc(self.ptr.as_ptr().cast::<u8>(), layout) };
    }
}

impl<V> Drop for Entry<V> {
    fn drop(&mut self) {
        // SAFETY: invariant 4; the entry is never used again.
        let boxed = self.has(BOXED).then(|| unsafe { Box::from_raw(self.boxed_ptr().as_ptr()) });
        // SAFETY: nothing uses the entry after its drop.
        unsafe { self.free() };
        drop(boxed);
    }
}

impl<V: fmt::Debug> fmt::Debug for Entry<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key().escape_ascii().to_string())
            .field("revision", &self.revision())
            .field("deadline", &self.deadline())
            .field("content", &self.content())
            .finish()
    }
}

fn leak<V>(value: Box<V>) -> NonNull<V> {
    NonNull::from(Box::leak(value))
}

const fn key_offset(flags: u32) -> usize {
    HEADER_BYTES + 8 * (flags & (HAS_DEADLINE | LONG_KEY | BOXED)).count_ones() as usize
}

const fn round_up(size: usize) -> usize {
    size.next_multiple_of(GRANULE)
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, align_of::<Header>()).expect("an entry fits in memory")
}

#[cfg(test)]
mod tests;
