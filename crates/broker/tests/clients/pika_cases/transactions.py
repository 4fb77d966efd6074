"""Transactions."""
from broker import case, drain, put, refused, same, take


@case
def what_is_published_in_a_transaction_comes_with_its_commit(b):
    channel, other = b.channel(), b.channel()
    queue = b.queue(channel)
    channel.tx_select()
    put(channel, queue, b"1", b"2")
    same(drain(other, queue, 0), [])
    channel.tx_commit()
    same(drain(other, queue, 2), [b"1", b"2"])


@case
def a_rollback_forgets_what_was_published(b):
    channel = b.channel()
    queue = b.queue(channel)
    channel.tx_select()
    put(channel, queue, b"1")
    channel.tx_rollback()
    channel.tx_commit()
    same(drain(channel, queue, 0), [])


@case
def an_ack_counts_with_the_commit(b):
    channel = b.channel()
    queue = b.queue(channel)
    put(channel, queue, b"1", b"2")
    channel.tx_select()
    first, second = take(channel, queue, False)[1], take(channel, queue, False)[1]
    channel.basic_ack(first.delivery_tag)
    channel.tx_commit()
    channel.basic_ack(second.delivery_tag)
    channel.tx_rollback()
    channel.close()
    same(drain(b.channel(), queue, 1), [b"2"])


@case
def transactions_and_confirms_exclude_each_other(b):
    channel = b.channel()
    channel.tx_select()
    refused(406, "cannot switch from tx to confirm mode", channel.confirm_delivery)
    channel = b.channel()
    channel.confirm_delivery()
    refused(406, "cannot switch from confirm to tx mode", channel.tx_select)
    refused(406, "channel is not transactional", b.channel().tx_commit)
    refused(406, "channel is not transactional", b.channel().tx_rollback)
