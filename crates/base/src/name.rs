//! Names of branches and tags.

/// Longest name of a branch or a tag, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Whether a branch or tag may have this name: letters, digits and `-_./`, of
/// which a digit or letter comes first.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.first().is_some_and(u8::is_ascii_alphanumeric)
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_no_grammar_confuses() {
        for name in ["a", "0", "feature/x-1_2.3"] {
            assert!(is_name(name.as_bytes()), "{name}");
        }
        for name in ["", "-a", ".", "a b", "a@b", "ä", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(!is_name(name.as_bytes()), "{name}");
        }
    }
}
