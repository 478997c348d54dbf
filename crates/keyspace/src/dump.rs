//! Redis RDB value payloads (placeholder, replaced by its owner).
