//! Why keys have no counterpart in a node file.

/// The key or a begin of it (with `*`), and why it is left out.
type Reason = (&'static str, &'static str);

const SENDER: &str = "adverts come from the primary address of the interface";
const ANNOUNCED: &str =
    "addresses are announced at once, again in the next seconds, each minute, and after a split";
const MAIL: &str = "no mail is sent; let `notify` do that";
const NOTIFY: &str =
    "one program is told of all changes: `notify`, with the new state as its third argument";
const ROUTED: &str = "routes and rules stay as they are on this machine";
const BALANCED: &str = "balancing is the gateway's: `[listen.NAME]`";
const WHOLE: &str = "addresses that move together are one table: `address` takes a list";

/// At the top of a file.
const TOP: &[Reason] = &[
    (
        "vrrp_sync_group",
        "addresses that move together are one table, whose `address` takes a list; two families are two tables that move each for itself",
    ),
    ("virtual_server*", BALANCED),
    ("SSL", BALANCED),
    ("real_server", BALANCED),
    (
        "static_ipaddress",
        "addresses that stay belong to the machine's own network settings",
    ),
    ("static_r*", ROUTED),
    ("static_virtual_ipaddress", ROUTED),
    ("track_group", WHOLE),
    ("garp_group", ANNOUNCED),
    (
        "vrrp_track_file",
        "no file's content is tracked; `track = [{ exec = [...] }]` can read it",
    ),
    (
        "track_file",
        "no file's content is tracked; `track = [{ exec = [...] }]` can read it",
    ),
    (
        "bfd_instance",
        "BFD is not spoken; adverts of 10ms find a dead holder within 40ms",
    ),
    ("linkbeat_*", "the kernel says whether an interface works"),
    (
        "interface_up_down_delays",
        "an interface that works is used at once",
    ),
    (
        "include_check",
        "an included file that is missing is refused",
    ),
    (
        "net_namespace",
        "start `mainstay run` in the namespace: `ip netns exec`",
    ),
    (
        "namespace_with_ipsets",
        "start `mainstay run` in the namespace: `ip netns exec`",
    ),
    ("instance", "give each its own state directory: `state`"),
    ("use_pid_dir", "there is no file with the process's number"),
];

/// In `global_defs`.
const GLOBAL: &[Reason] = &[
    ("router_id", "machines are known by their addresses"),
    ("smtp_*", MAIL),
    ("notification_email*", MAIL),
    ("vrrp_garp_*", ANNOUNCED),
    ("vrrp_gna_*", ANNOUNCED),
    ("vrrp_min_garp", ANNOUNCED),
    (
        "vrrp_strict",
        "both checksums are read, what is no advert is refused and counted, and nothing else is",
    ),
    (
        "vrrp_skip_check_adv_addr",
        "adverts with other addresses are believed, and told",
    ),
    (
        "vrrp_higher_prio_send_advert",
        "who gives way says so once, by itself",
    ),
    (
        "vrrp_lower_prio_no_advert",
        "a holder that is better answers a worse one",
    ),
    (
        "vrrp_mcast_group*",
        "the groups are those of RFC 9568: 224.0.0.18 and ff02::12",
    ),
    ("vrrp_iptables", "no packet filter is touched"),
    ("vrrp_ipsets", "no packet filter is touched"),
    ("nftables*", "no packet filter is touched"),
    (
        "enable_script_security",
        "programs run as the account that runs Mainstay",
    ),
    (
        "vrrp_rt_priority",
        "the process that holds addresses is scheduled in real time where that is allowed",
    ),
    (
        "vrrp_priority",
        "the process that holds addresses is scheduled in real time where that is allowed",
    ),
    (
        "vrrp_no_swap",
        "the memory of the process that holds addresses is locked",
    ),
    ("process_names", "processes are called `mainstay`"),
    (
        "dynamic_interfaces",
        "an interface that is missing is always waited for",
    ),
    (
        "enable_snmp*",
        "`/metrics` of the gateway has what is counted",
    ),
    ("enable_dbus", "`mainstay vip --json` shows the state"),
    ("dbus_*", "`mainstay vip --json` shows the state"),
    ("lvs_*", BALANCED),
    ("checker*", BALANCED),
    ("bfd_*", "BFD is not spoken"),
    (
        "use_symlink_paths",
        "programs run by the path that is written",
    ),
    ("vrrp_notify_fifo*", NOTIFY),
    ("notify_fifo*", NOTIFY),
];

/// In `vrrp_instance`.
const INSTANCE: &[Reason] = &[
    ("unicast_src_ip", SENDER),
    ("mcast_src_ip", SENDER),
    ("track_src_ip", SENDER),
    (
        "mcast_dst_ip",
        "the groups are those of RFC 9568: 224.0.0.18 and ff02::12",
    ),
    ("unicast_ttl", "adverts have the TTL 255, as RFC 9568 says"),
    (
        "check_unicast_src",
        "with `peers`, nobody else is ever believed",
    ),
    (
        "unicast_fault_no_peer",
        "without `peers` adverts are multicast",
    ),
    (
        "old_unicast_checksum",
        "both checksums of RFC 9568 are understood, that of a draft is not",
    ),
    (
        "v3_checksum_as_v2",
        "both checksums are understood, and what the peer counts is written",
    ),
    (
        "virtual_ipaddress_excluded",
        "all addresses are in the adverts; write those of the other family as a table of their own, with the same `vrid`",
    ),
    ("no_virtual_ipaddress", "a floating address has an address"),
    (
        "promote_secondaries",
        "put floating addresses with `/32` beside others of their network",
    ),
    ("virtual_routes", ROUTED),
    ("virtual_rules", ROUTED),
    ("vrf", "name the interface itself"),
    (
        "dont_track_primary",
        "without its interface it takes no part",
    ),
    (
        "track_file",
        "no file's content is tracked; `track = [{ exec = [...] }]` can read it",
    ),
    (
        "track_bfd",
        "BFD is not spoken; adverts of 10ms find a dead holder within 40ms",
    ),
    (
        "linkbeat_use_polling",
        "the kernel says whether an interface works",
    ),
    (
        "authentication",
        "passwords protect nothing, since everybody on the link reads them, and adverts with one are refused: take it out on all machines",
    ),
    ("garp_*", ANNOUNCED),
    ("vmac_garp_intvl*", ANNOUNCED),
    (
        "down_timer_adverts",
        "a holder is taken for dead after three adverts, as RFC 9568 says",
    ),
    (
        "timer_expired_backup",
        "a process that slept listens before it speaks",
    ),
    (
        "thread_timer_expired",
        "a process that slept listens before it speaks",
    ),
    (
        "lower_prio_no_advert",
        "a holder that is better answers a worse one",
    ),
    (
        "higher_prio_send_advert",
        "who gives way says so once, by itself",
    ),
    (
        "owner_ignore_adverts",
        "adverts with our own address are told",
    ),
    (
        "skip_check_adv_addr",
        "adverts with other addresses are believed, and told",
    ),
    (
        "strict_mode",
        "both checksums are read, what is no advert is refused and counted",
    ),
    ("accept", "packets to the address are accepted"),
    (
        "no_accept",
        "packets to the address are accepted; a packet filter can drop them",
    ),
    ("native_ipv6", "the family is that of the addresses"),
    (
        "kernel_rx_buf_size",
        "the kernel's own size is enough: one packet in ten milliseconds for each router",
    ),
    ("lvs_sync_daemon_interface", BALANCED),
    ("smtp_alert*", MAIL),
    ("notify_*", NOTIFY),
    (
        "use_vmac_addr",
        "`virtual_mac = true` has a hardware address of its own",
    ),
    ("vmac_xmit_base", "adverts come from where the address is"),
    (
        "use_ipvlan",
        "`virtual_mac = true` has a hardware address of its own",
    ),
    ("debug", "its log has what happens"),
];

/// In `vrrp_script` and `vrrp_track_process`.
const TRACK: &[Reason] = &[
    ("user", "programs run as the account that runs Mainstay"),
    ("init_fail", "what was not seen to work yet does not work"),
    ("full_command", "a process is found by its name alone"),
    ("param_match", "a process is found by its name alone"),
    ("quorum*", "one process of the name is enough"),
    ("delay", "the end of a process counts at once"),
    ("terminate_delay", "the end of a process counts at once"),
    ("fork_delay", "a process counts as soon as it runs"),
];

const WEIGHT: &str = "priorities stay as they are: what is dead makes this machine unfit, and the address goes to one that is fit";

/// Of a weight that is not 0.
pub(super) fn of_weight() -> &'static str {
    WEIGHT
}

/// The block in which a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    Top,
    Global,
    Instance,
    Track,
}

/// Why a key of this block is left out.
pub(super) fn of(block: Block, key: &str) -> &'static str {
    let table = match block {
        Block::Top => TOP,
        Block::Global => GLOBAL,
        Block::Instance => INSTANCE,
        Block::Track => TRACK,
    };
    let fits = |(known, _): &&Reason| match known.strip_suffix('*') {
        Some(begin) => key.starts_with(begin),
        None => *known == key,
    };
    table
        .iter()
        .find(fits)
        .map_or("a node file has nothing like it", |(_, why)| why)
}
