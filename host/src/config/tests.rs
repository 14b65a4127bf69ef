//! How the layers combine, and what wrong ones say.

use std::error::Error as _;
use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::*;

/// A user with a home, and nothing configured.
struct User {
    home: TempDir,
    surroundings: Surroundings,
    flags: RawConfig,
}

impl User {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = |name: &str| home.path().join(name);
        let folders = Folders { config: folder("config"), data: folder("data"), cache: folder("cache") };
        let surroundings =
            Surroundings { working_dir: folder("work"), folders: Some(folders), ..Surroundings::default() };
        fs::create_dir(folder("work")).unwrap();
        fs::create_dir(folder("config")).unwrap();
        Self { home, surroundings, flags: RawConfig::default() }
    }

    fn file(self, path: &str, text: &str) -> Self {
        fs::write(self.home.path().join(path), text).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.surroundings.variables.insert(name.to_owned(), value.into());
        self
    }

    fn flags(mut self, text: &str) -> Self {
        self.flags = toml::from_str(text).unwrap();
        self
    }

    fn load(&self) -> Result<Loaded, ConfigError> {
        load(Sources {
            fallback: RawConfig::default(),
            file: None,
            flags: self.flags.clone(),
            surroundings: &self.surroundings,
        })
    }

    fn config(&self) -> Config {
        self.load().unwrap().config
    }

    /// The error and its causes.
    fn error(&self) -> String {
        let error = self.load().unwrap_err();
        match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }
}

#[test]
fn without_any_layer_the_defaults_hold() {
    let user = User::new();
    let config = user.config();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.plugins_dir, user.home.path().join("data/plugins"));
    assert_eq!(config.models_dirs, [user.home.path().join("data/models")]);
    assert_eq!(config.cache_dir, user.home.path().join("cache"));
    assert_eq!(config.keys_file, Some(user.home.path().join("config/keys.toml")));
    assert_eq!(config.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.log, LogConfig { filter: LogFilter::default(), format: LogFormat::Human });
    assert_eq!(config.limits.body_bytes, 32 << 20);
    assert_eq!(config.limits.media, MediaLimits { image_pixels: 50_000_000, audio_seconds: 7_200 });
    assert_eq!(config.worker.load_timeout, Duration::from_secs(600));
    assert!(!config.insecure && !config.in_process && config.plugins.is_empty());
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let file = "listen = \"127.0.0.1:1\"\ndrain_timeout_ms = 1\n[log]\nlevel = \"warn\"\nformat = \"json\"";
    let user = User::new()
        .file("work/pajamas.toml", file)
        .variable("PAJAMAS_LISTEN", "127.0.0.1:2")
        .variable("PAJAMAS_LOG_LEVEL", "debug")
        .flags("listen = \"127.0.0.1:3\"");
    let config = user.config();
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.log.filter.as_str(), "debug");
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.drain_timeout, Duration::from_millis(1));
}

/// Every variable with a value of its own.
const ALL_VARIABLES: [(&str, &str); 27] = [
    ("PAJAMAS_LISTEN", "0.0.0.0:9"),
    ("PAJAMAS_INSECURE", "true"),
    ("PAJAMAS_PLUGINS_DIR", "/p"),
    ("PAJAMAS_MODELS_DIRS", "/m:/n"),
    ("PAJAMAS_CACHE_DIR", "/c"),
    ("PAJAMAS_STATE_DIR", "/s"),
    ("PAJAMAS_KEYS_FILE", "/k"),
    ("PAJAMAS_WATCH", "true"),
    ("PAJAMAS_IN_PROCESS", "1"),
    ("PAJAMAS_DRAIN_TIMEOUT_MS", "1"),
    ("PAJAMAS_LOG_LEVEL", "trace"),
    ("PAJAMAS_LOG_FORMAT", "json"),
    ("PAJAMAS_LIMITS_BODY_BYTES", "2"),
    ("PAJAMAS_LIMITS_CONNECTIONS", "7"),
    ("PAJAMAS_LIMITS_QUEUE", "10"),
    ("PAJAMAS_LIMITS_REQUEST_TIMEOUT_MS", "8"),
    ("PAJAMAS_LIMITS_IMAGE_PIXELS", "13"),
    ("PAJAMAS_LIMITS_AUDIO_SECONDS", "14"),
    ("PAJAMAS_MEMORY_BUDGET_BYTES", "11"),
    ("PAJAMAS_MEMORY_IDLE_TIMEOUT_MS", "12"),
    ("PAJAMAS_WORKER_START_TIMEOUT_MS", "3"),
    ("PAJAMAS_WORKER_PROBE_TIMEOUT_MS", "4"),
    ("PAJAMAS_WORKER_LOAD_TIMEOUT_MS", "5"),
    ("PAJAMAS_WORKER_STALL_TIMEOUT_MS", "6"),
    ("PAJAMAS_WORKER_HANG_TIMEOUT_MS", "9"),
    ("PAJAMAS_SELECTION_PREFER", "gguf-cuda, gguf,"),
    ("PAJAMAS_SELECTION_DISABLED", "onnx"),
];

#[test]
fn every_variable_reaches_its_field() {
    let all = ALL_VARIABLES;
    assert_eq!(
        all.map(|(name, _)| name.to_owned()).as_slice(),
        FIELDS.iter().map(Field::variable).collect::<Vec<_>>()
    );
    let user = all.into_iter().fold(User::new(), |user, (name, value)| user.variable(name, value));
    let ms = Duration::from_millis;
    let expected = Config {
        listen: "0.0.0.0:9".parse().unwrap(),
        insecure: true,
        plugins_dir: "/p".into(),
        models_dirs: vec!["/m".into(), "/n".into()],
        cache_dir: "/c".into(),
        state_dir: Some("/s".into()),
        keys_file: Some("/k".into()),
        watch: true,
        in_process: true,
        drain_timeout: ms(1),
        log: LogConfig { filter: "trace".parse().unwrap(), format: LogFormat::Json },
        limits: Limits {
            body_bytes: 2,
            connections: 7,
            queue: 10,
            request_timeout: ms(8),
            media: MediaLimits { image_pixels: 13, audio_seconds: 14 },
        },
        memory: MemoryConfig {
            budget_bytes: Some(11),
            device_budget_bytes: BTreeMap::new(),
            idle_timeout: Some(ms(12)),
        },
        worker: WorkerConfig {
            start_timeout: ms(3),
            probe_timeout: ms(4),
            load_timeout: ms(5),
            stall_timeout: ms(6),
            hang_timeout: ms(9),
        },
        selection: Preferences {
            prefer: vec!["gguf-cuda".into(), "gguf".into()],
            disabled: vec!["onnx".into()],
        },
        registries: BTreeMap::new(),
        plugins: BTreeMap::new(),
        routes: BTreeMap::new(),
        hooks: Vec::new(),
    };
    assert_eq!(user.config(), expected);
}

#[test]
fn relative_paths_begin_at_the_file_or_at_the_working_folder() {
    let user = User::new()
        .file("config/pajamas.toml", "plugins_dir = \"p\"\nmodels_dirs = [\"../m\", \"/abs\"]")
        .variable("PAJAMAS_CACHE_DIR", "c");
    let config = user.config();
    assert_eq!(config.plugins_dir, user.home.path().join("config/p"));
    assert_eq!(config.models_dirs, [user.home.path().join("config/../m"), "/abs".into()]);
    assert_eq!(config.cache_dir, user.home.path().join("work/c"));
}

#[test]
fn the_named_file_wins_over_the_nearby_ones() {
    let user = User::new()
        .file("config/pajamas.toml", "listen = \"127.0.0.1:1\"")
        .file("work/other.toml", "listen = \"127.0.0.1:2\"");
    assert_eq!(user.config().listen.port(), 1);
    let user = user.variable("PAJAMAS_CONFIG", "other.toml");
    assert_eq!(user.config().listen.port(), 2);
    let user = user.variable("PAJAMAS_CONFIG", "missing.toml");
    assert!(user.error().starts_with("cannot read the configuration file "), "{}", user.error());
}

#[test]
fn plugin_options_are_kept_as_typed() {
    let user = User::new().file("work/pajamas.toml", "[plugins.gguf.options]\nthreads = 2\ncpu = [\"a\"]");
    let options = &user.config().plugins["gguf"].options;
    assert_eq!(serde_json::Value::Object(options.clone()), json!({"threads": 2, "cpu": ["a"]}));
}

#[test]
fn routes_are_read_from_the_file() {
    let file = "[routes.chat]\ntargets = [{ model = \"a\", weight = 9 }, { model = \"b\" }]";
    let route = &User::new().file("work/pajamas.toml", file).config().routes["chat"];
    let shares: Vec<_> = route.targets.iter().map(|target| (target.model.as_str(), target.weight)).collect();
    assert_eq!(shares, [("a", 9), ("b", 1)]);
}

#[test]
fn wrong_files_name_the_file_the_field_and_what_was_expected() {
    let cases = [
        ("lisen = 1", "lisen", "expected one of"),
        ("listen = 8080", "listen", "expected an IP address and a port"),
        ("listen = \"example.org\"", "listen", "expected an IP address and a port"),
        ("insecure = \"yes\"", "insecure", "expected a boolean"),
        ("models_dirs = \"m\"", "models_dirs", "expected a sequence"),
        ("drain_timeout_ms = 0", "drain_timeout_ms", "expected a number of milliseconds from 1 to 86400000"),
        ("drain_timeout_ms = \"1s\"", "drain_timeout_ms", "expected a number of milliseconds"),
        ("[limits]\nbody_bytes = -1", "body_bytes", "expected a number of bytes"),
        ("[limits]\nconnections = 0", "connections", "expected a number from 1 to 65536"),
        ("[limits]\nrequest_timeout_ms = 0", "request_timeout_ms", "expected a number of milliseconds"),
        ("[limits]\nimage_pixels = 0", "image_pixels", "expected a number of pixels from 1 to 268435456"),
        ("[limits]\naudio_seconds = 99999", "audio_seconds", "expected a number of seconds from 1 to 14400"),
        ("[log]\nlevel = \"inof\"", "level", "expected off, error, warn"),
        ("[log]\nformat = \"xml\"", "format", "expected human or json"),
        ("[worker]\npatience = 1", "patience", "expected one of"),
        ("[plugins.GGUF]", "GGUF", "expected the name of a plugin"),
        ("[plugins.gguf]\ncontext = 1", "context", "expected `options`"),
        ("[routes.chat]\ntargets = []", "targets", "name at least one model"),
        ("listen = ", "listen", ""),
    ];
    for (text, field, expected) in cases {
        let error = User::new().file("work/pajamas.toml", text).error();
        for part in ["pajamas.toml is not valid", field, expected] {
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}

#[test]
fn wrong_variables_name_the_variable_and_what_was_expected() {
    let cases = [
        ("PAJAMAS_LISTEN", "here", "expected an IP address and a port, such as 127.0.0.1:8080"),
        ("PAJAMAS_IN_PROCESS", "maybe", "expected true or false"),
        ("PAJAMAS_LIMITS_BODY_BYTES", "1 MB", "expected a whole number"),
        ("PAJAMAS_WORKER_LOAD_TIMEOUT_MS", "0", "expected a number of milliseconds from 1 to 86400000"),
        ("PAJAMAS_LOG_FORMAT", "xml", "expected human or json"),
    ];
    for (name, value, expected) in cases {
        let error = User::new().variable(name, value).error();
        assert_eq!(error, format!("environment variable {name} is \"{value}\": {expected}"));
    }
}

#[test]
fn a_misspelt_variable_is_reported_and_an_empty_one_ignored() {
    let user = User::new()
        .variable("PAJAMAS_LISTEM", "127.0.0.1:1")
        .variable("PAJAMAS_TEST_MODELS", "/m")
        .variable("PAJAMAS_LISTEN", "");
    assert_eq!(user.load().unwrap().unknown_variables, ["PAJAMAS_LISTEM"]);
    assert_eq!(user.config().listen.port(), 8080);
}

#[test]
fn other_machines_are_refused_unless_insecure() {
    for listen in ["0.0.0.0:80", "192.168.1.2:80", "[::]:80"] {
        let user = User::new().flags(&format!("listen = \"{listen}\""));
        assert!(user.error().starts_with(&format!("refusing to listen on {listen}")), "{}", user.error());
        let user = user.variable("PAJAMAS_INSECURE", "1");
        assert_eq!(user.config().listen.to_string(), listen);
    }
    for listen in ["127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        User::new().flags(&format!("listen = \"{listen}\"")).config();
    }
}

#[test]
fn without_a_home_the_missing_folder_is_named() {
    let mut user = User::new().variable("PAJAMAS_PLUGINS_DIR", "/p").variable("PAJAMAS_MODELS_DIRS", "/m");
    user.surroundings.folders = None;
    assert!(user.error().contains("set cache_dir"), "{}", user.error());
    assert_eq!(user.variable("PAJAMAS_CACHE_DIR", "/c").config().cache_dir, Path::new("/c"));
}

#[test]
fn the_documentation_names_every_field_variable_and_flag() {
    let documentation = include_str!("../../../docs/configuration.md");
    for field in FIELDS {
        for name in [field.path, &field.variable(), field.flag.unwrap_or("")] {
            assert!(documentation.contains(name), "docs/configuration.md lacks {name}");
        }
    }
}
