//! Commands of the engine that only look: at the past, at branches. They run as
//! they are, and their reply is told of.

use base::Tape;
use command::{Command, Result};

use super::{Asked, Report, Step, reply_of, sink};
use crate::call::Call;
use crate::execute::Outcome;

const ONLY_LOOK: &[&str] = &[
    "at",
    "blame",
    "branch|conflicts",
    "branch|current",
    "branch|diff",
    "branch|info",
    "branch|list",
    "changes",
    "echo",
    "history",
    "history.policy|get",
    "history.policy|list",
    "history.stats",
    "lastrev",
    "ping",
    "tag|list",
    "time",
    "timeline",
];

pub(super) fn only_looks(command: &Command) -> bool {
    ONLY_LOOK.contains(&command.full_name.as_str())
}

pub(super) fn run(call: &mut Call<'_, '_>, step: &Step<'_>, asked: Asked) -> Result<Outcome> {
    let engine = call.engine;
    let mut report = Report::new(asked, call.session.db);
    report.revision = engine.replicator.committed();
    let mut sink = sink(call);
    let outcome = engine.handler_of(step.command)(&mut Call {
        engine,
        session: &mut *call.session,
        command: step.command,
        args: step.command.arguments(&step.argv),
        reply: &mut sink,
        live: call.live,
        now_ms: call.now_ms,
        open: None,
        told: Some(asked),
    });
    let result = match outcome {
        // The answer, when it comes, is told of where it is made.
        Ok(outcome @ Outcome::Blocked(_)) => return Ok(outcome),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    let session = &mut *call.session;
    session.depends_on = session.depends_on.max(report.revision);
    report.write(reply_of(sink, result), call.reply);
    Ok(Outcome::Done)
}

impl Asked {
    /// What WHATIF answers of a command that answers `own` and changes nothing.
    pub(crate) fn tell(
        self,
        own: impl Into<Tape>,
        revision: base::Revision,
        is_resp3: bool,
    ) -> Tape {
        let mut report = Report::new(self, 0);
        report.revision = revision;
        let mut sink = Tape::new(is_resp3);
        report.write(own, &mut sink);
        sink
    }
}
