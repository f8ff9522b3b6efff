"""The flags of the calls whose permissions depend on them (`permissions.SOMETIMES`).

Source: libvirt's remote_protocol.x, the structures `remote_…_args`. A daemon decodes the arguments
from the front and does not look at what is left of a frame behind them, so its end says nothing:
whoever wants to know what a daemon will take for the flags has to go the same way.
"""

from struct import Struct
from typing import Final

from proxyd.wire.xdr import MalformedFrame

_WORD: Final = Struct(">I")

# Of an array of parameters; libvirt itself takes 64 at most from calls of this kind.
_MOST_PARAMETERS: Final = 64
_STRING_PARAMETER: Final = 7
_SIZES: Final = {1: 4, 2: 4, 3: 8, 4: 8, 5: 8, 6: 4}  # of a parameter's value, by its type

# What stands in a payload, by letters: s a string or bytes of a length, o a string that may be
# missing, w a word, h two, u four (a uuid), P an array of parameters, F the word that is looked at.
# A domain is suw, a network su, a snapshot and a checkpoint ssuw.
SHAPES: Final = {
    14: "suwF",  # DOMAIN_GET_XML_DESC
    27: "suwF",  # DOMAIN_REBOOT
    160: "suwsF",  # DOMAIN_ATTACH_DEVICE_FLAGS
    161: "suwsF",  # DOMAIN_DETACH_DEVICE_FLAGS
    174: "suwsF",  # DOMAIN_UPDATE_DEVICE_FLAGS
    185: "suwsF",  # DOMAIN_SNAPSHOT_CREATE_XML
    186: "ssuwF",  # DOMAIN_SNAPSHOT_GET_XML_DESC
    197: "suwPF",  # DOMAIN_SET_MEMORY_PARAMETERS
    199: "suwwF",  # DOMAIN_SET_VCPUS_FLAGS
    200: "suwF",  # DOMAIN_GET_VCPUS_FLAGS
    204: "suwhF",  # DOMAIN_SET_MEMORY_FLAGS
    205: "suwPF",  # DOMAIN_SET_BLKIO_PARAMETERS
    219: "suwPF",  # DOMAIN_SET_SCHEDULER_PARAMETERS_FLAGS
    225: "suwwsF",  # DOMAIN_PIN_VCPU_FLAGS
    252: "suwsPF",  # DOMAIN_SET_BLOCK_IO_TUNE
    254: "suwPF",  # DOMAIN_SET_NUMA_PARAMETERS
    256: "suwsPF",  # DOMAIN_SET_INTERFACE_PARAMETERS
    258: "suwF",  # DOMAIN_SHUTDOWN_FLAGS
    264: "suwwoooF",  # DOMAIN_SET_METADATA
    279: "suwsF",  # DOMAIN_PIN_EMULATOR
    291: "suwwwsF",  # NETWORK_UPDATE
    308: "suwwF",  # DOMAIN_SET_MEMORY_STATS_PERIOD
    352: "suwwsF",  # DOMAIN_PIN_IOTHREAD
    353: "suwFw",  # DOMAIN_INTERFACE_ADDRESSES, the source and not the flags
    355: "suwwF",  # DOMAIN_ADD_IOTHREAD
    356: "suwwF",  # DOMAIN_DEL_IOTHREAD
    384: "suwswF",  # DOMAIN_SET_VCPU
    388: "suwF",  # DOMAIN_MANAGED_SAVE_GET_XML_DESC
    392: "suwsF",  # DOMAIN_DETACH_DEVICE_ALIAS
    402: "suwwPF",  # DOMAIN_SET_IOTHREAD_PARAMS
    411: "suwsF",  # DOMAIN_CHECKPOINT_CREATE_XML
    412: "ssuwF",  # DOMAIN_CHECKPOINT_GET_XML_DESC
    444: "suwoooF",  # NETWORK_SET_METADATA
    447: "ssF",  # NODE_DEVICE_UPDATE
    451: "suwsPF",  # DOMAIN_SET_THROTTLE_GROUP
    452: "suwoF",  # DOMAIN_DEL_THROTTLE_GROUP
}
_FIXED: Final = {"w": 4, "h": 8, "u": 16}


def flags_of(procedure: int, payload: memoryview) -> int:
    """The word that decides what a REMOTE call needs. `payload` is all that follows the header, or
    the number of descriptors behind it.

    Raises MalformedFrame, also for one that goes on behind its arguments: no client sends that.
    """
    at = flags = 0
    for each in SHAPES[procedure]:
        if each in _FIXED:
            at += _FIXED[each]
        elif each == "F":
            flags, at = _word(payload, at), at + _WORD.size
        elif each == "s":
            at = _behind_string(payload, at)
        elif each == "P":
            at = _behind_parameters(payload, at)
        elif _word(payload, at):
            at = _behind_string(payload, at + _WORD.size)
        else:
            at += _WORD.size
    if at != len(payload):
        raise MalformedFrame(f"{len(payload)} bytes where the arguments take {at}")
    return flags


def _word(payload: memoryview, at: int) -> int:
    if at + _WORD.size > len(payload):
        raise MalformedFrame("a payload that ends inside of its arguments")
    return int(_WORD.unpack_from(payload, at)[0])


def _behind_string(payload: memoryview, at: int) -> int:
    size = _word(payload, at)
    return at + _WORD.size + size + -size % _WORD.size


def _behind_parameters(payload: memoryview, at: int) -> int:
    count, at = _word(payload, at), at + _WORD.size
    if count > _MOST_PARAMETERS:
        raise MalformedFrame(f"{count} parameters where {_MOST_PARAMETERS} are allowed")
    for _ in range(count):
        at = _behind_string(payload, at)
        kind, at = _word(payload, at), at + _WORD.size
        if kind == _STRING_PARAMETER:
            at = _behind_string(payload, at)
        elif kind in _SIZES:
            at += _SIZES[kind]
        else:
            raise MalformedFrame(f"a parameter of type {kind}")
    return at
