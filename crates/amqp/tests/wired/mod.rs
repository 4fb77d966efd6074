//! Sessions and a broker, wired as a driver wires them, with a disk that is done at once.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mainstay_amqp::{
    Body, Broker, ChannelKey, ConnectionId, Entry, Everything, Input, Now, Options, Output, Place,
    Reply, Request, Session, User, VhostEntry, Work,
};
use mainstay_ids::{Instant, Timestamp};

pub(crate) struct Client {
    id: ConnectionId,
    session: Session,
    input: BytesMut,
    user: mainstay_amqp::ShortString,
}

pub(crate) struct Wired {
    now: Instant,
    broker: Broker,
    clients: BTreeMap<String, Client>,
    disk: BTreeMap<Place, Bytes>,
}

impl Wired {
    /// Bodies may take so many bytes of memory.
    pub(crate) fn new(budget: u64) -> Self {
        let mut broker = Broker::new("/", [17, 18]);
        broker.set_budget(budget);
        Self {
            now: Instant::START,
            broker,
            clients: BTreeMap::new(),
            disk: BTreeMap::new(),
        }
    }

    pub(crate) fn connect(&mut self, name: &str) {
        let id = ConnectionId(self.clients.len() as u64 + 1);
        let client = Client {
            id,
            session: Session::new(self.now, Options::new("RabbitMQ", "3.10.8")),
            input: BytesMut::new(),
            user: "".into(),
        };
        self.clients.insert(name.to_owned(), client);
    }

    pub(crate) fn shake_hands(&mut self, name: &str, hears_cancel: bool) {
        use mainstay_amqp::method::{ConnectionOpen, ConnectionStartOk, ConnectionTuneOk};
        use mainstay_amqp::{Method, Table, Value};
        let on = |name: &str| (name.into(), Value::Bool(true));
        let mut capabilities = Vec::new();
        if hears_cancel {
            capabilities.extend([
                on("consumer_cancel_notify"),
                on("authentication_failure_close"),
                on("connection.blocked"),
            ]);
        }
        let capabilities = Value::Table(Table::new(capabilities));
        let methods: [Method; 3] = [
            ConnectionStartOk {
                client_properties: Table::new(vec![("capabilities".into(), capabilities)]),
                mechanism: "PLAIN".into(),
                response: "\0guest\0guest".into(),
                locale: "en_US".into(),
            }
            .into(),
            ConnectionTuneOk {
                channel_max: 2047,
                frame_max: 131_072,
                heartbeat: 0,
            }
            .into(),
            ConnectionOpen {
                virtual_host: "/".into(),
                ..ConnectionOpen::default()
            }
            .into(),
        ];
        self.send(name, &mainstay_amqp::frame::PROTOCOL_HEADER);
        for method in methods {
            let mut bytes = BytesMut::new();
            mainstay_amqp::frame::write_method(&mut bytes, 0, &method);
            self.send(name, &bytes);
        }
        assert!(!self.take(name).is_empty());
    }

    fn times(&self) -> Now {
        Now {
            instant: self.now,
            wall: Timestamp(1_700_000_000_000),
        }
    }

    pub(crate) fn send(&mut self, name: &str, bytes: &[u8]) {
        let client = self.clients.get_mut(name).expect("connected");
        client.input.extend_from_slice(bytes);
        client.session.heard(self.now);
        while self.read(name) {}
        self.settle();
    }

    /// Time passes, as far as something wants to be called on its way.
    pub(crate) fn wait(&mut self, ms: u64) {
        let until = self.now.after(Duration::from_millis(ms));
        while self.broker.deadline() <= until {
            self.now = self.now.max(self.broker.deadline());
            self.settle();
        }
        self.now = until;
    }

    pub(crate) fn take(&mut self, name: &str) -> Vec<u8> {
        let client = self.clients.get_mut(name).expect("connected");
        let mut bytes = Vec::new();
        while let Some(piece) = client.session.outbox().pop() {
            bytes.extend_from_slice(&piece);
        }
        bytes
    }

    fn read(&mut self, name: &str) -> bool {
        let now = self.times();
        let client = self.clients.get_mut(name).expect("connected");
        let Some(request) = client.session.read(self.now, &mut client.input) else {
            return false;
        };
        let id = client.id;
        let key = |channel| ChannelKey {
            connection: id,
            channel,
        };
        match request {
            Request::Authenticate(credentials) => {
                let entry = match &credentials.password[..] {
                    b"guest" => Entry::Granted,
                    _ => Entry::Refused,
                };
                client.user = credentials.user;
                client.session.authenticated(self.now, entry);
            }
            Request::OpenVhost(vhost) if vhost == "/" => {
                let user = User {
                    name: client.user.clone(),
                    rights: Box::new(Everything),
                    hears_cancel: client.session.capabilities().consumer_cancel_notify,
                };
                self.broker.handle(now, Input::Opened(id, user));
                client
                    .session
                    .opened(self.now, &client.user, VhostEntry::Granted);
            }
            Request::OpenVhost(_) => {
                client
                    .session
                    .opened(self.now, &client.user, VhostEntry::Missing);
            }
            Request::UpdateSecret(_) => client.session.secret_updated(self.now, Entry::Granted),
            Request::OpenChannel(channel) => {
                self.broker.handle(now, Input::OpenChannel(key(channel)));
            }
            Request::CloseChannel(channel) => {
                self.broker.handle(now, Input::CloseChannel(key(channel)));
                self.carry_out();
                if let Some(client) = self.of(key(channel)) {
                    client.session.channel_closed(channel);
                }
            }
            Request::Method(channel, method, content) => {
                let input = Input::Method(key(channel), method, content);
                self.broker.handle(now, input);
            }
            Request::Gone => self.broker.handle(now, Input::Gone(id)),
        }
        self.carry_out();
        true
    }

    fn settle(&mut self) {
        loop {
            let work = self.broker.work(self.times());
            let stored = self.carry_out();
            if work == Work::Idle && !stored {
                break;
            }
        }
        self.broker.check_invariants();
    }

    fn carry_out(&mut self) -> bool {
        let mut stored = false;
        while let Some(output) = self.broker.pop() {
            match output {
                Output::Reply(key, reply) => {
                    let reply = self.load(reply);
                    if let Some(client) = self.of(key) {
                        client.session.send(key.channel, &reply);
                    }
                }
                Output::Opened(key) => {
                    if let Some(client) = self.of(key) {
                        client.session.channel_opened(key.channel);
                    }
                }
                Output::Fault(key, fault) => {
                    let now = self.now;
                    if let Some(client) = self.of(key) {
                        client.session.fault(now, key.channel, &fault);
                    }
                }
                Output::Store(queue, position, message) => {
                    stored = true;
                    let body = self.body(&message.body);
                    self.disk.insert(Place { queue, position }, body);
                    let now = self.times();
                    self.broker.handle(now, Input::Stored(queue, position));
                }
                Output::Forget(queue, position) => {
                    self.disk.remove(&Place { queue, position });
                }
                Output::Record(_) => {}
            }
        }
        stored
    }

    fn body(&self, body: &Body) -> Bytes {
        match body {
            Body::Here(bytes) => bytes.clone(),
            Body::Stored { place, .. } => self.disk[place].clone(),
        }
    }

    fn load(&self, reply: Reply) -> Reply {
        match reply.place() {
            Some(place) => reply.loaded(self.disk[&place].clone()),
            None => reply,
        }
    }

    fn of(&mut self, key: ChannelKey) -> Option<&mut Client> {
        let mut clients = self.clients.values_mut();
        clients.find(|client| client.id == key.connection)
    }
}
