//! Who keeps the past from going, besides the settings.

use base::Revision;
use engine::Engine;
use keyspace::Keep;

/// Who needs the past, and the revision above which they need all of it.
pub fn pins(engine: &Engine, past: &archive::Past) -> Vec<(String, Revision)> {
    let now_ms = engine.clock.now_ms();
    let mut pins = Vec::new();
    for rule in engine.keyspace.past_rules().rules() {
        let from = match rule.keep {
            Keep::Forever => rule.oldest,
            Keep::Age(ms) => past.noted_at_time(now_ms.saturating_sub(ms)).unwrap_or_default(),
            // They say what may be read at most, and hold nothing.
            Keep::Versions(_) | Keep::Nothing => continue,
        };
        let name = format!("policy:{}", String::from_utf8_lossy(&rule.glob));
        // What is gone already nobody can hold.
        pins.push((name, from.max(past.oldest())));
    }
    pins
}

/// The newest revision that the past may begin with.
pub fn pinned(engine: &Engine, past: &archive::Past) -> Revision {
    let pins = pins(engine, past).into_iter();
    pins.map(|(_, revision)| revision).min().unwrap_or(Revision(u64::MAX))
}
