//! The framework, or what stands for it where there is none. Both have the same functions and the same type `Network`.

#[cfg(target_vendor = "apple")]
mod apple;
#[cfg(not(target_vendor = "apple"))]
mod elsewhere;
// The tests of it run everywhere.
#[cfg(any(target_vendor = "apple", test))]
mod layout;

#[cfg(target_vendor = "apple")]
pub(crate) use apple::{Network, compile, probe, system_version};
#[cfg(not(target_vendor = "apple"))]
pub(crate) use elsewhere::{Network, compile, probe, system_version};
