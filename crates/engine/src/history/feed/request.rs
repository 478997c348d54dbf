//! What WATCHFROM is asked for.

use base::when::When;
use command::args::{duration_ms, is_word, shown};
use command::history::WATCH_OPTIONS;
use command::{Args, Error, Result};
use keyspace::effect::Cause;

use super::rules::Selection;
use crate::history::events::What;

/// Names of keys, prefixes and patterns that one watch may have.
const NAMES_MAX: usize = 1024;

/// PROGRESS is not given out more often.
const PROGRESS_MS_MIN: u64 = 100;

/// How often a client that tracks is told how far it is.
const INVALIDATIONS_PROGRESS_MS: u64 = 10_000;

/// The events by name; the place in the list is the bit in [`Events`].
const EVENTS: &[&str] =
    &["set", "changed", "deadline", "removed", "expire", "evict", "flushed", "swapped", "returned"];

/// A set of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Events(u16);

impl Events {
    const ALL: Events = Events(u16::MAX);

    pub(super) fn has(self, name: &str) -> bool {
        EVENTS.iter().position(|event| *event == name).is_some_and(|bit| self.0 & (1 << bit) != 0)
    }
}

/// The event that a change is told as: CHANGES' word, or the cause where the
/// server made the change by itself.
pub(super) fn event_of(what: What<'_>) -> &'static str {
    match what {
        What::Gone(Cause::Expired) => "expire",
        What::Gone(Cause::Evicted) => "evict",
        what => what.word(),
    }
}

/// How a watch's client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Each change by itself, with the values that are asked for: WATCHFROM.
    Changes { old: bool, new: bool },
    /// Names of keys that are not what they were: CLIENT TRACKING … FROM.
    Invalidations,
}

impl Form {
    /// Whether it can only be told with a history.
    pub(super) fn needs_past(self) -> bool {
        matches!(self, Form::Changes { old: true, .. } | Form::Changes { new: true, .. })
    }
}

/// What a watch is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    /// `None`: NOW.
    pub(super) from: Option<When>,
    pub(super) selection: Selection,
    pub(super) events: Events,
    pub(super) form: Form,
    pub(super) progress_ms: Option<u64>,
    /// `None`: the connection's.
    pub(super) branch: Option<Vec<u8>>,
}

impl Request {
    /// What is not to be kept of keys that begin so; of any without a prefix.
    pub(super) fn invalidations(from: Option<When>, prefixes: Vec<Vec<u8>>) -> Request {
        Request {
            from,
            selection: Selection { prefixes, ..Selection::default() },
            events: Events::ALL,
            form: Form::Invalidations,
            progress_ms: Some(INVALIDATIONS_PROGRESS_MS),
            branch: None,
        }
    }

    /// Reads the arguments of WATCHFROM; `parse_when` reads a `<when>`.
    pub(super) fn parse(
        args: &[&[u8]],
        parse_when: &dyn Fn(&[u8]) -> Result<When>,
    ) -> Result<Request> {
        let mut args = Args::new(args);
        let from = if args.take_word("now") { None } else { Some(parse_when(args.next()?)?) };
        let mut request = Request {
            from,
            selection: Selection::default(),
            events: Events::ALL,
            form: Form::Changes { old: false, new: false },
            progress_ms: None,
            branch: None,
        };
        let (mut events, mut old, mut new) = (None, false, false);
        while !args.is_empty() {
            let selection = &mut request.selection;
            if args.take_word("key") {
                selection.keys.extend(names(&mut args)?.into_iter().map(<[u8]>::to_vec));
            } else if args.take_word("prefix") {
                selection.prefixes.extend(names(&mut args)?.into_iter().map(<[u8]>::to_vec));
            } else if args.take_word("match") {
                selection.patterns.extend(names(&mut args)?.into_iter().map(<[u8]>::to_vec));
            } else if args.take_word("events") {
                for name in names(&mut args)? {
                    *events.get_or_insert(0) |= event_bit(name)?;
                }
            } else if args.take_word("old") {
                old = true;
            } else if args.take_word("new") {
                new = true;
            } else if args.take_word("progress") {
                request.progress_ms = Some(progress(args.next()?)?);
            } else if args.take_word("branch") {
                request.branch = Some(args.next()?.to_vec());
            } else {
                return Err(Error::SYNTAX);
            }
        }
        let count = request.selection.len();
        if count > NAMES_MAX {
            return Err(Error::new(format!(
                "ERR {count} keys, prefixes and patterns are more than the {NAMES_MAX} that one watch takes; open \
                 several, or watch a prefix"
            )));
        }
        request.events = events.map_or(Events::ALL, Events);
        request.form = Form::Changes { old, new };
        Ok(request)
    }
}

/// One name whatever it is, and those that follow up to the next option.
fn names<'a>(args: &mut Args<'a>) -> Result<Vec<&'a [u8]>> {
    let mut names = vec![args.next()?];
    while let Some(name) = args.rest().first() {
        if WATCH_OPTIONS.iter().any(|option| is_word(name, option)) {
            break;
        }
        names.push(args.next()?);
    }
    Ok(names)
}

fn event_bit(name: &[u8]) -> Result<u16> {
    let bit = EVENTS.iter().position(|event| is_word(name, event));
    bit.map(|bit| 1 << bit).ok_or_else(|| {
        Error::new(format!(
            "ERR no event is named '{}'; there are {}",
            shown(name),
            EVENTS.join(", ")
        ))
    })
}

fn progress(arg: &[u8]) -> Result<u64> {
    duration_ms(arg).filter(|&ms| ms >= PROGRESS_MS_MIN).ok_or_else(|| {
        Error::new(format!(
            "ERR PROGRESS '{}' is no duration of at least {PROGRESS_MS_MIN}ms, such as 500ms, 10s or 1m",
            shown(arg)
        ))
    })
}

#[cfg(test)]
mod tests {
    use base::Revision;

    use super::*;

    fn parse(line: &str) -> Result<Request> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        Request::parse(&words, &command::parse_when)
    }

    #[test]
    fn lists_end_with_the_next_option() {
        let request = parse("r:7 KEY a b PREFIX p: q: MATCH * KEY old old NEW EVENTS set expire")
            .expect("every word has its place");
        assert_eq!(request.from, Some(When::Revision(Revision(7))));
        let Selection { keys, prefixes, patterns } = &request.selection;
        assert_eq!(keys, &[b"a".to_vec(), b"b".to_vec(), b"old".to_vec()]);
        assert_eq!(prefixes, &[b"p:".to_vec(), b"q:".to_vec()]);
        assert_eq!(patterns, &[b"*".to_vec()]);
        assert_eq!(request.form, Form::Changes { old: true, new: true });
        let names: Vec<_> = EVENTS.iter().filter(|name| request.events.has(name)).collect();
        assert_eq!(names, [&"set", &"expire"]);
    }

    #[test]
    fn without_a_choice_everything() {
        let request = parse("now").expect("NOW in any case");
        assert_eq!((request.from, request.progress_ms), (None, None));
        let seconds = parse("now PROGRESS 5").expect("as in the settings");
        assert_eq!(seconds.progress_ms, Some(5000));
        assert!(request.selection.is_everything());
        assert!(EVENTS.iter().all(|name| request.events.has(name)));
    }

    #[test]
    fn every_event_of_a_change_can_be_chosen() {
        for what in [
            What::Set,
            What::Deadline,
            What::Gone(Cause::Client),
            What::Gone(Cause::Expired),
            What::Gone(Cause::Evicted),
            What::MovedAway,
            What::MovedHere,
            What::Flushed,
            What::Swapped,
            What::Returned,
        ] {
            assert!(Events::ALL.has(event_of(what)), "{what:?}");
        }
        assert!(!Events::ALL.has(event_of(What::Erased)), "what the key is has not changed");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, expected) in [
            ("NOW KEY", "ERR syntax error"),
            ("NOW a", "ERR syntax error"),
            ("NOW EVENTS", "ERR syntax error"),
            ("soon", "ERR 'soon' is no point in time"),
            ("NOW EVENTS set del", "ERR no event is named 'del'; there are set, changed"),
            ("NOW PROGRESS 99ms", "ERR PROGRESS '99ms' is no duration of at least 100ms"),
            ("NOW PROGRESS often", "ERR PROGRESS 'often' is no duration"),
            ("NOW BRANCH", "ERR syntax error"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.text().starts_with(expected), "{line}: {error}");
        }
        let many = format!("NOW KEY{}", " k".repeat(NAMES_MAX + 1));
        let error = parse(&many).expect_err("one too many");
        assert!(error.text().starts_with("ERR 1025 keys"), "{error}");
    }
}
