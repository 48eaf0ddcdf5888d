"""Results shared through a DVC remote: a real WebDAV server on loopback, with a password."""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cheroot.wsgi import Server
from wsgidav.wsgidav_app import WsgiDAVApp

from tests.end_to_end.test_pipeline import ran
from tests.support import Project, outputs

PASSWORD = "correct horse"


@contextlib.contextmanager
def webdav_server(folder: Path) -> Iterator[str]:
    """A server of `folder` for the user `team` with PASSWORD; gives its address."""
    (folder / "store").mkdir(parents=True)
    application = WsgiDAVApp(
        {
            "provider_mapping": {"/": str(folder)},
            "simple_dc": {"user_mapping": {"*": {"team": {"password": PASSWORD}}}},
            "http_authenticator": {"accept_basic": True, "accept_digest": False},
            "verbose": 0,
            "logging": {"enable": False},
        }
    )
    server = Server(("127.0.0.1", 0), application)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield f"webdav://127.0.0.1:{server.bind_addr[1]}/store"
    finally:
        server.stop()
        thread.join()


def log_in(project: Project, password: str) -> None:
    """What each member does once, as docs/remotes.md says."""
    project.dvc("remote", "modify", "--local", "team", "user", "team")
    project.dvc("remote", "modify", "--local", "team", "password", password)


@pytest.fixture(scope="module")
def shared(finished, tmp_path_factory) -> Iterator[tuple[Project, Path]]:
    """A project whose results are pushed, and the folder that the server keeps them in."""
    folder = tmp_path_factory.mktemp("server")
    root = tmp_path_factory.mktemp("shared") / "project"
    shutil.copytree(finished.root, root, symlinks=True)
    project = Project(root)
    with webdav_server(folder) as address:
        project.dvc("remote", "add", "-d", "team", address)
        project.dvc("remote", "modify", "team", "verify", "true")
        project.run("git", "add", "-A")
        project.run("git", "commit", "-qm", "remote")
        log_in(project, PASSWORD)
        assert "files pushed" in project.dvc("push").stdout
        yield project, folder


def clone_of(project: Project, root: Path, password: str = PASSWORD) -> Project:
    """A colleague's fresh clone."""
    project.run("git", "clone", "-q", ".", str(root))
    colleague = Project(root)
    log_in(colleague, password)
    return colleague


def test_a_secret_stays_out_of_git(shared):
    project, _ = shared
    assert PASSWORD in project.read(".dvc/config.local").decode()
    assert PASSWORD not in project.read(".dvc/config").decode()
    assert project.run("git", "status", "--porcelain").stdout == ""
    assert project.run("git", "check-ignore", ".dvc/config.local").stdout.strip() == ".dvc/config.local"
    assert project.run("git", "grep", PASSWORD, "--", ":!tests", code=1).stdout == ""


@pytest.mark.parametrize("command", [("pull",), ("repro", "--pull")], ids=" ".join)
def test_a_colleague_gets_everything_and_computes_nothing(shared, tmp_path, command):
    project, _ = shared
    colleague = clone_of(project, tmp_path / "clone")
    done = colleague.dvc(*command)
    assert ran(done) == []
    assert outputs(colleague.root) == outputs(project.root)
    assert ran(colleague.dvc("repro")) == []
    assert colleague.dvc("status").stdout.strip() == "Data and pipelines are up to date."


def test_a_colleague_extends_a_run_and_gives_it_back(shared, tmp_path):
    project, _ = shared
    colleague = clone_of(project, tmp_path / "clone")
    colleague.dvc("pull")
    colleague.set_params(train__epochs=3)
    done = colleague.dvc("repro", "train")
    assert "2 of 3 epochs were computed before" in done.stdout
    colleague.run("git", "commit", "-qam", "a third epoch")
    colleague.dvc("push")

    project.run("git", "pull", "-q", str(colleague.root))
    done = project.dvc("repro", "--pull", "train")
    assert ran(done) == []
    assert outputs(project.root) == outputs(colleague.root)
    assert (project.root / "models/checkpoints/epoch-002.npz").exists()
    project.run("git", "reset", "-q", "--hard", "HEAD~1")
    project.dvc("checkout")


def test_a_wrong_password_is_said_and_loses_nothing(shared, tmp_path):
    project, folder = shared
    stored = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    colleague = clone_of(project, tmp_path / "clone", password="wrong")
    before = outputs(colleague.root)
    done = colleague.dvc("pull", code=None)
    assert done.returncode != 0
    assert "401 (Not Authorized)" in done.stderr
    assert "Traceback" not in done.stderr
    assert outputs(colleague.root) == before

    log_in(project, "wrong")
    before = outputs(project.root)
    done = project.dvc("push", code=None)
    assert done.returncode != 0
    assert "401 (Not Authorized)" in done.stderr
    assert outputs(project.root) == before
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == stored
    log_in(project, PASSWORD)


def damaged(content: bytes) -> bytes:
    """A file's content with one bit flipped."""
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


@contextlib.contextmanager
def damaged_objects(shared: tuple[Project, Path], *names: str) -> Iterator[None]:
    """For a while the server has these files of the project damaged."""
    project, folder = shared
    objects = {path.read_bytes(): path for path in folder.rglob("*") if path.is_file()}
    for name in names:
        objects[project.read(name)].write_bytes(damaged(project.read(name)))
    try:
        yield
    finally:
        for name in names:
            objects[project.read(name)].write_bytes(project.read(name))


def test_a_damaged_object_is_never_used(shared, tmp_path):
    """An epoch and the model are damaged: named, left out, and only what is missing is computed anew."""
    project, _ = shared
    colleague = clone_of(project, tmp_path / "clone")
    with damaged_objects(shared, "models/checkpoints/epoch-001.npz", "models/model.keras"):
        done = colleague.dvc("pull", code=None)
        assert done.returncode != 0
        assert "models/checkpoints" in done.stderr
        assert "models/model.keras" in done.stderr
        assert "data/windows.npz" not in done.stderr
        assert not (colleague.root / "models/model.keras").exists()
        done = colleague.dvc("repro", "--pull")
        assert ran(done) == ["train"]
        assert "1 of 2 epochs were computed before" in done.stdout
        assert outputs(colleague.root) == outputs(project.root)
        assert colleague.dvc("status").stdout.strip() == "Data and pipelines are up to date."


def test_checkpoints_from_a_remote_that_is_not_verified_are_checked_all_the_same(shared, tmp_path):
    """Without DVC's own check the checkpoint's checksum still finds the one that is damaged."""
    project, _ = shared
    colleague = clone_of(project, tmp_path / "clone")
    colleague.dvc("remote", "modify", "--local", "team", "verify", "false")
    with damaged_objects(shared, "models/checkpoints/epoch-001.npz"):
        colleague.dvc("pull")
        colleague.set_params(train__epochs=3)
        done = colleague.dvc("repro", "train")
        assert "warning: checkpoint epoch-001.npz in " in done.stderr
        assert "is not used: its checksum does not match" in done.stderr
        assert "1 of 3 epochs were computed before" in done.stdout
