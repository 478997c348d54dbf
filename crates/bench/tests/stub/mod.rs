//! A small store that speaks RESP2: enough of Redis for the tests of `bench`,
//! and able to lie.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base::{Frame, Reply};
use resp::{Decoder, Encoder, Limits, Protocol};

/// A fault to plant in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    None,
    /// Answers some `GET`s with another key's value.
    WrongValue,
    /// Says `OK` to some `SET`s and `MSET`s and forgets them.
    LostSet,
    /// Answers some `INCR`s and does not count them.
    LostIncr,
    /// Answers some pushes and drops the element.
    LostPush,
    /// Hands some elements out twice.
    PopTwice,
    /// Leaves the last element out of a range.
    ShortRange,
    /// Answers with an error.
    Error,
    /// Closes the connection after some requests.
    HangUp,
    /// Does not answer at all.
    Silence,
}

#[derive(Default)]
struct Store {
    strings: HashMap<Vec<u8>, Vec<u8>>,
    list: VecDeque<Vec<u8>>,
    set: BTreeSet<Vec<u8>>,
    hash: BTreeMap<Vec<u8>, Vec<u8>>,
    zset: BTreeSet<Vec<u8>>,
    requests: u64,
}

/// Starts a store on a port of its own that lives as long as the test process;
/// returns its address.
pub fn serve(lie: Lie) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let addr = listener.local_addr().expect("address").to_string();
    let store = Arc::new(Mutex::new(Store::default()));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let store = Arc::clone(&store);
            std::thread::spawn(move || serve_one(stream.expect("accept"), &store, lie));
        }
    });
    addr
}

fn serve_one(mut stream: TcpStream, store: &Mutex<Store>, lie: Lie) {
    stream.set_nodelay(true).expect("a socket option");
    let mut decoder = Decoder::new(Limits::default());
    let mut encoder = Encoder::new(Protocol::Resp2);
    let (mut buffer, mut chunk) = (Vec::new(), vec![0; 65_536]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => buffer.extend_from_slice(&chunk[..count]),
        }
        let mut at = 0;
        while let Some(request) = decoder.decode(&buffer[at..]).expect("bench sends RESP") {
            let mut store = store.lock().expect("no panics");
            if let Some(reply) = store.answer(&request.args(), lie) {
                encoder.frame(&reply);
            } else if lie == Lie::HangUp {
                return;
            }
            at += request.consumed;
        }
        buffer.drain(..at);
        if stream.write_all(&encoder.out).is_err() {
            return;
        }
        encoder.out.clear();
    }
}

impl Store {
    /// `None`: no answer.
    fn answer(&mut self, args: &[&[u8]], lie: Lie) -> Option<Frame> {
        self.requests += 1;
        let lies = |what: Lie| lie == what && self.requests.is_multiple_of(7);
        if lies(Lie::HangUp) || lie == Lie::Silence {
            return None;
        }
        if lies(Lie::Error) {
            return Some(Frame::Error("ERR planted".into()));
        }
        let count = |n: usize| Frame::Integer(n as i64);
        let ok = || Frame::Simple("OK".into());
        let bulk = |bytes: Option<&Vec<u8>>| bytes.map_or(Frame::Null, Frame::bulk);
        let command = String::from_utf8_lossy(args[0]).to_uppercase();
        Some(match command.as_str() {
            "PING" => Frame::Simple("PONG".into()),
            "SET" | "MSET" if lies(Lie::LostSet) => ok(),
            "SET" | "MSET" => {
                for pair in args[1..].chunks(2) {
                    self.strings.insert(pair[0].to_vec(), pair[1].to_vec());
                }
                ok()
            }
            "GET" if lies(Lie::WrongValue) => Frame::bulk("wrong"),
            "GET" => bulk(self.strings.get(args[1])),
            "INCR" => {
                let old = self.strings.get(args[1]).cloned().unwrap_or_else(|| b"0".to_vec());
                let value = base::number::parse_i64(&old).expect("a counter") + 1;
                if !lies(Lie::LostIncr) {
                    self.strings.insert(args[1].to_vec(), value.to_string().into_bytes());
                }
                Frame::Integer(value)
            }
            "DEL" => {
                match args[1] {
                    b"mylist" => self.list.clear(),
                    b"myset" => self.set.clear(),
                    b"myhash" => self.hash.clear(),
                    b"myzset" => self.zset.clear(),
                    other => panic!("bench deletes {}", other.escape_ascii()),
                }
                count(1)
            }
            "LPUSH" | "RPUSH" => {
                if !lies(Lie::LostPush) {
                    self.list.push_back(args[2].to_vec());
                }
                count(self.list.len().max(1))
            }
            "LPOP" | "RPOP" => bulk(self.list.pop_front().as_ref()),
            "LLEN" => count(self.list.len()),
            "LRANGE" => {
                let last: usize = String::from_utf8_lossy(args[3]).parse().expect("an index");
                let taken = last + 1 - usize::from(lies(Lie::ShortRange));
                Frame::Array(self.list.iter().take(taken).map(Frame::bulk).collect())
            }
            "SADD" => count(usize::from(self.set.insert(args[2].to_vec()))),
            "SCARD" => count(self.set.len()),
            "SPOP" => {
                let popped = self.set.pop_first();
                if let (true, Some(member)) = (lies(Lie::PopTwice), &popped) {
                    self.set.insert(member.clone());
                }
                bulk(popped.as_ref())
            }
            "HSET" => {
                let old = self.hash.insert(args[2].to_vec(), args[3].to_vec());
                count(usize::from(old.is_none()))
            }
            "HLEN" => count(self.hash.len()),
            "ZADD" => count(usize::from(self.zset.insert(args[3].to_vec()))),
            "ZCARD" => count(self.zset.len()),
            "ZPOPMIN" => Frame::Array(
                self.zset
                    .pop_first()
                    .map_or(vec![], |member| vec![Frame::bulk(member), Frame::bulk("1")]),
            ),
            other => Frame::Error(format!("ERR unknown command '{other}'")),
        })
    }
}
