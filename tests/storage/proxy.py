"""A TCP proxy on the loopback interface that breaks connections on demand. It does not change the signed requests."""

import asyncio
import contextlib
import random
import socket
import struct
import threading


class Proxy:
    """Forwards connections to `target` (host, port) in a thread.

    Attributes (may be changed while it runs):
      reset_probability: probability, per chunk of data, that both ends get a TCP reset.
      black_hole: accept connections and never answer.
      resets: number of connections reset so far.
    """

    def __init__(self, target: tuple[str, int], seed: int = 0) -> None:
        self._target = target
        self._random = random.Random(seed)
        self.reset_probability = 0.0
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
                await reader.read()  # until the client closes the connection
            writer.close()
            return
        try:
            target_reader, target_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(
            self._forward(reader, target_writer, writer), self._forward(target_reader, writer, target_writer)
        )

    async def _forward(self, source, sink, other):
        """Copies one direction of a connection; `other` is the writer of the opposite direction."""
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                if self._random.random() < self.reset_probability:
                    self.resets += 1
                    _reset(sink)
                    _reset(other)
                    return
                sink.write(data)
                await sink.drain()
        sink.close()


def _reset(writer):
    """Ends a connection with RST instead of FIN."""
    raw = writer.transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
