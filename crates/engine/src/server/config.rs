//! CONFIG: settings while the server runs, by Redis's names.

use std::sync::atomic::Ordering;

use command::{Error, Result};
use settings::{SetError, config_get, config_set};

use crate::call::{Call, Handler, help};
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[
    ("config|get", get),
    ("config|help", config_help),
    ("config|resetstat", resetstat),
    ("config|rewrite", rewrite),
    ("config|set", set),
];

fn config_help(call: &mut Call<'_, '_>) -> Result<Outcome> {
    help(
        call,
        "CONFIG",
        &[
            "GET <pattern>",
            "    Return parameters matching the glob-like <pattern> and their values.",
            "SET <directive> <value>",
            "    Set the configuration <directive> to <value>.",
            "RESETSTAT",
            "    Reset statistics reported by the INFO command.",
            "REWRITE",
            "    Rewrite the configuration file.",
        ],
    )
}

fn get(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let found = config_get(&call.engine.settings(), call.args);
    call.reply.map(found.len());
    for (name, value) in found {
        call.reply.bulk(name.as_bytes());
        call.reply.bulk(value.as_bytes());
    }
    Ok(Outcome::Done)
}

/// Why CONFIG SET failed, as a whole error reply.
struct Refusal(String);

impl From<SetError> for Refusal {
    fn from(error: SetError) -> Refusal {
        Refusal(error.to_string())
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Refusal {
        Refusal(format!("ERR CONFIG SET failed - {reason}"))
    }
}

fn set(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let args = call.args;
    if !args.len().is_multiple_of(2) {
        return Err(Error::arity("config|set"));
    }
    let pairs: Vec<(&[u8], &[u8])> = args.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    call.engine
        .change_settings(|settings| {
            config_set(settings, &pairs)?;
            // After a full disk this is how an operator says that there is
            // space again; while nothing is wrong it does nothing.
            let takes_up = pairs.iter().any(|(name, value)| {
                name.eq_ignore_ascii_case(b"appendonly") && value.eq_ignore_ascii_case(b"yes")
            });
            if takes_up {
                call.engine.take_up()?;
            }
            Ok(())
        })
        .map_err(|Refusal(text)| Error::new(text))?;
    call.reply.ok();
    Ok(Outcome::Done)
}

fn resetstat(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.engine.stats.reset();
    let peak = &call.engine.gauges.memory_peak;
    peak.store(0, Ordering::Relaxed);
    call.reply.ok();
    Ok(Outcome::Done)
}

fn rewrite(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let Some(hook) = &call.engine.hooks.rewrite_config else {
        return Err(Error::new("ERR The server is running without a config file"));
    };
    hook(&call.engine.settings()).map_err(|reason| Error::new(format!("ERR {reason}")))?;
    call.reply.ok();
    Ok(Outcome::Done)
}
