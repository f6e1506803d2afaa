"""What a plugin must not do, where `RUDE` says: `place:act`, separated by commas."""

import os
import sys
import tempfile
import time


class Panic(BaseException):
    """No `Exception`, as extensions in other languages and test frameworks raise."""


class Mute(Exception):
    """An exception whose text raises, and something that ends the process at that."""

    def __str__(self):
        raise SystemExit(0)


def leave(result):
    raise SystemExit(0)


def fail(result):
    raise ZeroDivisionError("divided by nothing")


def panic(result):
    raise Panic("the other language gave up")


def mute(result):
    raise Mute


def interrupt(result):
    raise KeyboardInterrupt


def speak(result):
    print("said by print")
    os.write(1, b"said by write\n")
    print("said beside sys.stdout", file=sys.__stdout__)
    return result


def move(result):
    os.chdir(tempfile.gettempdir())
    return result


def forget(result):
    """A forgotten `return`."""


def narrow(result):
    return result[..., :1]


def spin(result):
    """Takes its time, as a pattern may that backtracks; it ends, in case that nobody ends it."""
    end = time.process_time() + 60
    while time.process_time() < end:
        pass
    return result


def lazy(result):
    """An array that cannot be computed: its file is cut after it was opened."""
    import mlx.core as mx

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/array.npy"
        mx.save(path, mx.zeros_like(result))
        array = mx.load(path)
        os.truncate(path, 16)
    return array


def act(place, result=None):
    for wish in os.environ.get("RUDE", "").split(","):
        where, _, what = wish.partition(":")
        if where == place:
            return globals()[what](result)
    return result
