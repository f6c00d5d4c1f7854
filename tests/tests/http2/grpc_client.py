"""Calls each kind of gRPC method, and says what came of it."""

import queue
import sys

import grpc

channel = grpc.insecure_channel(sys.argv[1].removeprefix("http://"), options=[("grpc.enable_retries", 0)])


def method(kind, name):
    return getattr(channel, kind)(f"/qbox.Test/{name}")


def meta(data):
    return sorted((key, value) for key, value in data if key.startswith("x-"))


def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, error.details(), meta(error.trailing_metadata() or ())
    return "no failure"


unary = method("unary_unary", "Unary")
response, call = unary.with_call(b"hello", metadata=(("x-asked", "1"),), timeout=60)
print("unary", response, meta(call.initial_metadata()), meta(call.trailing_metadata()), call.code().name)
print("empty", unary(b"", timeout=60))
large = unary(b"l" * 3_000_000, timeout=60)
print("large", len(large), large[:10])
print("compressed", len(unary(b"c" * 100_000, timeout=60, compression=grpc.Compression.Gzip)))
print("fails", failure(lambda: method("unary_unary", "Fails")(b"", timeout=60)))
print("unknown", failure(lambda: method("unary_unary", "Nobody")(b"", timeout=60)))
print("deadline", failure(lambda: method("unary_unary", "Slow")(b"", timeout=0.3))[0])
call = method("unary_unary", "Slow").future(b"", timeout=60)
call.cancel()
print("cancelled", failure(call.result)[0] if not call.cancelled() else "CANCELLED")
parts = list(method("unary_stream", "ServerStream")(b"100", timeout=60))
print("server stream", len(parts), sum(map(len, parts)), parts[99][:4])
call = method("unary_stream", "ServerStream")(b"100000", timeout=60)
print("left early", next(call)[:3], call.cancel())
print("client stream", method("stream_unary", "ClientStream")((b"c" * at for at in range(1000)), timeout=60))
asked = queue.Queue()
call = method("stream_stream", "Bidi")(iter(asked.get, None), timeout=60)
said = []
for at in range(50):
    asked.put(b"%d" % at)
    said.append(next(call))
asked.put(None)
print("bidi", said[0], said[49], list(call), call.code().name)
print("breaks", failure(lambda: list(method("stream_stream", "Breaks")(iter([b"1", b"2", b"3", b"4"]), timeout=60))))
calls = [unary.future(b"%d" % at, timeout=60) for at in range(1000)]
print("many", all(call.result() == b"unary %d" % at for at, call in enumerate(calls)))
