//! CLIENT.

use command::{Error, Result};

use crate::call::{Call, Handler};
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[
    ("client|caching", unsupported),
    ("client|getname", unsupported),
    ("client|getredir", unsupported),
    ("client|help", unsupported),
    ("client|id", unsupported),
    ("client|info", unsupported),
    ("client|kill", unsupported),
    ("client|list", unsupported),
    ("client|no-evict", unsupported),
    ("client|no-touch", unsupported),
    ("client|pause", unsupported),
    ("client|reply", unsupported),
    ("client|setinfo", unsupported),
    ("client|setname", unsupported),
    ("client|tracking", unsupported),
    ("client|trackinginfo", unsupported),
    ("client|unblock", unsupported),
    ("client|unpause", unsupported),
];

fn unsupported(_call: &mut Call<'_, '_>) -> Result<Outcome> {
    Err(Error::new("ERR under construction"))
}
