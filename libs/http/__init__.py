"""The HTTP side of a service, one file per thing: tokens, the caller, how routes (`libs.routes`) get into the framework,
problems (RFC 9457), the limit of bodies, health and metrics, parked records, the application.
"""
