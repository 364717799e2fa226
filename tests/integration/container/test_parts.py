"""The container image and the compose file, part by part, where no engine builds and runs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml

from entrypoints.cli.arguments import build_parser
from entrypoints.settings import load_settings
from tests.support.container_engine import BASE
from tests.support.lakes import LocalLake
from tests.support.pipeline import COMMAND, Pipeline

if TYPE_CHECKING:
    from tests.support.postgres import Server

ROOT = Path(__file__).parents[3]
INSTRUCTIONS = [
    tuple(line.split(None, 1))
    for line in re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text()).splitlines()
    if line and not line.startswith("#")
]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "pgbronze"]


def instructions(name: str) -> list[str]:
    return [rest for instruction, rest in INSTRUCTIONS if instruction == name]


def test_the_image_runs_the_command_without_root() -> None:
    assert instructions("ARG") == [f"PYTHON={BASE}"]
    assert instructions("USER") == ["10001"]
    order = [name for name, _ in INSTRUCTIONS]
    assert order.index("USER") < order.index("ENTRYPOINT")
    # Nothing is installed as the user, and nothing runs as root after that.
    assert order.index("USER") > max(at for at, name in enumerate(order) if name == "RUN")
    assert instructions("ENTRYPOINT") == ['["pgbronze"]']
    command = instructions("CMD")
    assert build_parser().parse_args(eval(command[0])).command == "cdc"
    assert os.access(ROOT / "container/healthy.py", os.X_OK)
    (check,) = instructions("HEALTHCHECK")
    assert check.endswith('CMD ["healthy"]')


def test_the_image_gets_files_and_extras_that_exist() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for copied in instructions("COPY"):
        if "--from" not in copied:
            for name in re.sub(r"--\S+ ", "", copied).split()[:-1]:
                assert (ROOT / name).exists()
                assert f"!{name.partition('/')[0]}" in ignored
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (install,) = [run for run in instructions("RUN") if "pip install" in run]
    found = re.search(r"\[([\w,]+)\]", install)
    assert found is not None
    assert {*found[1].split(",")} <= extras.keys()


def test_the_wheel_of_the_image_is_built_from_what_it_copies(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE", "src"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, tmp_path / name)
    built = tmp_path / "wheels"
    subprocess.run(
        ["uv", "build", "--quiet", "--wheel", "--out-dir", str(built), str(tmp_path)], check=True
    )
    assert [file.name.endswith("-py3-none-any.whl") for file in built.glob("*.whl")] == [True]


@pytest.mark.parametrize("name", OURS)
def test_services_have_settings_and_commands_that_exist(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    service = SERVICES[name]
    environ = {key: _substituted(value) for key, value in service["environment"].items()}
    environ["DESTINATION__FILESYSTEM__BUCKET_URL"] = str(tmp_path / "lakehouse")
    settings = load_settings(environ=environ)
    # A health check opens the destination while a run does, which a DuckDB file does not allow.
    assert settings.pipeline.destination == "delta"
    assert "@postgres:5432/" in settings.source.dsn
    commands = [service["command"]] if service["command"] else []
    script = " ".join(service.get("entrypoint", ()))
    commands += [found.split() for found in re.findall(r"pgbronze ([^;|]+?)(?= *[;|]|$)", script)]
    assert commands
    for command in commands:
        assert build_parser().parse_args(command).command


def test_services_fit_together() -> None:
    named = {"build", "services", "volumes", "name", "x-pgbronze"}
    assert COMPOSE.keys() <= named
    for service in SERVICES.values():
        for other in service.get("depends_on", ()):
            assert other in SERVICES
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (
                (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
            )
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")
    assert SERVICES["prometheus"]["network_mode"] == "service:pgbronze"


def test_prometheus_and_grafana_find_one_another_and_the_dashboard() -> None:
    folder = ROOT / "monitoring/prometheus"
    prometheus = yaml.safe_load((folder / "prometheus.yml").read_text())
    assert all((folder / name).exists() for name in prometheus["rule_files"])
    (target,) = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    command = SERVICES["pgbronze"]["command"]
    assert target == f"127.0.0.1:{command[command.index('--metrics-port') + 1]}"
    provisioning = ROOT / "monitoring/grafana/provisioning"
    sources = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())
    assert [(s["type"], s["url"], s["isDefault"]) for s in sources["datasources"]] == [
        ("prometheus", "http://pgbronze:9090", True)
    ]
    dashboards = yaml.safe_load((provisioning / "dashboards/pgbronze.yml").read_text())
    (provider,) = dashboards["providers"]
    grafana = SERVICES["grafana"]
    mounts = {volume.split(":")[1]: volume.split(":")[0] for volume in grafana["volumes"]}
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(provider["options"]["path"] + "/")
    assert (ROOT / mounts[home]).exists()
    assert (ROOT / mounts["/etc/grafana/provisioning"]) == provisioning
    if promtool := shutil.which("promtool"):
        subprocess.run([promtool, "check", "config", str(folder / "prometheus.yml")], check=True)


def test_the_health_check(postgres: Server, tmp_path: Path) -> None:
    """Before the first load, while a run follows, and once the slot is gone."""
    lake = LocalLake("delta", tmp_path)
    with postgres.database() as dsn, psycopg.connect(dsn, autocommit=True) as sql:
        pipeline = Pipeline(dsn, lake, SOURCES__PG_REPLICATION__SLOT_NAME="healthy_slot")

        def check() -> tuple[int, str]:
            path = f"{Path(COMMAND).parent}{os.pathsep}{os.environ['PATH']}"
            done = subprocess.run(
                [sys.executable, str(ROOT / "container/healthy.py")],
                env={**pipeline.environment, "PATH": path},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            return done.returncode, done.stdout.strip() + done.stderr

        sql.execute("CREATE TABLE orders (id int PRIMARY KEY)")
        assert check() == (1, "no snapshot was taken yet")
        pipeline.call("snapshot")
        following = pipeline.start("cdc", "--follow")
        try:
            code, line = check()
            assert (code, line[:11]) == (0, "checkpoint ")
        finally:
            following.terminate()
            following.communicate(timeout=60)
        assert following.returncode == 0
        sql.execute("SELECT pg_drop_replication_slot('healthy_slot')")
        code, line = check()
        assert code == 1
        assert "healthy_slot" in line


def _substituted(text: str) -> str:
    """The value with the defaults of its variables."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
