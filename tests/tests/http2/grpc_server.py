"""A gRPC service of all four kinds, without generated code, on each port that is named."""

import sys
import time
from concurrent import futures

import grpc


def unary(request, context):
    context.send_initial_metadata((("x-initial", "1"), ("x-many", "a"), ("x-many", "b")))
    context.set_trailing_metadata((("x-trailing", "2"), ("x-bin-bin", b"\x00\xff")))
    return b"unary " + request


def fails(request, context):
    context.set_trailing_metadata((("x-why", "because"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not so: \u00e9 100%")


def slow(request, context):
    stop = time.monotonic() + 30
    while context.is_active() and time.monotonic() < stop:
        time.sleep(0.01)
    return b"late"


def server_stream(request, context):
    for at in range(int(request)):
        yield b"%d " % at + b"s" * 20_000


def client_stream(requests, context):
    total = count = 0
    for request in requests:
        count += 1
        total += len(request)
    return b"%d in %d" % (total, count)


def bidi(requests, context):
    for request in requests:
        yield b"echo " + request


def breaks(requests, context):
    for at, request in enumerate(requests):
        if at == 2:
            context.abort(grpc.StatusCode.ABORTED, "in the middle")
        yield request


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fails": grpc.unary_unary_rpc_method_handler(fails),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    "Breaks": grpc.stream_stream_rpc_method_handler(breaks),
}
server = grpc.server(futures.ThreadPoolExecutor(64))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("qbox.Test", handlers),))
for port in sys.argv[1:]:
    server.add_insecure_port(f"[::]:{port}")
server.start()
for port in sys.argv[1:]:
    print(port, flush=True)
server.wait_for_termination()
