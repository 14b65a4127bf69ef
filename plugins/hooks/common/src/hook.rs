//! What every hook has: a border to the host, rules that it reads once, and a description.

/// Makes the hook of a crate: its type `Hook`, which then implements the interface of its world, the module `bindings` with
/// the host's contract in Rust, and `rules()`, the operator's configuration as `Rules::parse` reads it.
///
/// The exports are left out of native builds, which are for tests: no linker of a native library takes their names.
#[macro_export]
macro_rules! hook {
    (world: $world:literal, name: $name:literal, summary: $summary:literal) => {
        mod bindings {
            #![cfg_attr(
                target_arch = "wasm32",
                expect(unsafe_code, reason = "wit-bindgen generates the border between the component and the host")
            )]

            $crate::wit_bindgen::generate!({
                world: $world,
                path: "../../../plugin-api/wit/since_v0.1.0",
                runtime_path: "::hook_common::wit_bindgen::rt",
            });

            #[cfg(target_arch = "wasm32")]
            export!(Hook);

            #[cfg(target_arch = "wasm32")]
            use super::Hook;
        }

        /// The hook.
        pub struct Hook;

        /// What the operator wants, or what is wrong with it.
        fn rules() -> Result<&'static Rules, String> {
            static RULES: std::sync::OnceLock<Result<Rules, String>> = std::sync::OnceLock::new();
            RULES.get_or_init(|| Rules::parse(&bindings::pajamas::hook::config::get())).as_ref().map_err(String::clone)
        }

        impl bindings::exports::pajamas::hook::info::Guest for Hook {
            fn describe() -> Result<bindings::exports::pajamas::hook::info::Description, String> {
                rules()?;
                Ok(bindings::exports::pajamas::hook::info::Description {
                    name: $name.to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    summary: $summary.to_owned(),
                })
            }
        }
    };
}
