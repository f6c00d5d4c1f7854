// undici's request with its pool, as requests_client.py. Its module is where the first word says.
import { createRequire } from "node:module";
const [, , modules, wish, ...asked] = process.argv;
const { Agent, request } = createRequire(modules + "/")("undici");
const dispatcher = new Agent({ pipelining: 4, connections: 1 });
for (const words of asked) {
  const [method, url] = words.split(" ");
  const answer = await request(url, { method, dispatcher, body: method === "POST" ? wish : undefined });
  console.log(JSON.stringify([answer.statusCode, await answer.body.json()]));
}
await dispatcher.close();
