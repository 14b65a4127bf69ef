//! The Rust fixture keeps all rules.

use std::process::ExitCode;

use pajamas_conformance::Subject;

mod fixtures;

fn main() -> ExitCode {
    pajamas_conformance::main(|| {
        let subject = Subject::read(&fixtures::plugin_dir("echo")?).map_err(|e| e.to_string())?;
        // Slow enough for a job to be caught in the middle.
        Ok::<_, String>(subject.with_model(fixtures::model()?).with_option("delay_ms", 1))
    })
}
