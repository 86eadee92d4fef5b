"""A TCP proxy that makes a link slow: it delays, sends so many bytes a second, or stands still, each way by itself."""

import asyncio
import contextlib
import threading

CHUNK = 16 << 10


class Way:
    """What happens to bytes in one direction; may be changed at any time, by any thread."""

    def __init__(self):
        self.delay_s, self.bytes_per_second = 0.0, None
        self.bytes = 0
        self.goes = threading.Event()
        self.goes.set()


class SlowLink:
    """Listens on a port of its own and passes on to `target`, (host, port), which may be set later."""

    def __init__(self, target=None):
        self.target = target
        self.there, self.back = Way(), Way()
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        self.thread = threading.Thread(target=self._run, args=[ready], daemon=True)
        self.thread.start()
        assert ready.wait(10)

    def _run(self, ready):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self.loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))

    async def _connected(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.CancelledError):
            upstream, downstream = await asyncio.open_connection(*self.target)
            ways = [self._pass(reader, downstream, self.there), self._pass(upstream, writer, self.back)]
            await asyncio.gather(*ways)
            downstream.close()
        writer.close()

    async def _pass(self, reader, writer, way):
        """Reads ahead no more than the queue holds: a way that stands still is felt by the sender."""
        queue = asyncio.Queue(64)

        async def send():
            while (item := await queue.get()) is not None:
                due, data = item
                await asyncio.sleep(max(0.0, due - self.loop.time()))
                while not way.goes.is_set():
                    await asyncio.sleep(0.01)
                if way.bytes_per_second:
                    await asyncio.sleep(len(data) / way.bytes_per_second)
                way.bytes += len(data)
                writer.write(data)
                await writer.drain()
            writer.close()

        sending = asyncio.ensure_future(send())
        try:
            while data := await reader.read(CHUNK):
                await queue.put((self.loop.time() + way.delay_s, data))
        except OSError:
            pass
        await queue.put(None)
        await sending

    def heal(self):
        for way in (self.there, self.back):
            way.delay_s, way.bytes_per_second = 0.0, None
            way.goes.set()

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
