//! A small HTTP server for pages on this machine: files of a folder, and what a handler answers before them.
//!
//! It serves the demo, and the pages of tests and benches. One request per connection, loopback only.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Bytes of a request's line and headers that are read at most.
const REQUEST_LIMIT: u64 = 16 * 1024;

/// A browser that opens a connection and says nothing holds one thread this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers a request, given its method and path, or leaves it to the files.
pub(crate) type Handler = Box<dyn Fn(&str, &str) -> Option<Response> + Send + Sync>;

pub(crate) struct Response {
    status: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Response {
    pub(crate) fn json(value: &serde_json::Value) -> Self {
        Self { status: "200 OK", content_type: "application/json", body: value.to_string().into_bytes() }
    }

    pub(crate) fn error(message: &str) -> Self {
        Self::text("500 Internal Server Error", message)
    }

    fn text(status: &'static str, message: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{message}\n").into_bytes() }
    }
}

/// Serves until it is dropped.
pub(crate) struct StaticServer {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl StaticServer {
    /// Serves on `port` of 127.0.0.1, which browsers take for a secure context; 0 picks a free one.
    pub(crate) fn start(port: u16, folder: Option<PathBuf>, handler: Handler) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let site = Arc::new(Site { folder, handler });
        let accepting = std::thread::spawn({
            let stopping = Arc::clone(&stopping);
            move || accept(&listener, &site, &stopping)
        });
        Ok(Self { address, stopping, accepting: Some(accepting) })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for StaticServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts; if it has ended already, nothing is to be woken.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

struct Site {
    folder: Option<PathBuf>,
    handler: Handler,
}

fn accept(listener: &TcpListener, site: &Arc<Site>, stopping: &AtomicBool) {
    for stream in listener.incoming().flatten() {
        if stopping.load(Ordering::Relaxed) {
            return;
        }
        let site = Arc::clone(site);
        // A browser that goes away in the middle of an answer is no error of ours.
        std::thread::spawn(move || _ = answer(stream, &site));
    }
}

fn answer(mut stream: TcpStream, site: &Site) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?.take(REQUEST_LIMIT));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 0 && header != "\r\n" {
        header.clear();
    }

    let mut words = request.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let response = respond(site, method, path);
    let Response { status, content_type, body } = response;
    // Any page may read: wasm-bindgen's test runner serves its own from another port. Isolated pages have precise clocks, and
    // Firefox's is good for whole milliseconds without.
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Access-Control-Allow-Origin: *\r\nCross-Origin-Opener-Policy: same-origin\r\n\
         Cross-Origin-Embedder-Policy: require-corp\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    if method != "HEAD" {
        stream.write_all(&body)?;
    }
    Ok(())
}

fn respond(site: &Site, method: &str, path: &str) -> Response {
    if let Some(response) = (site.handler)(method, path) {
        return response;
    }
    if !["GET", "HEAD"].contains(&method) {
        return Response::text("405 Method Not Allowed", "only GET and HEAD");
    }
    let Some(folder) = &site.folder else { return Response::text("404 Not Found", path) };
    file(folder, path).unwrap_or_else(|| Response::text("404 Not Found", path))
}

fn file(folder: &Path, path: &str) -> Option<Response> {
    let relative = percent_decoded(path.trim_start_matches('/'))?;
    let relative = Path::new(&relative);
    // `..` and absolute paths would leave the folder.
    if !relative.components().all(|component| matches!(component, Component::Normal(_))) {
        return None;
    }
    let mut file = folder.join(relative);
    if file.is_dir() {
        file = file.join("index.html");
    }
    let body = fs::read(&file).ok()?;
    Some(Response { status: "200 OK", content_type: content_type(&file), body })
}

/// Modules and Wasm run only under their right types.
fn content_type(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

/// `None` if a `%` is not followed by two hexadecimal digits, or if the result is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(bytes.next()?)? * 16 + digit(bytes.next()?)?;
            decoded.push(u8::try_from(value).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(server: &StaticServer, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn server_of_this_crate() -> StaticServer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let handler = |method: &str, path: &str| {
            (path == "/where").then(|| Response::json(&serde_json::json!({ "method": method })))
        };
        StaticServer::start(0, Some(folder), Box::new(handler)).unwrap()
    }

    #[test]
    fn files_are_served_with_their_length() {
        let answer = ask(&server_of_this_crate(), "GET /main.rs?v=1");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with(include_str!("main.rs")));
    }

    #[test]
    fn the_handler_comes_before_the_files() {
        assert!(ask(&server_of_this_crate(), "POST /where").ends_with("{\"method\":\"POST\"}"));
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        let server = server_of_this_crate();
        for path in ["/../Cargo.toml", "/%2e%2e/Cargo.toml", "//etc/passwd", "/%2Fetc/passwd", "/%zz", "/%"] {
            let answer = ask(&server, &format!("GET {path}"));
            assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
        }
    }

    #[test]
    fn modules_and_wasm_have_the_types_that_browsers_insist_on() {
        assert_eq!(content_type(Path::new("a/b.wasm")), "application/wasm");
        assert!(content_type(Path::new("b.js")).starts_with("text/javascript"));
    }
}
