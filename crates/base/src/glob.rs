//! Redis's glob: `*`, `?`, `[a-c]`, `[^a]`, `\x`.
//!
//! Iterative, so a hostile pattern cannot exhaust the stack, and with one
//! point of return per `*`, so matching takes at most
//! `pattern length * text length` steps (CVE-2022-36021, CVE-2024-31228).

/// Groups of `*` beyond which a pattern matches nothing, as in Redis.
const STARS_MAX: usize = 1000;

/// Whether the whole `text` matches `pattern`.
///
/// ```
/// assert!(base::glob::matches(b"h[a-e]llo*", b"hello world"));
/// assert!(!base::glob::matches(b"h?llo", b"hllo"));
/// ```
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    matches_with(pattern, text, |a, b| a == b)
}

/// As [`matches()`], without regard to ASCII case.
#[must_use]
pub fn matches_ignore_case(pattern: &[u8], text: &[u8]) -> bool {
    matches_with(pattern, text, |a, b| a.eq_ignore_ascii_case(&b))
}

fn matches_with(pattern: &[u8], text: &[u8], equal: impl Fn(u8, u8) -> bool) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when a mismatch is found: just after the last `*`, with
    // one more byte of text given to it.
    let mut retry: Option<(usize, usize)> = None;
    let mut stars = 0;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            while p < pattern.len() && pattern[p] == b'*' {
                p += 1;
            }
            stars += 1;
            if p == pattern.len() || stars > STARS_MAX {
                return p == pattern.len();
            }
            retry = Some((p, t));
            continue;
        }
        if t == text.len() {
            return p == pattern.len();
        }
        let step =
            if p == pattern.len() { None } else { match_one(&pattern[p..], text[t], &equal) };
        match (step, &mut retry) {
            (Some(used), _) => {
                p += used;
                t += 1;
            }
            (None, Some((after_star, from))) => {
                *from += 1;
                p = *after_star;
                t = *from;
            }
            (None, None) => return false,
        }
    }
}

/// Matches one byte against the first element of a non-empty pattern; answers
/// the element's length.
fn match_one(pattern: &[u8], byte: u8, equal: &impl Fn(u8, u8) -> bool) -> Option<usize> {
    match pattern[0] {
        b'?' => Some(1),
        b'[' => {
            let (hit, used) = match_class(pattern, byte, equal);
            hit.then_some(used)
        }
        b'\\' if pattern.len() > 1 => equal(pattern[1], byte).then_some(2),
        literal => equal(literal, byte).then_some(1),
    }
}

/// An unclosed class ends with the pattern, as in Redis.
fn match_class(pattern: &[u8], byte: u8, equal: &impl Fn(u8, u8) -> bool) -> (bool, usize) {
    let mut i = 1;
    let negated = pattern.get(i) == Some(&b'^');
    i += usize::from(negated);
    let mut hit = false;
    while i < pattern.len() && pattern[i] != b']' {
        if pattern[i] == b'\\' && i + 1 < pattern.len() {
            hit |= equal(pattern[i + 1], byte);
            i += 2;
        } else if pattern.get(i + 1) == Some(&b'-') && i + 2 < pattern.len() {
            let (low, high) = (pattern[i].min(pattern[i + 2]), pattern[i].max(pattern[i + 2]));
            hit |= (low..=high).contains(&byte)
                || (equal(b'a', b'A')
                    && ((low..=high).contains(&byte.to_ascii_lowercase())
                        || (low..=high).contains(&byte.to_ascii_uppercase())));
            i += 3;
        } else {
            hit |= equal(pattern[i], byte);
            i += 1;
        }
    }
    (hit != negated, (i + 1).min(pattern.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hbllo", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hello", false),
            ("[a", "a", true),
            ("a\\", "a\\", true),
            ("[\\]]", "]", true),
            ("*foo*", "xfoofoo", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern:?} {text:?}"
            );
        }
        assert!(matches_ignore_case(b"HE[L-M]*", b"hello"));
    }

    #[test]
    fn hostile_patterns_end_quickly() {
        let pattern = "*?".repeat(32 * 1024) + "b";
        let text = "a".repeat(64 * 1024);
        assert!(!matches(pattern.as_bytes(), text.as_bytes()));
        let pattern = "a*".repeat(5000) + "b";
        assert!(!matches(pattern.as_bytes(), &b"a".repeat(5000)));
    }
}
