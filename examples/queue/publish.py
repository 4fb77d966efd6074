"""Publishes N numbered messages to everybody who subscribed; each is on disk when the next one goes out."""
import os
import sys

import pika

url = os.environ.get("AMQP_URL", "amqp://127.0.0.1:5672/%2f")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.exchange_declare("news", "fanout", durable=True)
channel.confirm_delivery()
persistent = pika.BasicProperties(delivery_mode=2)
for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 10):
    channel.basic_publish("news", "", f"news {number}".encode(), persistent)
connection.close()
