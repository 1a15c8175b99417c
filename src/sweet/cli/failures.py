"""What ends a verb besides a UserError and is the machine's or the input's doing all the same: as one line."""

from __future__ import annotations

import errno
import os
import re

OF_THE_MACHINE = {
    getattr(errno, name)
    for name in (
        "ENOSPC EDQUOT EIO EROFS EACCES EPERM ENOTDIR EISDIR ENOENT ENAMETOOLONG ELOOP EFBIG EMFILE ENFILE EBUSY "
        "ESTALE ETXTBSY ENODEV ENXIO ENOMEM EXDEV ENOTEMPTY EINVAL"
    ).split()
    if hasattr(errno, name)
}
NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|DefaultCPUAllocator|out of memory")


def one_line(error: BaseException) -> str | None:
    """The line for a full, damaged or read-only disk, missing rights and too little memory; None for a bug."""
    if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
        other = f" (to {os.fsdecode(error.filename2)})" if error.filename2 else ""
        return f"{place}{error.strerror}{other}"
    found = re.search(r"I/O error: .*\(os error \d+\)", str(error))  # of the library that reads safetensors
    if found is not None:
        return found[0]
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))):
        return f"not enough memory ({(str(error).splitlines() or ['?'])[-1].strip()[:200]})"
    return None
