//! Which of the build tools the system has in a usable version.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;

/// llama.cpp's CUDA build asks for 3.18; its CPU build would do with less.
const CMAKE_VERSION_MIN: (u32, u32) = (3, 18);

/// bindgen supports no older libclang.
const CLANG_MAJOR_MIN: u32 = 9;

/// Whether `PATH`, without the folder `except`, has a cmake that can build llama.cpp.
pub(super) fn has_cmake(except: &Path) -> bool {
    let Some(cmake) = process::find_program("cmake", except) else {
        return false;
    };
    let banner = process::stdout_of(Command::new(cmake).arg("--version"));
    banner.ok().and_then(|banner| cmake_version(&banner)).is_some_and(|version| version >= CMAKE_VERSION_MIN)
}

/// The first folder that holds libclang *and* the compiler headers that belong to it; both are needed, and Debian
/// packages them apart.
pub(super) fn libclang_folder() -> Option<PathBuf> {
    candidate_folders().into_iter().find(|folder| is_usable_libclang(folder))
}

/// `cmake version 3.31.6` → (3, 31)
fn cmake_version(banner: &str) -> Option<(u32, u32)> {
    let mut numbers = banner.lines().next()?.strip_prefix("cmake version ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn candidate_folders() -> Vec<PathBuf> {
    if let Some(folder) = env::var_os("LIBCLANG_PATH") {
        return vec![folder.into()];
    }
    // Debian keeps several versions side by side; the newest first.
    let mut debian: Vec<_> = fs::read_dir("/usr/lib").into_iter().flatten().flatten().collect();
    debian.retain(|entry| entry.file_name().to_string_lossy().starts_with("llvm-"));
    debian.sort_by_key(|entry| std::cmp::Reverse(major(&entry.file_name().to_string_lossy()[5..])));
    let others = ["/usr/lib64", "/usr/lib", "/Library/Developer/CommandLineTools/usr/lib"];
    debian.iter().map(|entry| entry.path().join("lib")).chain(others.map(PathBuf::from)).collect()
}

fn is_usable_libclang(folder: &Path) -> bool {
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let is_library = |name: &String| name.starts_with("libclang.so") || name == "libclang.dylib";
    // Fedora has the library in lib64 and its headers in lib.
    let header_roots = [folder.join("clang"), folder.join("../lib/clang")];
    let has_headers = |root: &PathBuf| {
        names(root).iter().any(|version| {
            major(version) >= CLANG_MAJOR_MIN && root.join(version).join("include/stddef.h").is_file()
        })
    };
    names(folder).iter().any(is_library) && header_roots.iter().any(has_headers)
}

/// The number at the front of a version such as `18` or `18.1.8`; 0 where there is none.
fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cmake_versions_are_read_from_the_banner() {
        for (banner, version) in [
            ("cmake version 3.25.1\n\nCMake suite maintained by Kitware", Some((3, 25))),
            ("cmake version 4.4.5", Some((4, 4))),
            ("cmake version four", None),
            ("", None),
        ] {
            assert_eq!(cmake_version(banner), version, "{banner:?}");
        }
    }

    #[test]
    fn libclang_is_usable_only_with_its_headers_and_new_enough() {
        let folder = tempfile::tempdir().unwrap();
        let lib = folder.path();
        let add_headers = |version: &str| {
            let include = lib.join("clang").join(version).join("include");
            fs::create_dir_all(&include).unwrap();
            fs::write(include.join("stddef.h"), "").unwrap();
        };
        assert!(!is_usable_libclang(lib), "empty");
        fs::write(lib.join("libclang.so.1"), "").unwrap();
        assert!(!is_usable_libclang(lib), "no headers");
        add_headers("8.0.1");
        assert!(!is_usable_libclang(lib), "too old");
        add_headers("18");
        assert!(is_usable_libclang(lib));
    }
}
