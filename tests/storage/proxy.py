"""A TCP proxy on loopback that breaks connections on demand; signatures stay valid through it."""

import asyncio
import contextlib
import random
import socket
import struct
import threading


class Proxy:
    """Forwards to `target` (host, port) from a thread of its own.

    Attributes, to be changed at any time:
      reset_share: the share of chunks at which both ends get a reset.
      black_hole: connections are taken and nothing is ever answered.
      resets: how many connections were reset so far.
    """

    def __init__(self, target: tuple[str, int], seed: int = 0) -> None:
        self._target = target
        self._random = random.Random(seed)
        self.reset_share = 0.0
        self.black_hole = False
        self.resets = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _run(self):
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))

    async def _serve(self, reader, writer):
        if self.black_hole:
            with contextlib.suppress(OSError):
                await reader.read()  # until the client gives up
            writer.close()
            return
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(self._pump(reader, back, writer), self._pump(there, writer, back))

    async def _pump(self, source, sink, other):
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                if self._random.random() < self.reset_share:
                    self.resets += 1
                    _reset(sink)
                    _reset(other)
                    return
                sink.write(data)
                await sink.drain()
        sink.close()


def _reset(writer):
    """Ends a connection with RST."""
    raw = writer.transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
