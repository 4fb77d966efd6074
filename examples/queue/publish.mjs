// Publishes N numbered messages to everybody who subscribed, and ends when all of them are on disk.
import amqplib from "amqplib";

const connection = await amqplib.connect(process.env.AMQP_URL ?? "amqp://127.0.0.1:5672/%2f");
const channel = await connection.createConfirmChannel();
await channel.assertExchange("news", "fanout", { durable: true });
const count = Number(process.argv[2] ?? 10);
for (let number = 0; number < count; number++) {
  channel.publish("news", "", Buffer.from(`news ${number}`), { persistent: true });
}
await channel.waitForConfirms();
await connection.close();
