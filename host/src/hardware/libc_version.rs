//! The version of the C library that this process runs on.
#![cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "glibc tells its version through a C function only")
)]

/// Version of glibc, such as `2.36`; `None` on another C library.
#[cfg(target_env = "gnu")]
pub(super) fn glibc() -> Option<String> {
    // SAFETY: the function takes nothing, may be called from any thread, and returns a static string that ends with NUL.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    version.to_str().ok().map(str::to_owned)
}

/// Version of glibc, such as `2.36`; `None` on another C library.
#[cfg(not(target_env = "gnu"))]
pub(super) fn glibc() -> Option<String> {
    None
}
