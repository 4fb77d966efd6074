//! Who is let in on the unix socket: not whoever may open it, but whoever the kernel says it is.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use mainstay_api::wire::{Problem, ProblemCode};
use mainstay_testkit::{is_root, skip};
use rustix::process::{Gid, Uid};

use crate::centre::{DEADLINE, Place};

/// An account and groups that no machine has.
const STRANGER: u32 = 54_321;
const GROUP: u32 = 54_322;
const OTHER_GROUP: u32 = 54_323;

/// Calls `line` from a thread that has become another account; only this thread does.
fn call_as(gid: u32, groups: &[u32], socket: PathBuf, line: &str) -> (u16, Option<Problem>) {
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    let request = format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let caller = std::thread::spawn(move || {
        rustix::thread::set_thread_groups(&groups).expect("is root");
        let gid = Gid::from_raw(gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid).expect("is root");
        let uid = Uid::from_raw(STRANGER);
        rustix::thread::set_thread_res_uid(uid, uid, uid).expect("is root");
        let mut stream = UnixStream::connect(socket).expect("its mode was loosened");
        stream.set_read_timeout(Some(DEADLINE)).expect("is open");
        stream.write_all(request.as_bytes()).expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answers");
        answer
    });
    let answer = caller.join().expect("no panic");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
    (status.expect("a status"), serde_json::from_str(body).ok())
}

fn code(seen: &(u16, Option<Problem>)) -> Option<ProblemCode> {
    seen.1.as_ref().map(|problem| problem.code)
}

fn loosen(place: &Place) {
    let socket = place.socket();
    let directory = socket.parent().expect("has one");
    for (path, mode) in [(socket.as_path(), 0o666), (directory, 0o755)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("is ours");
    }
}

#[tokio::test]
async fn a_stranger_is_refused_although_the_socket_lets_everybody_connect() {
    if !is_root() {
        return skip("needs root: becomes another account");
    }
    let mut place = Place::new("stranger");
    let _running = place.start();
    loosen(&place);
    let seen = call_as(STRANGER, &[], place.socket(), "GET /v1/status");
    assert_eq!(code(&seen), Some(ProblemCode::AccountRefused));
    assert_eq!(seen.0, 403);
    let problem = seen.1.expect("a problem");
    assert!(problem.message.contains("54321"), "{problem:?}");
}

#[tokio::test]
async fn a_member_of_the_group_is_a_user_and_none_of_mainstays_own_processes() {
    if !is_root() {
        return skip("needs root: becomes another account");
    }
    let mut place = Place::new("member");
    place.set_api_group(GROUP);
    let _running = place.start();
    loosen(&place);
    let call = |gid, groups: &[u32], line| call_as(gid, groups, place.socket(), line);
    for (gid, groups) in [(GROUP, &[][..]), (STRANGER, &[OTHER_GROUP, GROUP])] {
        assert_eq!(
            call(gid, groups, "GET /v1/status").0,
            200,
            "{gid} {groups:?}"
        );
        let watch = "GET /v1/watch/plan?node=local&incarnation=1";
        let seen = call(gid, groups, watch);
        assert_eq!(code(&seen), Some(ProblemCode::AccountRefused));
    }
    let seen = call(STRANGER, &[OTHER_GROUP], "GET /v1/status");
    assert_eq!(code(&seen), Some(ProblemCode::AccountRefused));
}
