// Prints what is published.
import amqplib from "amqplib";

const connection = await amqplib.connect(`amqp://127.0.0.1:${process.argv[2] ?? 5672}`);
const channel = await connection.createChannel();
await channel.assertExchange("news", "fanout", { durable: true });
const { queue } = await channel.assertQueue("", { exclusive: true });
await channel.bindQueue(queue, "news", "");
await channel.consume(queue, (message) => {
  console.log(message.content.toString());
  channel.ack(message);
});
