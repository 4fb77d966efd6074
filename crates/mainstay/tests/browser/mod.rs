//! A real Chromium without a screen, driven by W3C WebDriver.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use mainstay_testkit::{Spawned, TempDir, free_port, program, wait_until};
use serde_json::{Value, json};

use crate::running::PATIENCE;

/// Whether pages may run scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scripts {
    On,
    Off,
}

/// The driver, and the browsers that it starts in a directory of their own.
pub(crate) struct Driver {
    address: SocketAddr,
    process: Spawned,
    dir: TempDir,
}

impl Driver {
    pub(crate) fn start() -> Self {
        // Without a font Chromium draws no letters, and complains of nothing.
        program("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf");
        let dir = TempDir::new("browser");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(program("chromedriver"));
        command.arg(format!("--port={}", address.port()));
        let process = Spawned::start(&dir, "chromedriver", &mut command);
        wait_until(PATIENCE, "the driver listens", || {
            TcpStream::connect(address).map_err(|_| process.log())
        });
        Self {
            address,
            process,
            dir,
        }
    }

    /// Opens a browser.
    pub(crate) fn open(&self, scripts: Scripts) -> Browser<'_> {
        let profile = self.dir.join(format!("profile-{scripts:?}"));
        // As root and without a screen; nothing is fetched that was not asked for.
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--no-first-run".to_owned(),
            "--window-size=1600,700".to_owned(),
            format!("--user-data-dir={}", profile.display()),
        ];
        let javascript = match scripts {
            Scripts::On => 1,
            Scripts::Off => 2,
        };
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": {
                "binary": program("chromium"),
                "args": arguments,
                "prefs": { "profile.managed_default_content_settings.javascript": javascript },
            },
        }}});
        let opened = self.call("POST", "/session", &wanted);
        let session = opened["sessionId"].as_str().unwrap_or_else(|| {
            panic!("no browser came: {opened}\n{}", self.process.log());
        });
        Browser {
            driver: self,
            session: session.to_owned(),
        }
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut command = Command::new(program("curl"));
        command.args(["--silent", "--show-error", "--max-time", "60", "--request"]);
        command
            .arg(method)
            .arg(format!("http://{}{path}", self.address));
        if method == "POST" {
            command.args([
                "--header",
                "content-type: application/json",
                "--data-binary",
                "@-",
            ]);
        }
        let mut curl = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = curl.stdin.take().unwrap();
        // Without `@-` it does not read, and may have ended already.
        if method == "POST" {
            input.write_all(body.to_string().as_bytes()).unwrap();
        }
        drop(input);
        let output = curl.wait_with_output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        answer["value"].clone()
    }
}

/// One browser with one page; it is closed when this is dropped.
pub(crate) struct Browser<'a> {
    driver: &'a Driver,
    session: String,
}

impl Browser<'_> {
    fn post(&self, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{path}", self.session);
        let answer = self.driver.call("POST", &path, body);
        assert!(answer["error"].is_null(), "{path}: {answer}");
        answer
    }

    fn get(&self, path: &str) -> Value {
        let path = format!("/session/{}/{path}", self.session);
        self.driver.call("GET", &path, &Value::Null)
    }

    pub(crate) fn go(&self, url: &str) {
        self.post("url", &json!({ "url": url }));
    }

    /// The page as it is now.
    pub(crate) fn source(&self) -> String {
        self.get("source").as_str().unwrap_or_default().to_owned()
    }

    /// What a function body gives.
    pub(crate) fn evaluate(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    fn element(&self, selector: &str) -> String {
        let found = self.post(
            "element",
            &json!({ "using": "css selector", "value": selector }),
        );
        let mut ids = found.as_object().unwrap().values();
        ids.next().unwrap().as_str().unwrap().to_owned()
    }

    /// Clicks as a person does: it must be there, and to be seen.
    pub(crate) fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.post(&format!("element/{element}/click"), &json!({}));
    }

    pub(crate) fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(
            &format!("element/{element}/value"),
            &json!({ "text": text }),
        );
    }

    /// What the page complained about: errors of scripts, and what its own policy kept out.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.post("se/log", &json!({ "type": "browser" }));
        let lines = log.as_array().into_iter().flatten();
        lines.map(|line| line["message"].to_string()).collect()
    }

    /// Whether a person wants it light or dark.
    pub(crate) fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.post(
            "goog/cdp/execute",
            &json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": features } }),
        );
    }

    /// Writes a picture of the page.
    pub(crate) fn picture(&self, path: &Path) {
        let picture = self.get("screenshot");
        let decode =
            "import base64,sys; sys.stdout.buffer.write(base64.b64decode(sys.stdin.read()))";
        let mut python = Command::new(program("python3"))
            .args(["-c", decode])
            .stdin(Stdio::piped())
            .stdout(fs::File::create(path).unwrap())
            .spawn()
            .unwrap();
        let mut input = python.stdin.take().unwrap();
        input
            .write_all(picture.as_str().unwrap().as_bytes())
            .unwrap();
        drop(input);
        assert!(python.wait().unwrap().success());
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        let path = format!("/session/{}", self.session);
        self.driver.call("DELETE", &path, &Value::Null);
    }
}
