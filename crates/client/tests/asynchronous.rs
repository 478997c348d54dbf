//! The asynchronous client against a stub server.

mod stub;

use std::net::TcpListener;
use std::time::Duration;

use client::{AsyncClient, ClientError, Frame, Options};
use stub::{Answer, send, serve};

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(future)
}

fn options() -> Options {
    Options::new(serve(|_, words| match words[0].as_str() {
        "ECHO" => send(&format!("${}\r\n{}\r\n", words[1].len(), words[1])),
        "FAIL" => send("-ERR no\r\n"),
        "SUBSCRIBE" => send(">2\r\n+subscribe\r\n:1\r\n"),
        "SLOW" => Answer::Silence,
        _ => Answer::Close,
    }))
}

#[test]
fn replies_pipelines_and_pushes() {
    block_on(async {
        let mut client = AsyncClient::connect(options()).await.expect("connect");
        assert_eq!(client.command(&["ECHO", "a"]).await.expect("reply"), Frame::bulk("a"));
        let error = client.command(&["FAIL"]).await.expect_err("an error reply");
        assert!(matches!(error, ClientError::Server { .. }), "{error:?}");
        let reply = client.request(&["FAIL"]).await.expect("a reply");
        assert_eq!(reply, Frame::Error("ERR no".into()));

        let value = "v".repeat(2000);
        let requests: Vec<[&str; 2]> = (0..5_000).map(|_| ["ECHO", value.as_str()]).collect();
        let replies = client.pipeline(&requests).await.expect("replies");
        assert_eq!(replies.len(), 5_000);
        assert!(replies.iter().all(|reply| *reply == Frame::bulk(&value)));

        client.send(&["SUBSCRIBE", "c"]).await.expect("send");
        let push = client.receive(None).await.expect("push");
        let expected = Frame::Push(vec![Frame::Simple("subscribe".into()), Frame::Integer(1)]);
        assert_eq!(push, Some(expected));
        let nothing = client.receive(Some(Duration::from_millis(10))).await.expect("open");
        assert_eq!(nothing, None);
        assert!(!client.is_closed());
    });
}

#[test]
fn failures_by_variant() {
    block_on(async {
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
            listener.local_addr().expect("address").port()
        };
        let refused = AsyncClient::connect(Options::new(format!("127.0.0.1:{port}"))).await;
        let error = refused.expect_err("refused");
        assert!(matches!(error, ClientError::ConnectRefused { .. }), "{error:?}");

        let reply_timeout = Some(Duration::from_millis(50));
        let options = Options { reply_timeout, ..options() };
        let mut client = AsyncClient::connect(options).await.expect("connect");
        let error = client.command(&["SLOW"]).await.expect_err("no reply");
        assert!(matches!(error, ClientError::UnknownOutcome { sent: 1, .. }), "{error:?}");
        assert!(matches!(error.root(), ClientError::Timeout { .. }), "{error:?}");
        assert!(matches!(
            client.command(&["ECHO", "a"]).await.expect_err("closed"),
            ClientError::Closed { .. }
        ));
        client.reconnect().await.expect("reconnect");
        let error = client.pipeline(&[vec!["ECHO", "a"], vec!["DIE"]]).await.expect_err("cut");
        match error {
            ClientError::UnknownOutcome { sent: 2, answered, .. } => {
                assert_eq!(answered, [Frame::bulk("a")]);
            }
            other => panic!("{other:?}"),
        }
    });
}
