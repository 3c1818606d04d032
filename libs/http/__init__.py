"""The HTTP side of a service, one file per thing: tokens, roles, the router of routes that each declare who may call them,
problems (RFC 9457), the limit of bodies, health and metrics, parked records, the OpenAPI document, the application.
"""
