#!/usr/bin/env python3
"""Plays the cases below against a RabbitMQ and writes down, byte for byte, what it answers.

    pip install pika==1.4.4
    python record.py 127.0.0.1 5672 3.10.8 > rabbitmq.json

`tests/rabbitmq.rs` plays the same bytes to our broker and compares. pika's encoder writes what is sent.
What no two runs have in common (server-given names, times) is masked on both sides there.
"""
import json, select, socket, struct, sys, time
from pika import frame, spec, data as fields

QUIET = 0.12
HEADER = b"AMQP\x00\x00\x09\x01"
S, B, C, Q, X, T = spec, spec.Basic, spec.Channel, spec.Queue, spec.Exchange, spec.Tx

class Conn:
    def __init__(self, address, ready=True, capabilities=True):
        self.sock = socket.create_connection(address)
        self.sock.setblocking(False)
        self.closed = False
        if ready:
            self.put(HEADER)
            self.take()
            properties = {"product": "recorder"}
            if capabilities:
                properties["capabilities"] = {"consumer_cancel_notify": True, "authentication_failure_close": True,
                                              "connection.blocked": True}
            self.put(frame.Method(0, S.Connection.StartOk(properties, "PLAIN", "\0guest\0guest", "en_US")).marshal())
            self.take()
            self.put(frame.Method(0, S.Connection.TuneOk(2047, 131072, 0)).marshal())
            self.put(frame.Method(0, S.Connection.Open("/")).marshal())
            self.take()

    def put(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            pass

    def poll(self):
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return b""
        except OSError:
            self.closed = True
            return b""
        if not data:
            self.closed = True
        return data

    def take(self, quiet=QUIET):
        data, until = b"", time.time() + quiet
        while time.time() < until:
            if select.select([self.sock], [], [], until - time.time())[0]:
                more = self.poll()
                data += more
                if not more:
                    break
                until = time.time() + quiet
        return data

def m(channel, method):
    return ("%d %s" % (channel, method.NAME), frame.Method(channel, method).marshal())

def pub(channel, exchange, key, body=b"x", mandatory=False, **properties):
    props = S.BasicProperties(**properties)
    data = frame.Method(channel, B.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)).marshal()
    data += frame.Header(channel, len(body), props).marshal()
    if body:
        data += frame.Body(channel, body).marshal()
    return ("%d publish %s %s" % (channel, exchange, key), data)

def raw(text, data):
    return (text, data)

def declare(q, **more):
    return m(1, Q.Declare(queue=q, **more))

def wait(ms):
    return ("wait", ms)

OPEN = m(1, C.Open())
A, BB = "a", "b"
CASES = {}

def case(name, *steps, raw=False, slow=False):
    out = []
    for step in steps:
        out.append(step if len(step) == 3 else ("a",) + step)
    CASES[name] = (out, raw, slow)

def b(step):
    return ("b",) + step

# Queues
case("declare, passive, delete", OPEN, declare("c1"), declare("c1", passive=True), m(1, Q.Delete(queue="c1")), declare("c1", passive=True))
case("passive declare of nothing", OPEN, declare("nothing-c2", passive=True), m(1, C.CloseOk()), OPEN)
case("declared with another durability", OPEN, declare("c3", durable=True), declare("c3"))
case("declared with another auto_delete", OPEN, declare("c4"), declare("c4", auto_delete=True))
case("declared with another ttl", OPEN, declare("c5", arguments={"x-message-ttl": 1000}), declare("c5", arguments={"x-message-ttl": 2000}))
case("declared without its ttl", OPEN, declare("c6", arguments={"x-message-ttl": 1000}), declare("c6"))
case("declared with a ttl that it lacks", OPEN, declare("c6b"), declare("c6b", arguments={"x-message-ttl": 1000}))
case("declared with another dead-letter exchange", OPEN, declare("c7", arguments={"x-dead-letter-exchange": "e"}), declare("c7", arguments={"x-dead-letter-exchange": "f"}))
case("declared without its dead-letter exchange", OPEN, declare("c7b", arguments={"x-dead-letter-exchange": "e"}), declare("c7b"))
case("classic and nothing are one type", OPEN, declare("c8", arguments={"x-queue-type": "classic"}), declare("c8"))
case("a quorum queue is no classic one", OPEN, declare("c9", durable=True), declare("c9", durable=True, arguments={"x-queue-type": "quorum"}))
case("unknown queue type", OPEN, declare("c10", arguments={"x-queue-type": "odd"}))
case("queue type that is no text", OPEN, declare("c11", arguments={"x-queue-type": 5}))
case("quorum queue that is transient", OPEN, declare("c12", arguments={"x-queue-type": "quorum"}))
case("quorum queue that is exclusive", OPEN, declare("c12b", durable=True, exclusive=True, arguments={"x-queue-type": "quorum"}))
case("quorum queue with auto_delete", OPEN, declare("c12c", durable=True, auto_delete=True, arguments={"x-queue-type": "quorum"}))
case("quorum queue with priorities", OPEN, declare("c12d", durable=True, arguments={"x-queue-type": "quorum", "x-max-priority": 5}))
for at, (name, value) in enumerate([
        ("x-message-ttl", -1), ("x-message-ttl", "a"), ("x-message-ttl", 400000000000), ("x-expires", 0), ("x-expires", -5),
        ("x-max-length", -1), ("x-max-length", "many"), ("x-max-length-bytes", True), ("x-max-priority", 256), ("x-max-priority", -1),
        ("x-overflow", "odd"), ("x-overflow", 3), ("x-queue-mode", "odd"), ("x-queue-version", 3), ("x-single-active-consumer", 1),
        ("x-dead-letter-exchange", 7), ("x-dead-letter-routing-key", "k")]):
    case("argument %s = %r" % (name, value), OPEN, declare("c13-%d" % at, arguments={name: value}))
case("reserved name", OPEN, declare("amq.mine"))
case("server-named", OPEN, declare("", exclusive=True), m(1, Q.Bind(queue="", exchange="amq.direct", routing_key="c14")), pub(1, "amq.direct", "c14", b"hello"), m(1, B.Get(queue="")))
case("no queue was declared before", OPEN, m(1, B.Get(queue="")))
case("no queue was declared before a bind", OPEN, m(1, Q.Bind(queue="", exchange="amq.direct", routing_key="")))
case("exclusive is locked to others", OPEN, b(OPEN), declare("c15", exclusive=True), b(declare("c15", passive=True)), b(m(1, C.CloseOk())), b(OPEN), b(declare("c15")), b(m(1, C.CloseOk())), b(OPEN), b(m(1, B.Get(queue="c15"))), b(m(1, C.CloseOk())), b(OPEN), b(m(1, Q.Delete(queue="c15"))))
case("exclusive, declared by its owner again", OPEN, declare("c16", exclusive=True), declare("c16", exclusive=True), declare("c16"))
case("exclusive goes with its connection", OPEN, b(OPEN), declare("c17", exclusive=True), m(0, S.Connection.Close(200, "bye", 0, 0)), b(declare("c17", passive=True)))
case("delete if unused and if empty", OPEN, declare("c18"), pub(1, "", "c18"), m(1, Q.Delete(queue="c18", if_empty=True)), m(1, C.CloseOk()), OPEN, m(1, B.Consume(queue="c18", consumer_tag="t")), m(1, Q.Delete(queue="c18", if_unused=True)))
case("delete of nothing", OPEN, m(1, Q.Delete(queue="nothing-c19")), m(1, Q.Purge(queue="nothing-c19")))
case("purge", OPEN, declare("c20"), pub(1, "", "c20"), pub(1, "", "c20"), m(1, Q.Purge(queue="c20")), declare("c20", passive=True))
case("deleting a queue cancels consumers of others", OPEN, b(OPEN), declare("c21"), b(m(1, B.Consume(queue="c21", consumer_tag="t"))), m(1, Q.Delete(queue="c21")))
case("auto_delete goes with its last consumer", OPEN, declare("c22", auto_delete=True), m(1, B.Consume(queue="c22", consumer_tag="t")), m(1, B.Cancel(consumer_tag="t")), declare("c22", passive=True))
case("line ends are no part of names", OPEN, declare("c23\r\n"), declare("c23", passive=True))

# Exchanges and bindings
case("exchange declare, passive, delete", OPEN, m(1, X.Declare(exchange="x1", type="fanout")), m(1, X.Declare(exchange="x1", type="fanout", passive=True)), m(1, X.Delete(exchange="x1")), m(1, X.Declare(exchange="x1", passive=True)))
case("exchange with another type", OPEN, m(1, X.Declare(exchange="x2", type="fanout")), m(1, X.Declare(exchange="x2", type="direct")))
case("exchange with another durability", OPEN, m(1, X.Declare(exchange="x3", type="fanout", durable=True)), m(1, X.Declare(exchange="x3", type="fanout")))
case("exchange with another alternate", OPEN, m(1, X.Declare(exchange="x4", type="fanout", arguments={"alternate-exchange": "amq.fanout"})), m(1, X.Declare(exchange="x4", type="fanout")))
case("exchange made internal", OPEN, m(1, X.Declare(exchange="x4b", type="fanout")), m(1, X.Declare(exchange="x4b", type="fanout", internal=True)))
case("alternate that is no text", OPEN, m(1, X.Declare(exchange="x5", type="fanout", arguments={"alternate-exchange": 1})))
case("the default exchange is nobody's", OPEN, m(1, X.Declare(exchange="", type="direct")), m(1, C.CloseOk()), OPEN, m(1, X.Delete(exchange="")), m(1, C.CloseOk()), OPEN, declare("x6"), m(1, Q.Bind(queue="x6", exchange="", routing_key="k")))
case("reserved exchanges", OPEN, m(1, X.Declare(exchange="amq.mine", type="direct")), m(1, C.CloseOk()), OPEN, m(1, X.Delete(exchange="amq.direct")), m(1, C.CloseOk()), OPEN, m(1, X.Declare(exchange="amq.direct", type="direct", durable=True)))
case("exchange in use", OPEN, declare("x7q"), m(1, X.Declare(exchange="x7", type="direct")), m(1, Q.Bind(queue="x7q", exchange="x7", routing_key="k")), m(1, X.Delete(exchange="x7", if_unused=True)))
case("exchange goes with its last binding", OPEN, declare("x8q"), m(1, X.Declare(exchange="x8", type="direct", auto_delete=True)), m(1, Q.Bind(queue="x8q", exchange="x8", routing_key="k")), m(1, Q.Unbind(queue="x8q", exchange="x8", routing_key="k")), m(1, X.Declare(exchange="x8", passive=True)))
case("bind to nothing", OPEN, m(1, Q.Bind(queue="nothing-q", exchange="amq.direct", routing_key="k")), m(1, C.CloseOk()), OPEN, declare("x9q"), m(1, Q.Bind(queue="x9q", exchange="nothing-x", routing_key="k")), m(1, C.CloseOk()), OPEN, m(1, Q.Bind(queue="nothing-q", exchange="nothing-x", routing_key="k")))
case("unbind what is not bound", OPEN, declare("x10q"), m(1, Q.Unbind(queue="x10q", exchange="amq.direct", routing_key="k")))
case("unbind from nothing", OPEN, declare("x10b"), m(1, Q.Unbind(queue="x10b", exchange="nothing-x", routing_key="k")))
case("publish to nothing", OPEN, pub(1, "nothing-x", "k"))
case("publish to an internal exchange", OPEN, m(1, X.Declare(exchange="x11", type="fanout", internal=True)), pub(1, "x11", "k"))
case("fanout, direct, topic and headers", OPEN, declare("x12"),
     m(1, Q.Bind(queue="x12", exchange="amq.topic", routing_key="x12.*.b.#")), m(1, Q.Bind(queue="x12", exchange="amq.headers", routing_key="", arguments={"x-match": "any", "x12": 1, "n": "two"})),
     m(1, Q.Bind(queue="x12", exchange="amq.direct", routing_key="x12")),
     m(1, B.Consume(queue="x12", consumer_tag="t", no_ack=True)),
     pub(1, "amq.topic", "x12.a.b", b"1"), pub(1, "amq.topic", "x12.a.b.c.d", b"2"), pub(1, "amq.topic", "x12.b", b"no"), pub(1, "amq.topic", "x12.a.c", b"no"),
     pub(1, "amq.headers", "", b"3", headers={"n": "two"}), pub(1, "amq.headers", "", b"no", headers={"n": "three"}), pub(1, "amq.direct", "x12", b"4"), pub(1, "amq.direct", "x12.", b"no"))
case("topic corners", OPEN, declare("x13"), m(1, Q.Bind(queue="x13", exchange="amq.topic", routing_key="x13.#.end")), m(1, B.Consume(queue="x13", consumer_tag="t", no_ack=True)),
     pub(1, "amq.topic", "x13.end", b"1"), pub(1, "amq.topic", "x13.a.end.end", b"2"), pub(1, "amq.topic", "x13.a.end.b", b"no"), pub(1, "amq.topic", "x13..end", b"3"), pub(1, "amq.topic", "x13", b"no"))
case("headers: unknown x-match", OPEN, declare("x14"), m(1, Q.Bind(queue="x14", exchange="amq.headers", routing_key="", arguments={"x-match": "some"})))
case("exchange to exchange", OPEN, declare("x15q"), m(1, X.Declare(exchange="x15a", type="fanout")), m(1, X.Declare(exchange="x15b", type="fanout")), m(1, X.Bind(destination="x15b", source="x15a", routing_key="k")), m(1, Q.Bind(queue="x15q", exchange="x15b", routing_key="")), pub(1, "x15a", "z", b"through"), m(1, B.Get(queue="x15q", no_ack=True)), m(1, X.Unbind(destination="x15b", source="x15a", routing_key="k")), pub(1, "x15a", "z", b"no", mandatory=True))
case("alternate exchange", OPEN, declare("x16q"), m(1, X.Declare(exchange="x16b", type="fanout")), m(1, X.Declare(exchange="x16", type="direct", arguments={"alternate-exchange": "x16b"})), m(1, Q.Bind(queue="x16q", exchange="x16b", routing_key="")), pub(1, "x16", "nobody", b"else", mandatory=True), m(1, B.Get(queue="x16q", no_ack=True)))
case("CC and BCC", OPEN, declare("x17a"), declare("x17b"), declare("x17c"), pub(1, "", "x17a", b"copies", headers={"CC": ["x17b"], "BCC": ["x17c"], "z": 1}), m(1, B.Get(queue="x17a", no_ack=True)), m(1, B.Get(queue="x17b", no_ack=True)), m(1, B.Get(queue="x17c", no_ack=True)))
case("CC that is no list", OPEN, pub(1, "", "x18", b"copies", headers={"CC": "x17b"}))

# Publishing
case("mandatory without a queue", OPEN, pub(1, "", "nothing-p1", b"back", mandatory=True, content_type="text/plain", headers={"a": 1}))
case("the return comes before the confirm", OPEN, m(1, S.Confirm.Select()), pub(1, "", "nothing-p2", b"back", mandatory=True), pub(1, "", "nothing-p2", b"gone"))
case("confirms", OPEN, declare("p3", durable=True), m(1, S.Confirm.Select()), pub(1, "", "p3", b"1", delivery_mode=2), pub(1, "", "p3", b"2"), m(1, S.Confirm.Select()))
case("a full queue refuses", OPEN, declare("p4", arguments={"x-max-length": 1, "x-overflow": "reject-publish"}), m(1, S.Confirm.Select()), pub(1, "", "p4", b"1"), pub(1, "", "p4", b"2"), m(1, B.Get(queue="p4", no_ack=True)), pub(1, "", "p4", b"3"))
case("a full queue drops its head", OPEN, declare("p5", arguments={"x-max-length": 2}), pub(1, "", "p5", b"1"), pub(1, "", "p5", b"2"), pub(1, "", "p5", b"3"), m(1, B.Get(queue="p5", no_ack=True)), m(1, B.Get(queue="p5", no_ack=True)), m(1, B.Get(queue="p5", no_ack=True)))
case("bytes of a queue", OPEN, declare("p6", arguments={"x-max-length-bytes": 10}), pub(1, "", "p6", b"123456"), pub(1, "", "p6", b"abcdef"), m(1, B.Get(queue="p6", no_ack=True)), m(1, B.Get(queue="p6", no_ack=True)))
case("immediate", OPEN, raw("1 basic.publish immediate", frame.Method(1, B.Publish(exchange="", routing_key="p7", immediate=True)).marshal() + frame.Header(1, 0, S.BasicProperties()).marshal()))
case("another user's id", OPEN, pub(1, "", "p8", b"x", user_id="nobody"))
for at, text in enumerate(["abc", "-1", "12x", "", "99999999999999", "1.5", " 5"]):
    case("expiration %r" % text, OPEN, pub(1, "", "p9", b"x", expiration=text))
case("every property comes through", OPEN, declare("p10"), pub(1, "", "p10", b"all", content_type="a", content_encoding="b", headers={"s": "t", "n": 5, "big": 1 << 40, "yes": True, "list": [1, "two"], "in": {"deep": None}}, delivery_mode=1, priority=3, correlation_id="c", reply_to="d", expiration="100000", message_id="e", timestamp=12345, type="f", user_id="guest", app_id="g", cluster_id="h"), m(1, B.Get(queue="p10", no_ack=True)))
case("an empty body", OPEN, declare("p11"), pub(1, "", "p11", b""), m(1, B.Get(queue="p11", no_ack=True)))
case("priorities", OPEN, declare("p12", arguments={"x-max-priority": 5}), pub(1, "", "p12", b"low", priority=1), pub(1, "", "p12", b"high", priority=9), pub(1, "", "p12", b"none"), pub(1, "", "p12", b"mid", priority=3), *[m(1, B.Get(queue="p12", no_ack=True)) for _ in range(4)])

# Consuming
case("get, and nothing to get", OPEN, declare("g1"), m(1, B.Get(queue="g1")), pub(1, "", "g1", b"one"), pub(1, "", "g1", b"two"), m(1, B.Get(queue="g1")), m(1, B.Get(queue="g1")), m(1, B.Nack(delivery_tag=2, multiple=True, requeue=True)), m(1, B.Get(queue="g1")))
case("consume, ack, cancel", OPEN, declare("g2"), m(1, B.Consume(queue="g2", consumer_tag="t")), pub(1, "", "g2", b"one"), m(1, B.Ack(delivery_tag=1)), m(1, B.Cancel(consumer_tag="t")), pub(1, "", "g2", b"two"), m(1, B.Cancel(consumer_tag="unknown")), declare("g2", passive=True))
case("a tag that the server gives", OPEN, declare("g3"), m(1, B.Consume(queue="g3")))
case("a tag twice", OPEN, declare("g4"), m(1, B.Consume(queue="g4", consumer_tag="t")), m(1, B.Consume(queue="g4", consumer_tag="t")))
case("consume nothing", OPEN, m(1, B.Consume(queue="nothing-g5", consumer_tag="t")))
case("exclusive consumers", OPEN, declare("g6"), m(1, B.Consume(queue="g6", consumer_tag="t", exclusive=True)), m(1, B.Consume(queue="g6", consumer_tag="u")))
case("exclusive after another", OPEN, declare("g7"), m(1, B.Consume(queue="g7", consumer_tag="t")), m(1, B.Consume(queue="g7", consumer_tag="u", exclusive=True)))
case("exclusive beside a single active one", OPEN, declare("g7b", arguments={"x-single-active-consumer": True}), m(1, B.Consume(queue="g7b", consumer_tag="t", exclusive=True)))
case("unknown delivery tags", OPEN, m(1, B.Ack(delivery_tag=1)), m(1, C.CloseOk()), OPEN, m(1, B.Ack(delivery_tag=0)), m(1, C.CloseOk()), OPEN, m(1, B.Ack(delivery_tag=0, multiple=True)), m(1, B.Nack(delivery_tag=5, multiple=True)), m(1, C.CloseOk()), OPEN, m(1, B.Reject(delivery_tag=7)))
case("acknowledged twice", OPEN, declare("g8"), pub(1, "", "g8"), m(1, B.Get(queue="g8")), m(1, B.Ack(delivery_tag=1)), m(1, B.Ack(delivery_tag=1)))
case("prefetch", OPEN, declare("g9"), m(1, B.Qos(prefetch_count=2)), m(1, B.Consume(queue="g9", consumer_tag="t")), pub(1, "", "g9", b"1"), pub(1, "", "g9", b"2"), pub(1, "", "g9", b"3"), pub(1, "", "g9", b"4"), m(1, B.Ack(delivery_tag=1)), m(1, B.Ack(delivery_tag=3, multiple=True)))
case("prefetch of a channel", OPEN, declare("g10a"), declare("g10b"), m(1, B.Qos(prefetch_count=2, global_qos=True)), m(1, B.Consume(queue="g10a", consumer_tag="t")), m(1, B.Consume(queue="g10b", consumer_tag="u")), pub(1, "", "g10a", b"1"), pub(1, "", "g10b", b"2"), pub(1, "", "g10a", b"3"), m(1, B.Ack(delivery_tag=2)))
case("prefetch_size", OPEN, m(1, B.Qos(prefetch_size=5)))
case("round robin", OPEN, declare("g11"), m(1, B.Consume(queue="g11", consumer_tag="t", no_ack=True)), m(1, B.Consume(queue="g11", consumer_tag="u", no_ack=True)), pub(1, "", "g11", b"1"), pub(1, "", "g11", b"2"), pub(1, "", "g11", b"3"))
case("priority of consumers", OPEN, declare("g12"), m(1, B.Qos(prefetch_count=1)), m(1, B.Consume(queue="g12", consumer_tag="low")), m(1, B.Consume(queue="g12", consumer_tag="high", arguments={"x-priority": 10})), pub(1, "", "g12", b"1"), pub(1, "", "g12", b"2"), pub(1, "", "g12", b"3"), m(1, B.Ack(delivery_tag=1)))
case("priority that is no number", OPEN, declare("g12b"), m(1, B.Consume(queue="g12b", consumer_tag="low", arguments={"x-priority": "a"})))
case("single active consumer", OPEN, b(OPEN), declare("g13", arguments={"x-single-active-consumer": True}), m(1, B.Consume(queue="g13", consumer_tag="t")), b(m(1, B.Consume(queue="g13", consumer_tag="u"))), pub(1, "", "g13", b"1"), pub(1, "", "g13", b"2"), m(1, B.Cancel(consumer_tag="t")), pub(1, "", "g13", b"3"))
case("what a channel held comes back in order", OPEN, b(OPEN), declare("g14"), pub(1, "", "g14", b"1"), pub(1, "", "g14", b"2"), pub(1, "", "g14", b"3"), b(m(1, B.Get(queue="g14"))), b(m(1, B.Get(queue="g14"))), b(m(1, C.Close(200, "bye", 0, 0))), m(1, B.Get(queue="g14", no_ack=True)), m(1, B.Get(queue="g14", no_ack=True)), m(1, B.Get(queue="g14", no_ack=True)))
case("recover", OPEN, declare("g15"), m(1, B.Consume(queue="g15", consumer_tag="t")), pub(1, "", "g15", b"1"), m(1, B.Recover(requeue=True)))
case("recover without requeue", OPEN, m(1, B.Recover(requeue=False)))
case("reject puts back or throws away", OPEN, declare("g16"), pub(1, "", "g16", b"1"), m(1, B.Get(queue="g16")), m(1, B.Reject(delivery_tag=1, requeue=True)), m(1, B.Get(queue="g16")), m(1, B.Reject(delivery_tag=2, requeue=False)), m(1, B.Get(queue="g16")))
case("delivery count of a quorum queue", OPEN, declare("g17", durable=True, arguments={"x-queue-type": "quorum"}), pub(1, "", "g17", b"1", headers={"a": 1}), m(1, B.Get(queue="g17")), m(1, B.Reject(delivery_tag=1, requeue=True)), m(1, B.Get(queue="g17")))

# Time and death
case("a queue's ttl", OPEN, declare("d1", arguments={"x-message-ttl": 300}), pub(1, "", "d1", b"1"), wait(600), m(1, B.Get(queue="d1")))
case("a message's expiration", OPEN, declare("d2"), pub(1, "", "d2", b"1", expiration="300"), pub(1, "", "d2", b"2"), wait(600), m(1, B.Get(queue="d2", no_ack=True)))
case("dead letter of a refused one", OPEN, declare("d3-dead"), declare("d3", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "d3-dead"}), pub(1, "", "d3", b"1", headers={"a": 1}, expiration="100000"), m(1, B.Get(queue="d3")), m(1, B.Reject(delivery_tag=1, requeue=False)), m(1, B.Get(queue="d3-dead")))
case("dead letter of an old one", OPEN, declare("d4-dead"), declare("d4", arguments={"x-message-ttl": 200, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "d4-dead"}), pub(1, "", "d4", b"1"), wait(500), m(1, B.Get(queue="d4-dead")))
case("dead letter of one too many", OPEN, declare("d5-dead"), declare("d5", arguments={"x-max-length": 1, "x-dead-letter-exchange": "amq.fanout"}), m(1, Q.Bind(queue="d5-dead", exchange="amq.fanout", routing_key="")), pub(1, "", "d5", b"1"), pub(1, "", "d5", b"2"), m(1, B.Get(queue="d5-dead")))
case("deaths are counted", OPEN, declare("d6-b", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "d6"}), declare("d6", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "d6-b"}), pub(1, "", "d6", b"1"),
     m(1, B.Get(queue="d6")), m(1, B.Reject(delivery_tag=1, requeue=False)), m(1, B.Get(queue="d6-b")), m(1, B.Reject(delivery_tag=2, requeue=False)), m(1, B.Get(queue="d6")), m(1, B.Reject(delivery_tag=3, requeue=False)), m(1, B.Get(queue="d6-b")))
case("death with copies", OPEN, declare("d7-dead"), declare("d7", arguments={"x-dead-letter-exchange": "amq.fanout"}), m(1, Q.Bind(queue="d7-dead", exchange="amq.fanout", routing_key="")), pub(1, "", "d7", b"1", headers={"CC": ["d7-other"]}), m(1, B.Get(queue="d7")), m(1, B.Nack(delivery_tag=1, requeue=False)), m(1, B.Get(queue="d7-dead")))
case("x-expires", OPEN, declare("d8", arguments={"x-expires": 300}), wait(700), declare("d8", passive=True))
case("refused and dead", OPEN, declare("d9-dead"), declare("d9", arguments={"x-max-length": 0, "x-overflow": "reject-publish-dlx", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "d9-dead"}), m(1, S.Confirm.Select()), pub(1, "", "d9", b"1"), m(1, B.Get(queue="d9-dead", no_ack=True)))

# Transactions
case("transactions", OPEN, declare("t1"), m(1, T.Select()), pub(1, "", "t1", b"1"), declare("t1", passive=True), m(1, T.Commit()), declare("t1", passive=True), m(1, B.Get(queue="t1")), m(1, B.Ack(delivery_tag=1)), m(1, T.Rollback()), m(1, B.Ack(delivery_tag=1)), m(1, T.Commit()), pub(1, "", "t1", b"2"), m(1, T.Rollback()), declare("t1", passive=True))
case("commit without select", OPEN, m(1, T.Commit()), m(1, C.CloseOk()), OPEN, m(1, T.Rollback()))
case("confirm, then tx", OPEN, m(1, S.Confirm.Select()), m(1, T.Select()))
case("tx, then confirm", OPEN, m(1, T.Select()), m(1, S.Confirm.Select()))
case("mandatory in a transaction", OPEN, m(1, T.Select()), pub(1, "", "nothing-t5", b"x", mandatory=True), m(1, T.Commit()))

# Channels, connections, frames
case("channel twice", OPEN, OPEN)
case("method on no channel", m(1, B.Qos()))
case("channel closed by its client", OPEN, m(1, C.Close(200, "bye", 0, 0)), OPEN)
case("both close a channel", OPEN, m(1, B.Ack(delivery_tag=9)), m(1, C.Close(200, "bye", 0, 0)), m(1, B.Qos()), m(1, C.CloseOk()), OPEN)
case("flow", OPEN, m(1, C.Flow(True)), m(1, C.Flow(False)))
case("connection closed by its client", OPEN, m(0, S.Connection.Close(200, "bye", 0, 0)))
case("a server's method", OPEN, m(1, Q.DeclareOk(queue="a", message_count=0, consumer_count=0)))
case("a channel's method on the connection", m(0, B.Qos()))
case("a connection's method on a channel", OPEN, m(1, S.Connection.Close(200, "bye", 0, 0)))
case("heartbeat", raw("heartbeat", b"\x08\0\0\0\0\0\0\xce"), OPEN)
case("heartbeat on a channel", OPEN, raw("heartbeat on channel 1", b"\x08\0\1\0\0\0\0\xce"))
case("body without a method", OPEN, raw("body", frame.Body(1, b"abc").marshal()))
case("header without a method", OPEN, raw("header", frame.Header(1, 3, S.BasicProperties()).marshal()))
case("method in place of a header", OPEN, raw("publish", frame.Method(1, B.Publish(exchange="", routing_key="q")).marshal()), m(1, B.Qos()))
case("method in place of a body", OPEN, raw("publish", frame.Method(1, B.Publish(exchange="", routing_key="q")).marshal() + frame.Header(1, 3, S.BasicProperties()).marshal()), m(1, B.Qos()))
case("header of another class", OPEN, raw("publish", frame.Method(1, B.Publish(exchange="", routing_key="q")).marshal() + b"\x02\0\1\0\0\0\x0e\0\x32\0\0\0\0\0\0\0\0\0\0\0\0\xce"))
case("frame of an unknown type", OPEN, raw("type 9", b"\x09\0\1\0\0\0\3abc\xce"))
case("frame without its end", OPEN, raw("no end", b"\x01\0\1\0\0\0\4\0\x3c\0\x0a\0"))
case("frame that is too large", OPEN, raw("too large", b"\x01\0\1\0\x10\0\0"))
case("method that cannot be read", OPEN, raw("qos without fields", b"\x01\0\1\0\0\0\4\0\x3c\0\x0a\xce"))
case("text that is no UTF-8", OPEN, raw("queue.declare of ff", b"\x01\0\1\0\0\0\x0e\0\x32\0\x0a\0\0\2\xff\xfe\0\0\0\0\0\xce"))
case("a number above channel_max", m(2048, C.Open()))
case("no capability, no cancel", b(OPEN), OPEN, declare("h1"), m(1, B.Consume(queue="h1", consumer_tag="t")), b(m(1, Q.Delete(queue="h1"))), m(1, B.Qos()))

AUTH = {"capabilities": {"authentication_failure_close": True}}

def start_ok(response, mechanism="PLAIN", properties=AUTH):
    return m(0, S.Connection.StartOk(properties, mechanism, response, "en_US"))

def tune_ok(channels, size, beat):
    return m(0, S.Connection.TuneOk(channels, size, beat))

HELLO = raw("header", HEADER)
LOGIN = start_ok("\0guest\0guest")
case("handshake", HELLO, LOGIN, tune_ok(2047, 131072, 60), m(0, S.Connection.Open("/")), raw=True)
case("AMQPLAIN", HELLO, start_ok(b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x05guest".decode("latin1"), "AMQPLAIN"), raw=True)
case("wrong password", HELLO, start_ok("\0guest\0wrong"), raw=True)
case("wrong password with AMQPLAIN", HELLO, start_ok(b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x05wrong".decode("latin1"), "AMQPLAIN"), raw=True)
case("wrong header", raw("AMQP 0-8-1", b"AMQP\0\0\x08\x01"), raw=True)
case("header of HTTP", raw("GET", b"GET / HTTP/1.1\r\n\r\n"), raw=True)
case("header of 0-9", raw("AMQP 0-9", b"AMQP\1\1\0\x09"), raw=True)
case("unknown vhost", HELLO, LOGIN, tune_ok(2047, 131072, 60), m(0, S.Connection.Open("nothing")), raw=True)
case("frame_max too small", HELLO, LOGIN, tune_ok(2047, 100, 60), raw=True)
case("frame_max too large", HELLO, LOGIN, tune_ok(2047, 200000, 60), raw=True)
case("frame_max without limit", HELLO, LOGIN, tune_ok(2047, 0, 60), raw=True)
case("channel_max too large", HELLO, LOGIN, tune_ok(3000, 131072, 60), raw=True)
case("channel_max without limit", HELLO, LOGIN, tune_ok(0, 131072, 60), raw=True)
case("too many channels", HELLO, LOGIN, tune_ok(1, 131072, 0), m(0, S.Connection.Open("/")), OPEN, m(2, C.Open()), raw=True)
case("large bodies come in frames", HELLO, LOGIN, tune_ok(10, 4096, 0), m(0, S.Connection.Open("/")), OPEN, declare("l1"),
     raw("publish of 6000 bytes", frame.Method(1, B.Publish(exchange="", routing_key="l1")).marshal() + frame.Header(1, 6000, S.BasicProperties()).marshal() + frame.Body(1, b"a" * 4088).marshal() + frame.Body(1, b"b" * 1912).marshal()),
     m(1, B.Get(queue="l1", no_ack=True)), raw=True)
case("open before tune", HELLO, LOGIN, m(0, S.Connection.Open("/")), raw=True)

def clean(address, names):
    for kind, name in names:
        conn = Conn(address)
        conn.put(OPEN[1])
        conn.put(m(1, Q.Delete(queue=name) if kind == "q" else X.Delete(exchange=name))[1])
        conn.take(0.03)
        conn.sock.close()

def play(address, name, steps, is_raw):
    conns, record, made = {}, [], set()
    for who in sorted({step[0] for step in steps} - {"wait"} | {"a"}):
        conns[who] = Conn(address, ready=not is_raw, capabilities="no capability" not in name)
    for who, what, data in steps:
        if what == "wait":
            time.sleep(data / 1000)
            entry = {"wait": data}
        else:
            conns[who].put(data)
            entry = {"on": who, "say": what, "send": data.hex()}
        gets = {}
        for other, conn in conns.items():
            got = conn.take()
            if got or conn.closed:
                gets[other] = got.hex() + ("closed" if conn.closed and not got else "")
        entry["get"] = gets
        record.append(entry)
        kind = what.split(" ", 1)[-1]
        if data and isinstance(data, bytes) and kind in ("Queue.Declare", "Exchange.Declare"):

            method = frame.decode_frame(data)[1].method
            made.add(("q", method.queue) if kind == "Queue.Declare" else ("x", method.exchange))
    for conn in conns.values():
        conn.sock.close()
    time.sleep(0.02)
    clean(address, [(k, n.strip("\r\n")) for k, n in sorted(made) if n and not n.startswith("amq.")])
    return record

def main():
    address, version = (sys.argv[1], int(sys.argv[2])), sys.argv[3]
    only = sys.argv[4] if len(sys.argv) > 4 else ""
    cases = []
    for name, (steps, is_raw, _) in CASES.items():
        if only in name:
            cases.append({"name": name, "handshake": is_raw, "cancel": "no capability" not in name, "steps": play(address, name, steps, is_raw)})
            print(name, file=sys.stderr)
    lines = ",\n".join("  " + json.dumps(one) for one in cases)
    print('{"source": "RabbitMQ %s, recorded by record.py", "cases": [\n%s\n]}' % (version, lines))

main()
