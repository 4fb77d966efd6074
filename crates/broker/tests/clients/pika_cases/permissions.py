"""Who may do what: `reader` reads what begins with cases-, `writer` has what begins with mine- and writes to cases-."""
from pika.exceptions import ProbableAccessDeniedError

from broker import case, Consumer, denied, put, refused, same, take


@case
def who_may_only_read_declares_nothing(b):
    refused(403, "ACCESS_REFUSED - access to queue 'cases-x' in vhost '/' refused for user 'reader'",
            b.channel(user="reader", password="reads").queue_declare, "cases-x")
    refused(403, "ACCESS_REFUSED - access to exchange 'cases-x' in vhost '/' refused for user 'reader'",
            b.channel(user="reader", password="reads").exchange_declare, "cases-x", "direct")


@case
def who_may_only_read_publishes_nothing(b):
    channel = b.channel(user="reader", password="reads")
    channel.confirm_delivery()
    refused(403, "access to exchange 'amq.default' in vhost '/' refused for user 'reader'",
            channel.basic_publish, "", "cases-x", b"x")


@case
def who_may_read_reads(b):
    channel, reader = b.channel(), b.channel(user="reader", password="reads")
    queue = b.queue(channel)
    put(channel, queue, b"1")
    same(take(reader, queue)[0], b"1")
    put(channel, queue, b"2")
    same(Consumer(reader, queue, auto_ack=True).bodies(1), [b"2"])


@case
def who_may_not_read_does_not(b):
    queue = b.queue(b.channel())
    text = "access to queue '%s' in vhost '/' refused for user 'writer'" % queue
    for call in ("basic_get", "queue_purge"):
        refused(403, text, getattr(b.channel(user="writer", password="writes"), call), queue)
    refused(403, text, b.channel(user="writer", password="writes").basic_consume, queue, print)


@case
def a_binding_needs_writing_and_reading(b):
    writer = b.channel(user="writer", password="writes")
    queue = b.queue(writer, "mine-" + b.fresh())
    refused(403, "access to exchange 'amq.direct' in vhost '/' refused for user 'writer'",
            writer.queue_bind, queue, "amq.direct", "k")


@case
def a_user_without_permissions_gets_into_no_vhost(b):
    denied(ProbableAccessDeniedError, "NOT_ALLOWED - access to vhost '/' refused for user 'stranger'",
           b.connection, "stranger", "strange")
