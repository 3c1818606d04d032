"""The typed client of the seven services: `from evenkeel import Client, AsyncClient`.

Each method is written once, as the call that it makes (`calls/<service>.py`); one exchange says what is sent, awaited and
repeated (`exchange.py`); the two clients only do the I/O (`clients.py`).
"""
