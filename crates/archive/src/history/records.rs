//! Looking records up.

use base::Revision;
use log::Place;

use super::error::HistoryError;
use super::{History, View};

/// A record found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Its revision.
    pub revision: Revision,
    /// Where it is in the log.
    pub place: Place,
}

/// Records found, newest first: [`History::records`]. It reads as it goes, so
/// whoever wants only the newest few pays for no more.
#[derive(Debug)]
pub struct Records<'a> {
    history: &'a History,
    hash: u32,
    after: Revision,
    /// What is later has been read.
    upto: Revision,
    /// Read and not answered yet, in order.
    found: Vec<Hit>,
    /// How many are wanted the next time: most want one.
    enough: usize,
}

/// As many as are wanted at a time at most.
const ENOUGH_MAX: usize = 256;

impl<'a> Records<'a> {
    pub(super) fn new(
        history: &'a History,
        hash: u32,
        after: Revision,
        upto: Revision,
    ) -> Records<'a> {
        let after = after.max(history.horizon());
        let upto = upto.min(history.noted());
        Records { history, hash, after, upto, found: Vec::new(), enough: 1 }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Hit, HistoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.found.is_empty() && self.upto > self.after {
            let (history, hash, after, upto) = (self.history, self.hash, self.after, self.upto);
            let (first, enough) = (history.segment_of(upto)?, self.enough);
            self.enough = (enough * 4).min(ENOUGH_MAX);
            let ask = |view: View<'_>| view.newest(hash, after, upto, enough, &history.files);
            match history.view(first, ask) {
                Ok(found) => {
                    let read = found.first().map_or(first, |hit| hit.revision);
                    self.upto = Revision(read.0 - 1);
                    self.found = found;
                }
                Err(error) => {
                    self.upto = self.after;
                    return Some(Err(error));
                }
            }
        }
        self.found.pop().map(Ok)
    }
}
