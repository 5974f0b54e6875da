"""Keys of a response's details."""

from enum import StrEnum


class FLDetailKey(StrEnum):
    """What a response may tell."""

    APP_NAME = "app_name"
    RUN_NUMBER = "run_number"
    REGISTERED_CLIENTS = "registered_clients"
    CONNECTED_CLIENTS = "connected_clients"
    SERVER_ENGINE_STATUS = "server_engine_status"
    STATUS_TABLE = "status_table"
