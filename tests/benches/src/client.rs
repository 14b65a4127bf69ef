//! A small blocking HTTP/1.1 client: one keep-alive connection, so that the client's own cost is low and steady.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, bail};

/// One connection.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
    host: String,
}

impl Connection {
    /// Connects to `http://HOST:PORT`.
    pub(crate) fn open(url: &str) -> anyhow::Result<Self> {
        let host =
            url.strip_prefix("http://").context("the URL must begin with http://")?.trim_end_matches('/');
        let stream = TcpStream::connect(host).with_context(|| format!("cannot connect to {url}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream), host: host.to_owned() })
    }

    /// The bytes of a POST request.
    pub(crate) fn request(&self, path: &str, body: &str) -> Vec<u8> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        [head.as_bytes(), body.as_bytes()].concat()
    }

    /// The bytes of a GET request.
    pub(crate) fn get(&self, path: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.host).into_bytes()
    }

    /// Sends a request and reads the head of the answer.
    pub(crate) fn send(&mut self, request: &[u8]) -> anyhow::Result<Body<'_>> {
        self.reader.get_mut().write_all(request)?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        if !line.contains(" 200 ") {
            bail!("the server answered {}", line.trim());
        }
        let mut length = None;
        loop {
            line.clear();
            self.reader.read_line(&mut line)?;
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = Some(value.trim().parse().context("content-length")?);
            }
        }
        Ok(Body { reader: &mut self.reader, length })
    }
}

/// The body of an answer.
pub(crate) struct Body<'a> {
    reader: &'a mut BufReader<TcpStream>,
    /// `None`: chunked.
    length: Option<usize>,
}

impl Body<'_> {
    /// The whole body.
    pub(crate) fn read(mut self) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        match self.length {
            Some(length) => {
                body.resize(length, 0);
                self.reader.read_exact(&mut body)?;
            }
            None => while self.chunk(&mut body)? {},
        }
        Ok(body)
    }

    /// Appends the next chunk of a chunked body; `false` at its end.
    pub(crate) fn chunk(&mut self, into: &mut Vec<u8>) -> anyhow::Result<bool> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).with_context(|| format!("chunk size {line:?}"))?;
        let start = into.len();
        into.resize(start + size, 0);
        self.reader.read_exact(&mut into[start..])?;
        let mut end = [0; 2];
        self.reader.read_exact(&mut end)?;
        Ok(size > 0)
    }
}
