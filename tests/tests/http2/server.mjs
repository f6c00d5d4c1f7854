// A service of HTTP/2 with prior knowledge, on each port that is named: says what it was asked, in many ways.
import http2 from "node:http2";

const resets = [];

function serve(stream, headers) {
  const path = headers[":path"];
  const parts = [];
  stream.on("error", () => {});
  stream.on("aborted", () => resets.push(stream.rstCode));
  if (headers[":method"] === "CONNECT") {
    stream.respond({ ":status": 200 });
    stream.pipe(stream);
    return;
  }
  if (path === "/reset") return stream.close(http2.constants.NGHTTP2_ENHANCE_YOUR_CALM);
  if (path === "/hang") return;
  if (path === "/hints") {
    stream.additionalHeaders({ ":status": 103, link: "</a>; rel=preload" });
    stream.additionalHeaders({ ":status": 103, link: "</b>; rel=preload" });
  }
  if (path === "/early") {
    stream.respond({ ":status": 413 });
    return stream.end("too long");
  }
  if (path === "/only-trailers") return stream.respond({ ":status": 200, "grpc-status": "12" }, { endStream: true });
  if (path === "/large") {
    stream.respond({ ":status": 200 });
    return stream.end(Buffer.alloc(5 << 20, "l"));
  }
  if (path === "/push" && stream.pushAllowed) {
    stream.pushStream({ ":path": "/pushed" }, (error, push) => {
      if (error) return;
      push.respond({ ":status": 200 });
      push.end("pushed");
    });
  }
  stream.on("data", (part) => parts.push(part));
  stream.on("trailers", (trailers) => (stream.asked = trailers));
  stream.on("end", () => {
    const body = Buffer.concat(parts);
    const said = {
      method: headers[":method"],
      authority: headers[":authority"],
      scheme: headers[":scheme"],
      path,
      peer: stream.session.socket.remoteAddress.replace("::ffff:", ""),
      fields: stream.rawFields,
      trailers: stream.asked,
      body: body.length > 100 ? body.length : body.toString(),
    };
    if (path === "/resets") said.resets = resets.splice(0);
    if (path === "/goaway") stream.session.close();
    stream.respond({ ":status": 200, "set-cookie": ["a=1", "b=2"], "x-many": "1" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": String(body.length) }));
    stream.end(JSON.stringify(said));
  });
}

for (const port of process.argv.slice(2)) {
  const server = http2.createServer({
    settings: { maxConcurrentStreams: 1500, enableConnectProtocol: true, initialWindowSize: 200_000 },
  });
  server.on("stream", (stream, headers, flags, raw) => {
    stream.rawFields = [];
    for (let at = 0; at < raw.length; at += 2) if (!raw[at].startsWith(":")) stream.rawFields.push(`${raw[at]}: ${raw[at + 1]}`);
    serve(stream, headers);
  });
  server.on("session", (session) => session.on("error", () => {}));
  server.listen(Number(port), "::", () => console.log(port));
}
