#!/bin/sh
# The tests of axon-native and of the BLAS, and a few commands, on an ARM processor of 64 bits that QEMU emulates.
#
#     packaging/emulated.sh                                            # ARMv8.0, which has none of the extensions
#     QEMU_CPU=max CXXFLAGS=-mcpu=neoverse-v1 packaging/emulated.sh    # SVE, float16 and bfloat16, compiled for them
#     CXX=clang++-16 packaging/emulated.sh tests/core/test_native_passes.py -k rotation
#
# Needs x86-64 and Debian 12 (elsewhere the package debian-archive-keyring, too), and takes up to half an hour, most of
# it for pip and for gradients:
#
#     apt-get install qemu-user-static g++-aarch64-linux-gnu cmake ninja-build
#
# Python comes from Debian, MLX and the like from PyPI as they are for ARM, into .cache/aarch64 (half a gigabyte), and
# nothing else of the machine changes. Emulation says nothing about speed, nor about the order in which threads see
# what others write: that is the stricter one of x86-64.
set -eu
cd "$(dirname "$0")/.."
place=$PWD/.cache/aarch64
python=$place/venv/bin/python
mkdir -p "$place/apt/lists/partial" "$place/apt/archives/partial" "$place/root" "$place/bin" "$place/tmp" "$place/venv/bin"
export PATH="$place/bin:$PATH" TMPDIR="$place/tmp" QEMU_CPU="${QEMU_CPU:-cortex-a72}" OPENBLAS_NUM_THREADS=1
unset PYTHONPATH

if [ ! -e "$python" ]; then
  touch "$place/apt/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main" \
    >"$place/apt/sources.list"
  arm() {
    (cd "$place/apt" && apt-get -q -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User= \
      -o Dir::Etc::SourceList="$PWD/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State="$PWD" \
      -o Dir::State::Status="$PWD/status" -o Dir::Cache="$PWD" "$@")
  }
  arm update
  arm download libc6 libgcc-s1 libstdc++6 zlib1g libbz2-1.0 liblzma5 libexpat1 libffi8 libssl3 libsqlite3-0 libuuid1 \
    python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libpython3.11-dev python3-pip-whl
  for package in "$place"/apt/*.deb; do
    dpkg -x "$package" "$place/root"
  done
  # A program for this machine that runs one for the other, so that Python finds and starts itself.
  printf '#!/bin/sh\nexec qemu-aarch64-static -L %s -0 %s %s "$@"\n' \
    "$place/root" "$python" "$place/root/usr/bin/python3.11" >"$place/python"
  echo "home = $place/root/usr/bin" >"$place/venv/pyvenv.cfg"
  # MLX compiles with g++ at run time.
  ln -sf "$(command -v aarch64-linux-gnu-g++)" "$place/bin/g++"
  chmod +x "$place/python"
  mv "$place/python" "$python"
fi
pip="$(echo "$place/root/usr/share/python-wheels"/pip-*.whl)/pip"
# The extra `native` without CMake and ninja, which are programs of this machine.
"$python" "$pip" install -q --disable-pip-version-check --no-compile pip scikit-build-core "nanobind>=3.1" pytest-xdist \
  "pytest<9.2" --editable ".[testing]"

echo "set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER_TARGET aarch64-linux-gnu)" >"$place/toolchain.cmake"
export CMAKE_TOOLCHAIN_FILE="$place/toolchain.cmake" CXX="${CXX:-aarch64-linux-gnu-g++}"
export CXXFLAGS="${CXXFLAGS-} -idirafter $place/root/usr/include"
"$python" -c "
import sys
sys.path.insert(0, 'packaging')
import build_native
build_native.install(build_native.wheel(again=True))"

compose() { "$python" -m axon_compose "$@"; }
compose doctor
compose validate hybrid-demo
compose show hybrid-demo >/dev/null
compose build hybrid-demo --out "$place/tmp/hybrid-demo" --force
# Without checks of whole layers, which compute their truths in MLX for minutes each.
[ $# -gt 0 ] || set -- tests/core/test_native*.py tests/machine/test_blas.py -k "not truths"
exec "$python" -m pytest -q -p no:cacheprovider "$@"
