//! What the host's contract `tensor-hook` looks like in Rust.
//!
//! The exports are left out of native builds, which are for tests: no linker of a native library takes their names.
#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "wit-bindgen generates the border between the component and the host")
)]

wit_bindgen::generate!({
    world: "tensor-hook",
    path: "../../../plugin-api/wit/since_v0.1.0",
});

#[cfg(target_arch = "wasm32")]
export!(Hook);

#[cfg(target_arch = "wasm32")]
use crate::Hook;
