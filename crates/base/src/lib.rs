//! The words every Alcid crate shares.
//!
//! Pure: no I/O, no async runtime. The only system clock of the workspace is
//! [`SystemClock`], behind the [`Clock`] trait, and every source of randomness
//! is an [`Rng`] that a test can seed.

mod clock;
pub mod glob;
pub mod leb128;
mod name;
pub mod number;
pub mod reply;
mod revision;
mod rng;
mod space;
mod tape;
pub mod units;
pub mod when;

pub use clock::{Clock, ManualClock, SystemClock};
pub use name::{NAME_BYTES_MAX, is_name};
pub use reply::{Frame, FrameBuilder, Reply};
pub use revision::Revision;
pub use rng::{Rng, SeededRng};
pub use space::SpaceId;
pub use tape::Tape;

/// Number of a logical database inside a branch, as in `SELECT`.
pub type DbIndex = u16;

/// Identifies a branch in log records. `main` is [`BranchId::MAIN`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchId(pub u32);

impl BranchId {
    /// The branch that always exists and has no parent.
    pub const MAIN: BranchId = BranchId(0);
}
