//! `man`: the man page, made from the same texts as `--help`.

use super::print::Printer;
use super::{Error, clap_command};

pub(super) fn run() -> Result<(), Error> {
    let mut page = Vec::new();
    clap_mangen::Man::new(clap_command()).render(&mut page).map_err(Error::Output)?;
    Printer::stdout().bytes(&page)
}
