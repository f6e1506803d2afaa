"""Texts of kernels, compiled by the host's compiler and called on arrays."""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import mlx.core as mx
import numpy as np

COMPILER = shutil.which("g++")
#: Numbers before and behind every array.
MARGIN = 256
# A size or an index that is cut to 32 bits is an error.
FLAGS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-Wconversion", "-Werror", "-Wno-attributes", "-Wno-unknown-pragmas")


def run(launch, text, language, folder):
    """The outputs; fails where lanes part, where something outside is written, and where a kernel does not compile."""
    function = compiled(text + driver(launch, text, language), folder)
    inputs = [guarded(a) for a in launch.inputs]
    shapes = [np.array([*a.shape, *[0] * 8], np.int32) for a in launch.inputs]
    outputs = [guarded(np.full(shape, np.nan)) for shape in launch.output_shapes]
    arguments = pointers(inputs, 4 * MARGIN), pointers(shapes, 0), pointers(outputs, 4 * MARGIN)
    together = function(*arguments, launch.grid[0], launch.threadgroup[0]) == 0
    assert together, "lanes of a SIMD group came apart"
    for array in outputs:
        assert np.isnan(array[:MARGIN]).all(), "written before the start"
        assert np.isnan(array[-MARGIN:]).all(), "written behind the end"
    return [
        mx.array(array[MARGIN:-MARGIN].reshape(shape))
        for array, shape in zip(outputs, launch.output_shapes, strict=True)
    ]


def driver(launch, text, language):
    """A function of C that launches the kernel, whose parameters are read off its text."""
    name, parameters = re.search(r"void (\w+)\(\n(.*?)\) \{", text, re.DOTALL).groups()
    arguments = []
    for parameter in parameters.split(",\n"):
        word = re.search(r"(\w+)(?: \[\[.*\]\])?$", parameter.strip())[1]
        array = word.removesuffix("_shape")
        if word != array:
            arguments.append(f"host::shape(shapes[{launch.input_names.index(array)}])")
        elif word in launch.input_names:
            arguments.append(f"inputs[{launch.input_names.index(word)}]")
        elif word in launch.output_names:
            arguments.append(f"outputs[{launch.output_names.index(word)}]")
        else:
            arguments.append(f"host::{word}()")
    constants = ", ".join(str(value) for _, value in launch.template)
    called = {"metal": f"{name}<{constants}>", "cuda": f"mlx::core::cu::{name}"}[language]
    return f"""
static const float** inputs;
static const int** shapes;
static float** outputs;
static void body() {{ {called}({", ".join(arguments)}); }}

extern "C" int run(const float** in, const int** sizes, float** out, unsigned threads, unsigned group) {{
  inputs = in, shapes = sizes, outputs = out;
  return host::launch(threads, group, {"true" if language == "cuda" else "false"}, body);
}}
"""


def compiled(text, folder):
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.so"
    if not path.exists():
        source = path.with_suffix(".cpp")
        source.write_text(text)
        command = [COMPILER, *FLAGS, "-isystem", str(Path(__file__).parent), str(source), "-o", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(path)).run


def guarded(values):
    """A flat copy between margins of NaN."""
    return np.pad(np.asarray(values, np.float32).ravel(), MARGIN, constant_values=np.nan)


def pointers(arrays, skip):
    return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data + skip for a in arrays))
