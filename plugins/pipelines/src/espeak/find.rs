//! Where espeak-ng is.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use pajamas_plugin_api::{Error, ErrorKind};

/// What the library is called in a folder, newest first: systems have the first, Python packages may have the second.
#[cfg(target_os = "linux")]
const NAMES: &[&str] = &["libespeak-ng.so.1", "libespeak-ng.so"];
#[cfg(target_os = "macos")]
const NAMES: &[&str] = &["libespeak-ng.1.dylib", "libespeak-ng.dylib"];
#[cfg(target_os = "windows")]
const NAMES: &[&str] = &["espeak-ng.dll", "libespeak-ng.dll"];

/// The data folder beside a library that is not the system's.
const DATA: &str = "espeak-ng-data";

/// What to do when there is none.
pub(super) const HELP: &str = "install it (Debian and Ubuntu: apt-get install libespeak-ng1, Fedora: dnf install \
                               espeak-ng, macOS: brew install espeak-ng), or name the library with the option \
                               `espeak_library`";

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Makes `folder` the place where espeak-ng is looked for before the system's own places: a plugin calls this from its
/// `init` with `lib/espeak-ng` in its folder. The first call decides for the process.
pub fn search_in(folder: &Path) {
    FOLDER.get_or_init(|| folder.to_owned());
}

/// A library to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The file, or a bare name for the system's loader.
    pub(super) file: PathBuf,
    /// The folder that contains the library's data, if not where it was built for.
    pub(super) data_parent: Option<PathBuf>,
}

/// The libraries to try, in order: only `library` if it is given.
pub(super) fn places(library: Option<&Path>) -> Result<Vec<Place>, Error> {
    match library {
        Some(file) if file.is_file() => Ok(vec![Place::of_file(file.to_owned())]),
        Some(file) => Err(Error::new(
            ErrorKind::NotFound,
            format!("option `espeak_library`: there is no file {}", file.display()),
        )),
        None => Ok(in_folder(FOLDER.get().map(PathBuf::as_path)).into_iter().chain(of_system()).collect()),
    }
}

fn in_folder(folder: Option<&Path>) -> Option<Place> {
    let folder = folder?;
    NAMES.iter().map(|name| folder.join(name)).find(|file| file.is_file()).map(Place::of_file)
}

fn of_system() -> impl Iterator<Item = Place> {
    NAMES.iter().map(|name| Place { file: name.into(), data_parent: None })
}

impl Place {
    fn of_file(file: PathBuf) -> Self {
        let parent = file.parent().filter(|parent| parent.join(DATA).is_dir()).map(Path::to_owned);
        Self { file, data_parent: parent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_beside_its_data_brings_them() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(in_folder(Some(folder.path())), None);
        let file = folder.path().join(NAMES[0]);
        std::fs::write(&file, "").unwrap();
        assert_eq!(in_folder(Some(folder.path())), Some(Place { file: file.clone(), data_parent: None }));
        std::fs::create_dir(folder.path().join(DATA)).unwrap();
        let found = places(Some(&file)).unwrap();
        assert_eq!(found, [Place { file, data_parent: Some(folder.path().to_owned()) }]);
    }

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let message = places(Some(Path::new("/no/such/lib.so"))).unwrap_err().to_string();
        assert_eq!(message, "option `espeak_library`: there is no file /no/such/lib.so");
    }
}
