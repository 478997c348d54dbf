//! Keyspace notifications: events become messages on `__keyspace@…__` and
//! `__keyevent@…__` channels.

use base::BranchId;
use keyspace::{Event, class};

use crate::engine::Engine;

const LETTERS: &[(char, u32)] = &[
    ('g', class::GENERIC),
    ('$', class::STRING),
    ('l', class::LIST),
    ('s', class::SET),
    ('h', class::HASH),
    ('z', class::ZSET),
    ('x', class::EXPIRED),
    ('e', class::EVICTED),
    ('t', class::STREAM),
    ('d', class::MODULE),
    ('K', class::KEYSPACE),
    ('E', class::KEYEVENT),
    ('m', class::KEY_MISS),
    ('n', class::NEW),
];

/// The classes that `notify-keyspace-events` names; `None` for a letter that
/// does not exist.
pub(crate) fn parse_classes(letters: &str) -> Option<u32> {
    letters.chars().try_fold(0, |classes, letter| match letter {
        'A' => Some(classes | class::ALL),
        letter => LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| classes | bit),
    })
}

impl Engine {
    /// Publishes events of a branch, in order, to those who are on it.
    pub(crate) fn publish_events(&self, branch: BranchId, events: &[Event]) {
        let classes = self.live().event_classes;
        for event in events {
            if classes & class::KEYSPACE != 0 {
                let mut channel = format!("__keyspace@{}__:", event.db).into_bytes();
                channel.extend_from_slice(&event.key);
                self.publish_on(branch, &channel, event.name.as_bytes());
            }
            if classes & class::KEYEVENT != 0 {
                let channel = format!("__keyevent@{}__:{}", event.db, event.name);
                self.publish_on(branch, channel.as_bytes(), &event.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_name_classes() {
        assert_eq!(parse_classes(""), Some(0));
        assert_eq!(parse_classes("KEA"), Some(class::ALL | class::KEYSPACE | class::KEYEVENT));
        assert_eq!(parse_classes("K$m"), Some(class::KEYSPACE | class::STRING | class::KEY_MISS));
        assert_eq!(parse_classes("Kq"), None);
    }
}
