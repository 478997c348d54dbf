//! Random arguments for any command, from the syntax in its row: a new command
//! is driven as soon as it has a row, and a word of the syntax that nothing is
//! known of fails the test.

use base::{Rng, SeededRng};

/// A piece of a syntax.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A word as it stands.
    Word(String),
    /// Something to fill in.
    Argument(String),
    /// Perhaps there.
    Optional(Vec<Node>),
    /// There any number of times.
    Repeated(Vec<Node>),
    /// One of these.
    Choice(Vec<Vec<Node>>),
}

/// Reads the notation of the rows: `key [NX | XX] <MIN | MAX> [key ...]`.
///
/// # Panics
/// When brackets do not match.
#[must_use]
pub fn parse(syntax: &str) -> Vec<Node> {
    let spaced = ["[", "]", "<", ">", "|"]
        .iter()
        .fold(syntax.to_owned(), |text, sign| text.replace(sign, &format!(" {sign} ")));
    let mut tokens = spaced.split_whitespace();
    let nodes = sequence(&mut tokens, None);
    assert!(tokens.next().is_none(), "brackets do not match: {syntax}");
    nodes
}

fn sequence<'a>(tokens: &mut impl Iterator<Item = &'a str>, close: Option<&str>) -> Vec<Node> {
    let mut branches = vec![Vec::new()];
    let mut repeated = false;
    let mut closed = false;
    while let Some(token) = tokens.next() {
        let node = match token {
            "[" => sequence_of(tokens, "]"),
            "<" => sequence_of(tokens, ">"),
            "|" => {
                branches.push(Vec::new());
                continue;
            }
            "..." => {
                repeated = true;
                continue;
            }
            token if Some(token) == close => {
                closed = true;
                break;
            }
            word if word.chars().any(char::is_lowercase) => Node::Argument(word.to_owned()),
            word => Node::Word(word.to_owned()),
        };
        branches.last_mut().expect("never empty").push(node);
    }
    assert!(closed == close.is_some(), "a bracket is not closed");
    let one = if branches.len() == 1 {
        branches.pop().expect("one branch")
    } else {
        vec![Node::Choice(branches)]
    };
    if repeated { vec![Node::Repeated(one)] } else { one }
}

fn sequence_of<'a>(tokens: &mut impl Iterator<Item = &'a str>, close: &str) -> Node {
    let mut inner = sequence(tokens, Some(close));
    match (close, inner.as_slice()) {
        (_, [Node::Repeated(_)]) | (">", [_]) => inner.pop().expect("one node"),
        (">", _) => Node::Choice(vec![inner]),
        _ => Node::Optional(inner),
    }
}

/// How a command's bounds look this time.
#[derive(Clone, Copy)]
enum Bounds {
    Ranks,
    Scores,
    Members,
}

/// Makes arguments.
pub struct Generator {
    /// The random source, for the caller's own choices too.
    pub rng: SeededRng,
    /// The time that absolute deadlines are near.
    pub now_ms: u64,
    /// Payloads for RESTORE.
    payloads: Vec<Vec<u8>>,
    bounds: Bounds,
    /// How many keys `numkeys` announced, and how many are still to come.
    announced: usize,
    missing_keys: Option<usize>,
}

/// Every type has some names it is found under more often than not.
const KEYS: &[(&str, &[&str])] = &[
    ("string", &["s0", "s1", "s2", "s3"]),
    ("list", &["l0", "l1", "l2", "l3"]),
    ("set", &["e0", "e1", "e2", "e3"]),
    ("hash", &["h0", "h1", "h2", "h3"]),
    ("sorted-set", &["z0", "z1", "z2", "z3"]),
];

const INTEGERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "5",
    "10",
    "-1",
    "-2",
    "-3",
    "100",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775806",
];

const FLOATS: &[&str] = &[
    "0",
    "1",
    "-1",
    "0.5",
    "-2.25",
    "3.0e3",
    "1e308",
    "-1e308",
    "inf",
    "-inf",
    "5e-324",
    "1e17",
    "-0",
    "3.14159265358979",
];

const NO_NUMBERS: &[&str] = &["", "nan", "abc", "1 ", "0x10", "9223372036854775808", "1e400"];

impl Generator {
    /// Equal seeds make equal arguments.
    #[must_use]
    pub fn new(seed: u64) -> Generator {
        Generator {
            rng: SeededRng::new(seed),
            now_ms: 0,
            payloads: Vec::new(),
            bounds: Bounds::Ranks,
            announced: 0,
            missing_keys: None,
        }
    }

    /// A number in `0..bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).expect("below a usize")
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these numbers.
    #[allow(dead_code, reason = "not every test that shares this file needs it")]
    pub fn one_of(&mut self, choices: &[u64]) -> u64 {
        self.pick(choices)
    }

    /// Keeps what DUMP answered, for RESTORE.
    pub fn keep_payload(&mut self, payload: Vec<u8>) {
        if self.payloads.len() < 40 {
            self.payloads.push(payload);
        } else {
            let at = self.below(self.payloads.len());
            self.payloads[at] = payload;
        }
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Words of a call of `name` (two words for a subcommand), whose keys are
    /// mostly of `group`.
    pub fn call(&mut self, name: &str, group: &str, syntax: &str) -> Vec<Vec<u8>> {
        self.bounds = match name {
            name if name.contains("lex") => Bounds::Members,
            name if name.contains("score") || name == "zcount" => Bounds::Scores,
            "zrange" | "zrangestore" => {
                self.pick(&[Bounds::Ranks, Bounds::Scores, Bounds::Members])
            }
            _ => Bounds::Ranks,
        };
        self.announced = 0;
        self.missing_keys = None;
        let mut words: Vec<Vec<u8>> =
            name.split('|').map(|word| word.as_bytes().to_vec()).collect();
        self.write(&parse(syntax), name, group, &mut words);
        if self.one_in(60) && words.len() > 1 {
            // A call that nobody would write.
            let at = 1 + self.below(words.len() - 1);
            match self.below(3) {
                0 => words[at] = self.element(),
                1 => drop(words.remove(at)),
                _ => words.push(b"LIMIT".to_vec()),
            }
        }
        words
    }

    fn write(&mut self, nodes: &[Node], name: &str, group: &str, words: &mut Vec<Vec<u8>>) {
        for node in nodes {
            match node {
                Node::Word(word) => words.push(word.as_bytes().to_vec()),
                Node::Argument(argument) => {
                    let word = self.argument(argument, name, group);
                    words.push(word);
                }
                Node::Optional(nodes) => {
                    let is_bounds_kind = |node: &Node| match node {
                        Node::Choice(branches) => {
                            branches.iter().any(|branch| branch == &[Node::Word("BYLEX".into())])
                        }
                        _ => false,
                    };
                    if nodes.iter().any(is_bounds_kind) {
                        match self.bounds {
                            Bounds::Ranks => {}
                            Bounds::Scores => words.push(b"BYSCORE".to_vec()),
                            Bounds::Members => words.push(b"BYLEX".to_vec()),
                        }
                    } else if self.one_in(3) {
                        self.write(nodes, name, group, words);
                    }
                }
                Node::Repeated(nodes) => {
                    let weights = nodes == &[Node::Argument("weight".to_owned())];
                    let times = match self.missing_keys.take() {
                        Some(missing) => missing,
                        None if weights => self.announced.saturating_sub(1),
                        None if self.one_in(20) => 200,
                        None => self.below(4),
                    };
                    (0..times).for_each(|_| self.write(nodes, name, group, words));
                }
                Node::Choice(branches) => {
                    let branch = self.below(branches.len());
                    self.write(&branches[branch], name, group, words);
                }
            }
        }
    }

    /// A value for one of the words that syntaxes use.
    ///
    /// # Panics
    /// When nothing is known of the word.
    fn argument(&mut self, word: &str, name: &str, group: &str) -> Vec<u8> {
        match word {
            "key" | "newkey" | "source" | "destination" | "dst" | "src" | "key1" | "key2" => {
                self.key(group)
            }
            "value" | "member" | "element" | "pivot" | "field" => self.element(),
            "increment" | "decrement" if name.contains("float") || name.starts_with('z') => {
                self.float()
            }
            "score" | "weight" => self.float(),
            "increment" | "decrement" | "count" | "index" | "rank" | "num-matches" | "len"
            | "limit" | "min-match-len" | "frequency" => self.integer(),
            "start" | "stop" | "end" | "min" | "max" => self.bound(),
            "offset" => {
                let near = self.below(20);
                self.pick(&[near, near, near, 4090, 5000]).to_string().into_bytes()
            }
            "seconds" | "ttl" => self.pick(&["1", "2", "10", "1000", "0", "-1", "x"]).into(),
            "milliseconds" => self.pick(&["1", "500", "10000", "999999", "0", "-5"]).into(),
            "unix-time-seconds" => {
                let at = self.now_ms / 1000 + self.rng.below(20);
                (at.saturating_sub(4)).to_string().into_bytes()
            }
            "unix-time-milliseconds" => {
                let at = self.now_ms + self.rng.below(20_000);
                (at.saturating_sub(4000)).to_string().into_bytes()
            }
            "db" | "destination-db" | "index1" | "index2" => {
                self.pick(&["0", "1", "0", "1", "0", "1", "7", "-1", "x"]).into()
            }
            "timeout" => self.pick(&["0", "0.01", "5", "-1", "x"]).into(),
            "cursor" => self.pick(&["0", "0", "0", "5", "-1", "x"]).into(),
            "type" => self.pick(&["string", "list", "zset", "none"]).into(),
            "prefix" => self.pick(&["", "s", "h0", "z1", "none"]).into(),
            "pattern" => self.pick(&["*", "s*", "h0->*", "#", "s*->a", "none", "[", "*->a"]).into(),
            "numkeys" => {
                let count = 1 + self.below(3);
                self.announced = count;
                self.missing_keys = Some(count - 1);
                if self.one_in(15) { self.integer() } else { count.to_string().into_bytes() }
            }
            "serialized-value" => {
                let mut payload = match self.payloads.len() {
                    0 => Vec::new(),
                    len => {
                        let at = self.below(len);
                        self.payloads[at].clone()
                    }
                };
                if self.one_in(8) && !payload.is_empty() {
                    let at = self.below(payload.len());
                    payload[at] ^= 1;
                }
                payload
            }
            _ => panic!("{name}: nothing is known of \"{word}\"; add it to the generator"),
        }
    }

    /// A key that probably holds the type of `group`.
    pub fn key(&mut self, group: &str) -> Vec<u8> {
        let own = KEYS.iter().position(|(name, _)| *name == group);
        let kind = match own {
            Some(own) if !self.one_in(6) => own,
            _ => self.below(KEYS.len()),
        };
        if self.one_in(40) {
            return self.pick(&[&b""[..], b"\0\xff\r\n", b"none"]).to_vec();
        }
        self.pick(KEYS[kind].1).into()
    }

    /// Something to store: short, long, a number, binary.
    pub fn element(&mut self) -> Vec<u8> {
        match self.below(20) {
            0..=6 => self.pick(&["a", "b", "c", "d", "e", "f", "ab", "abc"]).into(),
            7..=10 => self.below(400).to_string().into_bytes(),
            11..=12 => self.pick(INTEGERS).into(),
            13 => self.pick(FLOATS).into(),
            14 => self.pick(NO_NUMBERS).into(),
            15 => {
                self.pick(&[&b"\0"[..], b"\xff\xfe", b"a\r\nb", "\u{e9}".as_bytes(), b"#*"]).into()
            }
            16..=17 => vec![b'm'; 5 + self.below(60)],
            18 => vec![b'x'; 60 + self.below(60)],
            _ => match self.below(4) {
                0 => vec![b'L'; 4080 + self.below(40)],
                1 => vec![b'X'; 9000],
                _ => format!("member:{}", self.below(300)).into_bytes(),
            },
        }
    }

    fn integer(&mut self) -> Vec<u8> {
        match self.below(12) {
            0 => self.pick(NO_NUMBERS).into(),
            1 => self.below(300).to_string().into_bytes(),
            _ => self.pick(INTEGERS).into(),
        }
    }

    fn float(&mut self) -> Vec<u8> {
        match self.below(12) {
            0 => self.pick(NO_NUMBERS).into(),
            1..=4 => self.below(10).to_string().into_bytes(),
            _ => self.pick(FLOATS).into(),
        }
    }

    fn bound(&mut self) -> Vec<u8> {
        let strict = self.one_in(4);
        match self.bounds {
            Bounds::Ranks => self.integer(),
            Bounds::Scores if strict => [b"(", self.float().as_slice()].concat(),
            Bounds::Scores => self.float(),
            Bounds::Members => match self.below(5) {
                0 => b"-".to_vec(),
                1 => b"+".to_vec(),
                _ if strict => [b"(", self.element().as_slice()].concat(),
                _ => [b"[", self.element().as_slice()].concat(),
            },
        }
    }
}
