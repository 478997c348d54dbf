//! WAIT and WAITAOF.

use command::{Error, Result};

use crate::call::{Call, Handler};
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("wait", unsupported), ("waitaof", unsupported)];

fn unsupported(_call: &mut Call<'_, '_>) -> Result<Outcome> {
    Err(Error::new("ERR under construction"))
}
