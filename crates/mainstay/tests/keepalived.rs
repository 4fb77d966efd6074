//! Configurations go from keepalived to a node file and back; the real keepalived judges what is written for it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use mainstay_testkit::{Netns, Segment, Spawned, TempDir, is_root, program, skip, wait_until};
use rustix::process::Signal;

const MAINSTAY: &str = env!("CARGO_BIN_EXE_mainstay");

/// With all that both can say.
const NODE: &str = r#"
roles = ["vip"]
[vip.entry]
address   = ["10.9.0.100/24", "10.9.0.101/32"]
interface = "eth0"
vrid      = 51
priority  = 150
advert    = "10ms"
preempt   = "2s500ms"
track     = [{ exec = ["/bin/sh", "-c", "test -e 'FLAG' && true # !{}"], every = "1s", timeout = "2s", fall = 1 }]
notify    = ["/bin/sh", "-c", "echo $* >> CHANGES", "sh", "own"]
[vip.old]
address   = "10.9.0.102/24"
interface = "eth0"
vrid      = 52
version   = 2
advert    = "1s"
peers     = ["10.9.0.2", "10.9.0.3"]
track     = []
[vip.six]
address   = "fd00::100"
interface = "eth0"
vrid      = 51
preempt   = true
track     = [{ process = "haproxy" }]
"#;

fn mainstay(arguments: &[&str]) -> Output {
    let output = Command::new(MAINSTAY).args(arguments).output();
    output.expect("it can be started")
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("its name is plain")
}

/// What the real keepalived says of a configuration, on a host with `eth0`.
fn judged(host: &Netns, file: &Path) -> (Option<i32>, String) {
    let mut judge = host.command(&program("keepalived"));
    let judged = judge.args(["-t", "-l", "-f"]).arg(file).output();
    let judged = judged.expect("keepalived can be started");
    (judged.status.code(), texts(&judged).1)
}

/// Writes the node file, and what is exported of it, into a directory; what was exported.
fn export(dir: &TempDir) -> String {
    let node = dir.join("node.toml");
    let (flag, changes) = (dir.join("flag"), dir.join("changes"));
    // Quotes inside of quotes cannot be told to keepalived.
    let said = NODE.replace("'FLAG'", text(&flag));
    fs::write(&node, said.replace("CHANGES", text(&changes))).expect("the directory is ours");
    let exported = mainstay(&["export", "keepalived", text(&node)]);
    let (configuration, left) = texts(&exported);
    let told = (exported.status.code(), left.as_str());
    assert_eq!(told, (Some(0), ""), "{configuration}");
    fs::write(dir.join("keepalived.conf"), &configuration).expect("the directory is ours");
    configuration
}

#[test]
fn system_what_is_exported_is_accepted_by_the_real_keepalived_and_imported_as_it_was() {
    if !is_root() {
        return skip("needs root: makes network namespaces");
    }
    let dir = TempDir::new("keepalived");
    let configuration = export(&dir);
    let file = dir.join("keepalived.conf");
    let (segment, host) = (Segment::new(), Netns::new());
    segment.plug(&host, "a", "10.9.0.1/24");
    let (code, told) = judged(&host, &file);
    assert_eq!(code, Some(0), "{told}\n{configuration}");

    let imported = mainstay(&["import", "keepalived", text(&file)]);
    let (tables, left) = texts(&imported);
    assert_eq!(imported.status.code(), Some(0), "{left}");
    assert_eq!(
        left.lines().count(),
        1,
        "but for what keepalived alone wants: {left}"
    );
    assert!(left.contains("enable_script_security"), "{left}");
    let again = dir.join("again.toml");
    fs::write(&again, format!("roles = [\"vip\"]\n{tables}")).expect("the directory is ours");
    let (back, _) = texts(&mainstay(&["export", "keepalived", text(&again)]));
    assert_eq!(back, configuration);
}

#[test]
fn system_what_is_exported_is_what_the_real_keepalived_does() {
    if !is_root() {
        return skip("needs root: makes network namespaces");
    }
    let dir = TempDir::new("keepalived-runs");
    export(&dir);
    let (segment, host) = (Segment::new(), Netns::new());
    segment.plug(&host, "a", "10.9.0.1/24");
    let mut run = host.command(&program("keepalived"));
    let file = |name: &str| dir.join(name).into_os_string();
    run.args(["-n", "-l", "-P", "-f"])
        .arg(file("keepalived.conf"));
    run.arg("-p").arg(file("pid")).arg("-r").arg(file("vrrp"));
    let keepalived = Spawned::start(&dir, "keepalived", &mut run);
    let holds = |address: &str| {
        let mut list = host.command(&program("ip"));
        let listed = list.args(["-o", "address"]).output();
        texts(&listed.expect("`ip` can be started"))
            .0
            .contains(address)
    };
    let wait_for = |what: &str, wanted: bool, address: &str| {
        wait_until(Duration::from_mins(1), what, || {
            let same = holds(address) == wanted;
            if same { Ok(()) } else { Err(keepalived.log()) }
        });
    };
    wait_for(
        "nothing stands in the way of the second",
        true,
        "10.9.0.102/24",
    );
    assert!(!holds("10.9.0.100/24"), "its script fails");
    fs::write(dir.join("flag"), "").expect("the directory is ours");
    wait_for(
        "the script passes, with its quotes and signs",
        true,
        "10.9.0.100/24",
    );
    wait_until(Duration::from_mins(1), "the change is told", || {
        let told = fs::read_to_string(dir.join("changes")).unwrap_or_default();
        let same = told.contains("own INSTANCE entry MASTER 150");
        if same { Ok(()) } else { Err(told) }
    });
    keepalived.signal(Signal::TERM);
    wait_for("it ends", false, "10.9.0.100/24");
}

#[test]
fn system_a_configuration_of_keepalived_becomes_tables_and_its_mistakes_are_told_with_their_lines()
{
    let dir = TempDir::new("keepalived-import");
    let file = dir.join("keepalived.conf");
    let good = "global_defs {\n  router_id ME\n}\nvrrp_instance VI_1 {\n  interface eth0\n  virtual_router_id 51\n  \
                virtual_ipaddress {\n    10.9.0.100/24\n  }\n}\n";
    fs::write(&file, good).expect("the directory is ours");
    if is_root() {
        let (segment, host) = (Segment::new(), Netns::new());
        segment.plug(&host, "a", "10.9.0.1/24");
        let (code, told) = judged(&host, &file);
        assert_eq!(code, Some(0), "{told}");
    }
    let imported = mainstay(&["import", "keepalived", text(&file)]);
    let (tables, left) = texts(&imported);
    assert_eq!(imported.status.code(), Some(0));
    assert!(
        tables.starts_with("[vip.vi-1]\naddress   = \"10.9.0.100/24\"\n"),
        "{tables}"
    );
    assert!(
        left.contains("keepalived.conf:2: global_defs router_id ME: machines are known"),
        "{left}"
    );
    let (json, _) = texts(&mainstay(&["--json", "import", "keepalived", text(&file)]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(json["left"][0]["line"], 2);

    fs::write(&file, good.replace("51", "0")).expect("the directory is ours");
    let refused = mainstay(&["import", "keepalived", text(&file)]);
    let (tables, told) = texts(&refused);
    assert_eq!((refused.status.code(), tables.as_str()), (Some(2), ""));
    assert!(
        told.contains("keepalived.conf:6: `virtual_router_id` is a number from 1 to 255"),
        "{told}"
    );
    let missing = mainstay(&["import", "keepalived", text(&dir.join("nothing"))]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(texts(&missing).1.contains("cannot read it: No such file"));
}
