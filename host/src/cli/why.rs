//! `why`: which plugin serves a model, and why not another one.

use std::io::Write;
use std::time::Duration;

use super::print::Printer;
use super::{Error, block_on, resolve};
use crate::config::Config;
use crate::engine::{Engine, Why, WhyPlugin};

#[derive(Debug, clap::Args)]
pub(super) struct WhyArgs {
    /// A name that `models list` shows, or the path of a model
    #[arg(value_name = "MODEL")]
    model: String,
}

pub(super) fn run(mut config: Config, args: &WhyArgs, json: bool) -> Result<(), Error> {
    let spec = resolve::model(&args.model, &mut config)?;
    let why = block_on(async {
        let engine = Engine::start(&config)?;
        let why = engine.why(&spec.id).await;
        engine.shutdown(Duration::ZERO).await;
        Ok(why?)
    })?;
    print(&mut Printer::stdout(), &why, json)
}

fn print<W: Write>(printer: &mut Printer<W>, why: &Why, json: bool) -> Result<(), Error> {
    if json {
        return printer.json(why);
    }
    let row = |plugin: &WhyPlugin| {
        let place = plugin.place.map_or_else(|| "-".to_owned(), |place| place.to_string());
        [place, plugin.name.clone(), plugin.version.clone(), plugin.reason.clone()]
    };
    let rows: Vec<_> = why.plugins.iter().map(row).collect();
    printer.table(["PLACE", "PLUGIN", "VERSION", "WHY"], &rows)?;
    why.warning.iter().try_for_each(|warning| printer.line(format_args!("warning: {warning}")))
}

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::Accel;

    use super::*;
    use crate::plugins::select::Check;

    #[test]
    fn the_best_comes_first_and_the_others_say_why_not() {
        let plugin = |name: &str, place, reason: &str, failed_check| WhyPlugin {
            name: name.into(),
            version: "1.0.0".into(),
            accel: Accel::Cpu,
            place,
            reason: reason.into(),
            failed_check,
        };
        let why = Why {
            model: "m".into(),
            format: "gguf".into(),
            path: "/m.gguf".into(),
            plugins: vec![
                plugin("gguf", Some(1), "cpu, priority 50", None),
                plugin("onnx", None, "it reads onnx, not gguf", Some(Check::Format)),
            ],
            warning: Some("it is slow".into()),
        };
        let mut text = Vec::new();
        print(&mut Printer::new(&mut text), &why, false).unwrap();
        let expected = "\
PLACE  PLUGIN  VERSION  WHY
1      gguf    1.0.0    cpu, priority 50
-      onnx    1.0.0    it reads onnx, not gguf
warning: it is slow
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
