//! A caller over one connection that is kept: what it costs is little beside what a server does.
//!
//! It sends what the lab sends (no redirects, no compression) and reads answers with a length or in chunks.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// Bytes of an answer that are believed.
const BODY_MAX: usize = 1 << 30;

/// Where an API is, and as whom it is called.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// `host:port`
    pub(crate) authority: String,
    /// What goes before `/v2.0`.
    pub(crate) prefix: String,
    /// X-Auth-Token.
    pub(crate) token: String,
}

impl Target {
    /// Of a URL such as `http://127.0.0.1:9696`.
    pub(crate) fn new(url: &str, token: &str) -> Result<Self> {
        let rest = url
            .strip_prefix("http://")
            .with_context(|| format!("{url}: expected http://host:port"))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        Ok(Self {
            authority: authority.to_owned(),
            prefix: format!("/{path}").trim_end_matches('/').to_owned(),
            token: token.to_owned(),
        })
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) token: Option<String>,
    /// What `wait_for=enforced` came to.
    pub(crate) enforced: Option<bool>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body, if the status says that it went well.
    pub(crate) fn ok(self) -> Result<Value> {
        if !(200..300).contains(&self.status) {
            let body = String::from_utf8_lossy(&self.body).into_owned();
            bail!("{}: {body}", self.status);
        }
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_slice(&self.body)?)
    }
}

/// A connection.
pub(crate) struct Client {
    target: Target,
    stream: Option<BufReader<TcpStream>>,
    line: String,
}

impl Client {
    pub(crate) fn new(target: &Target) -> Self {
        Self {
            target: target.clone(),
            stream: None,
            line: String::new(),
        }
    }

    /// Sends a request and reads its answer. A connection that the server closed between two requests is made anew.
    pub(crate) fn send(&mut self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let kept = self.stream.is_some();
        match self.send_once(method, path, body) {
            Err(_) if kept => {
                self.stream = None;
                self.send_once(method, path, body)
            }
            answer => answer,
        }
    }

    fn send_once(&mut self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let Target {
            authority,
            prefix,
            token,
        } = &self.target;
        let request = format!(
            "{method} {prefix}{path} HTTP/1.1\r\nHost: {authority}\r\nX-Auth-Token: {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if self.stream.is_none() {
            let stream = TcpStream::connect(authority).with_context(|| authority.clone())?;
            stream.set_nodelay(true)?;
            self.stream = Some(BufReader::with_capacity(1 << 16, stream));
        }
        let stream = self.stream.as_mut().context("no connection")?;
        stream.get_mut().write_all(request.as_bytes())?;
        let (answer, close) = read(stream, &mut self.line)?;
        if close {
            self.stream = None;
        }
        Ok(answer)
    }

    /// GET; an error unless it is answered with 2xx.
    pub(crate) fn get(&mut self, path: &str) -> Result<Value> {
        let answer = self.send("GET", path, "")?.ok();
        answer.with_context(|| format!("GET {path}"))
    }

    /// POST; an error unless it is answered with 2xx.
    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        let answer = self.send("POST", path, &body.to_string())?.ok();
        answer.with_context(|| format!("POST {path}"))
    }

    /// PUT; an error unless it is answered with 2xx.
    pub(crate) fn put(&mut self, path: &str, body: &Value) -> Result<Value> {
        let answer = self.send("PUT", path, &body.to_string())?.ok();
        answer.with_context(|| format!("PUT {path}"))
    }
}

/// The first line of a stream in chunks that does not end.
pub(crate) fn first_line(authority: &str, path: &str) -> Result<Vec<u8>> {
    let mut stream = BufReader::new(TcpStream::connect(authority)?);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    let mut line = String::new();
    header(&mut stream, &mut line)?;
    ensure!(line.contains(" 200 "), "GET {path}: {line}");
    while !line.is_empty() {
        header(&mut stream, &mut line)?;
    }
    let mut body = Vec::new();
    loop {
        if let Some(end) = body.iter().position(|byte| *byte == b'\n') {
            body.truncate(end);
            return Ok(body);
        }
        header(&mut stream, &mut line)?;
        let size = usize::from_str_radix(&line, 16)?;
        ensure!(size > 0, "GET {path}: the stream ended");
        take(&mut stream, size, &mut body)?;
        header(&mut stream, &mut line)?;
    }
}

/// Reads an answer; whether the server closes the connection behind it.
fn read(stream: &mut BufReader<TcpStream>, line: &mut String) -> Result<(Answer, bool)> {
    header(stream, line)?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.with_context(|| format!("no status: {line}"))?;
    let (mut length, mut chunked, mut close) = (0, false, false);
    let (mut token, mut enforced) = (None, None);
    loop {
        header(stream, line)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse()?,
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            "connection" => close = value.eq_ignore_ascii_case("close"),
            "weft-enforced" => enforced = Some(value == "true"),
            "x-subject-token" => token = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if !chunked {
        take(stream, length, &mut body)?;
    }
    while chunked {
        header(stream, line)?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)?;
        take(stream, size, &mut body)?;
        header(stream, line)?;
        chunked = size > 0;
    }
    let answer = Answer {
        status,
        token,
        enforced,
        body,
    };
    Ok((answer, close))
}

/// One line, without its end.
fn header(stream: &mut BufReader<TcpStream>, line: &mut String) -> Result<()> {
    line.clear();
    ensure!(stream.read_line(line)? > 0, "the connection was closed");
    line.truncate(line.trim_end().len());
    Ok(())
}

fn take(stream: &mut BufReader<TcpStream>, bytes: usize, body: &mut Vec<u8>) -> Result<()> {
    let have = body.len();
    ensure!(have + bytes <= BODY_MAX, "an answer of {bytes} more bytes");
    body.resize(have + bytes, 0);
    Ok(stream.read_exact(&mut body[have..])?)
}
