//! Sending what a client did not ask for at this moment: messages, monitored
//! commands, invalidations.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::Frame;

use crate::client::Client;
use crate::engine::Engine;

impl Engine {
    /// Puts a frame into a client's outbox. A client that does not take its
    /// pushes is disconnected when they exceed `client-output-buffer-limit`.
    pub(crate) fn push(&self, client: &Arc<Client>, frame: Arc<Frame>) {
        // Nobody takes it any more, so nothing may gather.
        if client.is_killed() {
            return;
        }
        let waiting = client.outbox.push(frame) as u64;
        // Redis's fixed buffer, which no limit counts: the common case looks at
        // no settings.
        if waiting < 16 * 1024 {
            client.outbox.over_soft_since_ms.store(0, Ordering::Relaxed);
            return;
        }
        let limits = self.live().settings.output_buffer_limits;
        let is_subscriber = client.is_subscriber();
        let limit = if is_subscriber { limits.pubsub } else { limits.normal };
        let is_over_hard = limit.hard_bytes > 0 && waiting > limit.hard_bytes;
        if is_over_hard || self.is_over_soft_for_long(client, waiting, limit) {
            self.stats.output_buffer_limit_disconnections.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                client = client.id,
                "closed: {waiting} bytes of pushes exceed client-output-buffer-limit {} ({} bytes, or {} for {} s)",
                if is_subscriber { "pubsub" } else { "normal" },
                limit.hard_bytes,
                limit.soft_bytes,
                limit.soft_seconds,
            );
            self.clients.kill(client);
            client.outbox.clear();
        }
    }

    fn is_over_soft_for_long(
        &self,
        client: &Client,
        waiting: u64,
        limit: settings::OutputLimit,
    ) -> bool {
        let since = &client.outbox.over_soft_since_ms;
        if limit.soft_bytes == 0 || waiting <= limit.soft_bytes {
            since.store(0, Ordering::Relaxed);
            return false;
        }
        let now_ms = self.clock.now_ms().max(1);
        match since.compare_exchange(0, now_ms, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => false,
            Err(began_ms) => now_ms.saturating_sub(began_ms) > limit.soft_seconds * 1000,
        }
    }
}
