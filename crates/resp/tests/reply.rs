//! Replies: encoded bytes per protocol, and the way back.

use base::{Frame, Reply};
use proptest::prelude::*;
use resp::{Encoder, Protocol, ReplyDecoder, ReplyError, ReplyLimits};

fn encode(protocol: Protocol, write: impl Fn(&mut Encoder)) -> String {
    let mut encoder = Encoder::new(protocol);
    write(&mut encoder);
    String::from_utf8(encoder.out).expect("text")
}

type Write = fn(&mut Encoder);

#[test]
fn every_type_in_both_protocols() {
    let cases: &[(&str, Write, &str, &str)] = &[
        ("ok", |r| r.ok(), "+OK\r\n", "+OK\r\n"),
        ("simple", |r| r.simple("PONG"), "+PONG\r\n", "+PONG\r\n"),
        ("error", |r| r.error("ERR no"), "-ERR no\r\n", "-ERR no\r\n"),
        ("zero", |r| r.integer(0), ":0\r\n", ":0\r\n"),
        ("ten", |r| r.integer(10), ":10\r\n", ":10\r\n"),
        ("minus", |r| r.integer(-1), ":-1\r\n", ":-1\r\n"),
        ("min", |r| r.integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
        ("bulk", |r| r.bulk(b"a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"),
        ("empty bulk", |r| r.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n"),
        ("null", |r| r.null(), "$-1\r\n", "_\r\n"),
        ("null array", |r| r.null_array(), "*-1\r\n", "_\r\n"),
        ("array", |r| r.array(3), "*3\r\n", "*3\r\n"),
        ("array of 99", |r| r.array(99), "*99\r\n", "*99\r\n"),
        ("array of 100", |r| r.array(100), "*100\r\n", "*100\r\n"),
        ("map", |r| r.map(2), "*4\r\n", "%2\r\n"),
        ("set", |r| r.set(2), "*2\r\n", "~2\r\n"),
        ("push", |r| r.push(2), "*2\r\n", ">2\r\n"),
        ("double", |r| r.double(3.25), "$4\r\n3.25\r\n", ",3.25\r\n"),
        ("whole double", |r| r.double(3.0), "$1\r\n3\r\n", ",3\r\n"),
        ("infinity", |r| r.double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n"),
        ("nan", |r| r.double(f64::NAN), "$3\r\nnan\r\n", ",nan\r\n"),
        ("true", |r| r.boolean(true), ":1\r\n", "#t\r\n"),
        ("false", |r| r.boolean(false), ":0\r\n", "#f\r\n"),
        ("big", |r| r.big_number("123"), "$3\r\n123\r\n", "(123\r\n"),
        ("verbatim", |r| r.verbatim("txt", "hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
        ("optional", |r| r.optional_bulk(None), "$-1\r\n", "_\r\n"),
    ];
    for (name, write, resp2, resp3) in cases {
        assert_eq!(&encode(Protocol::Resp2, write), resp2, "{name}, RESP2");
        assert_eq!(&encode(Protocol::Resp3, write), resp3, "{name}, RESP3");
    }
    assert_eq!(encode(Protocol::Resp3, |r| r.attribute(1)), "|1\r\n");
}

#[test]
fn user_text_cannot_forge_a_reply() {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let text = "ERR unknown 'a\r\n+OK\0\n'";
        assert_eq!(encode(protocol, |r| r.error(text)), "-ERR unknown 'a  +OK  '\r\n");
        assert_eq!(encode(protocol, |r| r.simple("a\r\nb")), "+a  b\r\n");
    }
    assert_eq!(encode(Protocol::Resp3, |r| r.big_number("1\r\n+OK")), "(1  +OK\r\n");
}

#[test]
fn bulk_headers_of_every_width() {
    for len in [9, 10, 99, 100, 12_345] {
        let value = "x".repeat(len);
        let text = encode(Protocol::Resp2, |r| r.bulk(value.as_bytes()));
        assert_eq!(text, format!("${len}\r\n{value}\r\n"));
    }
}

#[test]
fn resp2_leaves_attributes_out() {
    let inner = Frame::Attribute(vec![(Frame::bulk("ttl"), Frame::Integer(1))]);
    let frame = Frame::Array(vec![inner, Frame::Integer(7)]);
    assert_eq!(encode(Protocol::Resp2, |r| r.frame(&frame)), "*1\r\n:7\r\n");
    assert_eq!(
        encode(Protocol::Resp3, |r| r.frame(&frame)),
        "*1\r\n|1\r\n$3\r\nttl\r\n:1\r\n:7\r\n"
    );
}

fn decode_in_steps(input: &[u8], step: usize) -> (Vec<Frame>, Option<ReplyError>) {
    let mut decoder = ReplyDecoder::new(ReplyLimits {
        depth_max: 8,
        line_bytes_max: 64,
        bulk_len_max: 1000,
        aggregate_len_max: 1000,
    });
    let (mut buffer, mut frames) = (Vec::new(), Vec::new());
    for piece in input.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&buffer) {
                Err(error) => return (frames, Some(error)),
                Ok(progress) => {
                    buffer.drain(..progress.consumed);
                    match progress.frame {
                        Some(frame) => frames.push(frame),
                        None => break,
                    }
                }
            }
        }
    }
    (frames, None)
}

fn decode_any_way(input: &[u8]) -> (Vec<Frame>, Option<ReplyError>) {
    let whole = decode_in_steps(input, usize::MAX);
    for step in 1..input.len() {
        // Compared as text, in which NaN equals itself.
        let split = decode_in_steps(input, step);
        assert_eq!(
            format!("{split:?}"),
            format!("{whole:?}"),
            "in steps of {step}: {}",
            input.escape_ascii()
        );
    }
    whole
}

#[test]
fn replies_of_servers() {
    let cases: &[(&[u8], Frame)] = &[
        (b"+OK\r\n", Frame::Simple("OK".into())),
        (b"+\r\n", Frame::Simple(String::new())),
        (b"-ERR x\r\n", Frame::Error("ERR x".into())),
        (b"!5\r\nERR x\r\n", Frame::Error("ERR x".into())),
        (b"$-1\r\n", Frame::Null),
        (b"*-1\r\n", Frame::NullArray),
        (b"_\r\n", Frame::Null),
        (b"*0\r\n", Frame::Array(vec![])),
        (b"%0\r\n", Frame::Map(vec![])),
        (b"~1\r\n#t\r\n", Frame::Set(vec![Frame::Boolean(true)])),
        (b">1\r\n+a\r\n", Frame::Push(vec![Frame::Simple("a".into())])),
        (b",1e3\r\n", Frame::Double(1000.0)),
        (b",-inf\r\n", Frame::Double(f64::NEG_INFINITY)),
        (b"(-123\r\n", Frame::BigNumber("-123".into())),
        (b"=5\r\ntxt:a\r\n", Frame::Verbatim("txt".into(), "a".into())),
        (
            b"%1\r\n+k\r\n*2\r\n:1\r\n*0\r\n",
            Frame::Map(vec![(
                Frame::Simple("k".into()),
                Frame::Array(vec![Frame::Integer(1), Frame::Array(vec![])]),
            )]),
        ),
        (b"%1\r\n|1\r\n+a\r\n+b\r\n:1\r\n:2\r\n", {
            Frame::Map(vec![(Frame::Integer(1), Frame::Integer(2))])
        }),
    ];
    for (input, expected) in cases {
        let (frames, error) = decode_any_way(input);
        assert_eq!(error, None, "{}", input.escape_ascii());
        assert_eq!(frames, std::slice::from_ref(expected), "{}", input.escape_ascii());
    }
}

#[test]
fn refused_replies() {
    let nested = b"*1\r\n".repeat(9);
    let long = [b'x'; 70];
    let cases: Vec<(&[u8], &str)> = vec![
        (b"x\r\n", "expected the first byte of a reply, got 'x'"),
        (b"\r\n", "expected the first byte of a reply, got '\\r'"),
        (b":+5\r\n", "invalid integer: \"+5\""),
        (b":05\r\n", "invalid integer: \"05\""),
        (b":\r\n", "invalid integer: \"\""),
        (b":9223372036854775808\r\n", "invalid integer: \"9223372036854775808\""),
        (b"$-2\r\n", "invalid length: \"-2\""),
        (b"$01\r\n", "invalid length: \"01\""),
        (b"~-1\r\n", "invalid length: \"-1\""),
        (b"*99999999999999999999\r\n", "invalid length: \"99999999999999999999\""),
        (b"$1001\r\n", "a bulk string (bytes) of more than 1000 is not accepted"),
        (b"*1001\r\n", "an aggregate (elements) of more than 1000 is not accepted"),
        (b"$1\r\nabc", "a reply does not end in CR LF"),
        (b"+a\rb\r\n", "a reply does not end in CR LF"),
        (b"#x\r\n", "invalid boolean: \"x\""),
        (b"_x\r\n", "invalid null: \"x\""),
        (b",1x\r\n", "invalid double: \"1x\""),
        (b"(1x\r\n", "invalid big number: \"1x\""),
        (b"(\r\n", "invalid big number: \"\""),
        (b"=3\r\ntxt\r\n", "invalid verbatim string: \"txt\""),
        (b"$?\r\n", "streamed replies ('$?') are not supported"),
        (b"*?\r\n", "streamed replies ('*?') are not supported"),
        (b";4\r\n", "expected the first byte of a reply, got ';'"),
        (&nested, "replies nested deeper than 8 are not accepted"),
        (&long, "a line (bytes) of more than 64 is not accepted"),
    ];
    for (input, text) in cases {
        let (_, error) = decode_any_way(input);
        assert_eq!(
            error.map(|error| error.to_string()).as_deref(),
            Some(text),
            "{}",
            input.escape_ascii()
        );
    }
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let leaf = prop_oneof![
        "[ -~]{0,10}".prop_map(Frame::Simple),
        "[ -~]{0,10}".prop_map(Frame::Error),
        any::<i64>().prop_map(Frame::Integer),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Frame::Bulk),
        Just(Frame::Null),
        any::<f64>().prop_filter("equal to itself", |f| !f.is_nan()).prop_map(Frame::Double),
        any::<bool>().prop_map(Frame::Boolean),
        "-?[0-9]{1,30}".prop_map(Frame::BigNumber),
        "[ -~\r\n]{0,10}".prop_map(|text| Frame::Verbatim("mkd".into(), text)),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let items = prop::collection::vec(inner.clone(), 0..4);
        let pairs = prop::collection::vec((inner.clone(), inner), 0..3);
        prop_oneof![
            items.clone().prop_map(Frame::Array),
            items.clone().prop_map(Frame::Set),
            items.prop_map(Frame::Push),
            pairs.prop_map(Frame::Map),
        ]
    })
}

proptest! {
    #[test]
    fn resp3_frames_come_back(
        frames in prop::collection::vec(any_frame(), 1..4),
        step in 1usize..40,
    ) {
        let mut encoder = Encoder::new(Protocol::Resp3);
        frames.iter().for_each(|frame| encoder.frame(frame));
        let (decoded, error) = decode_in_steps(&encoder.out, step);
        prop_assert_eq!(error, None);
        prop_assert_eq!(decoded, frames);
    }

    #[test]
    fn resp2_bytes_of_any_frame_are_valid_replies(frame in any_frame()) {
        let mut encoder = Encoder::new(Protocol::Resp2);
        encoder.frame(&frame);
        let (decoded, error) = decode_in_steps(&encoder.out, usize::MAX);
        prop_assert_eq!(error, None);
        prop_assert_eq!(decoded.len(), 1);
    }

    #[test]
    fn arbitrary_bytes_decode_the_same_however_split(
        input in prop::collection::vec(
            prop_oneof![
                Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'0'),
                Just(b'%'), Just(b'|'), Just(b'='), Just(b'+'), Just(b'-'), any::<u8>(),
            ],
            0..80,
        ),
    ) {
        decode_any_way(&input);
    }
}

#[test]
fn attributes_come_before_replies_of_any_length() {
    let mut encoder = Encoder::new(Protocol::Resp3);
    let mut expected = Vec::new();
    let two: &[(&'static str, i64)] = &[("rev", 7), ("undo", -1)];
    let mut put = |pairs: &[(&'static str, i64)], len: usize| {
        let start = encoder.out.len();
        let reply = "abcdefghij".repeat(len / 10 + 1)[..len].to_owned();
        encoder.bulk(reply.as_bytes());
        encoder.put_attributes_before(start, pairs);
        expected.extend(format!("|{}\r\n", pairs.len()).into_bytes());
        for (name, value) in pairs {
            expected.extend(format!("${}\r\n{name}\r\n:{value}\r\n", name.len()).into_bytes());
        }
        expected.extend(format!("${len}\r\n{reply}\r\n").into_bytes());
        assert_eq!(encoder.out, expected, "{pairs:?} {len}");
    };
    // Numbers that count up, stay, jump and go back, over all lengths of them.
    let counting = (0..120).chain([119, 120, 998, 999, 1000, 1001, 1001, 7]);
    let edges = [i64::MAX - 1, i64::MAX, i64::MIN, -10, -9, -1, 0, 9, 10, 99_999, 100_000];
    for (len, value) in counting.chain(edges).enumerate() {
        put(&[("rev", value)], len);
        if len % 7 == 0 {
            put(two, len);
            put(&[("other", value + i64::from(value < i64::MAX))], len);
        }
    }
}
