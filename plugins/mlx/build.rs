//! Says where the plugin finds MLX at run time: beside itself, as `cargo xtask build` lays it out.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The wheel's own library looks for its companions at ../../mlx_cpu.libs, so its folders keep their shape.
    let origin = if cfg!(target_os = "macos") { "@loader_path" } else { "$ORIGIN" };
    println!("cargo:rustc-cdylib-link-arg=-Wl,-rpath,{origin}/mlx/lib");
}
