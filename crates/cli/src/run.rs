use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use base::Frame;
use client::ClientError;
use resp::split_args;

use crate::args::{CliArgs, Format, Work};
use crate::hints::CommandHint;
use crate::print::{print, visible};
use crate::session::{Answer, Session, asks_for_a_key, is_streaming};
use crate::{pipe, repl};

/// Where this tool reads and writes.
pub struct Terminal<'a> {
    /// Standard input.
    pub input: &'a mut dyn BufRead,
    /// Whether a person types it.
    pub input_is_terminal: bool,
    /// Standard output: replies.
    pub out: &'a mut dyn Write,
    /// Standard error: everything else.
    pub err: &'a mut dyn Write,
}

/// Why no more commands are run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// No reply.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// Nobody reads what is printed.
    #[error("write the output: {0}")]
    Output(io::Error),
    /// The commands cannot be read.
    #[error("read the commands: {0}")]
    Input(io::Error),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

const OK: u8 = 0;
const REFUSED: u8 = 1;
const NO_ANSWER: u8 = 2;

/// Runs `alcid cli` on the process' own terminal. `commands` is the command
/// table, for completion, hints and help at the prompt.
#[must_use]
pub fn run(args: &CliArgs, commands: &[CommandHint]) -> ExitCode {
    let stdin = io::stdin();
    let mut terminal = Terminal {
        input_is_terminal: stdin.is_terminal(),
        // Not locked: the line editor reads standard input by itself.
        input: &mut BufReader::new(stdin),
        out: &mut io::stdout().lock(),
        err: &mut io::stderr().lock(),
    };
    ExitCode::from(run_on(&mut terminal, args, commands))
}

/// Runs `alcid cli` on any terminal, and answers its exit status.
pub fn run_on(terminal: &mut Terminal<'_>, args: &CliArgs, commands: &[CommandHint]) -> u8 {
    let work = args.work();
    if work == Work::Interactive && terminal.input_is_terminal {
        return repl::run(terminal, args, commands);
    }
    let result = Session::connect(args)
        .map_err(Stop::from)
        .and_then(|session| Runner::new(session, args, terminal).work(work));
    match result {
        Ok(true) => OK,
        Ok(false) => REFUSED,
        // Nobody wants the rest (`| head`).
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => OK,
        Err(stop) => {
            let _ = writeln!(terminal.err, "ERROR: {stop}");
            // A server that answers and refuses the user has answered.
            if matches!(stop, Stop::Client(ClientError::Server { .. })) {
                REFUSED
            } else {
                NO_ANSWER
            }
        }
    }
}

/// Runs commands one after the other and prints what they bring.
pub(crate) struct Runner<'a, 'b> {
    pub(crate) session: Session,
    format: Option<Format>,
    terminal: &'a mut Terminal<'b>,
}

impl<'a, 'b> Runner<'a, 'b> {
    pub(crate) fn new(session: Session, args: &CliArgs, terminal: &'a mut Terminal<'b>) -> Self {
        Runner { session, format: args.format, terminal }
    }

    /// Runs one command. SHUTDOWN has no answer but the connection's end.
    fn execute(&mut self, words: &[Vec<u8>]) -> Result<Option<Answer>, Stop> {
        let ends_server = words.first().is_some_and(|word| word.eq_ignore_ascii_case(b"shutdown"));
        match self.session.execute(words) {
            Err(ClientError::UnknownOutcome { .. }) if ends_server => Ok(None),
            answer => Ok(Some(answer?)),
        }
    }

    /// Whether everything was answered without an error.
    fn work(mut self, work: Work) -> Result<bool, Stop> {
        match work {
            Work::One(words) => self.one(&words),
            Work::Lines(lines) => match lines.as_slice() {
                [only] => match split_args(only) {
                    Some(words) => self.one(&words),
                    None => Err(unbalanced(&String::from_utf8_lossy(only))),
                },
                lines => {
                    let mut all = true;
                    for line in lines {
                        all &= self.line(line)?;
                    }
                    Ok(all)
                }
            },
            Work::File(path) if path == Path::new("-") => self.lines_of_input(),
            Work::File(path) => {
                let file = File::open(&path)
                    .map_err(|e| Stop::Other(format!("open {}: {e}", path.display())))?;
                self.lines(&mut BufReader::new(file))
            }
            Work::Pipe => {
                let Terminal { input, out, err, .. } = &mut *self.terminal;
                pipe::run(&mut self.session, &mut **input, &mut **out, &mut **err)
            }
            Work::Interactive => self.lines_of_input(),
        }
    }

    /// One command from the command line: the value itself on standard
    /// output, errors on standard error.
    fn one(&mut self, words: &[Vec<u8>]) -> Result<bool, Stop> {
        let format = self.format.unwrap_or(Format::Raw);
        if words.is_empty() {
            return Ok(true);
        }
        if is_streaming(words) {
            return self.stream(words, format);
        }
        let Some(answer) = self.execute(words)? else { return Ok(true) };
        match answer.frame {
            Frame::Error(text) => {
                self.complain(&format!("ERROR: {}", visible(&text)))?;
                Ok(false)
            }
            Frame::Null | Frame::NullArray if asks_for_a_key(words) => {
                if format == Format::Json {
                    self.show(&Frame::Null, format)?;
                }
                self.complain("ERROR: Key not found")?;
                Ok(false)
            }
            frame => {
                self.show(&frame, format)?;
                self.tell_way_back(words)?;
                Ok(true)
            }
        }
    }

    fn lines_of_input(&mut self) -> Result<bool, Stop> {
        let mut all = true;
        let mut line = Vec::new();
        while next_line(self.terminal.input, &mut line)? {
            all &= self.line(&line)?;
        }
        Ok(all)
    }

    fn lines(&mut self, input: &mut dyn BufRead) -> Result<bool, Stop> {
        let mut all = true;
        let mut line = Vec::new();
        while next_line(input, &mut line)? {
            all &= self.line(&line)?;
        }
        Ok(all)
    }

    /// Runs one line as typed at the prompt. Whether it went well; empty lines
    /// and comments do.
    pub(crate) fn line(&mut self, line: &[u8]) -> Result<bool, Stop> {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            return Ok(true);
        }
        let Some(words) = split_args(line) else {
            self.complain(&unbalanced(&String::from_utf8_lossy(line)).to_string())?;
            return Ok(false);
        };
        let format = self.format.unwrap_or(Format::Redis);
        if is_streaming(&words) {
            return self.stream(&words, format);
        }
        let Some(answer) = self.execute(&words)? else { return Ok(true) };
        for push in &answer.pushes {
            self.show(push, format)?;
        }
        // The other formats are for programs, which count one reply a line.
        if format == Format::Redis && !answer.attributes.is_empty() {
            self.show(&Frame::Attribute(answer.attributes), format)?;
        }
        self.show(&answer.frame, format)?;
        let is_error = matches!(answer.frame, Frame::Error(_));
        if !is_error {
            self.tell_way_back(&words)?;
        }
        Ok(!is_error)
    }

    /// Tells a person how to take back what a command took away. Scripts are not
    /// asked for more than they send.
    fn tell_way_back(&mut self, words: &[Vec<u8>]) -> Result<(), Stop> {
        let hint = self.terminal.input_is_terminal.then(|| self.session.way_back(words)).flatten();
        hint.map_or(Ok(()), |hint| self.complain(&hint))
    }

    /// Prints what has come without being asked for.
    pub(crate) fn show_messages(&mut self) -> Result<(), Stop> {
        while let Some(message) = self.session.poll() {
            self.show(&message, self.format.unwrap_or(Format::Redis))?;
        }
        Ok(())
    }

    /// Prints messages until the connection ends.
    fn stream(&mut self, words: &[Vec<u8>], format: Format) -> Result<bool, Stop> {
        self.session.stream(words)?;
        if self.terminal.input_is_terminal {
            self.complain("Reading messages... (press Ctrl-C to quit)")?;
        }
        loop {
            let frame = self.session.next_message()?;
            self.show(&frame, format)?;
            if matches!(frame, Frame::Error(_)) {
                return Ok(false);
            }
        }
    }

    fn show(&mut self, frame: &Frame, format: Format) -> Result<(), Stop> {
        let text = print(frame, format);
        self.terminal.out.write_all(&text).map_err(Stop::Output)?;
        self.terminal.out.flush().map_err(Stop::Output)
    }

    pub(crate) fn say(&mut self, text: &str) -> Result<(), Stop> {
        self.terminal.out.write_all(text.as_bytes()).map_err(Stop::Output)?;
        self.terminal.out.flush().map_err(Stop::Output)
    }

    pub(crate) fn complain(&mut self, text: &str) -> Result<(), Stop> {
        writeln!(self.terminal.err, "{text}").map_err(Stop::Output)
    }
}

/// Replaces `line` by the next one; whether there was one.
fn next_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> Result<bool, Stop> {
    line.clear();
    input.read_until(b'\n', line).map(|count| count > 0).map_err(Stop::Input)
}

fn unbalanced(line: &str) -> Stop {
    Stop::Other(format!("quotes do not match in: {}", visible(line)))
}
