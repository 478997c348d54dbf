//! Changes on their way to a client: those of one watch that are pushed
//! together, in one piece of memory.

use base::{Frame, Reply, Revision, Tape};

use crate::history::integer;

/// One change as a watch tells it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item<'i> {
    pub(super) revision: Revision,
    pub(super) time_ms: u64,
    pub(super) event: &'static str,
    pub(super) key: Part<'i>,
    pub(super) user: Part<'i>,
    pub(super) old: Part<'i>,
    pub(super) new: Part<'i>,
}

/// What is said of a change besides.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part<'i> {
    /// It was not asked for.
    Unasked,
    Nil,
    Text(&'i [u8]),
    /// A value that was read.
    Read(Tape),
}

impl<'i> From<Option<&'i [u8]>> for Part<'i> {
    fn from(text: Option<&'i [u8]>) -> Part<'i> {
        text.map_or(Part::Nil, Part::Text)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Changes {
    watch: u64,
    count: usize,
    tape: Tape,
}

impl Changes {
    /// None of a watch.
    pub(super) fn of(watch: u64) -> Changes {
        Changes { watch, count: 0, tape: Tape::default() }
    }

    pub(super) fn add(&mut self, item: &Item<'_>) {
        let tape = &mut self.tape;
        let parts = [&item.key, &item.user, &item.old, &item.new];
        let told = parts.iter().filter(|part| !matches!(part, Part::Unasked));
        tape.push(5 + told.count());
        tape.bulk(b"change");
        tape.integer(integer(self.watch));
        tape.integer(integer(item.revision.0));
        tape.integer(integer(item.time_ms));
        tape.bulk(item.event.as_bytes());
        for part in parts {
            match part {
                Part::Unasked => {}
                Part::Nil => tape.null(),
                Part::Text(text) => tape.bulk(text),
                Part::Read(value) => tape.tape(value),
            }
        }
        self.count += 1;
    }

    /// Adds a push of another form.
    pub(super) fn add_frame(&mut self, push: &Frame) {
        self.tape.frame(push);
        self.count += 1;
    }

    /// The watch that they are told to.
    pub(crate) fn watch(&self) -> u64 {
        self.watch
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// About what they take on the wire.
    pub(crate) fn bytes(&self) -> usize {
        self.tape.len()
    }

    pub(crate) fn write(&self, reply: &mut impl Reply) {
        self.tape.play(reply);
    }
}

#[cfg(test)]
mod tests {
    use base::FrameBuilder;

    use super::*;

    #[test]
    fn changes_are_written_as_they_were_told() {
        let item = |revision, old, new| Item {
            revision: Revision(revision),
            time_ms: 5,
            event: "set",
            key: Part::Text(b"k"),
            user: Part::Nil,
            old,
            new,
        };
        let mut changes = Changes::of(3);
        let list = Frame::Array(vec![Frame::bulk("a"), Frame::bulk("")]);
        changes.add(&item(7, Part::Unasked, Part::Text(b"")));
        changes.add(&item(8, Part::Nil, Part::Read(Tape::from(&list))));
        changes.add(&item(9, Part::Text(b"old"), Part::Text(b"new")));
        let invalidate =
            Frame::Push(vec![Frame::bulk("invalidate"), Frame::Null, Frame::Integer(9)]);
        changes.add_frame(&invalidate);
        let row = |revision, values: Vec<Frame>| {
            let mut items = vec![Frame::bulk("change"), Frame::Integer(3)];
            items.extend([Frame::Integer(revision), Frame::Integer(5), Frame::bulk("set")]);
            items.extend([Frame::bulk("k"), Frame::Null]);
            items.extend(values);
            Frame::Push(items)
        };
        let mut written = FrameBuilder::new(true);
        changes.write(&mut written);
        let expected = [
            row(7, vec![Frame::bulk("")]),
            row(8, vec![Frame::Null, list]),
            row(9, vec![Frame::bulk("old"), Frame::bulk("new")]),
            invalidate,
        ];
        assert_eq!(written.finish(), expected);
        assert_eq!((changes.len(), changes.watch()), (4, 3));
        assert!(changes.bytes() > 3 * "change set".len());
    }
}
