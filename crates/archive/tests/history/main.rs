//! The history over disks that tests own, and a log that is a list.

mod crash;
mod damage;
mod fake_log;
mod fixture;
mod model;
mod real_log;
