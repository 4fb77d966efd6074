// Prints what is published. As `durable` its queue outlives it, and what came meanwhile is printed when it comes back.
import amqplib from "amqplib";

const durable = process.argv[2] === "durable";
const connection = await amqplib.connect(process.env.AMQP_URL ?? "amqp://127.0.0.1:5672/%2f");
const channel = await connection.createChannel();
await channel.assertExchange("news", "fanout", { durable: true });
const { queue } = await channel.assertQueue(durable ? "news.node" : "", { durable, exclusive: !durable });
await channel.bindQueue(queue, "news", "");
console.log("subscribed");
await channel.consume(queue, (message) => {
  console.log(message.content.toString());
  channel.ack(message);
});
