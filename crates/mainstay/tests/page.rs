//! The page of the statistics as people see it: in a real Chromium, of a real `dev`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod browser;
mod running;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use browser::{Browser, Driver, Scripts};
use mainstay_api::wire::Status;
use mainstay_testkit::{free_port, wait_until};
use running::{PATIENCE, Running, python_server, text};
use serde_json::Value;

/// The columns of the services' table that are looked at, counted from 1 as CSS does.
const TOTAL: usize = 9;

/// A `dev` with two instances, and where it shows its statistics.
fn start() -> (Running, Status, String) {
    let mut running = Running::prepare("page");
    let keys = "http = { path = \"/\" }\naddress = \"auto\"\ninstances = 2";
    let file = running.write_service(&python_server(""), keys);
    running.dev(&[file.to_str().unwrap()]);
    let status = running.wait_until_steady();
    let url = format!("http://{}/stats", status.stats.expect("statistics are on"));
    running.wait_for_output(&format!("stats  {url}"));
    let told = text(&running.run(&["status"]));
    assert!(told.contains(&url), "{told}");
    (running, status, url)
}

/// The sum over the instances of a column of the table.
fn total(browser: &Browser<'_>) -> Value {
    browser.evaluate(&format!(
        "return [...document.querySelectorAll('tr.server td:nth-child({TOTAL})')]
            .reduce((sum, cell) => sum + Number(cell.textContent), 0)"
    ))
}

#[track_caller]
fn wait_for(browser: &Browser<'_>, what: &str, script: &str) {
    wait_until(PATIENCE, what, || match browser.evaluate(script) {
        Value::Bool(true) => Ok(()),
        other => Err(format!("{other}\n{}", browser.source())),
    });
}

fn ask(status: &Status, times: usize) {
    for _ in 0..times {
        assert_eq!(Running::get(status, "/").0, 200);
    }
}

/// Where pictures are left for those who want to look: `MAINSTAY_PICTURES`, or the test's directory.
fn pictures(running: &Running) -> PathBuf {
    let wanted = std::env::var_os("MAINSTAY_PICTURES").map(PathBuf::from);
    let dir = wanted.unwrap_or_else(|| running.dir.join("pictures"));
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Sorts the instances by their total, by clicks on the column's head.
fn sorts_both_ways(browser: &Browser<'_>) {
    let head = format!("#services thead tr:nth-child(2) th:nth-child({TOTAL})");
    let order = format!(
        "return [...document.querySelectorAll('tr.server td:nth-child({TOTAL})')].map((cell) => Number(cell.textContent))"
    );
    let mut seen = Vec::new();
    for direction in ["descending", "ascending"] {
        browser.click(&format!("{head} button"));
        let script = format!("return document.querySelector('{head}').ariaSort");
        assert_eq!(browser.evaluate(&script), direction);
        seen.push(browser.evaluate(&order));
    }
    let numbers = |value: &Value| -> Vec<u64> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one.as_u64().unwrap())
            .collect()
    };
    let (down, up) = (numbers(&seen[0]), numbers(&seen[1]));
    assert!(down[0] > down[1] && up[0] < up[1], "{down:?} {up:?}");
}

/// Scales to three instances, and filters the third.
fn shows_and_finds_a_third_instance(browser: &Browser<'_>, running: &Running) {
    assert!(running.run(&["scale", "web", "3"]).status.success());
    wait_for(
        browser,
        "a new instance gets a row",
        "return document.getElementById('web/web-3')?.className === 'server up'",
    );
    browser.write("#filter input", "web-3");
    let script = "return [...document.querySelectorAll('tr.server')].filter((row) => !row.hidden).map((row) => row.id)";
    assert_eq!(browser.evaluate(script), serde_json::json!(["web/web-3"]));
    browser.write("#filter input", "\u{e003}".repeat("web-3".len()).as_str());
}

/// Leaves a picture of each.
fn looks_right_in_light_and_dark(browser: &Browser<'_>, running: &Running, name: &str) {
    let dir = pictures(running);
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        let path = dir.join(format!("{name}-{scheme}.png"));
        browser.picture(&path);
        let picture = fs::read(path).unwrap();
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000);
    }
    let back = "return getComputedStyle(document.body).backgroundColor";
    assert_eq!(browser.evaluate(back), "rgb(20, 24, 28)");
}

#[test]
fn system_the_page_is_live_sorts_filters_and_can_be_looked_at_in_light_and_dark() {
    let (running, status, url) = start();
    let driver = Driver::start();
    let browser = driver.open(Scripts::On);
    browser.go(&url);
    wait_for(
        &browser,
        "it is live",
        "return document.querySelector('#state').className === 'live'",
    );
    browser.evaluate("window.notLoadedAgain = true");
    assert_eq!(total(&browser), 0);

    // An odd number, so that one instance has more than the other.
    ask(&status, 7);
    wait_until(
        PATIENCE,
        "the requests are seen without a reload",
        || match total(&browser) {
            seen if seen == 7 => Ok(()),
            seen => Err(seen.to_string()),
        },
    );

    sorts_both_ways(&browser);
    shows_and_finds_a_third_instance(&browser, &running);
    looks_right_in_light_and_dark(&browser, &running, "stats");

    // Two instances leave while they are looked at.
    assert!(running.run(&["scale", "web", "1"]).status.success());
    wait_for(
        &browser,
        "their rows leave",
        "return document.querySelectorAll('tr.server').length === 1",
    );
    assert_eq!(browser.evaluate("return window.notLoadedAgain"), true);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn system_the_page_can_be_read_and_renews_itself_without_scripts() {
    let (_running, status, url) = start();
    let driver = Driver::start();
    let browser = driver.open(Scripts::Off);
    ask(&status, 3);
    browser.go(&url);
    let totals = |source: &str| -> u64 {
        let rows = source
            .split("<tr")
            .filter(|row| row.contains("class=\"server"));
        let cells = rows.map(|row| row.split("<td").nth(TOTAL - 1).unwrap_or_default());
        let numbers = cells.filter_map(|cell| {
            let (_, rest) = cell.split_once('>')?;
            rest.split('<').next()?.parse::<u64>().ok()
        });
        numbers.sum()
    };
    let wait_for_total = |wanted: u64| {
        wait_until(PATIENCE, "the requests are seen", || {
            let source = browser.source();
            match totals(&source) {
                seen if seen == wanted => Ok(()),
                seen => Err(format!("{seen}\n{source}")),
            }
        });
    };
    wait_for_total(3);
    let source = browser.source();
    assert!(
        !source.contains("<button") && source.contains("id=\"filter\" hidden"),
        "{source}"
    );
    ask(&status, 2);
    wait_for_total(5);
}

#[test]
fn system_an_instance_is_drained_and_weighed_from_the_page_without_scripts_and_seen_live() {
    let (running, status, url) = start();
    let driver = Driver::start();
    let live = driver.open(Scripts::On);
    live.go(&url);
    let is = |id: &str, class: &str| {
        format!("return document.getElementById('web/{id}')?.className === 'server {class}'")
    };
    wait_for(&live, "the first instance is up", &is("web-1", "up"));

    let plain = driver.open(Scripts::Off);
    let token = fs::read_to_string(running.state().join("token")).unwrap();
    let change = |instance: &str, action: &str, more: &dyn Fn()| {
        plain.go(&format!("{url}/change"));
        plain.click(&format!("option[value='{instance}']"));
        plain.click(&format!("input[value='{action}']"));
        more();
        plain.write("input[name='token']", token.trim());
        plain.click("form button");
    };
    change("web-1", "drain", &|| ());
    wait_for(&live, "it is seen to drain", &is("web-1", "drain"));
    let source = plain.source();
    assert!(
        source.contains("<h1>Mainstay gateway</h1>"),
        "back at the page: {source}"
    );
    for _ in 0..20 {
        assert_eq!(Running::get(&status, "/"), (200, "web-2\n".to_owned()));
    }
    looks_right_in_light_and_dark(&live, &running, "drained");
    // Who asked is on record, and the last one stays.
    let told = text(&running.run(&["why", "web-1"]));
    assert!(
        told.contains("whoever has the token, by the statistics page asked"),
        "{told}"
    );
    change("web-2", "maintenance", &|| ());
    let source = plain.source();
    assert!(
        source.contains("instance-last") && source.contains("--force"),
        "{source}"
    );
    assert_eq!(Running::get(&status, "/").0, 200);

    change("web-1", "ready", &|| ());
    wait_for(&live, "it is seen to be up again", &is("web-1", "up"));
    change("web-2", "weight", &|| {
        plain.write("input[name='weight']", "0");
    });
    let ps = text(&running.run(&["ps"]));
    assert!(ps.contains("has weight 0%"), "{ps}");
    live.go(&format!("{url}/change"));
    looks_right_in_light_and_dark(&live, &running, "intake");
    assert_eq!(live.complaints(), Vec::<String>::new());
}

/// A node with a service and a listener before two servers, of which nobody listens on the second.
fn start_with_listener() -> (Running, String, TcpListener) {
    let mut running = Running::prepare("page-listen");
    running.write_service(&python_server(""), "http = { path = \"/\" }");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (front, nobody) = (free_port(), free_port());
    let listen = format!(
        "[listen.redis]\nbind = '127.0.0.1:{front}'\nservers = [{{ address = '{}', name = 'a' }}, \
         {{ address = '127.0.0.1:{nobody}', name = 'b' }}]",
        server.local_addr().unwrap()
    );
    let roles = "['control', 'agent', 'gateway']\nservices = 'services.toml'";
    let file = running.write_node(roles, &listen);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace("stats = 'off'", "stats = '127.0.0.1:0'"),
    )
    .unwrap();
    running.node(&file, &[]);
    let status = running.wait_until_steady();
    let url = format!("http://{}/stats", status.stats.expect("statistics are on"));
    (running, url, server)
}

#[test]
fn system_a_server_of_a_listener_is_drained_from_the_page_without_scripts_and_seen_live() {
    let (running, url, _server) = start_with_listener();
    let driver = Driver::start();
    let live = driver.open(Scripts::On);
    live.go(&url);
    let is = |id: &str, class: &str| {
        format!("return document.getElementById('redis/{id}')?.className === 'server {class}'")
    };
    wait_for(&live, "the first server is up", &is("a", "up"));
    wait_for(&live, "the second is down", &is("b", "down"));

    let plain = driver.open(Scripts::Off);
    let token = fs::read_to_string(running.state().join("token")).unwrap();
    let change = |action: &str| {
        plain.go(&format!("{url}/change"));
        plain.click("option[value='redis/a']");
        plain.click(&format!("input[value='{action}']"));
        plain.write("input[name='token']", token.trim());
        plain.click("form button");
    };
    change("drain");
    wait_for(&live, "it is seen to drain", &is("a", "drain"));
    looks_right_in_light_and_dark(&live, &running, "listen");
    change("ready");
    wait_for(&live, "it is seen to be up again", &is("a", "up"));

    live.go(&format!("{url}/change"));
    looks_right_in_light_and_dark(&live, &running, "change");
    assert_eq!(live.complaints(), Vec::<String>::new());
}
