//! Web servers: resuming, and servers that send too much, too little, too slowly or something else.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use pajamas_registry::source::{HttpOptions, HttpSource, Source as _, SourceError, Transfer};
use pajamas_registry::{Registry, RegistryError};

use crate::support::{World, chain, newest, paths, put};

/// A request that arrived.
#[derive(Clone, Debug, PartialEq)]
struct Request {
    path: String,
    /// Where the range begins that is asked for.
    offset: Option<usize>,
}

/// What the server does about a request. Bodies are those of the file.
enum Reply {
    /// What it should; with ranges.
    Good,
    /// The whole file, whatever is asked for.
    Whole,
    /// As many bytes of what it should, and the end of the connection.
    Cut(usize),
    /// As many bytes of what it should, and then nothing.
    Stall(usize),
    /// More than the file.
    Longer,
    /// More than the file, of which the head says nothing.
    LongerUntold,
    /// Another range than the one that was asked for.
    OtherRange,
    /// Only this status.
    Status(u16),
    /// A redirect to itself.
    Loop,
}

/// A web server on the loopback interface that hands out a folder.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `behave` is told each request and how many there were for that path before.
    fn start(dir: PathBuf, behave: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, behave) = (requests.clone(), Arc::new(behave));
        // It ends with the process of the test.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (dir, log, behave) = (dir.clone(), log.clone(), behave.clone());
                // A client that goes away is no concern of the server's.
                thread::spawn(move || serve(stream.unwrap(), &dir, &log, &*behave).unwrap_or_default());
            }
        });
        Self { url, requests }
    }

    fn source(&self, options: HttpOptions) -> HttpSource {
        HttpSource::new(&self.url, options).unwrap()
    }

    fn registry(&self, world: &World) -> Registry {
        Registry::open(Box::new(self.source(options())), world.config()).unwrap()
    }

    /// Where the requests for archives began.
    fn offsets(&self) -> Vec<Option<usize>> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .filter(|request| request.path.contains("blobs"))
            .map(|request| request.offset)
            .collect()
    }
}

fn options() -> HttpOptions {
    HttpOptions { idle_time_max: Duration::from_millis(300), ..HttpOptions::default() }
}

fn serve(
    stream: TcpStream,
    dir: &Path,
    log: &Mutex<Vec<Request>>,
    behave: &(dyn Fn(&Request, usize) -> Reply + Send + Sync),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
    let mut offset = None;
    while reader.read_line(&mut line)? > 2 {
        let head = line.lines().last().unwrap_or_default().to_ascii_lowercase();
        if let Some(range) = head.strip_prefix("range: bytes=") {
            offset = range.trim_end_matches('-').parse().ok();
        }
    }
    let request = Request { path, offset };
    let before = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.iter().filter(|other| other.path == request.path).count() - 1
    };
    let Ok(content) = fs::read(dir.join(&request.path)) else {
        return reply(stream, "404 Not Found", "", 0, b"");
    };
    let reply_kind = behave(&request, before);
    let offset = request.offset.unwrap_or(0);
    let part = &content[offset.min(content.len())..];
    let (status, range) = if request.offset.is_some() {
        ("206 Partial Content", format!("Content-Range: bytes {offset}-{}/*\r\n", content.len() - 1))
    } else {
        ("200 OK", String::new())
    };
    match reply_kind {
        Reply::Good => reply(stream, status, &range, part.len(), part),
        Reply::Whole => reply(stream, "200 OK", "", content.len(), &content),
        Reply::Cut(len) => reply(stream, status, &range, part.len(), &part[..len.min(part.len())]),
        Reply::Stall(len) => {
            reply(stream, status, &range, part.len(), &part[..len.min(part.len())])?;
            // Until the client gives up.
            reader.read_to_end(&mut Vec::new()).map(|_| ())
        }
        Reply::Longer => reply(stream, status, &range, part.len() + 3, &[part, b"bad"].concat()),
        Reply::LongerUntold => {
            let mut stream = stream;
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            stream.write_all(&[part, b"bad"].concat())
        }
        Reply::OtherRange => reply(stream, "206 Partial Content", "Content-Range: bytes 0-1/*\r\n", 2, b"xx"),
        Reply::Status(status) => reply(stream, &format!("{status} Whatever"), "", 0, b""),
        Reply::Loop => reply(stream, "302 Found", &format!("Location: /{}\r\n", request.path), 0, b""),
    }
}

fn reply(mut stream: TcpStream, status: &str, head: &str, len: usize, body: &[u8]) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\n{head}Content-Length: {len}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(body)
}

/// A registry with one archive of some pieces, behind a server that does `behave` to requests for archives.
fn world(behave: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> (World, Server) {
    let world = World::new();
    let dir = crate::support::plugin(&world.path("made"), "echo", "1.0.0");
    put(&dir.join("noise"), noise(300_000));
    world.publish_folder(&dir);
    let server = Server::start(world.path("registry"), move |request, before| {
        if request.path.contains("blobs") { behave(request, before) } else { Reply::Good }
    });
    (world, server)
}

/// Bytes that cannot be compressed.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(next).collect()
}

fn fetch(world: &World, server: &Server) -> Result<PathBuf, RegistryError> {
    let registry = server.registry(world);
    let catalog = registry.refresh()?;
    catalog.fetch(&newest(&catalog, "echo"), &mut |_| {})
}

#[test]
fn a_web_server_is_as_good_as_a_folder() {
    let (world, server) = world(|_, _| Reply::Good);
    let archive = fetch(&world, &server).unwrap();
    let name = archive.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(paths(&world.path("cache")), [".lock", &name]);
    fetch(&world, &server).unwrap();
    assert_eq!(server.offsets(), [None]);
}

#[test]
fn a_broken_download_goes_on_where_it_ended() {
    let (world, server) = world(|_, before| if before < 2 { Reply::Cut(100_000) } else { Reply::Good });
    fetch(&world, &server).unwrap();
    assert_eq!(server.offsets(), [None, Some(100_000), Some(200_000)]);
}

#[test]
fn a_download_goes_on_in_another_process() {
    let (world, server) =
        world(
            |_, before| if before < 4 { Reply::Cut(if before == 0 { 5000 } else { 0 }) } else { Reply::Good },
        );
    let error = chain(&fetch(&world, &server).unwrap_err());
    assert!(error.contains("blobs/sha256"), "{error}");
    assert!(paths(&world.path("cache"))[1].ends_with(".part"));
    fetch(&world, &server).unwrap();
    assert_eq!(server.offsets(), [None, Some(5000), Some(5000), Some(5000), Some(5000)]);
}

#[test]
fn what_is_left_of_something_else_is_not_gone_on_from() {
    let (world, server) = world(|_, _| Reply::Good);
    let blob = paths(&world.path("registry/blobs/sha256")).remove(0);
    put(&world.path("cache").join(format!("{blob}.part")), "rubbish of a crash");
    fetch(&world, &server).unwrap();
    assert_eq!(server.offsets(), [Some(18), None]);
    // Nor from what is as long as the whole or longer.
    for len in
        [fs::metadata(world.path("registry/blobs/sha256").join(&blob)).unwrap().len() as usize, 1_000_000]
    {
        fs::remove_dir_all(world.path("cache")).unwrap();
        put(&world.path("cache").join(format!("{blob}.part")), noise(len));
        fetch(&world, &server).unwrap();
    }
    assert_eq!(server.offsets()[2..], [None, None]);
}

#[test]
fn a_server_that_knows_no_ranges_is_read_again() {
    let (world, server) = world(|_, before| if before == 0 { Reply::Cut(70_000) } else { Reply::Whole });
    fetch(&world, &server).unwrap();
    assert_eq!(server.offsets(), [None, Some(70_000)]);
}

#[test]
fn what_a_server_must_not_do_is_an_error_and_leaves_nothing_wrong() {
    for (kind, expected, tries) in [
        ("longer", "is longer than", 1),
        ("longer untold", "is longer than", 1),
        ("loop", "cannot fetch", 3),
        ("status", "answered with status 503", 1),
        ("gone", "has no blobs", 1),
        ("cut", "cannot fetch", 3),
        ("stall", "cannot fetch", 3),
    ] {
        let (world, server) = world(move |_, _| match kind {
            "longer" => Reply::Longer,
            "longer untold" => Reply::LongerUntold,
            "loop" => Reply::Loop,
            "status" => Reply::Status(503),
            "gone" => Reply::Status(410),
            "cut" => Reply::Cut(0),
            _ => Reply::Stall(0),
        });
        let error = chain(&fetch(&world, &server).unwrap_err());
        assert!(error.contains(expected), "{kind}: {error}");
        // Each redirect is a request too, of which four are followed.
        let requests = if kind == "loop" { tries * 5 } else { tries };
        assert_eq!(server.offsets().len(), requests, "{kind}");
        let left = paths(&world.path("cache"));
        assert!(left.iter().all(|path| path == ".lock" || path.ends_with(".part")), "{left:?}");
    }
}

#[test]
fn another_range_than_was_asked_for_is_refused() {
    let (world, server) = world(|_, before| if before == 0 { Reply::Cut(1000) } else { Reply::OtherRange });
    let error = chain(&fetch(&world, &server).unwrap_err());
    assert!(error.contains("another part of the file"), "{error}");
}

#[test]
fn small_files_are_bounded_too() {
    let temp = tempfile::tempdir().unwrap();
    put(&temp.path().join("file"), "12345");
    let server = Server::start(temp.path().to_owned(), |_, before| match before {
        0 => Reply::Good,
        1 => Reply::LongerUntold,
        2 => Reply::Stall(1),
        _ => Reply::Cut(2),
    });
    let source = server.source(options());
    assert_eq!(source.get("file", 5).unwrap(), b"12345");
    assert!(matches!(source.get("file", 5), Err(SourceError::TooLong { .. })));
    assert!(matches!(source.get("file", 5), Err(SourceError::Broken { .. })));
    assert!(matches!(source.get("file", 5), Err(SourceError::Broken { .. })));
    assert!(matches!(source.get("file", 4), Err(SourceError::TooLong { .. })));
    assert!(matches!(source.get("nothing", 5), Err(SourceError::Missing { .. })));
    assert!(matches!(source.get("../file", 5), Err(SourceError::Missing { .. })));
}

#[test]
fn a_slow_download_is_given_up() {
    let temp = tempfile::tempdir().unwrap();
    put(&temp.path().join("file"), noise(100_000));
    let server = Server::start(temp.path().to_owned(), |_, _| Reply::Good);
    // No machine is as fast as this asks for, so that nothing has to be waited for.
    let (rate_min_bytes_per_s, rate_window) = (u64::MAX, Duration::from_nanos(1));
    let source = server.source(HttpOptions { rate_min_bytes_per_s, rate_window, ..options() });
    let mut bytes = Vec::new();
    let transfer = Transfer { len: 100_000, offset: 0, into: &mut bytes, progress: &mut |_| {} };
    let error = source.download("file", transfer).unwrap_err();
    assert!(matches!(error, SourceError::Slow { .. }) && error.is_resumable(), "{error:?}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = HttpSource::new(&url, options()).unwrap().get("config.json", 100).unwrap_err();
    assert!(chain(&error).contains(&format!("cannot fetch config.json from {url}: ")), "{}", chain(&error));
}
