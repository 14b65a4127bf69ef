//! A registry on a web server.
//!
//! `ureq` rather than `reqwest`: one request at a time needs no runtime, and it brings a fifth of the crates.

use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::http::{Response, StatusCode, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use super::pace::Pace;
use super::{Failure, Source, SourceError, Transfer};
use crate::files::read_bounded;
use crate::format::is_path;

/// Most redirects that are followed for one file. None leads from HTTPS to HTTP.
const REDIRECTS_MAX: u32 = 4;
/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Largest file of certificates, in bytes.
const CERTIFICATES_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Limits for a web server. What exceeds one is an error; a download may go on in another try.
#[derive(Clone)]
pub struct HttpOptions {
    /// Longest time to look up the server's address and to connect, each.
    pub connect_time_max: Duration,
    /// Longest time to wait for the head of an answer, or for the next bytes.
    pub idle_time_max: Duration,
    /// Longest time for a small file, all in all.
    pub get_time_max: Duration,
    /// Least rate of a download, in bytes a second.
    pub rate_min_bytes_per_s: u64,
    /// Time over which the rate is measured.
    pub rate_window: Duration,
    /// Certificates (PEM) of the authorities that the server's is checked against, instead of the well-known ones.
    pub certificates: Option<PathBuf>,
    /// A secret that opens what the server does not give to everybody. It is not sent to where the server redirects to.
    pub bearer: Option<String>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_time_max: Duration::from_secs(10),
            idle_time_max: Duration::from_secs(30),
            get_time_max: Duration::from_secs(60),
            rate_min_bytes_per_s: 4 * 1024,
            rate_window: Duration::from_secs(30),
            certificates: None,
            bearer: None,
        }
    }
}

impl fmt::Debug for HttpOptions {
    /// Without the secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HttpOptions").field("rate_window", &self.rate_window).finish_non_exhaustive()
    }
}

/// A web server with the registry's files.
#[derive(Debug)]
pub struct HttpSource {
    base: String,
    agent: Agent,
    options: HttpOptions,
}

impl HttpSource {
    /// The registry at `url`, which names the folder that `config.json` is in. Signatures protect what comes, so that HTTP
    /// is as good as HTTPS for all but keeping secret what is fetched.
    ///
    /// # Errors
    /// The address or the file of certificates cannot be used.
    pub fn new(url: &str, options: HttpOptions) -> Result<Self, SourceError> {
        let location =
            |problem: &str| SourceError::Location { location: url.to_owned(), problem: problem.into() };
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let rest = rest.ok_or_else(|| location("it has to begin with https:// or http://"))?;
        if rest.is_empty() || rest.contains(['?', '#', '@']) || rest.contains(char::is_whitespace) {
            return Err(location("expected a host and a path, without a user, a query or a fragment"));
        }
        let mut tls = TlsConfig::builder();
        if let Some(path) = &options.certificates {
            let bytes = read_bounded(path, CERTIFICATES_BYTES_MAX)
                .map_err(|error| location(&format!("{error}, which is to hold its certificates")))?;
            let items = parse_pem(&bytes).filter_map(Result::ok);
            let certificates: Vec<_> = items
                .filter_map(|item| if let PemItem::Certificate(found) = item { Some(found) } else { None })
                .collect();
            if certificates.is_empty() {
                return Err(location(&format!("{} holds no certificate in PEM", path.display())));
            }
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .https_only(url.starts_with("https://"))
            .http_status_as_error(false)
            .max_redirects(REDIRECTS_MAX)
            .max_response_header_size(HEAD_BYTES_MAX)
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(options.connect_time_max))
            .timeout_connect(Some(options.connect_time_max))
            .timeout_recv_response(Some(options.idle_time_max))
            .timeout_per_read(Some(options.idle_time_max))
            .build();
        Ok(Self { base: url.trim_end_matches('/').to_owned(), agent: config.new_agent(), options })
    }

    fn request(
        &self,
        failure: &Failure<'_>,
        offset: u64,
        time_max: Option<Duration>,
    ) -> Result<Response<ureq::Body>, SourceError> {
        if !is_path(failure.path) {
            return Err(failure.missing());
        }
        let mut request = self.agent.get(format!("{}/{}", self.base, failure.path));
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        if let Some(bearer) = &self.options.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
        }
        let response = request.config().timeout_global(time_max).build().call();
        let response = response.map_err(|error| failure.broken(error))?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(failure.missing()),
            status => Err(failure.status(status.as_u16())),
        }
    }
}

/// Where the content of a partial answer begins: `bytes 100-199/200` is 100.
fn range_start(response: &Response<ureq::Body>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

impl Source for HttpSource {
    fn location(&self) -> &str {
        &self.base
    }

    fn get(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, SourceError> {
        let failure = Failure { location: &self.base, path };
        let response = self.request(&failure, 0, Some(self.options.get_time_max))?;
        if response.body().content_length().is_some_and(|len| len > bytes_max) {
            return Err(failure.too_long(bytes_max));
        }
        failure.read(response.into_body().into_reader(), bytes_max)
    }

    fn download(&self, path: &str, transfer: Transfer<'_>) -> Result<(), SourceError> {
        let failure = Failure { location: &self.base, path };
        let response = self.request(&failure, transfer.offset, None)?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        if partial && range_start(&response) != Some(transfer.offset) {
            return Err(failure.broken("the server sent another part of the file than it was asked for"));
        }
        let skipped = if partial { 0 } else { transfer.offset };
        let expected = transfer.len.saturating_sub(transfer.offset).saturating_add(skipped);
        if response.body().content_length().is_some_and(|len| len > expected) {
            return Err(failure.too_long(transfer.len));
        }
        let start = Instant::now();
        let mut pace = Pace::new(self.options.rate_min_bytes_per_s, self.options.rate_window);
        let mut count = |bytes: u64| {
            let limit = self.options.rate_min_bytes_per_s;
            pace.count(start.elapsed(), bytes).map_err(|rate| failure.slow(rate, limit))
        };
        let mut reader = response.into_body().into_reader();
        // A server that knows no ranges sends all of it again.
        if skipped > 0 {
            let known = Transfer { len: skipped, offset: 0, into: &mut io::sink(), progress: &mut |_| {} };
            failure.copy(Read::take(&mut reader, skipped), known, &mut count)?;
        }
        failure.copy(reader, transfer, &mut count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        let new = |url: &str| HttpSource::new(url, HttpOptions::default());
        assert_eq!(new("http://127.0.0.1:1/plugins/").unwrap().location(), "http://127.0.0.1:1/plugins");
        for wrong in
            ["ftp://127.0.0.1", "127.0.0.1", "http://", "http://u:p@127.0.0.1/", "http://127.0.0.1/?a"]
        {
            assert!(matches!(new(wrong), Err(SourceError::Location { .. })), "{wrong}");
        }
        let options = HttpOptions { certificates: Some("/nowhere.pem".into()), ..HttpOptions::default() };
        let error = HttpSource::new("https://127.0.0.1/", options).unwrap_err().to_string();
        assert!(error.contains("/nowhere.pem"), "{error}");
    }
}
