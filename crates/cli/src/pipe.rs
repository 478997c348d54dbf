//! `--pipe`: many requests from standard input, as fast as the server takes
//! them.

use std::io::{self, Read, Write};

use base::Frame;
use resp::{Decoder, Limits};

use crate::run::Stop;
use crate::session::Session;

/// Requests sent before their replies are looked at.
const BATCH_REQUESTS: usize = 1000;
/// Error replies shown one by one; the rest are only counted.
const ERRORS_SHOWN: u64 = 10;

#[derive(Default)]
struct Totals {
    replies: u64,
    errors: u64,
}

/// Sends what `input` holds: RESP requests, lines, or both. Whether all of
/// them were answered without an error.
pub(crate) fn run(
    session: &mut Session,
    input: &mut dyn Read,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<bool, Stop> {
    let mut decoder = Decoder::new(Limits::default());
    let mut totals = Totals::default();
    let mut buffer: Vec<u8> = Vec::new();
    let mut batch: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut is_end = false;
    while !is_end {
        is_end = read_more(input, &mut buffer).map_err(Stop::Input)? == 0;
        if is_end && !buffer.is_empty() && !buffer.ends_with(b"\n") {
            // The last line of a text file may lack its end.
            buffer.push(b'\n');
        }
        let mut done = 0;
        while let Some(request) = decoder
            .decode(&buffer[done..])
            .map_err(|error| not_a_request(totals.replies + batch.len() as u64, &error))?
        {
            done += request.consumed;
            if !request.is_empty() {
                batch.push(request.iter().map(<[u8]>::to_vec).collect());
            }
            if batch.len() == BATCH_REQUESTS {
                send(session, &mut batch, &mut totals, err)?;
            }
        }
        buffer.drain(..done);
        if is_end || batch.iter().flatten().map(Vec::len).sum::<usize>() > 1 << 20 {
            send(session, &mut batch, &mut totals, err)?;
        }
    }
    if !buffer.is_empty() {
        let at = totals.replies + 1;
        return Err(Stop::Other(format!("request {at} ends in the middle")));
    }
    let Totals { replies, errors } = totals;
    writeln!(out, "errors: {errors}, replies: {replies}").map_err(Stop::Output)?;
    Ok(errors == 0)
}

fn read_more(input: &mut dyn Read, buffer: &mut Vec<u8>) -> io::Result<usize> {
    const CHUNK: usize = 64 * 1024;
    let before = buffer.len();
    buffer.resize(before + CHUNK, 0);
    let count = loop {
        match input.read(&mut buffer[before..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                buffer.truncate(before);
                return Err(error);
            }
            Ok(count) => break count,
        }
    };
    buffer.truncate(before + count);
    Ok(count)
}

fn not_a_request(before: u64, error: &resp::ProtocolError) -> Stop {
    Stop::Other(format!("request {} is not RESP: {error}", before + 1))
}

fn send(
    session: &mut Session,
    batch: &mut Vec<Vec<Vec<u8>>>,
    totals: &mut Totals,
    err: &mut dyn Write,
) -> Result<(), Stop> {
    for reply in session.pipeline(batch)? {
        totals.replies += 1;
        if let Frame::Error(text) = reply {
            totals.errors += 1;
            if totals.errors <= ERRORS_SHOWN {
                let text = crate::print::visible(&text);
                writeln!(err, "request {}: {text}", totals.replies).map_err(Stop::Output)?;
            }
        }
    }
    batch.clear();
    Ok(())
}
