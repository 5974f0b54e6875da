"""The door by which a training script that already exists joins a federation: `import hansa.client as hc`.

while task := hc.receive():
    model.load_state_dict(task.state_dict())
    ...                                          # train as ever
    hc.send(model.state_dict(), {"loss": loss}, examples=len(rows))
"""

from hansa.client.door import Rows, SiteRows, Task, aborted, data, federated, receive, send, track

__all__ = ["Rows", "SiteRows", "Task", "aborted", "data", "federated", "receive", "send", "track"]
