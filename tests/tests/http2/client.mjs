// Says all that a client of HTTP/2 sees of the service at an address, as lines of JSON.
import http2 from "node:http2";
import { once } from "node:events";

const [origin] = process.argv.slice(2);
const session = http2.connect(origin, { settings: { enablePush: true, initialWindowSize: 100_000 } });
session.on("error", (error) => say("session", error.message));
const pushes = [];
session.on("stream", (stream, headers) => {
  const parts = [];
  stream.on("data", (part) => parts.push(part));
  stream.on("end", () => pushes.push([headers[":path"], Buffer.concat(parts).toString()]));
});

function say(what, seen) {
  console.log(JSON.stringify([what, seen]));
}

function ask(headers, body, more = {}) {
  const stream = session.request({ ":authority": "service", ...headers }, { endStream: body === undefined, ...more });
  if (body !== undefined) stream.end(body);
  return seen(stream);
}

function seen(stream) {
  return new Promise((done) => {
    const said = { interim: [], length: 0 };
    const parts = [];
    stream.on("headers", (headers) => said.interim.push(headers));
    stream.on("response", (headers, flags) => {
      said.headers = { ...headers, date: undefined };
      said.flags = flags;
    });
    stream.on("trailers", (trailers) => (said.trailers = trailers));
    stream.on("data", (part) => parts.push(part));
    stream.on("error", (error) => (said.error = error.code));
    stream.on("close", () => {
      const body = Buffer.concat(parts);
      said.code = stream.rstCode;
      said.body = body.length > 10_000 ? body.length : body.toString();
      done(said);
    });
  });
}

await once(session, "remoteSettings");
const { maxConcurrentStreams, initialWindowSize, enableConnectProtocol, headerTableSize } = session.remoteSettings;
say("settings", { maxConcurrentStreams, initialWindowSize, enableConnectProtocol, headerTableSize });
say("get", await ask({ ":path": "/a%20b?c=d" }));
say("fields", await ask({ ":path": "/f", "x-b": ["1", "2"], "x-a": "3", cookie: ["a=1", "b=2"], te: "trailers", "x-empty": "" }));
say("head", await ask({ ":method": "HEAD", ":path": "/h" }));
say("post", await ask({ ":method": "POST", ":path": "/p" }, "body"));
say("large", await ask({ ":path": "/large" }));
say("upload", await ask({ ":method": "PUT", ":path": "/u" }, Buffer.alloc(3 << 20, "u")));
say("hints", await ask({ ":path": "/hints" }));
say("only trailers", await ask({ ":path": "/only-trailers" }));
say("reset", await ask({ ":path": "/reset" }));
say("push", await ask({ ":path": "/push" }));
while (pushes.length === 0) await new Promise((next) => setTimeout(next, 5));
say("pushes", pushes);
{
  const stream = session.request({ ":method": "POST", ":path": "/t", ":authority": "service" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "4" }));
  stream.end("body");
  say("trailers", await seen(stream));
}
{
  const stream = session.request({ ":method": "CONNECT", ":protocol": "websocket", ":path": "/chat", ":scheme": "http", ":authority": "service" });
  stream.write("there");
  const [part] = await once(stream, "data");
  stream.end(" and back");
  const rest = await seen(stream);
  say("tunnel", [part.toString(), rest.body, rest.code]);
}
{
  const stream = session.request({ ":path": "/hang", ":authority": "service" });
  stream.on("error", () => {});
  await new Promise((sent) => session.ping(sent));
  stream.close(http2.constants.NGHTTP2_CANCEL);
  await once(stream, "close");
  let said;
  do said = JSON.parse((await ask({ ":path": "/resets" })).body).resets;
  while (said.length === 0);
  say("cancelled", said);
}
{
  // Answered before the request's end: the rest of it is not asked for.
  const stream = session.request({ ":method": "POST", ":path": "/early", ":authority": "service" });
  stream.write("begun");
  const [headers] = await once(stream, "response");
  stream.end();
  say("early", [headers[":status"], (await seen(stream)).body]);
}
{
  const all = [];
  for (let at = 0; at < 1000; at++) all.push(ask({ ":method": "POST", ":path": `/many/${at}` }, "m".repeat(at)));
  const answers = await Promise.all(all);
  say("many", answers.map((answer) => JSON.parse(answer.body)).map(({ path, body }) => [path, body.length ?? body]));
}
say("ping", await new Promise((done) => session.ping(Buffer.from("12345678"), (error, _, payload) => done([error, payload.toString()]))));
{
  const slow = ask({ ":path": "/large" });
  const goaway = once(session, "goaway");
  const last = ask({ ":path": "/goaway" });
  const [code, lastStream] = await goaway;
  say("goaway", [code, lastStream > 0]);
  say("last", [(await slow).body, (await last).headers[":status"]]);
}
await once(session, "close");
say("end", true);
