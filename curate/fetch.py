"""Models that others publish, fetched once because a user asked: never by a run, never unasked.

A file is downloaded under a temporary name, hashed on the way, and gets its name when it is whole. The checksum is shown,
and compared where the user gives one: whoever runs this on many machines writes it into the command.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from curate.errors import ConfigError, DataError, MachineError
from curate.params import did_you_mean


@dataclass(frozen=True)
class Published:
    """A model that is known by name: where its authors have it, and what it is."""

    file: str
    url: str
    about: str


#: Addresses as their authors give them; none is asked unless its name is.
MODELS = {
    "lid176": Published("lid.176.bin", "https://dl.fbaipublicfiles.com/fasttext/supervised-models/lid.176.bin", "176 languages, 126 MB, CC-BY-SA-3.0"),
    "lid176-small": Published("lid.176.ftz", "https://dl.fbaipublicfiles.com/fasttext/supervised-models/lid.176.ftz", "the same compressed, 1 MB, CC-BY-SA-3.0"),
    "glotlid": Published("glotlid.bin", "https://huggingface.co/cis-lmu/glotlid/resolve/main/model.bin", "about 2,000 languages with scripts, 1.6 GB, Apache-2.0"),
}
_BLOCK = 1 << 20
_PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Fetched:
    """A file that is there now; `new` says whether it was downloaded."""

    path: Path
    bytes: int
    sha256: str
    new: bool


def fetch(
    name: str, folder: Path | str = "models", *, url: str | None = None, sha256: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Fetched:
    """Bring the model `name` into `folder`; one that is there already is hashed and left.

    `url` says another place, such as a mirror; then any name will do, and is the file's. `progress` hears (bytes so far,
    bytes in all or 0). Raises ConfigError for an unknown name, DataError where `sha256` is another, MachineError where the
    network fails.
    """
    published = MODELS.get(name)
    if published is None and url is None:
        raise ConfigError(f"unknown model {name!r}{did_you_mean(name, MODELS)}; or say where it is with --url")
    if sha256 is not None and (len(sha256) != 64 or not set(sha256.lower()) <= set("0123456789abcdef")):
        raise ConfigError(f"expected --checksum as 64 hexadecimal digits, got {sha256!r}")
    path = Path(folder) / (published.file if published else name)
    if path.exists():
        size, found = path.stat().st_size, _hash(path)
        _compare(path, found, sha256, "remove it to fetch it again")
        return Fetched(path, size, found, new=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as out:
            size, found = _download(url or MODELS[name].url, out.write, progress)
            out.flush()
            os.fsync(out.fileno())
        _compare(path, found, sha256, "nothing was kept")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return Fetched(path, size, found, new=True)


def _download(url: str, write: Callable[[bytes], object], progress: Callable[[int, int], None] | None) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE_SECONDS) as answer:
            whole = int(answer.headers.get("Content-Length") or 0)
            while block := answer.read(_BLOCK):
                write(block)
                digest.update(block)
                size += len(block)
                if progress:
                    progress(size, whole)
    except ValueError as error:
        raise ConfigError(f"expected --url as an address such as https://host/model.bin, got {url!r}") from error
    except urllib.error.HTTPError as error:
        raise DataError(f"{url} answers {error.code} {error.reason}: the file is not there, or not for everyone; say another place with --url") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise MachineError(f"could not fetch {url}: {getattr(error, 'reason', error)}; try again, or bring the file by hand and name it in the recipe") from error
    if whole and size != whole:
        raise MachineError(f"could not fetch {url}: it ended after {size:,} of {whole:,} bytes; run the same command again")
    return size, digest.hexdigest()


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compare(path: Path, found: str, wanted: str | None, remedy: str) -> None:
    if wanted is not None and found != wanted.lower():
        raise DataError(f"expected {path} with sha256 {wanted.lower()}, got {found}; {remedy}")
