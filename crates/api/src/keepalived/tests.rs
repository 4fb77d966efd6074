use std::fs;
use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use mainstay_ids::VipName;
use mainstay_model::vip::{Floating, Hardware, OnDead, Preempt, TrackSpec, Tracked, VrrpVersion};
use proptest::prelude::{Just, Strategy, any, prop};
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::node;

fn imported(text: &str) -> Imported {
    parse(text, "k.conf").unwrap_or_else(|problems| panic!("{problems}"))
}

/// What is left out, a line each.
fn left(text: &str) -> Vec<String> {
    let left = imported(text).left;
    let told = left
        .iter()
        .map(|left| format!("{}: {}: {}", left.place, left.key, left.why));
    told.collect()
}

fn problems(text: &str) -> Vec<String> {
    let problems = parse(text, "k.conf").expect_err(text).0;
    let told = problems.iter().map(|one| {
        assert!(!one.help.is_empty(), "{one:?}");
        format!("{}: {}", one.place, one.message)
    });
    told.collect()
}

const WHOLE: &str = r#"
! a comment
global_defs {
    router_id LVS_MAIN      # told
    vrrp_version 3
}
vrrp_script chk_haproxy {
    script "/usr/bin/check 'with blanks' 80"
    interval \
        2
    fall 3
    weight 2
}
vrrp_script chk_port { script "/bin/bash -c 'exec 3<>/dev/tcp/127.0.0.1/5672'" }
vrrp_track_process haproxy
{
    process haproxy
}
vrrp_instance VI_1 {
    state MASTER
    interface eth0
    virtual_router_id 51
    priority 150
    advert_int 0.5
    authentication {
        auth_type PASS
        auth_pass 1111
    }
    unicast_src_ip 10.0.0.1
    unicast_peer {
        10.0.0.2
    }
    virtual_ipaddress {
        10.0.0.100/24 dev eth0 label eth0:1
        10.0.0.101
    }
    track_script {
        chk_haproxy
        chk_port
    }
    track_process { haproxy }
    track_interface { eth0 }
    notify "/usr/local/bin/changed all"
    garp_master_delay 1
}
vrrp_instance VI_2 {
    interface eth0
    virtual_router_id 52
    version 2
    nopreempt
    virtual_ipaddress { 10.0.0.102/24 }
}
vrrp_instance v6 {
    interface eth0
    virtual_router_id 52
    version 2
    preempt_delay 2.5
    virtual_ipaddress { fd00::100 }
}
vrrp_sync_group both {
    group { VI_1 VI_2 }
}
"#;

#[test]
fn what_keepalived_is_told_becomes_tables_and_the_rest_is_listed() {
    let found = imported(WHOLE);
    let tables = r#"[vip.vi-1]
address   = ["10.0.0.100/24", "10.0.0.101/32"]
interface = "eth0"
vrid      = 51
priority  = 150
preempt   = true
advert    = "500ms"
peers     = ["10.0.0.2"]
track     = [{ exec = ["/usr/bin/check", "with blanks", "80"], every = "2s", timeout = "2s", fall = 3 }, { tcp = "127.0.0.1:5672", every = "1s", fall = 1 }, { process = "haproxy" }]
notify    = ["/usr/local/bin/changed", "all"]

[vip.vi-2]
address   = "10.0.0.102/24"
interface = "eth0"
vrid      = 52
version   = 2
advert    = "1s"
track     = []

[vip.v6]
address   = "fd00::100/128"
interface = "eth0"
vrid      = 52
preempt   = "2s500ms"
advert    = "1s"
track     = []
"#;
    assert_eq!(node::vip_tables(&found.vips), tables);
    let left = left(WHOLE);
    let wanted = [
        "k.conf:12: vrrp_script chk_haproxy weight 2: priorities stay",
        "k.conf:4: global_defs router_id LVS_MAIN: machines are known",
        "k.conf:20: vrrp_instance VI_1 state MASTER: all begin as backups",
        "k.conf:25: vrrp_instance VI_1 authentication: passwords protect nothing",
        "k.conf:29: vrrp_instance VI_1 unicast_src_ip 10.0.0.1: adverts come from the primary",
        "k.conf:34: vrrp_instance VI_1 virtual_ipaddress 10.0.0.100/24 label: an address has no label",
        "k.conf:44: vrrp_instance VI_1 garp_master_delay 1: addresses are announced",
        "k.conf:19: vrrp_instance VI_1: its name is `vi-1`",
        "k.conf:46: vrrp_instance VI_2: its name is `vi-2`",
        "k.conf:60: vrrp_sync_group both: addresses that move together are one table",
    ];
    assert_eq!(left.len(), wanted.len(), "{left:#?}");
    for wanted in wanted {
        assert!(
            left.iter().any(|told| told.starts_with(wanted)),
            "{wanted}: {left:#?}"
        );
    }
    assert!(!left.concat().contains("1111"), "a password is shown");
}

#[test]
fn nothing_of_a_known_or_an_unknown_key_is_dropped_in_silence() {
    let text = "vrrp_instance a {\n interface eth0\n virtual_router_id 1\n virtual_ipaddress { 10.0.0.1 }\n\
                priority 1\n priority 2\n whatever 1\n virtual_routes {\n 10.0.0.0/8 dev eth0\n }\n\
                notify_master /bin/true\n track_interface { eth0 weight 5\n eth1 }\n use_vmac\n}\n\
                virtual_server 10.0.0.1 80 {\n real_server 10.0.0.2 80 { }\n}\nnonsense";
    let found = imported(text);
    assert_eq!(found.vips[0].priority.get(), 2);
    let keys: Vec<(usize, &str)> = found
        .left
        .iter()
        .map(|l| (l.place.line, l.key.as_str()))
        .collect();
    assert_eq!(
        keys,
        [
            (5, "vrrp_instance a priority 1"),
            (7, "vrrp_instance a whatever 1"),
            (8, "vrrp_instance a virtual_routes"),
            (11, "vrrp_instance a notify_master /bin/true"),
            (12, "vrrp_instance a track_interface eth0 weight 5"),
            (13, "vrrp_instance a track_interface eth1"),
            (16, "virtual_server 10.0.0.1 80"),
            (19, "nonsense"),
        ]
    );
}

fn expect_told(text: &str, wanted: &str) {
    let told = problems(text);
    let found = told.iter().any(|told| told.starts_with(wanted));
    assert!(found, "{text}: {told:#?}");
}

#[test]
fn what_is_broken_is_told_with_its_line() {
    let too_deep = "x {".repeat(9) + &"}".repeat(9);
    for (text, wanted) in [
        ("vrrp_instance a {\n", "k.conf:1: this block has no end"),
        ("}", "k.conf:1: there is a `}` too many"),
        ("{ }", "k.conf:1: there is a `{` with no word before it"),
        (
            "a { { } }",
            "k.conf:1: there is a `{` with no word before it",
        ),
        (
            too_deep.as_str(),
            "k.conf:1: there are more than 8 blocks in each other",
        ),
        ("a \"b\nc \"d", "k.conf:2: a quote is not closed"),
        ("a\0b", "k.conf:1: there is a NUL in the line"),
        (
            "\n@main interface eth0",
            "k.conf:2: lines for some machines alone",
        ),
        ("$IF=eth0", "k.conf:1: definitions (`$NAME=VALUE`)"),
        ("a ${_INSTANCE}", "k.conf:1: names that keepalived defines"),
        ("~SEQ(x, 1, 2)", "k.conf:1: lines that are repeated"),
        ("include x.conf", "k.conf:1: cannot include `x.conf`"),
        ("include", "k.conf:1: `include` names no file"),
        (
            "vrrp_script a {\n}",
            "k.conf:1: `vrrp_script a` has no command",
        ),
        (
            "vrrp_script a {\nscript \"'\"\n}",
            "k.conf:2: the command cannot be read",
        ),
        (
            "vrrp_script a {\nscript /x\ninterval soon\n}",
            "k.conf:3: `interval` is a number",
        ),
        (
            "global_defs {\nvrrp_version 4\n}",
            "k.conf:2: `vrrp_version` is 2 or 3",
        ),
        (
            "vrrp_instance { }",
            "k.conf:1: a `vrrp_instance` has one name",
        ),
    ] {
        expect_told(text, wanted);
    }
}

#[test]
fn an_instance_that_cannot_be_is_told_with_the_line() {
    let instance = |lines: &str| format!("vrrp_instance a {{\n{lines}\n}}");
    let good = "interface eth0\nvirtual_router_id 1\nvirtual_ipaddress { 10.0.0.1 }";
    for (text, wanted) in [
        (
            instance(""),
            "k.conf:1: `vrrp_instance a` has no `interface`",
        ),
        (
            instance("interface eth0\nvirtual_router_id 256"),
            "k.conf:3: `virtual_router_id` is a number from 1 to 255",
        ),
        (
            instance("interface eth0\nvirtual_router_id 1"),
            "k.conf:1: `vrrp_instance a`: 1 to 20 addresses",
        ),
        (
            instance(&format!("{good}\nadvert_int 0.5")),
            "k.conf:1: `vrrp_instance a`: version 2 counts whole seconds",
        ),
        (
            instance(&format!("{good}\nadvert_int soon")),
            "k.conf:5: `advert_int` is a number of seconds",
        ),
        (
            instance(&format!("{good}\ntrack_script {{ b }}")),
            "k.conf:5: `b` is not defined",
        ),
        (
            instance("virtual_ipaddress { 10.0.0.1/33 }"),
            "k.conf:2: `10.0.0.1/33` is no address",
        ),
        (
            instance("unicast_peer { name }"),
            "k.conf:2: `name` is no IP address",
        ),
        (
            instance(&format!("{good}\nnotify \"/x ${{y\"")),
            "k.conf:1: a command of `vrrp_instance a` has `${` without `}`",
        ),
        (
            instance(good) + "\n" + &instance(good),
            "k.conf:6: `vrrp_instance a`: `a` has the number 1",
        ),
    ] {
        expect_told(&text, wanted);
    }
}

#[test]
fn hostile_text_costs_no_more_than_its_length() {
    let deep = "{".repeat(100_000);
    assert!(problems(&deep).len() <= PROBLEMS_MAX);
    assert!(problems(&"a {".repeat(50_000)).len() <= PROBLEMS_MAX);
    assert!(problems(&"}".repeat(100_000)).len() <= PROBLEMS_MAX);
    imported(&"a b c\n".repeat(50_000));
    let many = "vrrp_instance a {\ninterface eth0\nvirtual_router_id 1\nvirtual_ipaddress { 10.0.0.1 }\n}\n";
    assert!(problems(&many.repeat(1000)).len() <= PROBLEMS_MAX);
}

#[test]
fn included_files_are_read_from_beside_the_file_that_includes_and_not_without_end() {
    let dir = std::env::temp_dir().join(format!("mainstay-import-{}", std::process::id()));
    fs::create_dir_all(dir.join("conf.d")).unwrap();
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    write(
        "k.conf",
        "global_defs {\n include defs\n}\ninclude conf.d/*.conf\n",
    );
    write("defs", "vrrp_version 3");
    for (name, vrid) in [("a", 1), ("b", 2)] {
        let text = format!(
            "vrrp_instance {name} {{\ninterface eth0\nvirtual_router_id {vrid}\nvirtual_ipaddress {{ 10.0.0.{vrid} }}\n}}"
        );
        write(&format!("conf.d/{name}.conf"), &text);
    }
    let found = import(&dir.join("k.conf")).unwrap();
    let told: Vec<_> = found
        .vips
        .iter()
        .map(|vip| (vip.name.as_str(), vip.version))
        .collect();
    assert_eq!(told, [("a", VrrpVersion::V3), ("b", VrrpVersion::V3)]);

    write("conf.d/b.conf", "\nwrong {");
    let error = import(&dir.join("k.conf")).unwrap_err().to_string();
    assert!(
        error.contains("conf.d/b.conf:2: this block has no end"),
        "{error}"
    );
    write("loop.conf", "include loop.conf");
    let error = import(&dir.join("loop.conf")).unwrap_err().to_string();
    assert!(
        error.contains("include each other more than 8 deep"),
        "{error}"
    );
    write("twice.conf", "include twice.conf\ninclude twice.conf\n");
    let error = import(&dir.join("twice.conf")).unwrap_err();
    assert!(error.0.len() <= PROBLEMS_MAX);
    write("none.conf", "include nothing*.conf");
    let error = import(&dir.join("none.conf")).unwrap_err().to_string();
    assert!(
        error.contains("none.conf:1: cannot include `nothing*.conf`: there is no such file"),
        "{error}"
    );
    write("device.conf", "include /dev/zero");
    let error = import(&dir.join("device.conf")).unwrap_err().to_string();
    assert!(error.contains("it is no file"), "{error}");
    write("long.conf", &"# long\n".repeat(200_000));
    let error = import(&dir.join("long.conf")).unwrap_err().to_string();
    assert!(error.contains("more than 1024 KiB"), "{error}");
    fs::remove_dir_all(&dir).unwrap();
}

/// Floating addresses of which keepalived can be told everything.
fn sayable() -> impl Strategy<Value = Vec<VipSpec>> {
    prop::collection::vec(vip(), 1..4).prop_map(|mut vips| {
        // Names, numbers and addresses belong to one each.
        for (at, vip) in (1_u8..).zip(&mut vips) {
            vip.name = VipName::parse(&format!("{}-{at}", vip.name)).unwrap();
            vip.vrid = NonZeroU8::new(at).unwrap();
            for (last, one) in (0_u8..).zip(&mut vip.addresses) {
                one.address = match one.address {
                    IpAddr::V4(_) => IpAddr::from([10, 0, at, last]),
                    IpAddr::V6(_) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, at.into(), last.into()]),
                };
            }
        }
        vips
    })
}

fn vip() -> impl Strategy<Value = VipSpec> {
    let family = (
        any::<bool>(),
        any::<bool>(),
        1_usize..4,
        0_u8..=32,
        0_usize..3,
    );
    let election = (1_u8..=255, 1_u64..=255, preempt());
    let rest = (
        prop::collection::vec(track(), 0..4),
        prop::option::of(words()),
    );
    (
        "[a-z][a-z0-9]{0,5}",
        "[a-z]{1,8}[.0-9]{0,4}",
        family,
        election,
        rest,
    )
        .prop_map(
            |(
                name,
                interface,
                (v6, v2, count, prefix_len, peers),
                (priority, advert, preempt),
                (track, notify),
            )| {
                let host = |last: u8| {
                    if v6 {
                        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 9, last.into()])
                    } else {
                        IpAddr::from([10, 0, 9, last])
                    }
                };
                let version = [VrrpVersion::V3, VrrpVersion::V2][usize::from(v2 && !v6)];
                VipSpec {
                    name: VipName::parse(&name).unwrap(),
                    interface,
                    vrid: NonZeroU8::MIN,
                    version,
                    addresses: vec![
                        Floating {
                            address: host(0),
                            prefix_len
                        };
                        count
                    ],
                    priority: NonZeroU8::new(priority).unwrap(),
                    preempt,
                    advert: match version {
                        VrrpVersion::V2 => Duration::from_secs(advert),
                        VrrpVersion::V3 => Duration::from_millis(10 * advert),
                    },
                    peers: (1..).take(peers).map(host).collect(),
                    hardware: if peers == 0 && v6 == v2 {
                        Hardware::Virtual
                    } else {
                        Hardware::Own
                    },
                    track,
                    on_dead: OnDead::YieldAtOnce,
                    notify: notify.unwrap_or_default(),
                }
            },
        )
}

fn preempt() -> impl Strategy<Value = Preempt> {
    prop_oneof![
        Just(Preempt::Never),
        Just(Preempt::Always),
        (1_u64..=1_000_000).prop_map(|ms| Preempt::After(Duration::from_millis(ms))),
    ]
}

fn words() -> impl Strategy<Value = Vec<String>> {
    let word = "[a-zA-Z0-9/ #!{}$.;|&<>@-]{0,12}";
    let word = word.prop_filter("no definition", |word| can_say_both(word));
    ("/[a-z/]{1,10}", prop::collection::vec(word, 0..4))
        .prop_map(|(program, rest)| std::iter::once(program).chain(rest).collect())
}

fn can_say_both(word: &str) -> bool {
    !word.contains("$_") && !word.contains("${_") && node::can_say(word)
}

fn track() -> impl Strategy<Value = TrackSpec> {
    let what = prop_oneof![
        words().prop_map(Tracked::Exec),
        (any::<IpAddr>(), 1_u16..)
            .prop_filter("an address", |(host, _)| !host.is_unspecified())
            .prop_map(|(host, port)| Tracked::Tcp((host, port).into())),
    ];
    let count = || (1_u32..=100).prop_map(|count| NonZeroU32::new(count).unwrap());
    let seconds = || (1_u64..=3600).prop_map(Duration::from_secs);
    let looked = (what, seconds(), seconds(), count(), count()).prop_map(
        |(what, every, timeout, fall, rise)| TrackSpec {
            what,
            every,
            timeout,
            fall,
            rise,
            restart: vec![],
        },
    );
    let process = "[a-z][a-z0-9.-]{0,10}";
    prop_oneof![
        looked,
        process.prop_map(|name| TrackSpec::of(Tracked::Process(name)))
    ]
}

proptest! {
    #[test]
    fn what_is_exported_is_imported_as_it_was(vips in sayable()) {
        let exported = export(&vips);
        prop_assert_eq!(&exported.left, &[]);
        let found = parse(&exported.text, "k.conf");
        let found = found.unwrap_or_else(|problems| panic!("{problems}\n{}", exported.text));
        let foreign = |left: &&Left| left.key != "global_defs enable_script_security";
        prop_assert_eq!(found.left.iter().find(foreign), None);
        // Those of the scripts come first, those of processes behind them.
        let order = |vips: &[VipSpec]| {
            let mut vips = vips.to_vec();
            for vip in &mut vips {
                vip.track.sort_by_key(|track| matches!(track.what, Tracked::Process(_)));
            }
            vips
        };
        prop_assert_eq!(order(&found.vips), order(&vips));
    }

    #[test]
    fn tables_are_read_as_they_were_written(vips in sayable()) {
        let text = node::vip_tables(&vips);
        let file = node::parse(&text, "node.toml", Path::new("/etc"), &|_| None);
        let file = file.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        let mut vips = vips;
        vips.sort_by(|one, other| one.name.cmp(&other.name));
        let mut read = file.vips;
        read.sort_by(|one, other| one.name.cmp(&other.name));
        prop_assert_eq!(read, vips);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "([a-z_]{1,12}|[{}\"'\\\\ \n#!$@~]|vrrp_instance a|script|interface eth0){0,60}") {
        if let Err(problems) = parse(&text, "k.conf") {
            prop_assert!(!problems.0.is_empty());
        }
    }
}

#[test]
fn what_keepalived_cannot_be_told_is_listed() {
    let text = "[vip.a]\naddress = \"10.0.0.1\"\ninterface = \"eth0\"\nvrid = 1\npreempt = \"1h\"\non_dead = \"restart-then-yield\"\n\
                notify = [\"/bin/it's\"]\n\
                track = [\"gateway\", { process = \"p\", restart = [\"/bin/r\"] }, { exec = [\"/bin/a\\\\b\"] }, { tcp = \":80\" }]\n";
    let file = node::parse(text, "n", Path::new("/"), &|_| None).unwrap();
    let exported = export(&file.vips);
    let keys: Vec<&str> = exported.left.iter().map(|left| left.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "vip.a.track[0]",
            "vip.a.track[1].restart",
            "vip.a.track[2]",
            "vip.a.track[3].every",
            "vip.a.preempt",
            "vip.a.notify",
            "vip.a.on_dead",
        ]
    );
    assert!(
        exported.text.contains("preempt_delay 1000\n"),
        "{}",
        exported.text
    );
}
