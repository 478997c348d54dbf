"""A client for etcd, as far as the benchmarks need one: single calls of its
gRPC interface on one connection, encoded beforehand, so that little but etcd's
own time is measured."""

import socket
import struct
import sys

DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def number(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def text(field, content):
    return bytes([field << 3 | 2]) + number(len(content)) + content


def integer(field, n):
    return bytes([field << 3]) + number(n)


def fields(message):
    """Numbers and contents of a message's fields."""

    def take(at):
        n, shift = 0, 0
        while True:
            n, shift, at = n | (message[at] & 127) << shift, shift + 7, at + 1
            if message[at - 1] < 128:
                return n, at

    at = 0
    while at < len(message):
        tag, at = take(at)
        n, at = take(at)
        if tag & 7 == 2:
            yield tag >> 3, message[at : at + n]
            at += n
        else:
            yield tag >> 3, n


def frame(kind, flags, stream, content):
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def header(name, value):
    # Literal, not indexed, without Huffman's code.
    return b"\0" + number(len(name)) + name.encode() + number(len(value)) + value.encode()


class Etcd:
    def __init__(self, host, port):
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.authority, self.stream, self.unread = f"{host}:{port}", 1, b""
        window = struct.pack(">I", (1 << 31) - 1 - 65535)
        hello = frame(SETTINGS, 0, 0, b"") + frame(WINDOW_UPDATE, 0, 0, window)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + hello)

    def request(self, method, message):
        """The bytes of the next call."""
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": f"/etcdserverpb.KV/{method}",
            ":authority": self.authority,
            "content-type": "application/grpc",
            "te": "trailers",
        }
        block = b"".join(header(name, value) for name, value in headers.items())
        content = b"\0" + struct.pack(">I", len(message)) + message
        stream, self.stream = self.stream, self.stream + 2
        return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, content)

    def take(self, count):
        while len(self.unread) < count:
            more = self.socket.recv(1 << 16)
            if not more:
                sys.exit(f"{sys.argv[0]}: etcd closed the connection")
            self.unread += more
        taken, self.unread = self.unread[:count], self.unread[count:]
        return taken

    def answer(self, request):
        """Sends a request; answers what came for it, still encoded."""
        self.socket.sendall(request)
        content = b""
        while True:
            head = self.take(9)
            kind, flags = head[3], head[4]
            part = self.take(int.from_bytes(head[:3], "big"))
            if kind == DATA:
                content += part
            elif kind == HEADERS and flags & END_STREAM:
                if not content:
                    sys.exit(f"{sys.argv[0]}: etcd answered {part!r}")
                return content[5:]
            elif kind in (SETTINGS, PING) and not flags & ACK:
                self.socket.sendall(frame(kind, ACK, 0, part if kind == PING else b""))
            elif kind == GOAWAY:
                sys.exit(f"{sys.argv[0]}: etcd ended the connection: {part!r}")

    def put(self, key, value):
        """Answers the revision."""
        message = text(1, key.encode()) + text(2, value.encode())
        answer = dict(fields(self.answer(self.request("Put", message))))
        return dict(fields(answer[1]))[3]

    def get_at(self, key, revision):
        """The request for a key's value at a revision, from this node's own
        state: no round among nodes comes in between."""
        return self.request("Range", text(1, key.encode()) + integer(4, revision) + integer(7, 1))

    @staticmethod
    def value(answer):
        return dict(fields(dict(fields(answer))[2]))[5].decode()
