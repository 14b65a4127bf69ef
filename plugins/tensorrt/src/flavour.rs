//! The two libraries that this plugin can be built for, and what differs between them: TensorRT-RTX (feature `rtx`, the
//! default) and TensorRT (feature `enterprise`).

use pajamas_plugin_api::{ComputeCapability, ComputeRule};

const fn compute(major: u16, minor: u16) -> ComputeCapability {
    ComputeCapability { major, minor }
}

#[cfg(not(feature = "enterprise"))]
mod chosen {
    use super::{ComputeRule, compute};

    pub(crate) const NAME: &str = "TensorRT-RTX";
    /// Major, minor and patch of the headers that the plugin was compiled with; an engine is of exactly one version.
    pub const VERSION: [u8; 3] = [1, 7, 1];
    /// Oldest CUDA driver, as an integer.
    pub(crate) const DRIVER_MIN: i32 = 13_000;
    pub(crate) const LIBRARY: &str = "libtensorrt_rtx.so.1";
    pub(crate) const PARSER: &str = "libtensorrt_onnxparser_rtx.so.1";
    pub(crate) const HOW_TO_GET: &str = "`cargo xtask build --plugin tensorrt` fetches it; it is also in the Python package \
                                         `tensorrt-rtx-cu13-libs` 1.7.1";
    /// As the library lists them when it refuses another GPU.
    pub const SUPPORTED: &[ComputeRule] = &[
        ComputeRule::Exactly(compute(8, 0)),
        ComputeRule::Exactly(compute(8, 6)),
        ComputeRule::Exactly(compute(8, 9)),
        ComputeRule::AtLeast(compute(12, 0)),
    ];
}

#[cfg(feature = "enterprise")]
mod chosen {
    use super::{ComputeRule, compute};

    pub(crate) const NAME: &str = "TensorRT";
    /// Major, minor and patch of the headers that the plugin was compiled with; an engine is of exactly one version.
    pub const VERSION: [u8; 3] = [11, 4, 0];
    /// Oldest CUDA driver, as an integer.
    pub(crate) const DRIVER_MIN: i32 = 13_000;
    pub(crate) const LIBRARY: &str = "libnvinfer.so.11";
    pub(crate) const PARSER: &str = "libnvonnxparser.so.11";
    pub(crate) const HOW_TO_GET: &str = "it is in NVIDIA's package `tensorrt` 11.4 for CUDA 13 (pip, Debian or the archive \
                                         from developer.nvidia.com/tensorrt)";
    /// Not tried: the library itself has the last word when it makes its builder.
    pub const SUPPORTED: &[ComputeRule] = &[ComputeRule::AtLeast(compute(8, 0))];
}

pub(crate) use chosen::{DRIVER_MIN, HOW_TO_GET, LIBRARY, NAME, PARSER};
pub use chosen::{SUPPORTED, VERSION};

/// `TensorRT-RTX 1.7`.
pub(crate) fn name_and_version() -> String {
    let [major, minor, _] = VERSION;
    format!("{NAME} {major}.{minor}")
}

/// `TensorRT-RTX 1.7.1`.
pub(crate) fn full_version() -> String {
    let [major, minor, patch] = VERSION;
    format!("{NAME} {major}.{minor}.{patch}")
}

/// Why a GPU will not do, if it will not, in a sentence that says which would.
#[must_use]
pub fn unsupported_gpu(compute: ComputeCapability) -> Option<String> {
    if SUPPORTED.iter().any(|rule| rule.allows(compute)) {
        return None;
    }
    let rule = |rule: &ComputeRule| match rule {
        ComputeRule::Exactly(one) => one.to_string(),
        ComputeRule::AtLeast(least) => format!("{least} and newer"),
    };
    let list = SUPPORTED.iter().map(rule).collect::<Vec<_>>().join(", ");
    Some(format!("{} supports compute capability {list}; this GPU has {compute}", name_and_version()))
}
