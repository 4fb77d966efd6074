"""Opening, agreeing, staying alive."""
import time

from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError

from broker import case, denied, eventually, put, refused, same, take, waits


@case
def a_connection_opens_and_closes(b):
    connection = b.connection()
    assert connection.is_open
    connection.close()
    assert connection.is_closed


@case
def the_server_says_what_it_can(b):
    connection = b.connection()
    for what in ("basic_nack", "consumer_cancel_notify", "exchange_exchange_bindings", "publisher_confirms"):
        assert getattr(connection, what + "_supported"), what
    capabilities = connection._impl.server_capabilities
    for what in ("connection.blocked", "consumer_priorities", "authentication_failure_close", "per_consumer_qos",
                 "direct_reply_to"):
        assert capabilities[what] is True, what


@case
def a_wrong_password_is_refused_with_a_reason(b):
    for user, password in (("guest", "wrong"), ("nobody", "guest"), ("guest", "")):
        denied(ProbableAuthenticationError, "(403) 'ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.",
               b.connection, user, password)


@case
def an_unknown_vhost_is_refused(b):
    denied(ProbableAccessDeniedError, "(530) 'NOT_ALLOWED - vhost nothing not found'", b.connection, vhost="nothing")


@case
def a_vhost_without_permission_is_refused(b):
    denied(ProbableAccessDeniedError, "NOT_ALLOWED - access to vhost 'other' refused for user 'reader'", b.connection, "reader", "reads", "other")


@case
def vhosts_know_nothing_of_each_other(b):
    here, there = b.channel(), b.channel(vhost="other")
    queue = b.queue(here)
    refused(404, "no queue '%s' in vhost 'other'" % queue, there.queue_declare, queue, passive=True)


@case
def the_smaller_frame_size_is_agreed(b):
    channel = b.channel(frame_max=4096)
    queue = b.queue(channel)
    put(channel, queue, b"x" * 20000)
    same(len(take(channel, queue)[0]), 20000)


@case
def the_heartbeat_is_the_clients(b):
    same(b.connection(heartbeat=0)._impl.params.heartbeat, 0)
    same(b.connection(heartbeat=7)._impl.params.heartbeat, 7)
    # Whoever asks for nothing gets what the server proposes.
    same(b.connection(heartbeat=None)._impl.params.heartbeat, 60)


@case
def who_is_silent_for_two_heartbeats_is_cut_off(b):
    silent, other = b.channel(heartbeat=1), b.connection()
    queue = b.queue(silent, exclusive=True)

    def is_gone():
        try:
            other.channel().queue_declare(queue, passive=True)
        except ChannelClosedByBroker as closed:
            return closed.reply_code == 404
    eventually(is_gone, what="the end of the silent connection")
    try:
        silent.queue_declare(queue, passive=True)
    except AMQPConnectionError:
        return
    raise AssertionError("it is still connected")


@case
def who_beats_stays(b):
    connection = b.connection(heartbeat=1)
    end = time.monotonic() + 3.5
    while time.monotonic() < end:
        connection.process_data_events(0.2)
    connection.channel().close()


@case
def a_secret_is_updated(b):
    b.connection().update_secret("new", "because")


@case
def two_hundred_channels_on_one_connection(b):
    connection = b.connection()
    channels = [connection.channel() for _ in range(200)]
    same(len({channel.channel_number for channel in channels}), 200)
    queue = b.queue(channels[0])
    for channel in channels:
        put(channel, queue, b"x")
    waits(channels[0], queue, 200)


@case
def a_channel_number_is_used_again(b):
    connection = b.connection()
    for _ in range(20):
        channel = connection.channel()
        same(channel.channel_number, 1)
        channel.close()


@case
def an_error_on_a_channel_leaves_the_others_alone(b):
    connection = b.connection()
    one, other = connection.channel(), connection.channel()
    refused(404, "", one.queue_declare, b.fresh(), passive=True)
    b.queue(other)
    assert connection.is_open and one.is_closed
    same(connection.channel().channel_number, one.channel_number)


@case
def flow_is_answered(b):
    same(b.channel().flow(True), True)
