"""Ports that are given out: nobody gets one that another was given, although nobody listens there yet."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from evenkeel.libs.process import ports
from evenkeel.libs.process.ports import LOOPBACK, free_port, free_port_base, port_is_free

TAKE_ALL = """
import json, sys
from evenkeel.libs.process import ports
ports._LOWEST_PORT, ports._EPHEMERAL_PORTS = map(int, sys.argv[1:])
taken = []
while True:
    try:
        taken.append(ports.free_port())
    except OSError as error:
        print(json.dumps({"taken": taken, "refusal": str(error)}))
        break
"""


@pytest.fixture
def few_ports(monkeypatch: pytest.MonkeyPatch) -> range:
    """Ten that are free, below those that are given out otherwise, as all that there are."""
    tens = (range(first, first + 10) for first in range(9_000, ports._LOWEST_PORT - 10, 10))
    few = next(ten for ten in tens if all(map(port_is_free, ten)))
    monkeypatch.setattr(ports, "_given_out", ports._GivenOut())
    monkeypatch.setattr(ports, "_LOWEST_PORT", few.start)
    monkeypatch.setattr(ports, "_EPHEMERAL_PORTS", few.stop)
    return few


def test_two_processes_are_never_given_the_same_port(few_ports: range) -> None:
    mine = {free_port() for _ in range(4)}
    assert len(mine) == 4
    command = [sys.executable, "-c", TAKE_ALL, str(few_ports.start), str(few_ports.stop)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert set(found["taken"]) == set(few_ports) - mine
    assert len(found["taken"]) == 6
    assert found["refusal"] == f"no 1 ports in a row are free between {few_ports.start} and {few_ports.stop}"
    assert {free_port() for _ in range(6)} == set(few_ports) - mine, "a process that has ended has none"


def test_a_port_that_somebody_listens_on_is_not_given(few_ports: range) -> None:
    with socket.create_server((LOOPBACK, few_ports[5])):
        assert free_port_base(5) == few_ports[0] - 1
        with pytest.raises(OSError, match="no 5 ports in a row"):
            free_port_base(5)
