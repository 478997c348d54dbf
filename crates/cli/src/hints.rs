//! Completion and hints at the prompt, from the command table.

/// What the command table says about one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandHint {
    /// In lower case; of a sub-command with its container: `config get`.
    pub name: String,
    /// As `COMMAND DOCS` writes them: `key value [NX|XX] [EX seconds]`.
    pub arguments: String,
    /// One sentence.
    pub summary: String,
}

/// Names that go on from what stands before the cursor, and the offset where
/// they begin. Upper case begets upper case.
pub(crate) fn complete(commands: &[CommandHint], before_cursor: &str) -> (usize, Vec<String>) {
    let start = before_cursor.len() - before_cursor.trim_start().len();
    let typed = &before_cursor[start..];
    let lower = typed.to_ascii_lowercase();
    let is_upper = typed.bytes().any(|byte| byte.is_ascii_uppercase());
    // A sub-command is only offered once its container is complete.
    let blanks = typed.matches(' ').count();
    let mut names: Vec<String> = commands
        .iter()
        .filter(|command| command.name.starts_with(&lower))
        .map(|command| {
            let words = command.name.split(' ').take(blanks + 1);
            words.collect::<Vec<_>>().join(" ")
        })
        .map(|name| if is_upper { name.to_uppercase() } else { name })
        .collect();
    names.sort();
    names.dedup();
    (start, names)
}

/// The arguments that are still to be typed, to be shown behind the line.
pub(crate) fn hint(commands: &[CommandHint], line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (command, name_words) = lookup(commands, &words)?;
    let gap = if line.ends_with(char::is_whitespace) { "" } else { " " };
    let ends_in_name = words.len() == name_words;
    if ends_in_name && gap == " " && has_longer_name(commands, &command.name) {
        return None;
    }
    let wanted = tokens(&command.arguments);
    let mut left = wanted.as_slice();
    // An argument in the middle of being typed still shows its name.
    let typed = words.len() - name_words;
    for _ in 0..typed {
        match left.split_first() {
            Some((first, rest)) if !first.starts_with('[') => left = rest,
            _ => break,
        }
    }
    (!left.is_empty()).then(|| format!("{gap}{}", left.join(" ")))
}

/// `help SET`: what one command takes and does.
pub(crate) fn describe(commands: &[CommandHint], words: &[&str]) -> Option<String> {
    let (command, _) = lookup(commands, words)?;
    let name = command.name.to_uppercase();
    Some(format!("{name} {}\n{}\n", command.arguments, command.summary))
}

/// The command `words` begin with, and how many words its name has.
fn lookup<'a>(commands: &'a [CommandHint], words: &[&str]) -> Option<(&'a CommandHint, usize)> {
    let longest = words.len().min(2);
    (1..=longest).rev().find_map(|count| {
        let name = words[..count].join(" ").to_ascii_lowercase();
        let command = commands.iter().find(|command| command.name == name)?;
        Some((command, count))
    })
}

fn has_longer_name(commands: &[CommandHint], name: &str) -> bool {
    commands.iter().any(|other| other.name.len() > name.len() && other.name.starts_with(name))
}

/// Splits at blanks outside brackets: `key [EX seconds|PX ms]` has two tokens.
fn tokens(arguments: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, c) in arguments.char_indices() {
        match c {
            '[' | '<' => depth += 1,
            ']' | '>' => depth = depth.saturating_sub(1),
            ' ' if depth == 0 => {
                out.push(&arguments[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    out.push(&arguments[start..]);
    out.retain(|token| !token.is_empty());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands() -> Vec<CommandHint> {
        [
            ("get", "key"),
            ("getdel", "key"),
            ("set", "key value [NX | XX] [EX seconds | PX ms]"),
            ("config", ""),
            ("config get", "parameter [parameter ...]"),
            ("config set", "parameter value [parameter value ...]"),
        ]
        .map(|(name, arguments)| CommandHint {
            name: name.to_owned(),
            arguments: arguments.to_owned(),
            summary: "Does it.".to_owned(),
        })
        .to_vec()
    }

    #[test]
    fn completes_names() {
        for (typed, start, expected) in [
            ("ge", 0, &["get", "getdel"][..]),
            ("GE", 0, &["GET", "GETDEL"]),
            ("  s", 2, &["set"]),
            ("con", 0, &["config"]),
            ("config ", 0, &["config get", "config set"]),
            ("CONFIG s", 0, &["CONFIG SET"]),
            ("set k", 0, &[]),
        ] {
            let (at, names) = complete(&commands(), typed);
            assert_eq!(
                (at, names.as_slice()),
                (start, &expected.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()[..]),
                "{typed}"
            );
        }
    }

    #[test]
    fn hints_what_is_missing() {
        for (line, expected) in [
            ("", None),
            ("nonsense", None),
            ("set", Some(" key value [NX | XX] [EX seconds | PX ms]")),
            ("set ", Some("key value [NX | XX] [EX seconds | PX ms]")),
            ("SET k ", Some("value [NX | XX] [EX seconds | PX ms]")),
            ("set k v", Some(" [NX | XX] [EX seconds | PX ms]")),
            ("set k v NX ", Some("[NX | XX] [EX seconds | PX ms]")),
            ("get", None),
            ("get ", Some("key")),
            ("get k", None),
            ("config get ", Some("parameter [parameter ...]")),
            ("config get x ", Some("[parameter ...]")),
        ] {
            assert_eq!(hint(&commands(), line).as_deref(), expected, "{line:?}");
        }
    }

    #[test]
    fn help_of_one_command() {
        let text = describe(&commands(), &["Config", "Get"]).unwrap();
        assert_eq!(text, "CONFIG GET parameter [parameter ...]\nDoes it.\n");
        assert_eq!(describe(&commands(), &["nope"]), None);
    }
}
