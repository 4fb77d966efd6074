"""Prints what is published. As `durable` its queue outlives it, and what came meanwhile is printed when it comes back."""
import sys

import pika

durable = "durable" in sys.argv[1:]
ports = [int(word) for word in sys.argv[1:] if word.isdigit()]
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", ports[0] if ports else 5672))
channel = connection.channel()
channel.exchange_declare("news", "fanout", durable=True)
declared = channel.queue_declare("news.durable" if durable else "", durable=durable, exclusive=not durable)
queue = declared.method.queue
channel.queue_bind(queue, "news")
print("subscribed", flush=True)


def take(channel, method, properties, body):
    print(body.decode(), flush=True)
    channel.basic_ack(method.delivery_tag)


channel.basic_consume(queue, take)
channel.start_consuming()
