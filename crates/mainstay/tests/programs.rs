//! Programs that others wrote, through the gateway: what people really use as clients.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use mainstay_testkit::program;

mod running;
use running::{Running, text};

/// Answers what it was sent: the method, the number of bytes and their SHA-256. `/chunks` is sent
/// in pieces without a length, `/ws` is a WebSocket that echoes.
const SERVER: &str = r#"
import asyncio, hashlib, http.server, os, threading, websockets
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def body(self):
        if self.headers["transfer-encoding"] != "chunked":
            return self.rfile.read(int(self.headers["content-length"] or 0))
        body = b""
        while True:
            size = int(self.rfile.readline().split(b";")[0], 16)
            piece = self.rfile.read(size)
            self.rfile.readline()
            if not size:
                return body
            body += piece
    def answer(self):
        body = self.body()
        text = "%s %d %s\n" % (self.command, len(body), hashlib.sha256(body).hexdigest())
        self.send_response(200)
        self.send_header("x-seen-path", self.path)
        if self.path.startswith("/chunks"):
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for piece in [text[:5], text[5:]]:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece.encode()))
            return self.wfile.write(b"0\r\n\r\n")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())
    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
"#;
const HTTP: &str =
    "Server((os.environ['HOST'], int(os.environ['PORT'])), Answer).serve_forever()\n";
const WEB_SOCKET: &str = r#"
async def echo(socket, path=None):
    async for message in socket:
        await socket.send(message)
async def main():
    where = os.environ["HOST"], int(os.environ["PORT"])
    async with websockets.serve(echo, *where):
        await asyncio.Future()
asyncio.run(main())
"#;

/// What `/bin` answers to 1 MB of zeros.
const MEGABYTE: &str = "1000000 d29751f2649b32ff572b5e0a9f541ea660a50f94ff0beedfb0b692b924cc8025";

fn begin(name: &str) -> (Running, String) {
    // Said at once, not by a server that does not start.
    program("/usr/lib/python3/dist-packages/websockets/__init__.py");
    let mut running = Running::prepare(name);
    let python = program("python3");
    let http = running.write("web.py", &format!("{SERVER}{HTTP}"));
    let socket = running.write("echo.py", &format!("{SERVER}{WEB_SOCKET}"));
    let service = |name: &str, path: &str, file: &Path, check: &str| {
        let user = if mainstay_testkit::is_root() {
            "user = \"root\"\n"
        } else {
            ""
        };
        format!(
            "[service.{name}]\nexec = ['{}', '-u', '{}']\n{user}http = {{ path = \"{path}\" }}\n\
             instances = 2\nrollout = {{ hold = \"200ms\" }}\n\
             health = {{ {check}, every = \"300ms\" }}\n",
            python.display(),
            file.display()
        )
    };
    let text = service("web", "/", &http, "get = \"/health\"")
        + &service("socket", "/ws", &socket, "tcp = true");
    let file = running.write("services.toml", &text);
    running.dev(&[file.to_str().unwrap()]);
    let status = running.wait_until_steady();
    fs::write(running.dir.join("zeros"), vec![0; 1_000_000]).unwrap();
    let entry = status.entry[0].to_string();
    (running, entry)
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    text(output)
}

#[test]
fn system_curl_gets_what_it_asks_for() {
    let (running, entry) = begin("programs-curl");
    let zeros = running.dir.join("zeros");
    let zeros = zeros.to_str().unwrap();
    let upload = format!("@{zeros}");
    let curl = |arguments: &[&str], path: &str| {
        let mut command = Command::new(program("curl"));
        command.args(["--silent", "--show-error", "--fail", "--max-time", "20"]);
        let url = format!("http://{entry}{path}");
        said(&command.args(arguments).arg(url).output().unwrap())
    };
    for version in ["--http1.1", "--http1.0", "--http2-prior-knowledge"] {
        let asked = |arguments: &[&str], path| curl(&[&[version], arguments].concat(), path);
        assert!(asked(&[], "/a?b=c").starts_with("GET 0 "), "{version}");
        assert!(asked(&[], "/chunks").starts_with("GET 0 "), "{version}");
        let head = asked(&["--head"], "/a").to_ascii_lowercase();
        assert!(
            head.contains(" 200") && head.contains("x-seen-path: /a"),
            "{version}: {head}"
        );
        let posted = asked(&["--data-binary", &upload], "/bin");
        assert_eq!(posted.trim_end(), format!("POST {MEGABYTE}"), "{version}");
        let put = asked(&["--upload-file", zeros], "/bin");
        assert_eq!(put.trim_end(), format!("PUT {MEGABYTE}"), "{version}");
    }
    // It waits for 100 before it sends, and does not know how much that will be.
    let awaits = [
        "--header",
        "Expect: 100-continue",
        "--expect100-timeout",
        "15",
    ];
    let chunked = [
        "--header",
        "Transfer-Encoding: chunked",
        "--data-binary",
        &upload,
    ];
    let posted = curl(&[&awaits[..], &chunked[..]].concat(), "/bin");
    assert_eq!(posted.trim_end(), format!("POST {MEGABYTE}"));
    // On one connection, and the gateway keeps it.
    let url = format!("http://{entry}/again");
    let twice = curl(&["--write-out", "%{num_connects}\n", &url], "/again");
    assert!(twice.lines().any(|line| line == "0"), "{twice}");
}

#[test]
fn system_python_and_node_and_a_web_socket_get_what_they_ask_for() {
    program("/usr/lib/python3/dist-packages/requests/__init__.py");
    let (running, entry) = begin("programs-clients");
    let run = |name: &str, program_path: &Path, code: &str| {
        let file = running.write(name, code);
        let output = Command::new(program_path)
            .arg(file)
            .arg(&entry)
            .output()
            .unwrap();
        said(&output)
    };
    let python = program("python3");
    assert!(run("client.py", &python, HTTP_CLIENT).ends_with("well\n"));
    assert!(run("requests_client.py", &python, REQUESTS).ends_with("well\n"));
    assert!(run("socket_client.py", &python, SOCKET_CLIENT).ends_with("well\n"));
    assert!(run("client.mjs", &program("node"), FETCH).ends_with("well\n"));
}

const HTTP_CLIENT: &str = r#"
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=20)
for number in range(20):
    connection.request("GET", "/%d" % number)
    answer = connection.getresponse()
    assert answer.status == 200 and answer.read().startswith(b"GET 0 "), number
    assert answer.getheader("x-seen-path") == "/%d" % number
kept = connection.sock
connection.request("POST", "/bin", body=(b"0" * 1000 for _ in range(100)), encode_chunked=True,
                   headers={"Transfer-Encoding": "chunked"})
assert connection.getresponse().read().startswith(b"POST 100000 ")
connection.request("HEAD", "/")
assert connection.getresponse().read() == b""
connection.request("GET", "/chunks")
assert connection.getresponse().read().startswith(b"GET 0 ")
assert connection.sock is kept, "the connection was not kept"
print("well")
"#;

const REQUESTS: &str = r#"
import requests, sys
base = "http://" + sys.argv[1]
with requests.Session() as session:
    for number in range(20):
        answer = session.get(base + "/x", params={"n": number}, timeout=20)
        assert answer.ok and answer.text.startswith("GET 0 "), answer
        assert answer.headers["x-seen-path"] == "/x?n=%d" % number
    assert session.post(base + "/f", data={"a": "b"}, timeout=20).text.startswith("POST 3 ")
    pieces = (b"0" * 4096 for _ in range(64))
    assert session.put(base + "/p", data=pieces, timeout=20).text.startswith("PUT 262144 ")
    assert session.delete(base + "/d", timeout=20).text.startswith("DELETE 0 ")
print("well")
"#;

const SOCKET_CLIENT: &str = r#"
import asyncio, sys, websockets
async def main():
    async with websockets.connect("ws://%s/ws" % sys.argv[1]) as socket:
        for message in ["hello", "x" * 100000, b"\0\1\2" * 10000]:
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())
asyncio.run(main())
print("well")
"#;

const FETCH: &str = r#"
const base = "http://" + process.argv[2];
const check = (right, what) => { if (!right) throw new Error(what); };
for (let number = 0; number < 20; number++) {
  const answer = await fetch(`${base}/${number}`);
  check(answer.ok && (await answer.text()).startsWith("GET 0 "), `GET ${number}`);
}
const many = await Promise.all([...Array(32).keys()].map((n) => fetch(`${base}/chunks?${n}`)));
for (const answer of many) check((await answer.text()).startsWith("GET 0 "), "chunks");
const posted = await fetch(`${base}/bin`, { method: "POST", body: new Uint8Array(100000) });
check((await posted.text()).startsWith("POST 100000 "), "POST");
const stream = new ReadableStream({
  start(to) { for (let i = 0; i < 50; i++) to.enqueue(new Uint8Array(1000)); to.close(); },
});
const streamed = await fetch(`${base}/s`, { method: "PUT", body: stream, duplex: "half" });
check((await streamed.text()).startsWith("PUT 50000 "), "stream");
console.log("well");
"#;

#[test]
fn system_load_generators_see_no_error() {
    let (_running, entry) = begin("programs-load");
    let url = format!("http://{entry}/");
    let wrk = Command::new(program("wrk"))
        .args([
            "--threads",
            "1",
            "--connections",
            "16",
            "--duration",
            "2s",
            &url,
        ])
        .output()
        .unwrap();
    let wrk = said(&wrk);
    assert!(wrk.contains("requests in"), "{wrk}");
    assert!(
        !wrk.contains("Non-2xx") && !wrk.contains("Socket errors"),
        "{wrk}"
    );
    for version in [&["--h1"][..], &[]] {
        let h2load = Command::new(program("h2load"))
            .args([
                "--requests",
                "2000",
                "--clients",
                "8",
                "--max-concurrent-streams",
                "4",
            ])
            .args(version)
            .arg(&url)
            .output()
            .unwrap();
        let h2load = said(&h2load);
        let whole =
            "2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(h2load.contains(whole), "{version:?}: {h2load}");
        assert!(
            h2load.contains("2000 2xx, 0 3xx, 0 4xx, 0 5xx"),
            "{version:?}: {h2load}"
        );
    }
}
