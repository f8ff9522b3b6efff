"""An input as a supply of decisions: numbers and bytes, taken from its front.

A used-up supply gives zeros, so that every input means something and a longer one means more.
"""


class Supply:
    def __init__(self, data):
        self._data = data
        self._at = 0

    @property
    def left(self):
        return max(0, len(self._data) - self._at)

    def byte(self):
        at = self._at
        self._at = at + 1
        return self._data[at] if at < len(self._data) else 0

    def flag(self):
        return bool(self.byte() & 1)

    def word(self):
        """32 bits without a sign."""
        return int.from_bytes(self.bytes(4).ljust(4, b"\0"), "big")

    def signed(self):
        """32 bits with one."""
        word = self.word()
        return word - (1 << 32) if word >> 31 else word

    def choice(self, options):
        return options[self.byte() % len(options)]

    def bytes(self, size):
        """As many as there are, at most `size`."""
        taken = bytes(self._data[self._at : self._at + size])
        self._at += size
        return taken

    def piece(self):
        """Up to 255 bytes behind their number."""
        return self.bytes(self.byte())

    def cut(self):
        """How many bytes go at a time: a few, or all that there are."""
        byte = self.byte()
        return byte if 0 < byte < 32 else 1 << 20

    def rest(self):
        return self.bytes(self.left)
