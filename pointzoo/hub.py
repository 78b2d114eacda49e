"""Weights on the Hugging Face Hub: the only module that uses the network.

Names look like ``hf-hub:owner/repo@revision``; without a revision it is ``main``. What is in the
cache is used without a question to anybody: a branch means the commit that it meant when it was
first fetched, and a commit never means anything else. ``HF_ENDPOINT``, ``HF_HOME``,
``HF_TOKEN`` and ``HF_HUB_OFFLINE`` are those of ``huggingface_hub``, which reads them when it is
imported. Every downloaded file is compared with the checksum that the Hub keeps of it, and the
tensors with the sha256 in ``config.json``, before anything is loaded.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from pointzoo.errors import ConfigError, FormatError, HubError, PointzooError, UnknownNameError
from pointzoo.intake import parse_json, read_limited, require_own
from pointzoo.io.files import replacing

PREFIX = "hf-hub:"
CONFIG_FILE, MODEL_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
TIMEOUT = 10.0
"""Seconds that the Hub may take to answer which commit a revision is."""
ATTEMPTS = 3
DEAD_AFTER = 60.0
"""Seconds after which a partial file that does not grow belongs to nobody; a download that stands
still is given up after 10."""

_REPO = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubName:
    """A repository and what of it is meant.

    Attributes:
        repo: ``owner/name``.
        revision: A commit (40 hexadecimal digits), a branch or a tag.
    """

    repo: str
    revision: str = "main"

    def __post_init__(self) -> None:
        """Refuse what could not be a name, or would lead out of the cache.

        Raises:
            ConfigError: The repository or the revision is not a name.
        """
        whole = f"{self.repo}@{self.revision}"
        if not (_REPO.fullmatch(self.repo) and _REVISION.fullmatch(self.revision)) or (
            ".." in whole or "--" in self.repo
        ):
            raise ConfigError(
                expected="hf-hub:owner/repo or hf-hub:owner/repo@revision",
                got=repr(f"{PREFIX}{whole}"),
                fix="Owner and repository are letters, digits, '-', '_' and '.'.",
            )

    @classmethod
    def parse(cls, text: str) -> HubName:
        """Read ``hf-hub:owner/repo@revision``; the prefix and the revision may be missing.

        Raises:
            ConfigError: It is something else.
        """
        repo, at, revision = text.removeprefix(PREFIX).partition("@")
        return cls(repo, revision) if at else cls(repo)

    def __str__(self) -> str:
        """Return the name as :meth:`parse` takes it."""
        return f"{PREFIX}{self.repo}@{self.revision}"


@dataclass(frozen=True)
class Cached:
    """A weight or model of pointzoo in the cache.

    Attributes:
        name: Repository and commit.
        folder: Where its files are.
        refs: Branches and tags that mean this commit here.
        size: Bytes of its files.
    """

    name: HubName
    folder: Path
    refs: tuple[str, ...]
    size: int


def is_hub_name(source: object) -> TypeGuard[str]:
    """Say whether ``source`` is text that begins with ``hf-hub:``."""
    return isinstance(source, str) and source.startswith(PREFIX)


def fetch(name: HubName) -> Path:
    """Return the folder of a weight or model, from the cache or else from the Hub.

    A connection that drops is taken up again where it was. Progress is shown on a terminal.

    Returns:
        A folder in the cache, named by the commit.

    Raises:
        HubError: It is not there, not allowed, not what it says, or the Hub cannot be reached.
    """
    found = cached(name)
    if found is not None:
        return found
    with _explained(name):
        return _download(name)


def cached(name: HubName) -> Path | None:
    """Return the folder of a weight or model in the cache, or None if it is not there."""
    store = _store(name.repo)
    commit = name.revision
    if not _COMMIT.fullmatch(commit):
        try:
            commit = (store / "refs" / name.revision).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None
    folder = store / "snapshots" / commit
    whole = all((folder / file).is_file() for file in (CONFIG_FILE, MODEL_FILE))
    return folder if whole and _COMMIT.fullmatch(commit) else None


def upload(
    name: HubName,
    files: Mapping[str, Path],
    *,
    message: str,
    private: bool = False,
    token: str | None = None,
) -> str:
    """Put files into a repository, in one commit; the repository and the branch are made if needed.

    Args:
        name: Where to; its revision is a branch.
        files: Local files by the name they get.
        message: Of the commit.
        private: Make a new repository private; an existing one stays as it is.
        token: Instead of the one that ``HF_TOKEN`` or ``hf auth login`` gives.

    Returns:
        The commit.

    Raises:
        HubError: The Hub refuses or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=token)
    operations = [CommitOperationAdd(inside, path) for inside, path in files.items()]
    with _explained(name):
        api.create_repo(name.repo, private=private or None, exist_ok=True)
        if name.revision != "main":
            api.create_branch(name.repo, branch=name.revision, exist_ok=True)
        info = api.create_commit(
            name.repo, operations, commit_message=message, revision=name.revision
        )
    # what the branch meant here is over
    (_store(name.repo) / "refs" / name.revision).unlink(missing_ok=True)
    return str(info.oid)


def list_cached() -> list[Cached]:
    """Return the weights and models of pointzoo in the cache, by name; other files are not seen."""
    found = []
    for folder in sorted(_cache().glob("models--*--*/snapshots/*")):
        if _is_ours(folder / CONFIG_FILE):
            _, owner, name = folder.parent.parent.name.split("--", 2)
            refs = folder.parent.parent / "refs"
            found.append(
                Cached(
                    HubName(f"{owner}/{name}", folder.name),
                    folder,
                    tuple(
                        sorted(
                            path.relative_to(refs).as_posix()
                            for path in refs.rglob("*")
                            if path.is_file() and path.read_bytes() == folder.name.encode()
                        )
                    ),
                    sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
                )
            )
    return found


def damage(entry: Cached) -> list[str]:
    """Return what is wrong with a cached weight, as sentences: every file is read and compared.

    Partial files that nobody needs any more are removed.
    """
    sweep(_store(entry.name.repo))
    problems = [
        f"{path.name} is not what the Hub has"
        for path in sorted(entry.folder.rglob("*"))
        if path.is_file() and not _is_intact(path)
    ]
    problems += [
        f"{file} is missing"
        for file in (CONFIG_FILE, MODEL_FILE)
        if not (entry.folder / file).is_file()
    ]
    if not problems and not _agrees(entry.folder):
        problems.append(f"{MODEL_FILE} has another sha256 than {CONFIG_FILE} says")
    return problems


def clear_cache(repo: str | None = None) -> list[Cached]:
    """Delete cached weights of pointzoo.

    Args:
        repo: ``owner/name``; None deletes all of them. What other programs cached stays.

    Returns:
        What was deleted.

    Raises:
        UnknownNameError: The repository is not in the cache.
    """
    entries = [entry for entry in list_cached() if repo in (None, entry.name.repo)]
    if repo is not None and not entries:
        known = {entry.name.repo for entry in list_cached()}
        raise UnknownNameError.of("repository in the cache", repo, known)
    for name in {entry.name.repo for entry in entries}:
        store = _store(name)
        shutil.rmtree(store)
        shutil.rmtree(_cache() / ".locks" / store.name, ignore_errors=True)
    return entries


def sweep(store: Path) -> None:
    """Remove partial copies of files that are whole by now, which a killed process left.

    Args:
        store: Folder of a repository in the cache.
    """
    for partial in (store / "blobs").glob("*.incomplete"):
        with suppress(FileNotFoundError):  # another process was quicker
            old = time.time() - partial.stat().st_mtime > DEAD_AFTER
            if old and partial.with_name(partial.name.split(".")[0]).exists():
                partial.unlink()


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _store(repo: str) -> Path:
    return _cache() / f"models--{repo.replace('/', '--')}"


def _download(name: HubName) -> Path:
    """Fetch the card, the config and, last, the tensors, each verified."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(name.repo, revision=name.revision, timeout=TIMEOUT)
    listed = {file.rfilename for file in info.siblings or ()}
    commit = str(info.sha)
    missing = [file for file in (CONFIG_FILE, MODEL_FILE) if file not in listed]
    if missing or not _COMMIT.fullmatch(commit):
        raise HubError(
            expected=f"{CONFIG_FILE} and {MODEL_FILE} in {name}",
            got=f"no {' and no '.join(missing)}" if missing else f"the commit {commit!r}",
            fix="Name a repository that pointzoo pushed to.",
        )
    for file in (CARD_FILE, CONFIG_FILE, MODEL_FILE):
        if file in listed:
            path = _get_file(name.repo, file, commit)
            if not _is_intact(path):
                raise _spoiled(path, name)
    sweep(_store(name.repo))
    if not _agrees(path.parent):
        raise _spoiled(path, name)
    if name.revision != commit:
        _keep_ref(name, commit)
    return path.parent


def _get_file(repo: str, file: str, commit: str) -> Path:
    """Download a file; where the connection drops, go on from there."""
    from huggingface_hub import hf_hub_download

    for _ in range(ATTEMPTS - 1):
        with suppress(_network_error("RemoteProtocolError")):  # 1.x gives up, 2.x tries again
            return Path(hf_hub_download(repo, file, revision=commit))
    return Path(hf_hub_download(repo, file, revision=commit))


def _network_error(name: str = "HTTPError") -> type[Exception]:
    """Return an exception of httpx (client 1.x) or httpx2 (2.x); neither is a requirement."""
    from huggingface_hub import errors

    base: type[Exception] = vars(errors)["HTTPError"]
    found: type[Exception] = getattr(sys.modules[base.__module__.split(".")[0]], name)
    return found


def _keep_ref(name: HubName, commit: str) -> None:
    ref = _store(name.repo) / "refs" / name.revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    with replacing(ref) as stream:
        stream.write(commit.encode())


def _is_intact(path: Path) -> bool:
    """Compare a cached file with its checksum, which is the name of the file it points to.

    The Hub names a large file by its sha256 and a small one as git does. Where the file system has
    no links, there is nothing to compare with.
    """
    try:
        require_own(path)
    except FormatError:
        return False
    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return sha256_of_file(blob) == blob.name
    if re.fullmatch(r"[0-9a-f]{40}", blob.name):
        data = blob.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
        return git.hexdigest() == blob.name
    return True


def _agrees(folder: Path) -> bool:
    """Say whether the tensors have the sha256 of ``config.json``, if that says one."""
    config = _read_config(folder / CONFIG_FILE)
    wanted = config.get("sha256")
    return wanted is None or wanted == sha256_of_file(folder / MODEL_FILE)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = parse_json(read_limited(path))
    except (OSError, FormatError):
        return {}
    return config if isinstance(config, dict) else {}


def _is_ours(path: Path) -> bool:
    config = _read_config(path)
    return "fingerprint" in config or config.get("kind") == "pointzoo model"


def sha256_of_file(path: Path) -> str:
    """Return the checksum of a file, which is read a part at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _spoiled(path: Path, name: HubName) -> HubError:
    """Throw a bad file out of the cache, so that the next attempt gets it again."""
    with suppress(FormatError):
        require_own(path)
        path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    return HubError(
        expected=f"{path.name} of {name} with the checksum that the repository states",
        got="other bytes",
        fix="They were thrown away; try again. If it stays so, the repository is damaged.",
    )


@contextmanager
def _explained(name: HubName) -> Iterator[None]:
    """Turn what the client raises into a :class:`HubError` that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except PointzooError:
        raise
    except (_network_error(), OSError, ValueError) as error:
        cause = error.__cause__
        told = isinstance(error, errors.LocalEntryNotFoundError) and isinstance(cause, Exception)
        raise _explain(cause if told and cause is not None else error, name) from error


def _explain(error: BaseException, name: HubName) -> HubError:
    from huggingface_hub import constants, errors

    expected, fix = f"{name} from {constants.ENDPOINT}", "Try again later."
    got = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(error, errors.OfflineModeIsEnabled):
        expected = f"{name} in the cache, because HF_HUB_OFFLINE is set"
        got = f"nothing of it in {_cache()}"
        fix = "Unset HF_HUB_OFFLINE once, or bring a folder made by 'pointzoo cache export'."
    elif isinstance(error, errors.GatedRepoError):
        got = "a gated repository that this token has no access to"
        fix = f"Ask for access at {constants.ENDPOINT}/{name.repo} and set HF_TOKEN."
    elif status is not None:
        got, fix = _status(int(status), error, name)
    elif isinstance(error, ValueError):
        fix = "The Hub does not accept it: correct the card or the name."
    elif isinstance(error, OSError) and error.errno is not None:
        fix = f"Free space or mend permissions of {_cache()}; HF_HOME puts it elsewhere."
    else:
        fix = "Check the network and HF_ENDPOINT; what is cached loads without."
    return HubError(expected=expected, got=got, fix=fix)


def _status(status: int, error: BaseException, name: HubName) -> tuple[str, str]:
    """Return what came and what to do, for an HTTP status."""
    from huggingface_hub import errors

    got = f"HTTP {status}"
    if status == 401:
        return f"{got}: no valid token", (
            "Check the name; for a private repository set HF_TOKEN or run 'hf auth login'."
        )
    if status == 403:
        return f"{got}: not allowed", "Use a token with the rights for this repository (HF_TOKEN)."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{got}: no revision {name.revision!r}", "Name a branch, a tag or a whole commit."
    if isinstance(error, errors.EntryNotFoundError):
        return f"{got}: a file is missing", "Name a repository that pointzoo pushed to."
    if status == 404:
        return f"{got}: no repository {name.repo!r}", (
            "Check the name; a private repository needs HF_TOKEN."
        )
    if status == 429:
        return f"{got}: too many requests", "Wait some minutes; a token (HF_TOKEN) allows more."
    if status >= 500:
        return f"{got}: the Hub has a fault", "Try again later; what is cached loads without."
    return f"{got}: {' '.join(str(error).split())[:200]}", "Correct what the Hub complains about."
