"""What a program with libvirt's Python binding does all day, as a script that times each case.

Scripts print {case: [result, seconds, busy_s]} as JSON (see side_by_side.py) and get a URI of test:///default
by some transport; by the same one they reach qemu:///system, whose pool "cases" has the volumes
"source" and "target", of 1 MiB each.

EVERYTHING does each thing first without an event loop and keepalive, so that a client to which
nothing comes waits for ever; then with both, and with events on the same connection. A case that
takes longer than LIMIT_S is "stuck", and the last one.

IDLE is silent for some keepalive intervals and then makes a call. BESIDE makes calls while the same
connection is full of a download.
"""

from typing import Final

_BEGIN: Final = r'''
import hashlib, json, os, sys, threading, time
import libvirt

LIMIT_S = 20
URI = sys.argv[1]
QEMU = URI.replace("test", "qemu", 1).replace("/default", "/system", 1)
libvirt.registerErrorHandler(lambda context, error: None, None)
told = {}


def case(name, do, *arguments):
    """Times it in a thread, because one that waits for ever cannot be interrupted."""
    results = []

    def inside():
        try:
            results.append(do(*arguments))
        except Exception as error:
            results.append(repr(error))

    thread = threading.Thread(target=inside, daemon=True)
    began, busy_s = time.monotonic(), busy_seconds()
    thread.start()
    thread.join(LIMIT_S)
    took_s = time.monotonic() - began
    told[name] = [results[0] if results else "stuck", took_s, busy_seconds() - busy_s]
    if not results:
        print(json.dumps(told), flush=True)
        os._exit(0)


def busy_seconds():
    try:
        counted = open("/proc/pressure/cpu").read()
    except OSError:
        return 0
    return int(counted.split("total=")[1].split()[0]) / 1e6


def run_event_loop():
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=turn, daemon=True).start()


def turn():
    while True:
        libvirt.virEventRunDefaultImpl()
'''

EVERYTHING: Final = (
    _BEGIN
    + r'''

def refused(do, *arguments):
    try:
        do(*arguments)
    except libvirt.libvirtError as error:
        return error.get_error_code()


def download(connection, times):
    volume = connection.storagePoolLookupByName("cases").storageVolLookupByName("source")
    seen = hashlib.sha256()
    for _ in range(times):
        stream = connection.newStream()
        volume.download(stream, 0, 0)
        stream.recvAll(lambda stream, data, seen: seen.update(data), seen)
        stream.finish()
    return seen.hexdigest()


def upload(connection, times, size=1 << 20):
    volume = connection.storagePoolLookupByName("cases").storageVolLookupByName("target")
    content = bytes(range(256)) * (size >> 8)
    for _ in range(times):
        stream, left = connection.newStream(), [content]
        volume.upload(stream, 0, size)

        def give(stream, count, left):
            piece, left[0] = left[0][:count], left[0][count:]
            return piece

        stream.sendAll(give, left)
        stream.finish()


def break_off(connection, times):
    volume = connection.storagePoolLookupByName("cases").storageVolLookupByName("source")
    for _ in range(times):
        stream = connection.newStream()
        volume.download(stream, 0, 0)
        stream.recv(1000)
        stream.abort()


def screenshots(domain, times):
    seen = hashlib.sha256()
    for _ in range(times):
        stream = domain.connect().newStream()
        domain.screenshot(stream, 0)
        stream.recvAll(lambda stream, data, seen: seen.update(data), seen)
        stream.finish()
    return seen.hexdigest()


def calls(connection, times):
    return [len(connection.listAllDomains()) for _ in range(times)][-1]


def side_by_side(connection, threads, times):
    """Several calls of one connection under way at any time."""
    several = [
        threading.Thread(target=long_replies, args=(connection, times)) for _ in range(threads)
    ]
    for each in several:
        each.start()
    for each in several:
        each.join()


def long_replies(connection, times):
    for number in range(times):
        connection.getCapabilities() if number % 3 == 0 else connection.getLibVersion()


def switch(domain, times):
    for _ in range(times):
        domain.suspend()
        domain.resume()
        domain.destroy()
        domain.create()


MACHINE = """<domain type='qemu'><name>cases</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64' machine='pc'>hvm</type></os><on_reboot>destroy</on_reboot>
<devices><controller type='usb' model='piix3-uhci'/><memballoon model='none'/></devices></domain>"""
# That of USB is gone at once: nobody in the machine has to let go of it.
DISK = """<disk type='file' device='disk'><source file='%s'/><target dev='sdb' bus='usb'/></disk>"""


def live(machine, disk, times):
    """Replies of a machine's, with the events of what they did right behind them."""
    for _ in range(times):
        machine.attachDevice(disk)
        machine.detachDevice(disk)
    machine.destroy()


def reopen(uri, times):
    for _ in range(times):
        libvirt.open(uri).close()


def wrong(connection, times):
    return [refused(connection.lookupByName, "nobody") for _ in range(times)]


def everything(label, uri_of_test, uri_of_qemu, opened):
    test, qemu = opened(uri_of_test), opened(uri_of_qemu)
    domain = test.lookupByName("test")
    case(label + "calls", calls, test, 100)
    case(label + "errors", wrong, test, 30)
    case(label + "calls side by side", side_by_side, qemu, 6, 20)
    case(label + "downloads", download, qemu, 6)
    case(label + "uploads", upload, qemu, 3)
    case(label + "broken off", break_off, qemu, 3)
    case(label + "screenshots", screenshots, domain, 6)
    case(label + "switching", switch, domain, 6)
    case(label + "reopening", reopen, uri_of_test, 5)
    return test, qemu, domain


for each in everything("", URI, QEMU, libvirt.open)[:2]:
    each.close()

run_event_loop()
arrived = threading.Semaphore(0)
count = [0]


def on_event(*details):
    count[0] += 1
    arrived.release()


def opened(uri):
    """Listens to everything: replies and events come side by side."""
    connection = libvirt.open(uri)
    connection.setKeepAlive(5, 3)
    connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_event, None)
    return connection


def events(test, domain, times):
    """From a change to its event, by one connection that makes the change and hears of it."""
    for _ in range(times):
        while arrived.acquire(blocking=False):
            pass
        before = count[0]
        domain.suspend()
        arrived.acquire()
        domain.resume()
        while count[0] < before + 2:
            arrived.acquire()


test, qemu, domain = everything("with events: ", URI, QEMU, opened)
machine = qemu.createXML(MACHINE)
target = qemu.storagePoolLookupByName("cases").storageVolLookupByName("target")
case("a machine's life", live, machine, DISK % target.path(), 3)
case("from a change to its event", events, test, domain, 20)
for each in (test, qemu):
    each.close()
print(json.dumps(told), flush=True)
os._exit(0)
'''
)

IDLE: Final = (
    _BEGIN
    + r"""

run_event_loop()
connection = libvirt.open(URI)
connection.setKeepAlive(1, 2)
time.sleep(3.5)
case("after silence", lambda: len(connection.listAllDomains()))
print(json.dumps(told), flush=True)
os._exit(0)
"""
)

BESIDE: Final = (
    _BEGIN
    + r"""

def download(connection):
    volume = connection.storagePoolLookupByName("cases").storageVolLookupByName("big")
    stream = connection.newStream()
    volume.download(stream, 0, 0)
    stream.recvAll(lambda stream, data, seen: arrived.set(), None)


arrived = threading.Event()
run_event_loop()
connection = libvirt.open(QEMU)
threading.Thread(target=download, args=(connection,), daemon=True).start()
arrived.wait()
time.sleep(1.5)  # until all buffers on the way are full
case("calls beside a download", lambda: [connection.getLibVersion() for _ in range(3)][-1])
print(json.dumps(told), flush=True)
os._exit(0)
"""
)
