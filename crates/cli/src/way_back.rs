//! What a person at a terminal is told after a command that took many keys away:
//! that `UNDO` brings them back, and for how long.

use base::Frame;

/// Commands that take away what `UNDO` can bring back.
const TAKES_AWAY: [&[&str]; 4] = [&["flushall"], &["flushdb"], &["remove"], &["branch", "delete"]];

/// Answers which of a connection's revisions is its newest.
pub(crate) const NEWEST_WRITE: [&str; 1] = ["LASTREV"];

/// Answers what can be taken back, the newest first.
pub(crate) const NEWEST_UNDO: [&str; 4] = ["UNDO", "LIST", "COUNT", "1"];

/// Whether `UNDO` may bring back what this command takes away.
pub(crate) fn takes_away(words: &[Vec<u8>]) -> bool {
    let is = |name: &[&str]| {
        words.len() >= name.len()
            && name
                .iter()
                .zip(words)
                .all(|(known, word)| word.eq_ignore_ascii_case(known.as_bytes()))
    };
    TAKES_AWAY.iter().any(|name| is(name))
}

/// The hint, from what the server answers to [`NEWEST_WRITE`] and [`NEWEST_UNDO`]:
/// the revision that it is about, and its text. `None` where the newest write cannot
/// be taken back, or the server knows of no such thing.
pub(crate) fn hint(newest_write: &Frame, newest_undo: &Frame) -> Option<(i64, String)> {
    let (&Frame::Integer(written), Frame::Array(rows)) = (newest_write, newest_undo) else {
        return None;
    };
    let Some(Frame::Array(row)) = rows.first() else { return None };
    let &[
        Frame::Integer(revision),
        Frame::Integer(at_ms),
        _,
        Frame::Integer(keys),
        _,
        Frame::Integer(until_ms),
    ] = row.as_slice()
    else {
        return None;
    };
    let keys = if keys == 1 { "1 key".to_owned() } else { format!("{keys} keys") };
    let window = duration(until_ms.saturating_sub(at_ms));
    (revision == written).then(|| {
        (revision, format!("UNDO takes it back within {window} ({keys}, revision {revision})"))
    })
}

/// In the largest unit that tells it whole, rounded down to seconds.
fn duration(ms: i64) -> String {
    let s = ms / 1000;
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let found = units.into_iter().find(|(unit, _)| s > 0 && s % unit == 0);
    found.map_or_else(|| "0s".to_owned(), |(unit, name)| format!("{}{name}", s / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_commands_take_away() {
        let words = |line: &str| -> Vec<Vec<u8>> {
            line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
        };
        for line in ["FLUSHALL", "flushdb ASYNC", "REMOVE PREFIX a", "Branch Delete b FORCE"] {
            assert!(takes_away(&words(line)), "{line}");
        }
        for line in ["BRANCH", "BRANCH LIST", "DEL a", "UNDO", "GET flushall"] {
            assert!(!takes_away(&words(line)), "{line}");
        }
    }

    #[test]
    fn only_the_newest_write_is_told_of() {
        let row = |revision: i64, keys: i64, window_ms: i64| {
            let of = Frame::bulk("flushall");
            let [at, until] =
                [1_795_259_601_733, 1_795_259_601_733 + window_ms].map(Frame::Integer);
            let [revision, keys] = [revision, keys].map(Frame::Integer);
            Frame::Array(vec![Frame::Array(vec![revision, at, of, keys, Frame::Integer(9), until])])
        };
        let newest = Frame::Integer(12);
        let told = |undo: &Frame| hint(&newest, undo).map(|(_, text)| text);
        for (keys, window_ms, text) in [
            (3, 3_600_000, "UNDO takes it back within 1h (3 keys, revision 12)"),
            (1, 5_400_000, "UNDO takes it back within 90m (1 key, revision 12)"),
            (0, 30_500, "UNDO takes it back within 30s (0 keys, revision 12)"),
        ] {
            assert_eq!(told(&row(12, keys, window_ms)).as_deref(), Some(text));
        }
        assert_eq!(told(&row(11, 3, 1000)), None);
        assert_eq!(told(&Frame::Array(Vec::new())), None);
        assert_eq!(told(&Frame::Error("ERR unknown command 'UNDO'".to_owned())), None);
        assert_eq!(hint(&Frame::Null, &row(12, 3, 1000)), None);
    }
}
