"""Listing thousands of clients keeps none of them waiting."""

import gc
import select
import socket
import time
from itertools import cycle

import pytest

from proxyd.wire import adminrpc, proxyd_program, remote
from proxyd.wire.programs import Admin, Own, Remote
from tests.bed.thousands import front, room, sessions

__all__ = ["front", "room"]

pytestmark = pytest.mark.system

CLIENTS = 2000
AT_ONCE = 16  # calls under way
WINDOW_S = 0.5
WINDOWS = 3  # of each kind
LIST_EVERY_S = 0.1
LIMIT_NS = 5_000_000
PING = remote.call(Remote.CONNECT_GET_LIB_VERSION, 7).pack()
LISTS = {
    "virt-admin's": adminrpc.call(
        Admin.SERVER_LIST_CLIENTS, 1, adminrpc.ListClients("virtproxyd").pack()
    ).pack(),
    "proxyd's own": proxyd_program.call(
        Own.LIST_CLIENTS, 1, proxyd_program.AskPage(0).pack()
    ).pack(),
}


def worst_call(poll, opened, admin, listing):
    """The longest call of a window, and how many lists came in it."""
    sent, worst, lists = {}, 0, 0
    turn = cycle(opened)
    began = time.perf_counter_ns()
    until = began + int(WINDOW_S * 1e9)
    next_list = began
    by_number = {sock.fileno(): sock for sock in opened}
    for _ in range(AT_ONCE):
        sock = next(turn)
        sent[sock.fileno()] = time.perf_counter_ns()
        sock.send(PING)
    while sent:
        now = time.perf_counter_ns()
        if listing and next_list <= now < until:
            admin.send(listing)
            next_list += int(LIST_EVERY_S * 1e9)
        for number, _ in poll.poll(5):
            if number == admin.fileno():
                lists += len(admin.recv(1 << 20)) > 0
                continue
            by_number[number].recv(4096)
            now = time.perf_counter_ns()
            worst = max(worst, now - sent.pop(number))
            if now < until:
                sock = next(turn)
                sent[sock.fileno()] = time.perf_counter_ns()
                sock.send(PING)
    return worst, lists


@pytest.mark.parametrize("whose", LISTS)
def test_listing_two_thousand_clients_adds_little_to_their_worst_call(front, whose, capsys):
    with sessions(front, CLIENTS) as opened, socket.socket(socket.AF_UNIX) as admin:
        admin.connect(str(front.admin_sock))
        admin.setblocking(False)
        poll = select.epoll()
        for sock in (*opened, admin):
            poll.register(sock, select.EPOLLIN)
        quiet, busy, lists = [], [], 0
        gc.disable()
        try:
            for _ in range(WINDOWS):
                quiet.append(worst_call(poll, opened, admin, None)[0])
                worst, came = worst_call(poll, opened, admin, LISTS[whose])
                busy.append(worst)
                lists += came
        finally:
            gc.enable()
            poll.close()
    assert lists >= WINDOWS * WINDOW_S / LIST_EVERY_S
    with capsys.disabled():
        shown = [[round(each / 1e6, 1) for each in sorted(found)] for found in (quiet, busy)]
        print(f"\n{whose} list of {CLIENTS}: worst call in ms without {shown[0]}, with {shown[1]}")
    # What the machine does besides is in some windows, what a list costs in all of them.
    assert min(busy) - min(quiet) < LIMIT_NS
