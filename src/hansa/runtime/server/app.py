"""The server's HTTP: the sites' protocol under /v1 (see runtime/protocol/messages) and the people's REST API under /api.

People prove who they are as sites do: POST /v1/token with a DPoP proof that carries the certificates (x5c), then on every request
`Authorization: DPoP TOKEN` and a fresh proof in `DPoP`. The proof's `htu` is the kit's url + path, without the query.

| request | body, query | answer |
|---|---|---|
| PUT /v1/blobs/{digest} | header Upload-Offset, Upload-Length; at most 1 MiB | 204, header Upload-Offset: how much is here |
| POST /api/runs | {"bundle": digest, "seed": 0, "sites": [..]?, "min_sites": n?, "priority": 0} | 201 run |
| GET /api/runs | | {"runs": [run, ..]}, newest last |
| GET /api/runs/{id} | | run |
| GET /api/runs/{id}/events | ?after=0&hold_s=0 | {"events": [event, ..], "after": n}; held until there are some, or for hold_s (<= 25) |
| POST /api/runs/{id}/abort, pause, resume | {"reason": ""}? | run |
| DELETE /api/runs/{id} | | 204; the run must have ended |
| GET /api/runs/{id}/files | | {"files": [{"path", "bytes"}, ..]}: the run folder |
| GET /api/runs/{id}/files/{path} | header Range | 200 or 206, bytes |
| GET /api/runs/{id}/plan | | {"plan": text, "plan_hash", "job_hash", "reference", "files": {path: sha256}} |
| GET /api/sites | | {"sites": [site, ..]} |
| POST /api/sites/{name}/disable, enable | {"reason": ""}? | site |
| GET /api/audit | ?stream=project&after=0 | {"streams": [..], "events": [link, ..], "after": n}; at most 1,000 |
| GET /metrics, /health | | Prometheus text; {"status": "ok", "project", "version", "time"} |
| GET /schema | | OpenAPI |

run: {"run", "job", "author", "org", "state", "round", "rounds", "sites": [name, ..], "refused": {site: reason}, "accepted": [name, ..],
"min_sites", "priority", "seed", "created", "ended": null | s, "reason": "", "metrics": {name: number}, "job_hash", "bundle"}
`state` is one of CONTRACTS: pending running paused completed failed aborted refused. Times are seconds since 1970.
event: {"seq", "kind", "at", ...data}. Kinds: run.submitted site.accepted site.refused run.started task.opened task.started result task.lost
task.closed round checkpoint run.paused run.resumed run.crashed run.ended. `round` carries a line of metrics.jsonl as "record".
site: {"site", "org", "online", "disabled", "seen": s | null, "cores", "gpus", "memory_bytes", "data": {label: type}, "runs": [id, ..]}
link: an event as it is chained: {"id", "stream", "seq", "kind", "at", "data", "prev", "hash"}. Streams: project, run/ID.
A refusal is application/problem+json: {"title", "status", "code", "detail", "hint"} (messages.Problem).
"""
