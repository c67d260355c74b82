"""A proxy between a client and a server that damages what the server sends: one byte flipped, or the end cut off."""

import socket
import threading
from collections.abc import Callable

Damage = Callable[[bytes, int], bytes | None]  # bytes and their position in the connection's stream; None hangs up


class FaultProxy:
    """Listens on a port of its own; `damage` is applied to what comes from the server, on every connection."""

    def __init__(self, port: int, damage: Damage) -> None:
        self.target, self.damage = port, damage
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self._copy, args=(client, server, lambda data, _: data), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, self.damage), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, change: Damage) -> None:
        position = 0
        with source, target:
            try:
                while data := source.recv(65536):
                    changed = change(data, position)
                    position += len(data)
                    if changed is None:
                        break
                    target.sendall(changed)
            except OSError:
                pass
            for side in (source, target):
                try:
                    side.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


def flip(position: int) -> Damage:
    """Flips one bit at that position of every connection's stream."""

    def damage(data: bytes, start: int) -> bytes:
        index = position - start
        return data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :] if 0 <= index < len(data) else data

    return damage


def cut(position: int) -> Damage:
    """Hangs up when so many bytes have come."""
    return lambda data, start: None if start + len(data) > position else data


def times(number: int, damage: Damage) -> Damage:
    """Does harm so many times and then no more."""
    left = [number]

    def limited(data: bytes, start: int) -> bytes | None:
        changed = damage(data, start) if left[0] else data
        left[0] -= changed != data
        return changed

    return limited
