"""What the cases share: the connections of one of them, and words for what is expected."""
import itertools
import sys
import time

import pika
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

HOST, PORT = sys.argv[1].rsplit(":", 1)
TARGET = sys.argv[2]
PATIENCE = 10.0  # seconds, for what must come
QUIET = 0.08     # seconds, in which what must not come would have come
CASES = []


def case(function):
    CASES.append(function)
    return function


class Broker:
    """The connections of one case, and what it has to take away afterwards."""

    def __init__(self, name):
        self.name, self.count, self.connections, self.queues, self.exchanges = name, itertools.count(1), [], [], []

    def connection(self, user="guest", password="guest", vhost="/", **more):
        credentials = pika.PlainCredentials(user, password)
        connection = pika.BlockingConnection(pika.ConnectionParameters(
            HOST, int(PORT), vhost, credentials, **{"heartbeat": 0, "socket_timeout": PATIENCE, **more}))
        self.connections.append(connection)
        return connection

    def channel(self, **more):
        return self.connection(**more).channel()

    def fresh(self):
        return "cases-%s-%d" % (self.name, next(self.count))

    def queue(self, channel, name=None, arguments=None, **more):
        name = self.fresh() if name is None else name
        self.queues.append(name)
        return channel.queue_declare(name, arguments=arguments, **more).method.queue

    def exchange(self, channel, kind="fanout", **more):
        name = self.fresh()
        self.exchanges.append(name)
        channel.exchange_declare(name, kind, **more)
        return name

    def clean(self):
        for connection in self.connections:
            if connection.is_open:
                connection.close()
        channel = self.channel()
        for name in self.queues:
            try:
                channel.queue_delete(name)
            except ChannelClosedByBroker:
                channel = self.channel()
        for name in self.exchanges:
            channel.exchange_delete(name)
        for connection in self.connections:
            if connection.is_open:
                connection.close()


class Consumer:
    """Keeps what is delivered to one consumer."""

    def __init__(self, channel, queue, auto_ack=False, **more):
        self.channel, self.got, self.cancelled = channel, [], []
        channel.add_on_cancel_callback(self.cancelled.append)
        self.tag = channel.basic_consume(queue, self.on_message, auto_ack=auto_ack, **more)

    def on_message(self, _channel, method, properties, body):
        self.got.append((body, method, properties))

    def bodies(self, count):
        """What came, once it is so many, and a moment later is not more."""
        eventually(lambda: len(self.got) >= count, self.channel, "%d deliveries, came %r" % (count, self.got))
        self.channel.connection.process_data_events(QUIET)
        same(len(self.got), count)
        return [body for body, _, _ in self.got]


def eventually(condition, channel=None, what="it"):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "%s did not come" % what
        if channel is None:
            time.sleep(0.02)
        else:
            channel.connection.process_data_events(0.02)


def same(got, wanted):
    assert got == wanted, "%r, not %r" % (got, wanted)


def refused(code, text, call, *arguments, **more):
    """The broker closes the channel with this code."""
    try:
        call(*arguments, **more)
    except ChannelClosedByBroker as closed:
        same(closed.reply_code, code)
        assert text in closed.reply_text, closed.reply_text
        return
    raise AssertionError("it was not refused")


def ended(code, text, call, *arguments, **more):
    """The broker closes the connection with this code."""
    try:
        call(*arguments, **more)
    except ConnectionClosedByBroker as closed:
        same(closed.reply_code, code)
        assert text in closed.reply_text, closed.reply_text
        return
    raise AssertionError("the connection was not closed")


def denied(kind, text, call, *arguments, **more):
    """The broker lets nobody in, and says why."""
    try:
        call(*arguments, **more)
    except kind as error:
        assert text in str(error), str(error)
        return
    raise AssertionError("it was let in")


def put(channel, queue, *bodies, exchange="", **properties):
    for body in bodies:
        channel.basic_publish(exchange, queue, body, pika.BasicProperties(**properties))


def take(channel, queue, auto_ack=True):
    """The next message, when it is there: body, method, properties."""
    found = []

    def look():
        method, properties, body = channel.basic_get(queue, auto_ack=auto_ack)
        if method:
            found.append((body, method, properties))
        return method is not None
    eventually(look, what="a message in " + queue)
    return found[0]


def drain(channel, queue, count):
    """The bodies of so many messages, after which the queue is empty."""
    bodies = [take(channel, queue)[0] for _ in range(count)]
    same(channel.basic_get(queue, auto_ack=True)[0], None)
    return bodies


def waits(channel, queue, count):
    eventually(lambda: channel.queue_declare(queue, passive=True).method.message_count == count,
               what="%d messages in %s" % (count, queue))
