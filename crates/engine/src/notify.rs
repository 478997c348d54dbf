//! Keyspace notifications: events become messages on `__keyspace@…__` and
//! `__keyevent@…__` channels.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

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
            each_message(classes, event, &mut |channel, message| {
                self.publish_on(branch, channel, message);
            });
        }
    }

    /// How many clients [`Engine::publish_events`] would reach.
    pub(crate) fn listeners_to(&self, branch: BranchId, events: &[Event]) -> usize {
        let classes = self.live().event_classes;
        let mut listeners = BTreeSet::new();
        for event in events {
            each_message(classes, event, &mut |channel, _| {
                self.pubsub.each_listener(channel, &mut |client| {
                    if client.activity.branch.load(Ordering::Relaxed) == branch.0 {
                        listeners.insert(client.id);
                    }
                });
            });
        }
        listeners.len()
    }
}

/// The messages that tell of an event: channel and content.
fn each_message(classes: u32, event: &Event, visit: &mut dyn FnMut(&[u8], &[u8])) {
    if classes & class::KEYSPACE != 0 {
        let mut channel = format!("__keyspace@{}__:", event.db).into_bytes();
        channel.extend_from_slice(&event.key);
        visit(&channel, event.name.as_bytes());
    }
    if classes & class::KEYEVENT != 0 {
        let channel = format!("__keyevent@{}__:{}", event.db, event.name);
        visit(channel.as_bytes(), &event.key);
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
