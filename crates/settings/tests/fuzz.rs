//! Hostile config files: an answer or an error, never a panic.
//!
//! Bounded, seeded mutations of the corpus, so it runs with the ordinary
//! tests. `FUZZ_ROUNDS` makes it run longer.

use base::{Rng, SeededRng};
use settings::{
    FileLayer, Layers, SETTINGS, Settings, config_get, config_set, generate, load, rewrite,
};

fn rounds() -> u64 {
    std::env::var("FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4_000)
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut texts: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(texts.len() >= 4, "the corpus in {folder} is missing");
    texts.push(generate().into_bytes());
    texts
}

fn below(rng: &mut SeededRng, bound: usize) -> usize {
    usize::try_from(rng.below(bound.max(1) as u64)).unwrap()
}

/// Changes a few places of `text`: flips, cuts, doubles, splices, and words
/// that mean something to the parser.
fn mutate(text: &mut Vec<u8>, other: &[u8], rng: &mut SeededRng) {
    const WORDS: [&[u8]; 14] = [
        b"[",
        b"]",
        b"\"",
        b"'''",
        b"=",
        b".",
        b"\n",
        b"#",
        b"{",
        b"-1",
        b"99999999999999999999",
        b"\xff",
        b"inf",
        b"[server]\n",
    ];
    for _ in 0..=below(rng, 6) {
        let at = below(rng, text.len() + 1);
        let end = (at + below(rng, 40)).min(text.len());
        match below(rng, 6) {
            0 if at < text.len() => text[at] ^= 1 << below(rng, 8),
            1 => drop(text.drain(at..end)),
            2 => {
                let part = text[at..end].to_vec();
                text.splice(at..at, part);
            }
            3 => {
                let from = below(rng, other.len());
                let part = other[from..(from + below(rng, 60)).min(other.len())].to_vec();
                text.splice(at..at, part);
            }
            4 => text.truncate(at),
            _ => {
                text.splice(at..at, WORDS[below(rng, WORDS.len())].iter().copied());
            }
        }
    }
}

fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let file = Some(FileLayer { name: "fuzz.toml", text: &text });
    match load(&Layers { file, ..Layers::default() }) {
        Ok(loaded) => {
            let again = rewrite(&text, &loaded.settings).unwrap();
            assert_eq!(again, text.as_ref(), "a rewrite without a change is a no-op");
            let mut settings = loaded.settings;
            settings.max_memory = 12_345;
            let written = rewrite(&text, &settings).unwrap();
            let file = Some(FileLayer { name: "fuzz.toml", text: &written });
            let back = load(&Layers { file, ..Layers::default() }).unwrap();
            assert_eq!(back.settings, settings);
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                let message = error.to_string();
                assert!(message.starts_with("fuzz.toml:"), "no place in {message}");
                assert!(message.len() < 2_000 && !message.contains('\n'), "{message}");
            }
        }
    }
}

#[test]
fn mutated_files_never_panic() {
    let corpus = corpus();
    corpus.iter().for_each(|text| check(text));
    for seed in 0..rounds() {
        let mut rng = SeededRng::new(seed);
        let mut text = corpus[below(&mut rng, corpus.len())].clone();
        mutate(&mut text, &corpus[below(&mut rng, corpus.len())], &mut rng);
        check(&text);
    }
}

#[test]
fn hostile_shapes() {
    check(&b"[".repeat(50_000));
    check(&[b"a".repeat(100_000), b" = 1".to_vec()].concat());
    check(&[b"x = ".to_vec(), b"[".repeat(20_000)].concat());
    check(&[b"x = ".to_vec(), b"{a=".repeat(20_000)].concat());
    check(&b"a.".repeat(20_000));
    check("[server]\nport = \"".as_bytes());
    check(format!("[server]\nbind = \"{}\"", "a ".repeat(50_000)).as_bytes());
}

#[test]
fn config_set_and_get_take_any_bytes() {
    for seed in 0..rounds() {
        let mut rng = SeededRng::new(seed);
        let setting = &SETTINGS[below(&mut rng, SETTINGS.len())];
        let mut value = setting.kind.show_redis(&setting.value(&Settings::default())).into_bytes();
        mutate(&mut value, b"normal 1 2 3 yes 1gb -1 KEA", &mut rng);
        let mut settings = Settings::default();
        let name = setting.redis.first().map_or_else(|| setting.name(), |name| (*name).to_owned());
        if config_set(&mut settings, &[(name.as_bytes(), &value)]).is_err() {
            assert_eq!(settings, Settings::default(), "{name} failed and changed something");
        }
        // Whatever was accepted comes back from a rewritten file.
        if !setting.is_accepted_only() {
            let written = rewrite("", &settings).unwrap();
            let file = Some(FileLayer { name: "rewritten", text: &written });
            assert_eq!(load(&Layers { file, ..Layers::default() }).unwrap().settings, settings);
        }
        let _ = config_get(&settings, &[&value]);
    }
}
