//! Requests: what is accepted, what is refused and with which words.

use proptest::prelude::*;
use resp::{Decoder, Limits, ProtocolError, encode_command};

type Requests = Vec<Vec<Vec<u8>>>;

/// Feeds `input` in pieces of `step` bytes; the requests up to the first
/// error, the error, and how many bytes were left undecoded.
fn decode_in_steps(
    mut decoder: Decoder,
    input: &[u8],
    step: usize,
) -> (Requests, Option<ProtocolError>, usize) {
    let (mut buffer, mut requests) = (Vec::new(), Vec::new());
    for piece in input.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            let consumed = match decoder.decode(&buffer) {
                Ok(None) => break,
                Err(error) => return (requests, Some(error), buffer.len()),
                Ok(Some(request)) => {
                    if !request.is_empty() {
                        requests.push(request.iter().map(<[u8]>::to_vec).collect());
                    }
                    request.consumed
                }
            };
            assert!(consumed > 0 && consumed <= buffer.len());
            buffer.drain(..consumed);
        }
    }
    (requests, None, buffer.len())
}

fn small_limits() -> Limits {
    Limits {
        inline_bytes_max: 64,
        multibulk_len_max: 100,
        bulk_len_max: 1000,
        request_bytes_max: 2000,
        ..Limits::default()
    }
}

/// Decodes whole and in every step size; all must agree.
fn decode_any_way(input: &[u8], authenticated: bool) -> (Requests, Option<ProtocolError>) {
    let decoder = || {
        let mut decoder = Decoder::new(small_limits());
        decoder.set_authenticated(authenticated);
        decoder
    };
    let whole = decode_in_steps(decoder(), input, usize::MAX);
    for step in 1..input.len() {
        let split = decode_in_steps(decoder(), input, step);
        assert_eq!(
            (&split.0, &split.1),
            (&whole.0, &whole.1),
            "in steps of {step}: {}",
            input.escape_ascii()
        );
    }
    (whole.0, whole.1)
}

#[test]
fn accepted_requests() {
    let ping = || vec![b"PING".to_vec()];
    let cases: &[(&[u8], Requests)] = &[
        (b"", vec![]),
        (b"*1\r\n$4\r\nPING\r\n", vec![ping()]),
        (b"*1\r\n$4\r\nPING\r\nPING\r\n*1\r\n$4\r\nPING\r\n", vec![ping(), ping(), ping()]),
        (b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n", vec![vec![b"GET".to_vec(), vec![]]]),
        (b"*1\r\n$12\r\n\r\n$4\r\nPING\r\n\r\n", vec![vec![b"\r\n$4\r\nPING\r\n".to_vec()]]),
        (b"*0\r\n*-1\r\n*-99\r\n\r\n\n  \r\nPING\n", vec![ping()]),
        (b"  PING \t\r\n", vec![ping()]),
        (b"SET k \"a\\r\\nb\"\r\n", vec![vec![b"SET".to_vec(), b"k".to_vec(), b"a\r\nb".to_vec()]]),
        (b"$4\r\n", vec![vec![b"$4".to_vec()]]),
        (b"*1\r\n$4\r\nPIN", vec![]),
    ];
    for (input, expected) in cases {
        let (requests, error) = decode_any_way(input, true);
        assert_eq!(error, None, "{}", input.escape_ascii());
        assert_eq!(&requests, expected, "{}", input.escape_ascii());
    }
}

#[test]
fn refused_argument_counts() {
    for count in [
        "",
        "+5",
        "05",
        "00",
        "-0",
        "-",
        "--1",
        " 1",
        "1 ",
        "1x",
        "x",
        "?",
        "101",
        "2147483648",
        "9223372036854775808",
        "99999999999999999999",
        "1e1",
        "0x1",
        "1\0",
        "\u{ff11}",
        "3\n",
    ] {
        let input = format!("*{count}\r\n$1\r\na\r\n");
        let (requests, error) = decode_any_way(input.as_bytes(), true);
        assert_eq!(error, Some(ProtocolError::InvalidMultibulkLength), "{input:?}");
        assert!(requests.is_empty(), "{input:?}");
    }
}

#[test]
fn refused_argument_lengths() {
    for length in [
        "",
        "+5",
        "05",
        "-0",
        "-1",
        "-10",
        "-",
        " 1",
        "1 ",
        "blabla",
        "?",
        "1001",
        "2000000000",
        "9223372036854775807",
        "9223372036854775808",
        "99999999999999999999",
        "1\0",
    ] {
        let input = format!("*1\r\n${length}\r\naaaaaaaa\r\n");
        let (_, error) = decode_any_way(input.as_bytes(), true);
        assert_eq!(error, Some(ProtocolError::InvalidBulkLength), "{input:?}");
    }
}

#[test]
fn refused_requests_in_redis_words() {
    let long = [b'1'; 70];
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"*1\rx".to_vec(), "invalid multibulk length"),
        (b"*1\r\n$1\rx".to_vec(), "invalid bulk length"),
        (b"*1\r\n$1\r\nab\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$2\r\nab\n\n".to_vec(), "invalid bulk length"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n".to_vec(), "expected '$', got 'f'"),
        (b"*1\r\n*1\r\n".to_vec(), "expected '$', got '*'"),
        (b"*1\r\n\xff1\r\n".to_vec(), "expected '$', got '?'"),
        ([b"*", &long[..]].concat(), "too big mbulk count string"),
        ([b"*1\r\n$", &long[..]].concat(), "too big bulk count string"),
        (long.to_vec(), "too big inline request"),
        ([&long[..], b"\r\n"].concat(), "too big inline request"),
        ([b"\0", &long[..], b"\r\n"].concat(), "too big inline request"),
        (b"set \"\"\"test-key\"\"\" test-value\r\n".to_vec(), "unbalanced quotes in request"),
        (b"GET 'a\r\n".to_vec(), "unbalanced quotes in request"),
    ];
    for (input, words) in cases {
        let (_, error) = decode_any_way(&input, true);
        let text = error.map(|error| error.to_string());
        let expected = format!("ERR Protocol error: {words}");
        assert_eq!(text.as_deref(), Some(expected.as_str()), "{}", input.escape_ascii());
    }
}

#[test]
fn a_whole_request_has_a_limit() {
    let mut input = b"*3\r\n$3\r\nSET\r\n".to_vec();
    for _ in 0..2 {
        input.extend_from_slice(b"$1000\r\n");
        input.extend_from_slice(&[b'v'; 1000]);
        input.extend_from_slice(b"\r\n");
    }
    let (_, error) = decode_any_way(&input, true);
    assert_eq!(error, Some(ProtocolError::TooBigRequest { limit: 2000 }));
}

#[test]
fn unauthenticated_clients_send_little() {
    let eleven = b"*11\r\n$4\r\nPING\r\n";
    assert_eq!(
        decode_any_way(eleven, false).1,
        Some(ProtocolError::UnauthenticatedMultibulkLength)
    );
    assert_eq!(decode_any_way(eleven, true).1, None);

    let bulk = b"*2\r\n$4\r\nAUTH\r\n$16385\r\n";
    let mut decoder = Decoder::new(Limits::default());
    decoder.set_authenticated(false);
    assert_eq!(
        decoder.decode(bulk).map(|_| ()).unwrap_err().to_string(),
        "ERR Protocol error: unauthenticated bulk length"
    );
    let mut decoder = Decoder::new(Limits::default());
    assert!(decoder.decode(bulk).expect("allowed once authenticated").is_none());
}

#[test]
fn the_missing_bytes_of_a_bulk_are_told() {
    let mut decoder = Decoder::new(Limits::default());
    let buffer = b"*2\r\n$3\r\nSET\r\n$100000\r\nabc";
    assert_eq!(decoder.bytes_missing(0), 0);
    assert!(decoder.decode(buffer).expect("valid").is_none());
    assert_eq!(decoder.bytes_missing(buffer.len()), 100_000 + 2 - 3);
    assert!(decoder.is_mid_request());
}

#[test]
fn one_byte_at_a_time_costs_linear_time() {
    // With a rescan from the start this needs 10^12 byte visits.
    let mut input = b"*1\r\n$1000000\r\n".to_vec();
    input.resize(input.len() + 1_000_000, b'x');
    input.extend_from_slice(b"\r\n");
    let mut decoder = Decoder::new(Limits::default());
    for end in 1..input.len() {
        assert!(decoder.decode(&input[..end]).expect("valid").is_none());
    }
    let request = decoder.decode(&input).expect("valid").expect("complete");
    assert_eq!((request.len(), request.consumed), (1, input.len()));
}

proptest! {
    #[test]
    fn commands_come_back(
        commands in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5),
            1..5,
        ),
        step in 1usize..50,
    ) {
        let mut input = Vec::new();
        commands.iter().for_each(|args| encode_command(&mut input, args));
        let (requests, error, left) =
            decode_in_steps(Decoder::new(Limits::default()), &input, step);
        prop_assert_eq!(error, None);
        prop_assert_eq!(left, 0);
        prop_assert_eq!(requests, commands);
    }

    #[test]
    fn arbitrary_bytes_decode_the_same_however_split(
        input in prop::collection::vec(
            prop_oneof![
                Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'0'),
                Just(b'"'), Just(b'\\'), Just(b'\''), Just(0u8), any::<u8>(),
            ],
            0..80,
        ),
    ) {
        decode_any_way(&input, true);
        decode_any_way(&input, false);
    }
}
