//! DEBUG RELOAD: the keyspace again from what is on disk.

use keyspace::{Buffers, Keyspace, Scope, Txn};

use crate::engine::Engine;

impl Engine {
    /// Holds every client off, lets `replay` fill an empty keyspace from disk,
    /// and serves that one from then on. When `replay` fails, nothing changes.
    ///
    /// # Errors
    /// What `replay` says.
    pub fn reload(
        &self,
        replay: impl FnOnce(&Keyspace) -> Result<(), String>,
    ) -> Result<(), String> {
        let live = self.live();
        let options = self.txn_options(&live, self.clock.now_ms(), false);
        let mut buffers = Buffers::default();
        let mut txn =
            Txn::begin(&self.keyspace, &Scope::All, &*self.replicator, &mut buffers, options);
        let fresh = self.keyspace.empty_like();
        replay(&fresh)?;
        txn.replace_with(&fresh);
        txn.finish();
        self.load_anew();
        Ok(())
    }
}
