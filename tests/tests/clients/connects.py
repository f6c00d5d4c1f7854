# Every way to connect that a program has, each with one request behind it: a line of JSON each, named.
# Words: a body, the service's IPv4 address, its IPv6 address, the pod's own two.
import ctypes, json, os, select, socket, sys

WISH, V4, V6, OWN4, OWN6 = sys.argv[1:6]
HOST = "trips.default.svc"
libc = ctypes.CDLL(None, use_errno=True)


def head(method, trip):
    body = WISH if method == "POST" else ""
    return (f"{method} /trips/{trip} HTTP/1.1\r\nHost: {HOST}:8080\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}").encode()


def answer(s):
    s.setblocking(True)
    s.settimeout(30)
    text = b""
    while part := s.recv(65536):
        text += part
    top, body = text.split(b"\r\n\r\n", 1)
    return int(top.split()[1]), json.loads(body)


def tcp(family, kind=socket.SOCK_STREAM, protocol=0):
    s = socket.socket(family, kind, protocol)
    s.settimeout(30)
    return s


def place(family):
    return (V4, 8080) if family == socket.AF_INET else (V6, 8080)


def plain(family, request):
    s = tcp(family)
    s.connect(place(family))
    s.sendall(request)
    return s


def bound(family, request):
    """From an address and a port of one's own choice."""
    s = tcp(family)
    own = OWN4 if family == socket.AF_INET else OWN6
    s.bind((own, 0))
    s.connect(place(family))
    s.sendall(request)
    return s


def nonblocking(family, request):
    s = tcp(family)
    s.setblocking(False)
    code = s.connect_ex(place(family))
    assert code in (0, 115), code  # EINPROGRESS
    assert select.select([], [s], [], 30)[1]
    assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    s.setblocking(True)
    s.sendall(request)
    return s


def fast_open_connect(family, request):
    """TCP_FASTOPEN_CONNECT: connect() returns at once, the first write goes with the SYN (tcp(7))."""
    s = tcp(family)
    s.setsockopt(socket.IPPROTO_TCP, 30, 1)
    s.connect(place(family))
    s.sendall(request)
    return s


def fast_open_send(family, request):
    """MSG_FASTOPEN: no connect() at all."""
    s = tcp(family)
    s.setblocking(True)
    sent = s.sendto(request, 0x20000000, place(family))
    s.sendall(request[sent:])
    return s


def after_a_refusal(family, request):
    """A port where nobody listens, and which is no trigger's; then the same socket again."""
    s = tcp(family)
    s.setblocking(True)  # with a time-out the second connect() only learns of the first's end (ECONNABORTED)
    try:
        s.connect((place(family)[0], 9))
        raise AssertionError("port 9 took a connection")
    except ConnectionRefusedError:
        pass
    s.connect(place(family))
    s.sendall(request)
    return s


def after_unspec(family, request):
    """Connected, dissolved by AF_UNSPEC (connect(2)), connected again."""
    s = tcp(family)
    s.connect(place(family))
    code = libc.connect(s.fileno(), b"\0" * 28, 28)
    assert code == 0, os.strerror(ctypes.get_errno())
    s.connect(place(family))
    s.sendall(request)
    return s


def mapped(_family, request):
    """An IPv6 socket to an IPv4 address, as Java's and Go's are."""
    s = tcp(socket.AF_INET6)
    s.connect(("::ffff:" + V4, 8080))
    s.sendall(request)
    return s


def multipath(family, request):
    s = tcp(family, socket.SOCK_STREAM, 262)  # IPPROTO_MPTCP
    s.connect(place(family))
    s.sendall(request)
    return s


def peer_is_right(s, family, way):
    if way is multipath:
        return True  # the first subflow is a socket of the kernel's own: docs/http.md
    seen = s.getpeername()[:2]
    asked = ("::ffff:" + V4, 8080) if way is mapped else place(family)
    return seen == asked


WAYS = [plain, bound, nonblocking, fast_open_connect, fast_open_send, after_a_refusal, after_unspec, mapped, multipath]
number = 0
for way in WAYS:
    for family in (socket.AF_INET, socket.AF_INET6):
        for method in ("POST", "GET"):
            number += 1
            trip = f"c{number}"
            name = f"{way.__name__} {family.name} {method}"
            try:
                s = way(family, head(method, trip))
                right = peer_is_right(s, family, way)
                status, body = answer(s)
                line = [name, trip, status, right, body]
            except Exception as error:
                line = [name, trip, 0, False, repr(error)]
            print(json.dumps(line))
