//! Two clients of one broker that say anything, in whole frames or in any bytes: no panic, no unbounded answer, and the
//! broker keeps its invariants.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use mainstay_amqp::frame::{PROTOCOL_HEADER, write_method};
use mainstay_amqp::method::{ChannelOpen, ConnectionOpen, ConnectionStartOk, ConnectionTuneOk};
use mainstay_amqp::{
    Body, Broker, ChannelKey, ConnectionId, Entry, Everything, Input, Method, Now, Options, Output,
    Place, Request, Session, User, VhostEntry, Work,
};
use mainstay_ids::{Instant, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// Pieces of one run.
const PIECES: usize = 64;

struct Wired {
    now: Now,
    broker: Broker,
    disk: BTreeMap<Place, Bytes>,
    sessions: Vec<(Session, BytesMut)>,
}

impl Wired {
    fn say(&mut self, at: usize, bytes: &[u8]) {
        self.sessions[at].1.extend_from_slice(bytes);
        let id = ConnectionId(at as u64);
        let key = |channel| ChannelKey {
            connection: id,
            channel,
        };
        loop {
            let (session, input) = &mut self.sessions[at];
            let Some(request) = session.read(self.now.instant, input) else {
                break;
            };
            let input = match request {
                Request::Authenticate(_) => {
                    session.authenticated(self.now.instant, Entry::Granted);
                    continue;
                }
                Request::OpenVhost(_) => {
                    session.opened(self.now.instant, &"guest".into(), VhostEntry::Granted);
                    Input::Opened(
                        id,
                        User {
                            name: "guest".into(),
                            rights: Box::new(Everything),
                            hears_cancel: true,
                        },
                    )
                }
                Request::UpdateSecret(_) => continue,
                Request::OpenChannel(channel) => Input::OpenChannel(key(channel)),
                Request::CloseChannel(channel) => {
                    self.broker
                        .handle(self.now, Input::CloseChannel(key(channel)));
                    self.carry_out();
                    self.sessions[at].0.channel_closed(channel);
                    continue;
                }
                Request::Method(channel, method, content) => {
                    Input::Method(key(channel), method, content)
                }
                Request::Gone => Input::Gone(id),
            };
            self.broker.handle(self.now, input);
            self.carry_out();
        }
        while self.broker.work(self.now) == Work::More {
            self.carry_out();
        }
        self.carry_out();
        self.broker.check_invariants();
        for (session, _) in &mut self.sessions {
            while session.outbox().pop().is_some() {}
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.broker.pop() {
            match output {
                Output::Reply(key, reply) => {
                    let at = key.connection.0 as usize;
                    let reply = match reply.place() {
                        Some(place) => reply.loaded(self.disk[&place].clone()),
                        None => reply,
                    };
                    self.sessions[at].0.send(key.channel, &reply);
                }
                Output::Opened(key) => {
                    let at = key.connection.0 as usize;
                    self.sessions[at].0.channel_opened(key.channel);
                }
                Output::Fault(key, fault) => {
                    let at = key.connection.0 as usize;
                    self.sessions[at]
                        .0
                        .fault(self.now.instant, key.channel, &fault);
                }
                Output::Store(queue, position, message) => {
                    let body = match &message.body {
                        Body::Here(bytes) => bytes.clone(),
                        Body::Stored { place, .. } => self.disk[place].clone(),
                    };
                    self.disk.insert(Place { queue, position }, body);
                    self.broker.handle(self.now, Input::Stored(queue, position));
                }
                Output::Forget(queue, position) => {
                    self.disk.remove(&Place { queue, position });
                }
                Output::Record(_) => {}
            }
        }
    }
}

fn framed(channel: u16, method: impl Into<Method>) -> BytesMut {
    let mut out = BytesMut::new();
    write_method(&mut out, channel, &method.into());
    out
}

fuzz_target!(|bytes: &[u8]| {
    let now = Now {
        instant: Instant::START,
        wall: Timestamp(0),
    };
    let options = Options::new("fuzz", "0");
    let session = || (Session::new(now.instant, options.clone()), BytesMut::new());
    let mut wired = Wired {
        now,
        broker: Broker::new("/", [1, 2]),
        disk: BTreeMap::new(),
        sessions: vec![session(), session(), session()],
    };
    // What is stored leaves memory at once.
    wired.broker.set_budget(0);
    for at in 0..2 {
        wired.say(at, &PROTOCOL_HEADER);
        let start = ConnectionStartOk {
            mechanism: "PLAIN".into(),
            response: "\0a\0b".into(),
            ..ConnectionStartOk::default()
        };
        wired.say(at, &framed(0, start));
        let tune = ConnectionTuneOk {
            channel_max: 8,
            frame_max: 4096,
            heartbeat: 1,
        };
        wired.say(at, &framed(0, tune));
        wired.say(at, &framed(0, ConnectionOpen::default()));
        wired.say(at, &framed(1, ChannelOpen::default()));
    }
    let mut rest = bytes;
    for _ in 0..PIECES {
        let Some(([who, len, time], behind)) = rest.split_first_chunk() else {
            return;
        };
        let len = usize::from(*len).min(behind.len());
        let (piece, behind) = behind.split_at(len);
        rest = behind;
        wired.now.instant = wired
            .now
            .instant
            .after(Duration::from_millis((*time).into()));
        let at = usize::from(who & 3).min(2);
        // With a frame around it, chance gets farther.
        if who & 4 == 0 && at < 2 {
            let kind = [1, 1, 2, 3][usize::from((who >> 3) & 3)];
            let size = (piece.len() as u32).to_be_bytes();
            let frame = [&[kind, 0, 1][..], &size, piece, &[0xCE]].concat();
            wired.say(at, &frame);
        } else {
            wired.say(at, piece);
        }
        for (session, _) in &mut wired.sessions {
            session.tick(wired.now.instant);
        }
    }
});
