"""quixstreams, the bare map: JSON in, JSON out. Arguments: broker, topic in, topic out, count, folder, group."""

import json
import resource
import sys

from quixstreams import Application


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


broker, source, target, count, folder, group = sys.argv[1:7]
app = Application(
    broker_address=broker, consumer_group=group, auto_offset_reset="earliest", loglevel="ERROR", state_dir=folder
)
stream = app.dataframe(app.topic(source, value_deserializer="json"))
stream = stream.apply(lambda value: value)
stream.to_topic(app.topic(target, value_serializer="json"))
before = cpu_seconds()
app.run(count=int(count), timeout=30)
print(json.dumps({"cpu_seconds": cpu_seconds() - before}))
