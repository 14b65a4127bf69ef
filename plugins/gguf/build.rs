//! Tells the linker where the plugin's library finds llama.cpp's own libraries, where these are separate.

/// Only the feature `dynamic-backends` makes separate libraries; they lie in the same folder as the plugin's.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_on = |variable: &str| std::env::var_os(variable).is_some();
    if !is_on("CARGO_FEATURE_DYNAMIC_BACKENDS") {
        return;
    }
    let system = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let folder_of_the_library = match system.as_str() {
        "windows" => return,
        "macos" => "@loader_path",
        _ => "$ORIGIN",
    };
    println!("cargo::rustc-cdylib-link-arg=-Wl,-rpath,{folder_of_the_library}");
}
