"""The pages over HTTP: what a client gets, and what no client can do."""

import h11
import pytest
import trio
import trio.testing

from proxyd.metrics import http
from proxyd.metrics.http import MOST_CONNECTIONS, HttpServer, Page

DEADLINE_S = 10


async def hello():
    return Page(b"hello\n")


async def broken():
    raise ValueError("secret")


PAGES = {"/metrics": hello, "/broken": broken}


@pytest.fixture
async def connect(nursery):
    """Opens connections to a server; all that is awaited has a deadline."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = HttpServer(PAGES)
    nursery.start_soon(server.serve, listener)
    port = listener.socket.getsockname()[1]
    opened = []

    async def connect():
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        opened.append(stream)
        return stream

    with trio.fail_after(DEADLINE_S):
        yield connect
    nursery.cancel_scope.cancel()
    for each in (*opened, listener):
        each.socket.close()


async def everything(stream):
    """All that comes until the server closes."""
    received = b""
    while data := await stream.receive_some(65536):
        received += data
    return received


async def answer(stream, method="GET", target="/metrics", **more):
    """Status and body of one exchange, by another library's idea of HTTP: h11's client."""
    http_client = h11.Connection(h11.CLIENT)
    headers = [("Host", "x"), *((name.replace("_", "-"), value) for name, value in more.items())]
    wire = http_client.send(h11.Request(method=method, target=target, headers=headers))
    wire += http_client.send(h11.EndOfMessage())
    await stream.send_all(wire)
    status, body = None, b""
    while True:
        match http_client.next_event():
            case h11.NEED_DATA:
                http_client.receive_data(await stream.receive_some(65536))
            case h11.Response(status_code=status):
                pass
            case h11.Data(data=data):
                body += data
            case h11.EndOfMessage():
                return status, body


async def test_a_page_again_and_again_on_one_connection(connect):
    stream = await connect()
    for _ in range(3):
        assert await answer(stream) == (200, b"hello\n")


async def test_a_query_is_no_part_of_the_path(connect):
    assert await answer(await connect(), target="/metrics?x=1") == (200, b"hello\n")


async def test_head_is_answered_without_a_body(connect):
    stream = await connect()
    assert await answer(stream, method="HEAD") == (200, b"")
    assert await answer(stream) == (200, b"hello\n")


async def test_another_path_is_told_which_there_are(connect):
    status, body = await answer(await connect(), target="/")
    assert status == 404
    assert b"/metrics" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused(connect, method):
    status, _ = await answer(await connect(), method=method)
    assert status == 405


async def test_an_error_of_ours_says_nothing_of_itself(connect, caplog):
    status, body = await answer(await connect(), target="/broken")
    assert status == 500
    assert b"secret" not in body
    assert "cannot make the page /broken" in caplog.text


@pytest.mark.parametrize(
    "said",
    [
        b"\x00\x00\x00\x1c\x20\x00\x80\x86\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n\r\n",  # without Host
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"x" * 100_000,
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20_000,
    ],
    ids=["libvirt", "0.9", "no host", "length", "long line", "many headers"],
)
async def test_what_is_no_request_is_told_so_and_closed(connect, said):
    stream = await connect()
    await stream.send_all(said)
    received = await everything(stream)
    assert received.startswith(b"HTTP/1.1 400"), received


async def test_a_body_is_read_and_dropped_up_to_a_bound(connect):
    stream = await connect()
    head = b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    await stream.send_all(head % 10 + b"x" * 10)
    assert (await stream.receive_some(65536)).startswith(b"HTTP/1.1 200")
    await stream.send_all(head % 1_000_000 + b"x" * 20_000)
    assert (await everything(stream)).startswith(b"HTTP/1.1 413")


async def test_requests_in_one_piece_are_answered_in_their_order(connect):
    stream = await connect()
    await stream.send_all(
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
        b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    received = await everything(stream)
    assert 0 < received.index(b"HTTP/1.1 200") + 1 < received.index(b"HTTP/1.1 404")


async def test_a_request_in_crumbs_is_answered(connect):
    stream = await connect()
    for byte in b"GET /metrics HTTP/1.0\r\n\r\n":
        await stream.send_all(bytes([byte]))
    assert (await everything(stream)).endswith(b"hello\n")


async def test_who_holds_all_connections_keeps_nobody_out(connect):
    held = [await connect() for _ in range(3 * MOST_CONNECTIONS)]
    for each in held:
        try:
            await each.send_all(b"GET /metrics HT")
        except trio.BrokenResourceError:
            continue  # it had to make way
    assert await answer(await connect()) == (200, b"hello\n")


async def test_a_connection_that_asks_stays_when_silent_ones_make_way(connect):
    scraper = await connect()
    for _ in range(3 * MOST_CONNECTIONS):
        await connect()
        assert await answer(scraper) == (200, b"hello\n")


@pytest.mark.parametrize("said", [b"", b"GET /metr"], ids=["nothing", "half"])
async def test_who_says_nothing_more_is_closed(autojump_clock, said):
    ours, theirs = trio.testing.memory_stream_pair()

    async def answer_nobody(_):
        raise AssertionError

    connection = http._Connection(theirs, answer_nobody)
    if said:
        await ours.send_all(said)
    began = trio.current_time()
    assert not await connection.exchange()
    assert trio.current_time() - began == (10 if said else 120)


async def test_who_does_not_read_is_closed(autojump_clock):
    ours, theirs = trio.testing.lockstep_stream_pair()
    connection = http._Connection(theirs, lambda _: hello())
    await trio.lowlevel.checkpoint()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not await connection.exchange()
