"""The same as encoder.c, in Python through ctypes.

    cc -shared -fPIC -O2 -DTRIPTYCH_PROBE_API= -x c include/triptych_probe.h -o libtriptych_probe.so
    python3 examples/encoder.py ./libtriptych_probe.so 300
"""

import ctypes
import struct
import sys

I64, U64, F64, BOOL = 1, 2, 3, 4


class Column(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("type", ctypes.c_int32), ("unit", ctypes.c_char_p), ("description", ctypes.c_char_p)]


class Table:
    """A table of the probe: declared once, then `emit` for each row. Does nothing where nobody records."""

    FORMATS = {I64: "q", U64: "Q", F64: "d", BOOL: "Q"}

    def __init__(self, library, program, version, name, description, columns, capacity=8192):
        self.probe = ctypes.CDLL(library, use_errno=True)
        self.probe.triptych_declare.restype = ctypes.c_void_p
        self.probe.triptych_now_ns.restype = ctypes.c_int64
        self.probe.triptych_lost.restype = ctypes.c_uint64
        self.probe.triptych_lost.argtypes = [ctypes.c_void_p]
        self.probe.triptych_close.argtypes = [ctypes.c_void_p]
        self.probe.triptych_emit.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p]
        fields = (Column * len(columns))(*[Column(n.encode(), t, u.encode(), d.encode()) for n, t, u, d in columns])
        self.format = "=" + "".join(self.FORMATS[t] for _, t, _, _ in columns)
        texts = [text.encode() for text in (program, version, name, description)]
        self.table = self.probe.triptych_declare(*texts, fields, len(columns), capacity)

    def now_ns(self):
        return self.probe.triptych_now_ns()

    def emit(self, at_ns, *values):
        if self.table:
            self.probe.triptych_emit(self.table, at_ns, struct.pack(self.format, *values))

    def lost(self):
        return self.probe.triptych_lost(self.table)

    def close(self):
        self.probe.triptych_close(self.table)
        self.table = None


def main():
    library, frames = sys.argv[1], int(sys.argv[2])
    table = Table(library, "example-python", "1.0", "frames", "one row a frame", [
        ("number", U64, "1", "frames before this one"),
        ("encode_ns", I64, "ns", "from frame to access unit"),
        ("quality", F64, "1", "0 to 1"),
        ("keyframe", BOOL, "", "does it stand alone"),
    ])
    for frame in range(frames):
        start = table.now_ns()
        quality = (frame * 2654435761 % 1000) / 1000
        table.emit(start, frame, table.now_ns() - start, quality, frame % 60 == 0)
    print(f"{frames} frames, {table.lost()} lost")
    table.close()


if __name__ == "__main__":
    main()
