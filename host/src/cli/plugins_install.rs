//! `plugins install`, `update`, `rollback` and `remove`: what is in the plugins folder.

use std::io::Write;

use indicatif::{ProgressBar, ProgressStyle};
use pajamas_registry::{Catalog, Installed, Origin, Registry, Release, Step, title};
use semver::VersionReq;
use serde::Serialize;
use serde_json::{Value, json};

use super::Error;
use super::print::Printer;
use crate::config::Config;
use crate::hardware::Hardware;
use crate::install::{
    Choice, GateOutcome, GateReport, InstallError, Installer, Wanted, list_permissions, recommend,
};

#[derive(Debug, clap::Args)]
pub(super) struct InstallArgs {
    /// The plugins, each with a version if it is not to be the newest: gguf, or gguf@0.2, or gguf@=0.2.1
    #[arg(
        value_name = "NAME[@VERSION]",
        required_unless_present = "recommended",
        conflicts_with = "recommended"
    )]
    names: Vec<String>,
    /// Everything that this machine's hardware can use
    #[arg(long)]
    recommended: bool,
    /// The variant, instead of the one that suits this machine best
    #[arg(long, value_name = "NAME", conflicts_with = "recommended")]
    variant: Option<String>,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct UpdateArgs {
    /// The plugins [default: all that a registry installed]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Debug, clap::Args)]
struct HowArgs {
    /// A registry of the configuration [default: all, the first one that has the plugin]
    #[arg(long, value_name = "NAME")]
    registry: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Allow the plugins what they ask for beyond their own folder and the models
    #[arg(long)]
    grant: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct NameArgs {
    /// The plugin
    #[arg(value_name = "NAME")]
    plugin: String,
}

/// What one command is to install.
#[derive(Default)]
struct Batch<'a> {
    plans: Vec<Plan<'a>>,
    left_out: Vec<LeftOut>,
    /// Nobody asked for these plugins by name: one that finds no device is left out, which is no failure.
    is_recommended: bool,
}

/// A release that is to be installed, and why.
struct Plan<'a> {
    catalog: &'a Catalog<'a>,
    release: Release,
    reasons: Vec<String>,
}

impl Plan<'_> {
    fn json(&self) -> Value {
        let manifest = self.release.manifest();
        json!({
            "plugin": manifest.name,
            "version": manifest.version,
            "variant": manifest.variant,
            "registry": self.release.registry(),
            "publisher": manifest.publisher,
            "archive": self.release.blob(),
            "permissions": manifest.permissions,
            "reasons": self.reasons,
        })
    }
}

/// A plugin that is not recommended, and why.
#[derive(Serialize)]
struct LeftOut {
    plugin: String,
    reasons: Vec<String>,
}

impl LeftOut {
    fn by_its_probe(report: &GateReport) -> Self {
        let reason = report.failure().map_or("", |gate| gate.detail.as_str());
        let title = format!("{} {}", report.plugin, report.version);
        Self { plugin: report.plugin.clone(), reasons: vec![format!("{title}: {reason}")] }
    }

    fn print<W: Write>(&self, printer: &mut Printer<W>) -> Result<(), Error> {
        printer.line(format_args!("{}: not for this machine", self.plugin))?;
        self.reasons.iter().try_for_each(|reason| printer.line(format_args!("  {reason}")))
    }
}

/// `plugins install`.
pub(super) fn install(config: &Config, args: &InstallArgs, json: bool) -> Result<(), Error> {
    let hardware = Hardware::detect();
    let installer = Installer::new(config, &hardware)?;
    let registries = installer.registries(args.how.registry.as_deref())?;
    let catalogs = refresh(&registries)?;
    let mut printer = Printer::stdout();
    let batch = if args.recommended {
        recommended(&catalogs, &hardware)?
    } else {
        let wanted = args.names.iter().map(|plugin| wanted(plugin, args)).collect::<Result<Vec<_>, _>>()?;
        let plans =
            wanted.iter().map(|wanted| plan(&installer, &catalogs, wanted)).collect::<Result<_, _>>()?;
        Batch { plans, ..Batch::default() }
    };
    carry_out(&mut printer, &installer, batch, &args.how, json)
}

/// `plugins update`.
pub(super) fn update(config: &Config, args: &UpdateArgs, json: bool) -> Result<(), Error> {
    let hardware = Hardware::detect();
    let installer = Installer::new(config, &hardware)?;
    let registries = installer.registries(args.how.registry.as_deref())?;
    let catalogs = refresh(&registries)?;
    let installed = installer.store().installed().map_err(InstallError::from)?.plugins;
    let active: Vec<&Installed> = installed.iter().filter(|plugin| plugin.is_active).collect();
    let knows = |plugin: &Installed| match &plugin.origin {
        Origin::Signed { registry, .. } => catalogs.iter().any(|catalog| catalog.name() == registry),
        Origin::Unsigned => false,
    };
    let is_ours = |name: &String| active.iter().any(|plugin| plugin.manifest.name == *name && knows(plugin));
    if let Some(name) = args.names.iter().find(|name| !is_ours(name)) {
        return Err(Error::NotInstalled { name: name.clone() });
    }
    let mut printer = Printer::stdout();
    let mut plans = Vec::new();
    for plugin in active {
        let Origin::Signed { registry, .. } = &plugin.origin else { continue };
        let manifest = &plugin.manifest;
        let is_wanted = args.names.is_empty() || args.names.contains(&manifest.name);
        if !is_wanted || args.how.registry.as_ref().is_some_and(|only| only != registry) {
            continue;
        }
        let wanted = Wanted {
            name: manifest.name.clone(),
            version: VersionReq::STAR,
            // Whoever chose a variant keeps it.
            variant: manifest.variant.clone(),
        };
        // A registry that the configuration does not have any more has no updates.
        let Some(catalog) = catalogs.iter().find(|catalog| catalog.name() == registry) else { continue };
        let plan = plan(&installer, std::slice::from_ref(catalog), &wanted)?;
        if plan.release.manifest().version > manifest.version {
            plans.push(plan);
        } else if !json {
            printer.line(format_args!("{} is the newest", title(manifest)))?;
        }
    }
    carry_out(&mut printer, &installer, Batch { plans, ..Batch::default() }, &args.how, json)
}

/// `plugins rollback`.
pub(super) fn rollback(config: &Config, args: &NameArgs, json: bool) -> Result<(), Error> {
    let hardware = Hardware::default();
    let folder = Installer::new(config, &hardware)?.rollback(&args.plugin)?;
    let mut printer = Printer::stdout();
    if json {
        return printer.json(&json!({"plugin": args.plugin, "active": folder}));
    }
    printer.line(format_args!("{}: version {folder} is active again", args.plugin))?;
    printer.line(swap_hint(&args.plugin))
}

/// `plugins remove`.
pub(super) fn remove(config: &Config, args: &NameArgs, json: bool) -> Result<(), Error> {
    let hardware = Hardware::default();
    Installer::new(config, &hardware)?.remove(&args.plugin)?;
    let mut printer = Printer::stdout();
    if json {
        return printer.json(&json!({"plugin": args.plugin, "removed": true}));
    }
    printer.line(format_args!("{} is removed; restart a host that uses it", args.plugin))
}

fn swap_hint(plugin: &str) -> String {
    format!("a running host changes to it with: pajamas-host plugins swap {plugin} (with --watch, by itself)")
}

fn refresh(registries: &[Registry]) -> Result<Vec<Catalog<'_>>, Error> {
    Ok(registries.iter().map(Registry::refresh).collect::<Result<_, _>>().map_err(InstallError::from)?)
}

/// `gguf@0.2` as cargo understands it: any 0.2.
fn wanted(text: &str, args: &InstallArgs) -> Result<Wanted, Error> {
    let (name, version) = text.split_once('@').unwrap_or((text, "*"));
    let version =
        VersionReq::parse(version).map_err(|source| Error::Version { text: version.to_owned(), source })?;
    Ok(Wanted { name: name.to_owned(), version, variant: args.variant.clone() })
}

fn plan<'a>(
    installer: &Installer<'_>,
    catalogs: &'a [Catalog<'a>],
    wanted: &Wanted,
) -> Result<Plan<'a>, Error> {
    let (catalog, release) = installer.find(catalogs, wanted)?;
    Ok(Plan { catalog, release, reasons: Vec::new() })
}

/// Of every plugin that the registries offer what suits this machine; says why of each, also of what does not.
fn recommended<'a>(catalogs: &'a [Catalog<'a>], hardware: &Hardware) -> Result<Batch<'a>, Error> {
    let mut batch = Batch { is_recommended: true, ..Batch::default() };
    let mut seen = Vec::new();
    for catalog in catalogs {
        let offered = catalog.all().map_err(InstallError::from)?;
        for Choice { name, release, reasons } in recommend(offered, hardware) {
            if seen.contains(&name) {
                continue;
            }
            seen.push(name.clone());
            match release {
                Some(release) => batch.plans.push(Plan { catalog, release, reasons }),
                None => batch.left_out.push(LeftOut { plugin: name, reasons }),
            }
        }
    }
    Ok(batch)
}

/// Installs what is planned, one after the other. A plugin that does not pass its gates is no reason not to install the
/// others; anything else ends it.
fn carry_out<W: Write>(
    printer: &mut Printer<W>,
    installer: &Installer<'_>,
    batch: Batch<'_>,
    how: &HowArgs,
    json: bool,
) -> Result<(), Error> {
    let Batch { plans, mut left_out, is_recommended } = batch;
    let (mut installed, mut failed, mut failure) = (Vec::new(), Vec::new(), None);
    if !json {
        left_out.iter().try_for_each(|left_out| left_out.print(printer))?;
    }
    for Plan { catalog, release, reasons } in &plans {
        if !json {
            announce(printer, release, reasons)?;
        }
        if how.dry_run {
            continue;
        }
        let bar = ProgressBar::hidden();
        let mut progress = |release: &Release, step: Step| show(&bar, release, step);
        let outcome = installer.install(catalog, release, how.grant, &mut progress);
        bar.finish_and_clear();
        match outcome {
            Ok(report) => {
                if !json {
                    print_gates(printer, &report)?;
                    printer.line(swap_hint(&report.plugin))?;
                }
                installed.push(report);
            }
            // Only the plugin itself knows about some things that it needs, such as a program of the system.
            Err(InstallError::NoDevice(report)) if is_recommended => {
                let out = LeftOut::by_its_probe(&report);
                if !json {
                    out.print(printer)?;
                }
                left_out.push(out);
            }
            Err(error) => {
                let Some(report) = error.gates() else {
                    // What was installed before is reported all the same.
                    failure = Some(error);
                    break;
                };
                if !json {
                    print_gates(printer, report)?;
                }
                failed.push(report.clone());
                failure.get_or_insert(error);
            }
        }
    }
    if json {
        let planned: Vec<_> = plans.iter().map(Plan::json).collect();
        let (left_out, installed) = (&left_out, &installed);
        printer.json(
            &json!({"planned": planned, "left_out": left_out, "installed": installed, "failed": failed}),
        )?;
    }
    failure.map_or(Ok(()), |error| Err(error.into()))
}

fn announce<W: Write>(printer: &mut Printer<W>, release: &Release, reasons: &[String]) -> Result<(), Error> {
    let manifest = release.manifest();
    let size = super::print::bytes(release.blob().len);
    printer.line(format_args!(
        "{} from registry {}, by {} ({size})",
        title(manifest),
        release.registry(),
        manifest.publisher
    ))?;
    reasons.iter().try_for_each(|reason| printer.line(format_args!("  {reason}")))?;
    let asked = list_permissions(&manifest.permissions);
    if asked.is_empty() {
        return Ok(());
    }
    printer.line(format_args!("  asks for permission to {}", asked.join(", ")))
}

fn print_gates<W: Write>(printer: &mut Printer<W>, report: &GateReport) -> Result<(), Error> {
    for gate in &report.gates {
        let word = match gate.outcome {
            GateOutcome::Passed => "passed",
            GateOutcome::Skipped => "skipped",
            GateOutcome::Failed => "FAILED",
        };
        printer
            .line(format_args!("  {:<11}  {word:<7}  {} ({} ms)", gate.gate, gate.detail, gate.elapsed_ms))?;
    }
    Ok(())
}

/// A bar while the archive arrives, on a terminal.
fn show(bar: &ProgressBar, release: &Release, step: Step) {
    let Step::Received { bytes, bytes_total } = step else { return };
    if bar.length().is_none() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        bar.set_length(bytes_total);
        bar.set_message(release.manifest().name.clone());
        let template = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        // The template is valid.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
    }
    bar.set_position(bytes);
}
