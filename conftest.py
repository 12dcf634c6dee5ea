"""What tests share: where reference data lies, if it is there; and where the pages of docs are run."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Threads of bitsandbytes' own OpenMP spin while they wait: with several workers on few cores, for minutes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
settings.register_profile("peppp", deadline=None)  # a deadline is a timed assertion
settings.load_profile("peppp")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing that an earlier run kept in the user's cache decides a test, and tests leave nothing there."""
    os.environ["PEPPP_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def empty_folder(request: pytest.FixtureRequest) -> None:
    """Pages of docs may write files; none of them stays."""
    if Path(__file__).parent / "docs" in request.path.parents:
        folder = request.getfixturevalue("tmp_path")
        request.getfixturevalue("monkeypatch").chdir(folder)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference vectors and real image sets, which is no part of the project."""
    folder = Path(os.environ.get("PEPPP_SHARED", Path(__file__).parents[1] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder} (PEPPP_SHARED names another place)")
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """The URL of a PostgreSQL server whose databases tests may make and drop (`make test-postgres`)."""
    url = os.environ.get("PEPPP_POSTGRES")
    if not url:
        pytest.skip("PEPPP_POSTGRES names no server; `make test-postgres` starts one")
    return url


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """The URL of an empty database of the test's own."""
    import uuid

    from sqlalchemy import create_engine, make_url, text

    name = f"peppp_{uuid.uuid4().hex}"
    url = make_url(postgres_server).set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        yield url.set(database=name, drivername="postgresql").render_as_string(hide_password=False)
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=["file", "memory", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be: each test of the store's contract runs in every one of them."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres"))
    return "sqlite://" if request.param == "memory" else str(tmp_path / "runs.db")


@pytest.fixture(params=["file", "postgres"])
def shared_place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be that several processes open."""
    return str(request.getfixturevalue("postgres") if request.param == "postgres" else tmp_path / "runs.db")
