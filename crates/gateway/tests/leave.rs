//! An address is left: its clients are let go, and those of other addresses notice nothing.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use mainstay_gateway::Deadlines;
use mainstay_testkit::{TempDir, wait_until};
use support::{
    Gateway, Instance, Reply, SOON, Setting, Then, answer, connect, endpoint, one_service,
    read_reply, write_request,
};

/// How long it is waited for a connection that does not come about.
const SHORT: Duration = Duration::from_millis(300);

/// A gateway on all addresses of this machine; those of 127.0.0.9 are to leave.
struct Place {
    gateway: Gateway,
    leaves: SocketAddr,
    stays: SocketAddr,
    dir: TempDir,
}

fn place(instance: &Instance, drain: Duration) -> Place {
    let dir = TempDir::new("leave");
    let gateway = Gateway::start(Setting {
        workers: 2,
        leave: Some(dir.join("gw.leave")),
        deadlines: Deadlines {
            drain,
            ..Deadlines::default()
        },
        ..Setting::default()
    });
    gateway.publish_and_wait(one_service(1, vec![endpoint(1, instance.address)]));
    let port = gateway.entry.port();
    Place {
        gateway,
        leaves: ([127, 0, 0, 9], port).into(),
        stays: ([127, 0, 0, 1], port).into(),
        dir,
    }
}

/// Who asks that an address be left, until this is dropped.
struct Caller(BufReader<UnixStream>);

impl Caller {
    fn ask(socket: &Path) -> Self {
        let stream = wait_until(SOON, "somebody can be asked", || {
            UnixStream::connect(socket).map_err(|error| error.to_string())
        });
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut caller = Self(BufReader::new(stream));
        let asked = b"{\"leave\":[\"127.0.0.9\"]}\n";
        caller.0.get_mut().write_all(asked).unwrap();
        let begun = caller.line();
        assert!(begun.starts_with("{\"within_ms\":"), "{begun}");
        caller
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

fn ask(stream: &mut TcpStream) -> Reply {
    write_request(stream, "GET", "/", &[], b"");
    read_reply(stream)
}

fn is_last(reply: &Reply) -> bool {
    assert_eq!(reply.status, 200, "{}", reply.head);
    reply.header("connection") == Some("close")
}

fn reaches(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, SHORT).is_ok()
}

#[test]
fn clients_of_an_address_that_is_left_are_let_go_and_those_of_others_notice_nothing() {
    let instance = Instance::named("one");
    let place = place(&instance, Duration::from_secs(20));
    let (mut leaving, mut staying) = (connect(place.leaves), connect(place.stays));
    assert!(!is_last(&ask(&mut leaving)) && !is_last(&ask(&mut staying)));
    let mut caller = Caller::ask(&place.dir.join("gw.leave"));
    wait_until(SOON, "who is connected is told", || {
        let last = is_last(&ask(&mut leaving));
        if last {
            Ok(())
        } else {
            Err("it goes on".to_owned())
        }
    });
    assert_eq!(leaving.read(&mut [0]).unwrap(), 0, "it was the last");
    assert!(!is_last(&ask(&mut staying)));
    assert_eq!(caller.line(), "{\"left\":{\"cut\":0}}");
    assert!(!reaches(place.leaves), "the door is shut");
    assert!(reaches(place.stays));
    assert!(!is_last(&ask(&mut staying)));
    drop(caller);
    wait_until(SOON, "the door is open again", || {
        if reaches(place.leaves) {
            Ok(())
        } else {
            Err("it is shut".to_owned())
        }
    });
    assert!(!is_last(&ask(&mut connect(place.leaves))));
    drop(place.gateway);
}

#[test]
fn who_comes_while_others_are_waited_for_gets_one_answer_and_what_is_under_way_is_finished() {
    let (go_on, wait) = mpsc::sync_channel::<()>(1);
    let wait = Mutex::new(wait);
    let instance = Instance::start(move |seen, stream| {
        if seen.path() == "/slow" {
            wait.lock().unwrap().recv().unwrap();
        }
        answer(stream, "200 OK", &[], b"done")?;
        Ok(Then::Next)
    });
    let place = place(&instance, Duration::from_secs(20));
    let mut slow = connect(place.leaves);
    write_request(&mut slow, "GET", "/slow", &[], b"");
    wait_until(SOON, "it is under way", || {
        if instance.count() == 1 {
            Ok(())
        } else {
            Err("it is not".to_owned())
        }
    });
    let mut caller = Caller::ask(&place.dir.join("gw.leave"));
    wait_until(SOON, "who comes gets one answer", || {
        let last = is_last(&ask(&mut connect(place.leaves)));
        if last {
            Ok(())
        } else {
            Err("it goes on".to_owned())
        }
    });
    assert!(!is_last(&ask(&mut connect(place.stays))));
    go_on.send(()).unwrap();
    let reply = read_reply(&mut slow);
    assert_eq!((reply.text().as_str(), is_last(&reply)), ("done", true));
    assert_eq!(caller.line(), "{\"left\":{\"cut\":0}}");
}

#[test]
fn what_does_not_end_is_cut_at_the_end_of_its_time_and_counted() {
    let (_go_on, wait) = mpsc::sync_channel::<()>(1);
    let wait = Mutex::new(wait);
    let instance = Instance::start(move |_, _| {
        wait.lock()
            .unwrap()
            .recv_timeout(Duration::from_secs(5))
            .ok();
        Ok(Then::Close)
    });
    let place = place(&instance, Duration::from_millis(200));
    let mut hanging = connect(place.leaves);
    write_request(&mut hanging, "POST", "/", &[], b"x");
    wait_until(SOON, "it is under way", || {
        if instance.count() == 1 {
            Ok(())
        } else {
            Err("it is not".to_owned())
        }
    });
    let mut caller = Caller::ask(&place.dir.join("gw.leave"));
    assert_eq!(caller.line(), "{\"left\":{\"cut\":1}}");
    let ended = hanging.read(&mut [0]);
    assert!(ended.is_err() || ended.is_ok_and(|len| len == 0));
}

#[test]
fn who_hangs_up_gives_the_leave_up() {
    let instance = Instance::named("one");
    let place = place(&instance, Duration::from_secs(20));
    let mut kept = connect(place.leaves);
    assert!(!is_last(&ask(&mut kept)));
    drop(Caller::ask(&place.dir.join("gw.leave")));
    // Who was told to go goes; who comes is served as always.
    wait_until(SOON, "nothing is left any more", || {
        let last = is_last(&ask(&mut connect(place.leaves)));
        if last {
            Err("one answer each".to_owned())
        } else {
            Ok(())
        }
    });
    // A call that is none changes nothing, and the next one is heard.
    let mut nonsense = UnixStream::connect(place.dir.join("gw.leave")).unwrap();
    nonsense.write_all(b"leave everything\n").unwrap();
    assert_eq!(nonsense.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(
        Caller::ask(&place.dir.join("gw.leave")).line(),
        "{\"left\":{\"cut\":0}}"
    );
}
