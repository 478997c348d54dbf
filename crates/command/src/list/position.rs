//! LPOS: where in a list an element is.

use base::Reply;
use keyspace::types::List;

use crate::args::{Args, at_least};
use crate::ctx::Ctx;
use crate::error::{Error, Result};

/// The options of LPOS.
struct Search {
    /// Which match is the first that counts, from 1; negative: from the end.
    rank: i64,
    /// How many matches to answer; `Some(0)`: all; `None`: one, not in an array.
    count: Option<usize>,
    /// How many elements to look at.
    len_max: usize,
}

impl Search {
    fn parse(mut args: Args<'_>) -> Result<Search> {
        let mut search = Search { rank: 1, count: None, len_max: usize::MAX };
        while !args.is_empty() {
            // A word without its value is as unknown as any other.
            if args.len() < 2 {
                return Err(Error::SYNTAX);
            }
            if args.take_word("rank") {
                search.rank = rank(args.next_i64()?)?;
            } else if args.take_word("count") {
                let error = Error::new("ERR COUNT can't be negative");
                search.count = Some(at_least(0, args.next()?, error)?);
            } else if args.take_word("maxlen") {
                let error = Error::new("ERR MAXLEN can't be negative");
                search.len_max = match at_least(0, args.next()?, error)? {
                    0 => usize::MAX,
                    len => len,
                };
            } else {
                return Err(Error::SYNTAX);
            }
        }
        Ok(search)
    }

    /// The indices of the matches to answer.
    fn run(&self, list: &List, element: &[u8]) -> Vec<usize> {
        let skip = usize::try_from(self.rank.unsigned_abs() - 1).unwrap_or(usize::MAX);
        let take = match self.count {
            None => 1,
            Some(0) => usize::MAX,
            Some(count) => count,
        };
        let matching = |(_, value): &(usize, &[u8])| *value == element;
        if self.rank > 0 {
            let looked_at = list.iter().enumerate().take(self.len_max);
            looked_at.filter(matching).map(|(at, _)| at).skip(skip).take(take).collect()
        } else {
            let last = list.len() - 1;
            let looked_at = list.iter().rev().enumerate().take(self.len_max);
            looked_at.filter(matching).map(|(at, _)| last - at).skip(skip).take(take).collect()
        }
    }
}

fn rank(rank: i64) -> Result<i64> {
    match rank {
        0 => Err(Error::new(
            "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or \
             use negative to start from the end of the list",
        )),
        i64::MIN => Err(Error::not_between(-i64::MAX, i64::MAX)),
        rank => Ok(rank),
    }
}

pub(super) fn lpos(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let search = Search::parse(Args::new(&args[2..]))?;
    let found = match ctx.tx.collection::<List>(args[0])? {
        Some(list) => search.run(list, args[1]),
        None => Vec::new(),
    };
    if search.count.is_some() {
        reply.array(found.len());
        found.into_iter().for_each(|index| reply.count(index));
    } else {
        match found.first() {
            Some(&index) => reply.count(index),
            None => reply.null(),
        }
    }
    Ok(())
}
