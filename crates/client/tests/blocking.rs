//! The blocking client against a stub server.

mod stub;

use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use client::{Client, ClientError, Frame, Options, Protocol};
use stub::{Answer, send, serve};

fn echo(words: &[String]) -> Answer {
    let text = words.join(" ");
    send(&format!("${}\r\n{text}\r\n", text.len()))
}

#[test]
fn replies_pipelines_and_errors() {
    let addr = serve(|_, words| match words[0].as_str() {
        "FAIL" => send("-WRONGTYPE no\r\n"),
        _ => echo(words),
    });
    let mut client = Client::connect(Options::new(addr)).expect("connect");
    assert_eq!(client.command(&["GET", "a"]).expect("reply"), Frame::bulk("GET a"));

    let error = client.command(&["FAIL"]).expect_err("an error reply");
    assert!(
        matches!(&error, ClientError::Server { code, message }
            if code == "WRONGTYPE" && message == "WRONGTYPE no"),
        "{error:?}"
    );
    assert_eq!(error.to_string(), "WRONGTYPE no");
    assert_eq!(client.request(&["FAIL"]).expect("reply"), Frame::Error("WRONGTYPE no".into()));

    let replies = client.pipeline(&[vec!["A"], vec!["FAIL"], vec!["B", "1"]]).expect("replies");
    let error = Frame::Error("WRONGTYPE no".into());
    assert_eq!(replies, [Frame::bulk("A"), error, Frame::bulk("B 1")]);
    let none: [Vec<&str>; 0] = [];
    assert!(client.pipeline(&none).expect("nothing to do").is_empty());
}

#[test]
fn a_pipeline_beyond_all_buffers_does_not_lock_up() {
    let addr = serve(|_, words| echo(words));
    let mut client = Client::connect(Options::new(addr)).expect("connect");
    let value = "v".repeat(2000);
    let requests: Vec<[&str; 2]> = (0..10_000).map(|_| ["ECHO", value.as_str()]).collect();
    let replies = client.pipeline(&requests).expect("replies");
    assert_eq!(replies.len(), 10_000);
    assert!(replies.iter().all(|reply| *reply == Frame::bulk(format!("ECHO {value}"))));
}

#[test]
fn handshake_goes_first_and_its_refusal_is_told() {
    let (sender, requests) = mpsc::channel();
    let addr = serve(move |_, words| {
        sender.send(words.join(" ")).expect("the test listens");
        if words.contains(&"wrong".to_owned()) {
            send("-WRONGPASS invalid username-password pair or user is disabled.\r\n")
        } else {
            send("+OK\r\n")
        }
    });
    let options = Options {
        protocol: Protocol::Resp3,
        password: Some("wrong".into()),
        db: 2,
        ..Options::new(addr)
    };
    let error = Client::connect(options.clone()).expect_err("wrong password");
    assert!(matches!(&error, ClientError::Server { code, .. } if code == "WRONGPASS"), "{error:?}");
    let options = Options { password: Some("right".into()), ..options };
    Client::connect(options).expect("connect");
    assert_eq!(
        requests.try_iter().collect::<Vec<_>>(),
        ["HELLO 3 AUTH default wrong", "SELECT 2", "HELLO 3 AUTH default right", "SELECT 2"]
    );
}

#[test]
fn pushes_and_attributes_stand_beside_replies() {
    let addr = serve(|_, words| match words[0].as_str() {
        "GET" => send(">2\r\n+invalidate\r\n+k\r\n|1\r\n+rev\r\n:7\r\n+value\r\n"),
        "SUBSCRIBE" => send(">3\r\n+subscribe\r\n+c\r\n:1\r\n>3\r\n+message\r\n+c\r\n+hi\r\n"),
        _ => Answer::Silence,
    });
    let mut client = Client::connect(Options::new(addr)).expect("connect");
    let word = |text: &str| Frame::Simple(text.into());
    assert_eq!(client.command(&["GET", "k"]).expect("reply"), word("value"));
    assert_eq!(client.take_attributes(), [(word("rev"), Frame::Integer(7))]);
    let push = Frame::Push(vec![word("invalidate"), word("k")]);
    assert_eq!(client.take_push(), Some(push));
    assert_eq!(client.take_push(), None);

    client.send(&["SUBSCRIBE", "c"]).expect("send");
    let subscribed = client.receive(None).expect("push");
    let push = Frame::Push(vec![word("subscribe"), word("c"), Frame::Integer(1)]);
    assert_eq!(subscribed, Some(push));
    let message = client.receive(Some(Duration::from_secs(10))).expect("push");
    assert_eq!(message, Some(Frame::Push(vec![word("message"), word("c"), word("hi")])));
    let nothing = client.receive(Some(Duration::from_millis(10))).expect("still open");
    assert_eq!(nothing, None);
    assert!(!client.is_closed());
}

#[test]
fn connection_failures_by_variant() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.local_addr().expect("address").port()
    };
    let error = Client::connect(Options::new(format!("127.0.0.1:{port}"))).expect_err("refused");
    assert!(matches!(error, ClientError::ConnectRefused { .. }), "{error:?}");
    assert!(error.is_retryable());

    let error = Client::connect(Options::new("no-port")).expect_err("not an address");
    assert!(matches!(error, ClientError::Resolve { .. }), "{error:?}");
    assert!(!error.is_retryable());

    let addr = serve(|_, _| send("HTTP/1.1 400 Bad Request\r\n"));
    let mut client = Client::connect(Options::new(addr)).expect("connect");
    let error = client.command(&["GET", "a"]).expect_err("not RESP");
    assert!(matches!(error.root(), ClientError::Protocol { .. }), "{error:?}");
}

#[test]
fn an_unknown_outcome_is_told_and_nothing_is_sent_until_reconnect() {
    let (sender, requests) = mpsc::channel();
    let addr = serve(move |connection, words| {
        sender.send(format!("{connection} {}", words.join(" "))).expect("the test listens");
        match words[0].as_str() {
            "SLOW" => Answer::Silence,
            "DIE" => Answer::Close,
            _ => send("+OK\r\n"),
        }
    });
    let timeout = Some(Duration::from_millis(50));
    let options = Options { reply_timeout: timeout, ..Options::new(addr) };
    let mut client = Client::connect(options).expect("connect");

    let error = client.command(&["SLOW"]).expect_err("no reply");
    assert!(matches!(error, ClientError::UnknownOutcome { sent: 1, .. }), "{error:?}");
    assert!(matches!(error.root(), ClientError::Timeout { .. }), "{error:?}");
    assert!(!error.is_retryable());
    let text = error.to_string();
    assert!(text.starts_with("the outcome of 1 of 1 requests is unknown: no reply from"), "{text}");

    assert!(client.is_closed());
    let error = client.command(&["LATER"]).expect_err("closed");
    assert!(matches!(error, ClientError::Closed { .. }), "{error:?}");
    assert!(error.is_retryable());

    client.reconnect().expect("reconnect");
    client.options_mut().reply_timeout = None;
    let error = client.pipeline(&[["A"], ["DIE"], ["B"]]).expect_err("closed half way");
    match &error {
        ClientError::UnknownOutcome { sent: 3, answered, cause } => {
            assert_eq!(*answered, [Frame::Simple("OK".into())]);
            assert!(matches!(**cause, ClientError::Closed { .. }), "{cause:?}");
        }
        other => panic!("{other:?}"),
    }
    client.reconnect().expect("reconnect");
    client.command(&["C"]).expect("reply");
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), ["0 SLOW", "1 A", "1 DIE", "2 C"]);
}
