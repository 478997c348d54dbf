//! Who keeps the past from going, besides the settings.

use base::Revision;
use engine::Engine;
use keyspace::Keep;

/// Who needs the past, and the revision above which they need all of it.
pub fn pins(engine: &Engine, past: &archive::Past) -> Vec<(String, Revision)> {
    let now_ms = engine.clock.now_ms();
    let mut pins = Vec::new();
    let oldest = past.oldest();
    let window_ms = engine.undo_window_ms();
    let needed = engine.undo_marks.oldest_needed(now_ms, window_ms, oldest, |is_known, visit| {
        past.noted_taken_back(oldest, past.noted(), is_known, visit)
    });
    match needed {
        Ok(needed) => {
            pins.extend(needed.map(|from| ("undo".to_owned(), from.max(past.oldest()))));
        }
        // Then nobody knows, and nothing goes.
        Err(error) => {
            tracing::warn!("look for what can be undone: {error}");
            pins.push(("undo".to_owned(), past.oldest()));
        }
    }
    match past.held_by_tags() {
        Ok(tags) => pins.extend(tags),
        Err(error) => {
            tracing::warn!("look for what tags need: {error}");
            pins.push(("tag".to_owned(), past.oldest()));
        }
    }
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

/// The newest revision that the past may begin with. It holds as long as the caller
/// holds the branches: else a tag could name what goes.
pub fn pinned(engine: &Engine, past: &archive::Past) -> Revision {
    let named = engine.named_states();
    let oldest = past.oldest();
    // What is older stays for the sake of an older name.
    let unheard = past.unheard(&named).filter(|&revision| revision >= oldest);
    let pins = pins(engine, past).into_iter().map(|(_, revision)| revision);
    pins.chain(unheard).min().unwrap_or(Revision(u64::MAX))
}
