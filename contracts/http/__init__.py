"""What services say over HTTP: routes as rows, requests and answers as models.

`<service>.py` holds a service's models and the table of its routes; `operations.py` holds those that every service has.
A service answers rows (`evenkeel.libs.routes`), the typed client calls them (`evenkeel.libs.client`), and
`evenkeel.contracts.export` writes them as OpenAPI documents, `contracts/openapi/<service>.json`, which are what services
serve. To add a route, add a row, its models, and one example, `examples/<service>/<route>.json`.
"""
