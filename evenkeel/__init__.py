"""Kafka-native MLOps. Libraries, services and contracts lie beside this folder and are linked into it; `apps` stands upon them.

`evenkeel.contracts` is what crosses a service boundary, `evenkeel.libs` what services share, `evenkeel.services` the seven
services, `evenkeel.apps` what people start: the command line, the demo, the embedded broker.
"""
