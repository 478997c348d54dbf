//! Who makes a transaction, as the record of it begins.

use std::hint::cold_path;
use std::ptr;

use command::Command;
use keyspace::effect::Effect;

/// The origin of a session's last write, encoded. The next one is mostly by the
/// same command, and every write pays for what is done here.
#[derive(Debug, Default)]
pub(crate) struct LastOrigin {
    command: Option<&'static Command>,
    user: String,
    encoded: Vec<u8>,
}

impl LastOrigin {
    /// The encoded [`Effect::Origin`]. A session has one address.
    #[inline]
    pub(crate) fn of(&mut self, command: &'static Command, user: &str, address: &str) -> &[u8] {
        let is_same = self.command.is_some_and(|last| ptr::eq(last, command)) && self.user == user;
        if !is_same {
            cold_path();
            user.clone_into(&mut self.user);
            self.command = Some(command);
            self.encoded.clear();
            let (command, address) = (command.full_name.as_bytes(), address.as_bytes());
            Effect::Origin { command, user: user.as_bytes(), address }.encode(&mut self.encoded);
        }
        &self.encoded
    }
}

#[cfg(test)]
mod tests {
    use keyspace::effect::Effects;

    use super::*;

    #[test]
    fn an_origin_is_that_of_the_command_and_user_asked_for() {
        let find = |name: &str| command::table().find(name.as_bytes()).expect("it is one");
        let mut last = LastOrigin::default();
        for (name, user) in
            [("set", "ann"), ("set", "ann"), ("del", "ann"), ("del", "bob"), ("set", "")]
        {
            let encoded = last.of(find(name), user, "here:1");
            let found: Vec<_> = Effects::new(encoded).map(Result::unwrap).collect();
            let (command, user, address) = (name.as_bytes(), user.as_bytes(), &b"here:1"[..]);
            assert_eq!(found, [Effect::Origin { command, user, address }]);
        }
    }
}
