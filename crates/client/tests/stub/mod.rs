//! A RESP server for tests that answers each request by a function.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use resp::{Decoder, Limits};

/// What the stub does with one request.
#[allow(dead_code, reason = "each test binary uses its own part")]
pub enum Answer {
    Send(Vec<u8>),
    /// Says nothing and keeps the connection.
    Silence,
    /// Closes the connection.
    Close,
}

pub fn send(text: &str) -> Answer {
    Answer::Send(text.as_bytes().to_vec())
}

/// Serves connections one after the other, on a port of its own, until the
/// test process ends; returns the address. `answer` gets the number of the
/// connection (from 0) and the request's words.
pub fn serve(answer: impl Fn(usize, &[String]) -> Answer + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let addr = listener.local_addr().expect("address").to_string();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            serve_one(stream.expect("accept"), |words| answer(number, words));
        }
    });
    addr
}

fn serve_one(mut stream: TcpStream, answer: impl Fn(&[String]) -> Answer) {
    stream.set_nodelay(true).expect("a socket option");
    let mut decoder = Decoder::new(Limits::default());
    let (mut buffer, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => buffer.extend_from_slice(&chunk[..count]),
        }
        while let Some(request) = decoder.decode(&buffer).expect("the client sends RESP") {
            let words: Vec<String> =
                request.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            let consumed = request.consumed;
            buffer.drain(..consumed);
            match answer(&words) {
                // The client may be gone already; that is its right.
                Answer::Send(bytes) => drop(stream.write_all(&bytes)),
                Answer::Silence => {}
                Answer::Close => return,
            }
        }
    }
}
