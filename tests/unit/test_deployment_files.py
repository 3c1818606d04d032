"""No container engine is at hand: the deployment files are held against the settings classes and the code instead."""

from __future__ import annotations

import importlib
import re
import stat
import tomllib
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

from evenkeel.apps.cli.supervisor import PROCESS_SETTINGS
from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.settings import DEFAULT_PORTS, SUPERVISOR_VARIABLES, Settings, read_settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INFRASTRUCTURE = {"kafka", "postgres", "bootstrap", "topics", "collector", "jaeger", "prometheus"}
NO_SQL = {"serving"}


def test_compose_has_the_seven_services_and_their_infrastructure() -> None:
    assert set(COMPOSE["services"]) == set(SERVICES) | INFRASTRUCTURE
    assert list(DEFAULT_PORTS) == list(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_every_variable_is_a_setting_of_its_service(name: str) -> None:
    own = importlib.import_module(f"evenkeel.services.{name}.settings")
    (settings_class,) = {importlib.import_module(f"evenkeel.services.{name}.service").service.settings}
    assert settings_class.__module__ == own.__name__
    environment = {key: str(value).replace("${DATABASE_PASSWORD}", "x") for key, value in _environment(name).items()}
    shared, _ = read_settings(name, settings_class, environment)  # an unknown variable is an error
    assert isinstance(shared, Settings)
    assert not SUPERVISOR_VARIABLES & set(environment)
    for variable, value in environment.items():
        if variable.startswith("EVENKEEL_"):
            Settings.model_validate({variable.removeprefix("EVENKEEL_").lower(): value})


@pytest.mark.parametrize("name", SERVICES)
def test_ports_agree(name: str) -> None:
    port = DEFAULT_PORTS[name]
    assert _environment(name)["EVENKEEL_PORT"] == str(port)
    assert COMPOSE["services"][name]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_every_port_is_published_on_loopback_only() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_built_as_itself_and_waits_for_what_it_needs(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["build"] == {"context": ".", "dockerfile": "deploy/Dockerfile", "args": {"SERVICE": name}}
    assert service["image"] == f"evenkeel-{name}"
    assert set(service["depends_on"]) == {"kafka", "postgres", "bootstrap", "topics"}
    assert int(service["stop_grace_period"].removesuffix("s")) >= 15


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_has_its_own_role_in_the_database(name: str) -> None:
    url = _environment(name).get("EVENKEEL_DATABASE_URL")
    uses_sql = any("sql" in extra for extra in PYPROJECT["project"]["optional-dependencies"][name])
    assert uses_sql == (name not in NO_SQL)
    if name in NO_SQL:
        assert url is None
        return
    assert (
        url
        == f"postgresql://{name}:${{DATABASE_PASSWORD}}@postgres:5432/{COMPOSE['services']['postgres']['environment']['POSTGRES_DB']}"
    )
    roles = re.search(r"for service in (.+); do", (ROOT / "deploy/postgres/roles.sh").read_text())
    assert roles is not None
    assert name in roles.group(1).split()


@pytest.mark.parametrize("name", SERVICES)
def test_paths_lie_on_the_volume_that_the_image_makes_writable(name: str) -> None:
    environment = _environment(name)
    assert COMPOSE["services"][name]["volumes"] == ["data:/data"]
    for variable in ("EVENKEEL_DATA_DIR", "EVENKEEL_KEYS_DIR", "EVENKEEL_TOKENS_FILE"):
        assert Path(environment[variable]).is_relative_to("/data")
    assert re.search(r"install -d -o evenkeel .* /data", DOCKERFILE)
    assert "VOLUME /data" in DOCKERFILE


def test_processes_run_with_the_settings_that_the_supervisor_gives_them() -> None:
    lines = {line.strip().removeprefix("ENV ").removesuffix(" \\") for line in DOCKERFILE.splitlines()}
    assert {f"{name}={value}" for name, value in PROCESS_SETTINGS.items()} <= lines


def test_every_mount_exists() -> None:
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).is_file(), f"{name} mounts {source}"
            else:
                assert source in COMPOSE["volumes"], f"{name} mounts {source}"
    named = {volume.split(":")[0] for service in COMPOSE["services"].values() for volume in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) <= named


def test_services_address_each_other_by_names_that_exist() -> None:
    names = set(COMPOSE["services"])
    for service in SERVICES:
        environment = _environment(service)
        assert environment["EVENKEEL_BROKER"] == "kafka:9092"
        assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert {"kafka", "collector"} <= names
    collector = yaml.safe_load((ROOT / "deploy/otel/collector.yaml").read_text())
    assert collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318")
    assert collector["exporters"]["otlp_grpc"]["endpoint"].split(":")[0] in names
    traces = collector["service"]["pipelines"]["traces"]
    assert (traces["receivers"], traces["exporters"]) == (["otlp"], ["otlp_grpc"])


def test_prometheus_scrapes_every_service() -> None:
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"{name}:{port}" for name, port in DEFAULT_PORTS.items()]


def test_kafka_in_compose_is_the_embedded_one_in_version_and_settings() -> None:
    package = resources.files("evenkeel.deploy.kafka")
    version = tomllib.loads(package.joinpath("jgo.toml").read_text())["dependencies"]["coordinates"][0].split(":")[2]
    assert COMPOSE["services"]["kafka"]["image"] == f"apache/kafka:{version}"
    text = Template(package.joinpath("server.properties.template").read_text())
    lines = text.safe_substitute(node=1, replicas=1, in_sync=1).splitlines()
    template = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    placed = {
        "controller.quorum.voters",
        "listeners",
        "advertised.listeners",
        "listener.security.protocol.map",
        "log.dirs",
    }
    sized = {
        "num.network.threads",
        "num.io.threads",
        "background.threads",
        "log.cleaner.threads",
        "log.cleaner.dedupe.buffer.size",
    }
    environment = COMPOSE["services"]["kafka"]["environment"]
    for key, value in template.items():
        variable = "KAFKA_" + key.replace(".", "_").upper()
        if key not in sized:
            assert variable in environment
        if key not in placed | sized:
            assert environment[variable] == value, key
    assert template["auto.create.topics.enable"] == "false"
    assert template["log.message.timestamp.type"] == "LogAppendTime"
    assert (template["broker.session.timeout.ms"], template["broker.heartbeat.interval.ms"]) == ("2000", "300")
    assert all(address.split("://")[1].startswith("127.0.0.1:") for address in template["listeners"].split(","))


def test_every_jar_is_locked_by_its_sha256_and_no_address_is_named() -> None:
    text = resources.files("evenkeel.deploy.kafka").joinpath("jgo.lock.toml").read_text()
    jars = tomllib.loads(text)["dependencies"]
    assert len(jars) == 46
    assert all(re.fullmatch("[0-9a-f]{64}", jar["sha256"]) for jar in jars)
    assert "://" not in text
    assert "://" not in (ROOT / "requirements.txt").read_text()


def test_images_are_pinned() -> None:
    for name, service in COMPOSE["services"].items():
        if "build" not in service:
            assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?", service["image"]), name


def test_the_image_is_one_services_and_not_roots() -> None:
    assert "ARG SERVICE" in DOCKERFILE
    assert '--extra "${SERVICE}"' in DOCKERFILE
    assert "--require-hashes" in DOCKERFILE
    assert re.search(r"^USER evenkeel$", DOCKERFILE, re.MULTILINE)
    assert set(SERVICES) <= set(PYPROJECT["project"]["optional-dependencies"])
    assert "ORT_DISABLE_TELEMETRY=1" in DOCKERFILE


def test_the_image_installs_the_wheel_and_copies_all_that_it_is_built_from() -> None:
    _, build, final = DOCKERFILE.split("\nFROM ")
    copied = {source for line in re.findall(r"^COPY (.+) \S+$", build, re.MULTILINE) for source in line.split()}
    project = PYPROJECT["project"]
    assert {"pyproject.toml", "requirements.txt", project["readme"], *project["license-files"]} <= copied
    linked = {path.readlink().name for path in (ROOT / "evenkeel").iterdir() if path.is_symlink()}
    assert linked | {"evenkeel"} == {
        source.split("/")[0] for source in copied if (ROOT / source.split("/")[0]).is_dir()
    }
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {source.split("/")[0] for source in copied} == allowed
    assert "--no-deps /wheel/*.whl" in build
    assert "COPY --from=build /opt/evenkeel /opt/evenkeel" in final


def test_serving_needs_no_scikit_learn_and_ingest_no_onnxruntime() -> None:
    extras: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]

    def closure(extra: str) -> set[str]:
        found: set[str] = set()
        for requirement in extras[extra]:
            nested = re.fullmatch(r"evenkeel\[(.+)\]", requirement)
            found |= (
                set().union(*map(closure, nested.group(1).split(",")))
                if nested
                else {re.split(r"[\[<>=]", requirement)[0]}
            )
        return found

    assert not closure("serving") & {"scikit-learn", "sqlalchemy", "deltalake"}
    assert "onnxruntime" not in closure("ingest") | closure("monitor") | closure("governance") | closure("feature")


def test_bootstrap_makes_the_token_where_services_look_for_it() -> None:
    command = COMPOSE["services"]["bootstrap"]["command"]
    assert command[:3] == ["python", "-m", "evenkeel.apps.cli.tokens"]
    assert command[3] == _environment("ingest")["EVENKEEL_KEYS_DIR"]
    assert _environment("ingest")["EVENKEEL_TOKENS_FILE"] == f"{command[3]}/tokens.json"


def test_topics_are_made_before_the_services_start() -> None:
    topics = COMPOSE["services"]["topics"]
    assert topics["command"] == ["python", "-m", "evenkeel.libs.bus.topics", _environment("ingest")["EVENKEEL_BROKER"]]
    assert topics["depends_on"] == {"kafka": {"condition": "service_healthy"}}


def test_scripts_can_be_executed() -> None:
    for path in ("deploy/postgres/roles.sh", ".ci/run"):
        assert (ROOT / path).stat().st_mode & stat.S_IXUSR


def _environment(name: str) -> dict[str, Any]:
    environment: dict[str, Any] = COMPOSE["services"][name]["environment"]
    return environment
