//! A model's networks: compiled and open when it is loaded, as descriptions of files when it is only looked at.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pajamas_pipelines::{
    BatchCounts, BatchLimits, Batcher, Header, HeaderRunner, NetworkFiles, Networks, TensorRunner,
    TensorSpec, check_inputs, check_outputs,
};
use pajamas_plugin_api::{Error, ErrorKind, Progress, TensorView, shape_bytes};
use parking_lot::Mutex;

use crate::cache::Cache;
use crate::engine::{self, Network};
use crate::options::Options;
use crate::package::Package;
use crate::rows;
use crate::signature::{Port, Signature};
use crate::tensor::HostTensor;

/// What CoreML's models are called.
const FILES: NetworkFiles =
    NetworkFiles { extensions: &["mlpackage", "mlmodelc", "mlmodel"], folder: "coreml" };

/// A package with what pipelines need to know of it.
struct Described {
    package: Package,
    signature: Signature,
    metadata: BTreeMap<String, String>,
}

impl Described {
    fn open(file: &Path, function: Option<&str>) -> Result<Self, Error> {
        let package = Package::open(file)?;
        let spec = &package.spec;
        let Some(main) = spec.function(function) else {
            let names = spec.functions.iter().chain([&spec.main]).map(|known| format!("`{}`", known.name));
            let names: Vec<_> = names.filter(|name| name != "``").collect();
            return Err(Error::invalid(format!(
                "option `function` is `{}`, and {} has {}",
                function.unwrap_or_default(),
                file.display(),
                if names.is_empty() { "only one, without a name".to_owned() } else { names.join(", ") }
            )));
        };
        let signature = Signature::of(main, &spec.labels)
            .map_err(|reason| Error::bad_model(format!("{} has {reason}", file.display())))?;
        let metadata = metadata(&package, &signature);
        Ok(Self { package, signature, metadata })
    }

    fn header(&self) -> Header {
        let specs = |ports: &[Port]| ports.iter().map(|port| port.spec.clone()).collect();
        Header {
            inputs: specs(&self.signature.inputs),
            outputs: specs(&self.signature.outputs),
            metadata: self.metadata.clone(),
        }
    }
}

/// What the file says about itself, and what only the format tells: a classifier that takes a picture is one, and has the
/// names of its classes.
fn metadata(package: &Package, signature: &Signature) -> BTreeMap<String, String> {
    let mut metadata = package.spec.metadata.clone();
    let labels = &package.spec.labels;
    let takes_picture = signature.inputs.iter().any(|port| port.spec.shape.len() == 4);
    if takes_picture && !labels.is_empty() {
        metadata.entry("task".to_owned()).or_insert_with(|| "classify".to_owned());
        metadata.entry("names".to_owned()).or_insert_with(|| python_list(labels));
    }
    metadata
}

/// Names as ultralytics writes them into what it exports, and as pipelines read them.
fn python_list(names: &[String]) -> String {
    let quoted = names.iter().map(|name| {
        let escaped = name.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n");
        format!("'{escaped}'")
    });
    format!("[{}]", quoted.collect::<Vec<_>>().join(", "))
}

/// Opens packages as networks.
pub(crate) struct Loader<'a> {
    options: &'a Options,
    cache_dir: Option<&'a Path>,
    progress: &'a Progress,
    counts: Arc<BatchCounts>,
    opened: Mutex<Vec<Package>>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(options: &'a Options, cache_dir: Option<&'a Path>, progress: &'a Progress) -> Self {
        Self { options, cache_dir, progress, counts: Arc::default(), opened: Mutex::default() }
    }

    /// What the networks count, and the packages that were opened.
    pub(crate) fn into_parts(self) -> (Arc<BatchCounts>, Vec<Package>) {
        (self.counts, self.opened.into_inner())
    }

    /// Compiles a package, unless that was done before, and opens it.
    fn network(&self, package: &Package, has_states: bool) -> Result<Network, Error> {
        let open = |compiled: &Path| Network::open(compiled, self.options, has_states);
        let path = package.path.as_path();
        if package.is_compiled {
            return open(path);
        }
        let Some(folder) = self.cache_dir.filter(|_| self.options.cache_mib > 0) else {
            // It lies among the system's temporary files, which the system cleans up: CoreML reads from it as long as it
            // is loaded.
            return open(&engine::compile(path)?);
        };
        let cache = Cache::new(folder, u64::from(self.options.cache_mib) << 20);
        let get = || cache.get(path, &engine::system_version(), || engine::compile(path));
        let entry = get()?;
        match open(&entry.path) {
            Err(error) if entry.is_old => {
                tracing::warn!("{} is compiled again: {error}", path.display());
                cache.forget(&entry);
                open(&get()?.path)
            }
            result => result,
        }
    }
}

impl Networks for Loader<'_> {
    type Runner = Batcher<CoremlNetwork>;

    fn files(&self) -> NetworkFiles {
        FILES
    }

    fn open(&self, file: &Path) -> Result<Self::Runner, Error> {
        // Damage is found here with a better reason than the framework has.
        let described = Described::open(file, self.options.function.as_deref())?;
        let cancelled = || Error::new(ErrorKind::Cancelled, "the load was cancelled");
        if self.progress.is_cancelled() {
            return Err(cancelled());
        }
        // How many networks there are only the pipeline knows: each takes half of what is left.
        let opened = i32::try_from(self.opened.lock().len()).unwrap_or(i32::MAX);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        self.progress.report(1.0 - 0.5_f32.powi(opened), &format!("compiling and loading {name}"));
        let function = self.options.function.as_deref();
        let has_states =
            described.package.spec.function(function).is_some_and(|main| !main.states.is_empty());
        let network = self.network(&described.package, has_states)?;
        // The framework cannot be interrupted, so that this is looked at when it is done.
        if self.progress.is_cancelled() {
            return Err(cancelled());
        }
        self.opened.lock().push(described.package.clone());
        let network = CoremlNetwork::new(network, described);
        if self.options.warm_up {
            network.warm_up();
        }
        let limits = BatchLimits {
            rows_max: usize::try_from(self.options.batch_max).unwrap_or(usize::MAX),
            delay: self.options.batch_delay(),
        };
        Ok(Batcher::new(network, limits, Arc::clone(&self.counts)))
    }
}

/// Opens packages as descriptions: enough for a pipeline to say what the model is, without the framework.
#[derive(Default)]
pub(crate) struct Descriptions {
    opened: Mutex<Vec<Package>>,
}

impl Descriptions {
    /// The packages that were opened.
    pub(crate) fn into_opened(self) -> Vec<Package> {
        self.opened.into_inner()
    }
}

impl Networks for Descriptions {
    type Runner = HeaderRunner;

    fn files(&self) -> NetworkFiles {
        FILES
    }

    fn open(&self, file: &Path) -> Result<HeaderRunner, Error> {
        let described = Described::open(file, None)?;
        let header = described.header();
        self.opened.lock().push(described.package);
        Ok(HeaderRunner::new(header))
    }
}

/// A network that is ready to run. Runs take turns, as the framework wants it for one model.
pub(crate) struct CoremlNetwork {
    network: Mutex<Network>,
    header: Header,
    signature: Signature,
}

impl CoremlNetwork {
    fn new(network: Network, described: Described) -> Self {
        let mut described = described;
        // The order of the classes, where the package does not tell it, is the framework's.
        if described.package.spec.labels.is_empty() {
            described.signature.name_classes(&network.labels());
        }
        Self { header: described.header(), signature: described.signature, network: Mutex::new(network) }
    }

    /// Runs once with zeros if all shapes are known, one row where there are rows. What the first run prepares is then
    /// there before the first request comes.
    fn warm_up(&self) {
        let zeros = |spec: &TensorSpec| {
            let rows = self.signature.has_rows.then_some(1);
            let mut dims = spec.shape.iter().enumerate();
            let shape = dims.try_fold(Vec::new(), |mut shape, (index, dim)| {
                let dim = dim.or(rows.filter(|_| index == 0))?;
                shape.push(i64::try_from(dim).ok()?);
                Some(shape)
            })?;
            let data = vec![0; shape_bytes(spec.dtype, &shape)?];
            HostTensor::new(spec.dtype, shape, data.into()).ok()
        };
        let values: Option<Vec<_>> = self.header.inputs.iter().map(zeros).collect();
        let Some(values) = values else { return };
        let inputs: Vec<_> = self.header.inputs.iter().map(|spec| spec.name.as_str()).zip(&values).collect();
        let outputs: Vec<_> = self.header.outputs.iter().map(|spec| spec.name.as_str()).collect();
        if let Err(error) = self.run(&inputs, &outputs) {
            tracing::debug!("no warm-up: {error}");
        }
    }
}

impl TensorRunner for CoremlNetwork {
    type Value = HostTensor;

    fn inputs(&self) -> &[TensorSpec] {
        &self.header.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.header.outputs
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    fn value(&self, tensor: &TensorView<'_>) -> Result<HostTensor, Error> {
        HostTensor::copy_of(tensor)
    }

    fn run(&self, inputs: &[(&str, &HostTensor)], outputs: &[&str]) -> Result<Vec<HostTensor>, Error> {
        check_inputs(&self.header.inputs, inputs)?;
        check_outputs(&self.header.outputs, outputs)?;
        if outputs.is_empty() {
            return Ok(Vec::new());
        }
        let port = |ports: &'_ [Port], name: &str| ports.iter().position(|port| port.spec.name == name);
        let given = inputs.iter().filter_map(|(name, value)| {
            Some((self.signature.inputs.get(port(&self.signature.inputs, name)?)?, *value))
        });
        let wanted = outputs
            .iter()
            .filter_map(|name| self.signature.outputs.get(port(&self.signature.outputs, name)?));
        let rows = rows::split(&given.collect::<Vec<_>>(), self.signature.has_rows)?;
        if rows.is_empty() {
            return Err(Error::invalid("a run needs at least one row"));
        }
        let wanted: Vec<_> = wanted.collect();
        rows::join(self.network.lock().predict(&rows, &wanted)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_classes_survive_their_quotes() {
        assert_eq!(python_list(&["it's".to_owned(), "a\\b".to_owned()]), r"['it\'s', 'a\\b']");
    }
}
