//! COMMAND DOCS. The arguments come from the row's syntax, so that there is
//! one description of a command and `HELP`, hints and this agree.

use base::Reply;
use command::{Command, Run};

/// Writes a command's name and its documentation, a pair of a map.
pub(crate) fn write(command: &Command, reply: &mut dyn Reply) {
    let arguments = match command.spec.run {
        Run::Container => Vec::new(),
        Run::Data(_) | Run::Engine => parse(command.spec.syntax),
    };
    let has_subcommands = !command.subcommands.is_empty();
    reply.bulk(command.full_name.as_bytes());
    reply.map(3 + usize::from(!arguments.is_empty()) + usize::from(has_subcommands));
    write_text("summary", command.spec.summary, reply);
    write_text("since", command.spec.since, reply);
    write_text("group", command.group.name(), reply);
    if !arguments.is_empty() {
        reply.bulk(b"arguments");
        reply.array(arguments.len());
        let mut keys = Keys { next: 0, specs: command.spec.keys.len() };
        arguments.iter().for_each(|argument| argument.write(&mut keys, reply));
    }
    if has_subcommands {
        reply.bulk(b"subcommands");
        reply.map(command.subcommands.len());
        command.subcommands.iter().for_each(|sub| write(sub, reply));
    }
}

fn write_text(name: &str, text: &str, reply: &mut dyn Reply) {
    reply.bulk(name.as_bytes());
    reply.bulk(text.as_bytes());
}

/// Which key specification the next key of the syntax belongs to.
struct Keys {
    next: usize,
    specs: usize,
}

/// What an argument is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A value of this Redis type: `string`, `integer`, `key`, …
    Value(&'static str),
    /// Its token and nothing else.
    PureToken,
    /// One of these.
    OneOf(Vec<Argument>),
    /// All of these.
    Block(Vec<Argument>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Argument {
    name: String,
    token: Option<String>,
    kind: Kind,
    is_optional: bool,
    is_multiple: bool,
}

impl Argument {
    fn new(name: &str, kind: Kind) -> Argument {
        let name = name.to_ascii_lowercase();
        Argument { name, token: None, kind, is_optional: false, is_multiple: false }
    }

    /// Several arguments as one.
    fn group(mut members: Vec<Argument>) -> Argument {
        if members.len() == 1 {
            return members.remove(0);
        }
        // A token in front of a group is the group's.
        let token = match members.first() {
            Some(Argument { kind: Kind::PureToken, .. }) => members.remove(0).token,
            _ => None,
        };
        if members.len() == 1 && members[0].token.is_none() {
            return Argument { token, ..members.remove(0) };
        }
        let name = token.clone().unwrap_or_else(|| members[0].name.clone());
        Argument { token, ..Argument::new(&name, Kind::Block(members)) }
    }

    fn write(&self, keys: &mut Keys, reply: &mut dyn Reply) {
        let (kind, members) = match &self.kind {
            Kind::Value(kind) => (*kind, None),
            Kind::PureToken => ("pure-token", None),
            Kind::OneOf(members) => ("oneof", Some(members)),
            Kind::Block(members) => ("block", Some(members)),
        };
        let is_leaf = members.is_none();
        let is_key = kind == "key" && keys.specs > 0;
        let has_flags = self.is_optional || self.is_multiple;
        reply.map(
            2 + usize::from(is_leaf)
                + usize::from(is_key)
                + usize::from(self.token.is_some())
                + usize::from(has_flags)
                + usize::from(!is_leaf),
        );
        write_text("name", &self.name, reply);
        write_text("type", kind, reply);
        if is_leaf {
            let shown = self.token.as_deref().filter(|_| kind == "pure-token");
            write_text("display_text", shown.unwrap_or(&self.name), reply);
        }
        if is_key {
            reply.bulk(b"key_spec_index");
            reply.count(keys.next.min(keys.specs - 1));
            keys.next += 1;
        }
        if let Some(token) = &self.token {
            write_text("token", token, reply);
        }
        if has_flags {
            let flags = [(self.is_optional, "optional"), (self.is_multiple, "multiple")];
            let set: Vec<&str> = flags.iter().filter(|(is_set, _)| *is_set).map(|f| f.1).collect();
            reply.bulk(b"flags");
            reply.set(set.len());
            set.iter().for_each(|flag| reply.simple(flag));
        }
        if let Some(members) = members {
            reply.bulk(b"arguments");
            reply.array(members.len());
            members.iter().for_each(|member| member.write(keys, reply));
        }
    }
}

/// Reads a syntax such as `key [EX seconds | PX milliseconds] [key ...]`.
fn parse(syntax: &str) -> Vec<Argument> {
    let words = split(syntax);
    let mut parser = Parser { words: &words };
    parser.alternatives().into_iter().next().unwrap_or_default()
}

/// Words; brackets and bars are words of their own.
fn split(syntax: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for part in syntax.split_whitespace() {
        let mut rest = part;
        while let Some(at) = rest.find(|c: char| "[]<>|".contains(c)) {
            if at > 0 {
                words.push(&rest[..at]);
            }
            words.push(&rest[at..=at]);
            rest = &rest[at + 1..];
        }
        if !rest.is_empty() {
            words.push(rest);
        }
    }
    words
}

struct Parser<'p, 's> {
    words: &'p [&'s str],
}

impl Parser<'_, '_> {
    /// Sequences separated by bars, up to a closing bracket or the end.
    fn alternatives(&mut self) -> Vec<Vec<Argument>> {
        let mut all = vec![Vec::new()];
        while let Some((&word, rest)) = self.words.split_first() {
            if matches!(word, "]" | ">") {
                break;
            }
            self.words = rest;
            let sequence = all.last_mut().expect("there is one at least");
            match word {
                "|" => all.push(Vec::new()),
                "[" | "<" => {
                    let repeats_before = sequence.len();
                    let inner = self.alternatives();
                    self.words = self.words.get(1..).unwrap_or_default();
                    add_group(sequence, inner, word == "[", repeats_before);
                }
                "..." | "…" => {
                    if let Some(last) = sequence.last_mut() {
                        last.is_multiple = true;
                    }
                }
                word => sequence.push(leaf(word)),
            }
        }
        all.into_iter().map(attach_tokens).collect()
    }
}

/// A bracket's content behind what stands before it.
fn add_group(
    sequence: &mut Vec<Argument>,
    mut inner: Vec<Vec<Argument>>,
    is_optional: bool,
    before: usize,
) {
    if inner.len() == 1 {
        let mut members = inner.remove(0);
        let repeats = members.last().is_some_and(|last| last.is_multiple);
        if repeats && let Some(last) = members.last_mut() {
            last.is_multiple = false;
        }
        // `key [key ...]`: the group says that what stands before it repeats.
        if repeats && before >= members.len() && sequence[before - members.len()..] == members[..] {
            sequence.truncate(before - members.len());
            let group = Argument::group(members);
            sequence.push(Argument { is_multiple: true, ..group });
            return;
        }
        if members.is_empty() {
            return;
        }
        let group = Argument::group(members);
        sequence.push(Argument { is_optional, is_multiple: repeats, ..group });
        return;
    }
    let members: Vec<Argument> =
        inner.into_iter().filter(|members| !members.is_empty()).map(Argument::group).collect();
    let Some(first) = members.first() else { return };
    let name = first.name.clone();
    sequence.push(Argument { is_optional, ..Argument::new(&name, Kind::OneOf(members)) });
}

/// `TOKEN value` at the same level is one argument, unless the token begins a
/// group of several ([`Argument::group`] decides that).
fn attach_tokens(sequence: Vec<Argument>) -> Vec<Argument> {
    let mut out: Vec<Argument> = Vec::with_capacity(sequence.len());
    let values_after_token =
        sequence.iter().skip(1).filter(|member| member.kind != Kind::PureToken).count();
    for argument in sequence {
        let is_value = matches!(argument.kind, Kind::Value(_) | Kind::OneOf(_));
        let follows_token = is_value
            && !argument.is_optional
            && argument.token.is_none()
            && matches!(
                out.last(),
                Some(Argument { kind: Kind::PureToken, is_optional: false, .. })
            );
        if follows_token && !(out.len() == 1 && values_after_token > 1) {
            let token = out.pop().and_then(|token| token.token);
            out.push(Argument { token, ..argument });
        } else {
            out.push(argument);
        }
    }
    out
}

/// A word that is no bracket: a token in capitals, or the name of a value.
fn leaf(word: &str) -> Argument {
    let is_token = word.chars().any(|c| c.is_ascii_uppercase() || "\"*=~$".contains(c))
        || word.chars().all(|c| c.is_ascii_digit());
    if is_token {
        let text = word.trim_matches('"').to_owned();
        return Argument { token: Some(text), ..Argument::new(word, Kind::PureToken) };
    }
    let kind = match word {
        "key" | "source" | "destination" | "newkey" => "key",
        "pattern" => "pattern",
        "seconds" | "milliseconds" | "count" | "cursor" | "index" | "offset" | "numkeys"
        | "start" | "stop" | "end" | "db" | "decrement" | "len" | "rank" | "limit"
        | "numreplicas" | "numlocal" | "index1" | "index2" | "size" | "version" => "integer",
        "score" | "timeout" => "double",
        word if word.starts_with("unix-time") => "unix-time",
        _ => "string",
    };
    Argument::new(word, Kind::Value(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A short notation: `name:type`, `=TOKEN`, `?` optional, `*` multiple.
    fn shown(arguments: &[Argument]) -> String {
        let one = |argument: &Argument| {
            let kind = match &argument.kind {
                Kind::Value(kind) => (*kind).to_owned(),
                Kind::PureToken => "token".to_owned(),
                Kind::OneOf(members) => format!("one({})", shown(members)),
                Kind::Block(members) => format!("all({})", shown(members)),
            };
            let token = argument.token.as_ref().map_or(String::new(), |token| format!("={token}"));
            let optional = if argument.is_optional { "?" } else { "" };
            let multiple = if argument.is_multiple { "*" } else { "" };
            format!("{}:{kind}{token}{optional}{multiple}", argument.name)
        };
        arguments.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn syntax_becomes_arguments() {
        for (syntax, expected) in [
            ("", ""),
            ("key", "key:key"),
            ("key [key ...]", "key:key*"),
            ("key field value [field value ...]", "key:key field:all(field:string value:string)*"),
            ("[section [section ...]]", "section:string?*"),
            ("<LEFT | RIGHT>", "left:one(left:token=LEFT right:token=RIGHT)"),
            ("[EX seconds | KEEPTTL]", "seconds:one(seconds:integer=EX keepttl:token=KEEPTTL)?"),
            ("key [LIMIT offset count]", "key:key limit:all(offset:integer count:integer)=LIMIT?"),
            ("key [COUNT count]", "key:key count:integer=COUNT?"),
            ("BY member", "member:string=BY"),
        ] {
            assert_eq!(shown(&parse(syntax)), expected, "{syntax}");
        }
    }

    #[test]
    fn every_syntax_of_the_table_is_read_whole() {
        for command in command::table().all() {
            let words = split(command.spec.syntax);
            let mut parser = Parser { words: &words };
            parser.alternatives();
            assert!(parser.words.is_empty(), "{}: {:?}", command.full_name, parser.words);
        }
    }
}
