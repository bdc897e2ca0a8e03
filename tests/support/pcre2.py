"""PCRE2 as HAProxy uses it for its maps: the library of the system, compiled without any option."""

from __future__ import annotations

import ctypes
from functools import lru_cache

NO_MATCH = -1


@lru_cache(1)
def library() -> ctypes.CDLL:
    """Raises OSError where it is missing; every Debian has it."""
    lib = ctypes.CDLL("libpcre2-8.so.0")
    lib.pcre2_compile_8.restype = ctypes.c_void_p
    lib.pcre2_match_data_create_8.restype = ctypes.c_void_p
    lib.pcre2_get_ovector_pointer_8.restype = ctypes.POINTER(ctypes.c_size_t)
    return lib


class Pcre2:
    """One compiled expression. Raises ValueError if it is none."""

    def __init__(self, pattern: str) -> None:
        text, code, place = pattern.encode("latin-1"), ctypes.c_int(), ctypes.c_size_t()
        self._code = library().pcre2_compile_8(
            text, ctypes.c_size_t(len(text)), 0, ctypes.byref(code), ctypes.byref(place), None
        )
        if not self._code:
            raise ValueError(f"PCRE2 error {code.value} at {place.value} of {pattern!r}")

    def groups(self, subject: str) -> list[str] | None:
        """The match and its groups, an unmatched one empty; None if nothing matches or the limit is reached."""
        lib, text = library(), subject.encode("latin-1")
        data = lib.pcre2_match_data_create_8(20, None)
        try:
            count = lib.pcre2_match_8(
                ctypes.c_void_p(self._code), text, ctypes.c_size_t(len(text)), ctypes.c_size_t(0), 0,
                ctypes.c_void_p(data), None,
            )  # fmt: skip
            if count < 0:
                return None
            places = lib.pcre2_get_ovector_pointer_8(ctypes.c_void_p(data))
            pairs = [(places[2 * one], places[2 * one + 1]) for one in range(count)]
            return ["" if start > len(text) else text[start:end].decode("latin-1") for start, end in pairs]
        finally:
            lib.pcre2_match_data_free_8(ctypes.c_void_p(data))


@lru_cache(10_000)
def compiled(pattern: str) -> Pcre2:
    return Pcre2(pattern)
