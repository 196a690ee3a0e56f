"""The system libraries that Blender and Open3D load from outside their wheels, and the Debian packages that hold them.

Standard library only: `make env` runs it before anything is installed (`python -m jobs.system_libraries` prints the packages of
what is missing, one a line).
"""

import ctypes
import sys

# Every library of bpy 4.5.15 and open3d 0.20.0 (readelf -d: NEEDED) that is neither in a wheel nor on each Debian system.
DEBIAN_PACKAGES = {
    "libGL.so.1": "libgl1",
    "libX11.so.6": "libx11-6",
    # bpy
    "libICE.so.6": "libice6",
    "libSM.so.6": "libsm6",
    "libXext.so.6": "libxext6",
    "libXfixes.so.3": "libxfixes3",
    "libXi.so.6": "libxi6",
    "libXrender.so.1": "libxrender1",
    "libxkbcommon.so.0": "libxkbcommon0",
    # open3d
    "libEGL.so.1": "libegl1",
    "libidn2.so.0": "libidn2-0",
    "libudev.so.1": "libudev1",
    "libusb-1.0.so.0": "libusb-1.0-0",
}


def missing(packages: dict[str, str] = DEBIAN_PACKAGES) -> dict[str, str]:
    """The entries of `packages` (library name to Debian package) whose library this machine cannot load; none outside Linux."""
    if not sys.platform.startswith("linux"):
        return {}
    return {library: package for library, package in packages.items() if not _loads(library)}


def install_command(packages: dict[str, str]) -> str:
    """The command that installs what `missing` found, on Debian and Ubuntu."""
    return "apt-get install -y " + " ".join(sorted(packages.values()))


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    print("\n".join(sorted(missing().values())))
